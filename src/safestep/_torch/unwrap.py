"""The module inside the wrappers that people put around it."""

from __future__ import annotations

from torch import nn


def bare(model: nn.Module) -> nn.Module:
    """Return the module inside a `torch.compile`, DataParallel or DistributedDataParallel wrapper."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        else:
            return model
