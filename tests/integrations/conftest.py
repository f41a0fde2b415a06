"""What runs in a process of its own is not collected here: Keras knows one backend a process, jax one precision."""

collect_ignore = ["keras_checks", "optax_checks"]
