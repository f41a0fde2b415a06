"""Who called: the identity of a call is its frame, also where torch's compiler stands between."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import torch

_COMPILER = {"torch._compile", "torch._dynamo.eval_frame"}
"""Modules whose frames lie between a compiled function, or one kept out of a graph, and its caller."""


def past_compiler(frame: FrameType | None) -> FrameType | None:
    """Return the first of a frame and its callers that is not torch's compiler's."""
    while frame is not None and frame.f_globals.get("__name__") in _COMPILER:
        frame = frame.f_back
    return frame


def compiling(frame: FrameType | None) -> bool:
    """Return whether a frame runs in something that torch compiles, and no caller nearer than that switched it off."""
    while frame is not None and frame.f_globals.get("__name__") != "torch._dynamo.eval_frame":
        frame = frame.f_back
    return frame is not None and not frame.f_code.co_qualname.startswith("DisableContext.")


def nearest(wanted: Iterable[FrameType | None], frame: FrameType | None) -> FrameType | None:
    """Return the first of a frame and its callers that is wanted; None if none is.

    In a compiled function that breaks into parts, each part runs in a frame that the part before it called.
    """
    known = [one for one in wanted if one is not None]
    while frame is not None and not any(frame is one for one in known):
        frame = frame.f_back
    return frame


def on_stack(wanted: FrameType | None, frame: FrameType | None) -> bool:
    """Return whether a frame is among another one's callers, itself included."""
    return nearest([wanted], frame) is not None


def eager(function: Callable[..., Any], reason: str) -> Callable[..., Any]:
    """Return a function that torch's compiler leaves alone, and says why where a graph may not break.

    Only for code that runs after an optimizer was made: torch imports its compiler for that, which takes seconds.
    """
    try:
        alone: Callable[..., Any] = torch.compiler.disable(function, reason=reason)
    except TypeError:  # an older torch gives no reasons
        alone = torch.compiler.disable(function)
    return alone
