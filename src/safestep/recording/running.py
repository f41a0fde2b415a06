"""A forward that is running: the frame of its call, what it may change, and the tape that records it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import FrameType

from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from safestep._torch.call_stack import compiling, past_compiler
from safestep.recording.entries import Entry
from safestep.recording.forward import Forward
from safestep.tape import Tape


@dataclass(slots=True)
class RunningForward:
    """A forward that has begun and not ended.

    Attributes:
        frame: of torch's own call of the module, to tell whether it still runs.
        entry: what it may change; None if it does not count.
        tape: what it does, if somebody wants to know.
        inner: forwards of the model within this one. They count if this one returns no logits.
    """

    frame: FrameType | None
    entry: Entry | None = None
    tape: Tape | None = None
    inner: list[Forward] = field(default_factory=list)

    def enter(self) -> None:
        """Begin to record on the tape, if there is one."""
        if self.tape is not None:
            self.tape.__enter__()  # type: ignore[no-untyped-call]

    def leave(self) -> Tape | None:
        """Stop recording."""
        if self.tape is not None and _get_current_dispatch_mode() is self.tape:
            self.tape.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        return self.tape


def frame_of_call() -> FrameType | None:
    """Return the frame of torch's call of the module whose hook this runs in."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not nn.Module._call_impl.__code__:
        frame = frame.f_back
    return frame


def compiled(module: nn.Module, hook: FrameType) -> bool:
    """Return whether a forward is compiled, in part or as part of what its caller compiled.

    To a tape a compiled region is one operation at best; at worst torch's compiler traces the tape.

    Args:
        module: the module that is called.
        hook: the frame of its hook.
    """
    if any(m._compiled_call_impl is not None or hasattr(m, "_orig_mod") for m in module.modules()):
        return True
    return compiling(past_compiler(hook.f_back))  # the compiler's first frames keep the hook out of a graph
