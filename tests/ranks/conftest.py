"""What runs in a process of its own is not collected here: Keras knows one backend a process."""

collect_ignore = ["checks"]
