"""Before any framework is imported: what `frameworks` does for torchvision."""

import frameworks  # noqa: F401
