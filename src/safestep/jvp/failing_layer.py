"""Which layer a failing forward was in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from safestep._torch.unwrap import bare
from safestep.recording.forwards import Forwards


def failing_layer(forwards: Forwards, attempt: Callable[[], None]) -> str:
    """Run something that fails once more and return the innermost module it was in, as words."""
    inside: list[nn.Module] = []

    def enter(module: nn.Module, _: object) -> None:
        inside.append(module)

    def leave(module: nn.Module, _: object, __: object) -> None:
        inside.pop()

    handles = (register_module_forward_pre_hook(enter), register_module_forward_hook(leave))
    try:
        with contextlib.suppress(Exception):  # the very error that is being looked into
            attempt()
    finally:
        for handle in handles:
            handle.remove()
    if not inside:
        return "the model"
    name = {module: name for name, module in bare(forwards.model).named_modules()}.get(inside[-1], "")
    return f"layer '{name}' ({type(inside[-1]).__name__})" if name else f"the model ({type(inside[-1]).__name__})"
