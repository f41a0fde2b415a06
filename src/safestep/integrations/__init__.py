"""safestep inside other frameworks: one package or file per framework, loaded when used, never by `import safestep`."""

from typing import TYPE_CHECKING

from safestep._torch.lazily import lazily

if TYPE_CHECKING:
    from safestep.integrations import keras, lightning, optax, transformers

    __all__ = ["keras", "lightning", "optax", "transformers"]
else:
    __getattr__, __dir__ = lazily(__name__, {name: name for name in ("keras", "lightning", "optax", "transformers")})
