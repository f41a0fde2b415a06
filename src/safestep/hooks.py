"""When a step begins and ends: the public step hooks of one or several optimizers."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from torch.optim import Optimizer

from safestep.errors import AttachError


class StepHooks:
    """Calls back before each optimizer steps, and once after the last of them stepped.

    A round is one step of every optimizer. If one steps again before the others did, the round ends there. A
    ``step`` that calls ``super().step()`` counts once; one that raised is abandoned when the next begins.

    Args:
        optimizers: the optimizers of a round; held weakly.
        before: called before an optimizer steps, with it and its closure (or None).
        between: called after an optimizer stepped, before the round is over.
        after: called when the round is over, with the optimizers that stepped.
        abandoned: called if the last step of an optimizer never ended.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        before: Callable[[Optimizer, Any], None],
        between: Callable[[Optimizer], None],
        after: Callable[[list[Optimizer]], None],
        abandoned: Callable[[Optimizer], None],
    ) -> None:
        self._before, self._between, self._after, self._abandoned = before, between, after, abandoned
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self._stepped: list[Optimizer] = []
        self._outer: tuple[FrameType, Optimizer] | None = None
        self._handles = [
            handle
            for optimizer in optimizers
            for handle in (
                optimizer.register_step_pre_hook(self._pre),
                optimizer.register_step_post_hook(self._post),
            )
        ]

    @property
    def running(self) -> bool:
        """Whether an optimizer is inside its step: the caller runs in its closure."""
        return self._outer is not None and _on_stack(self._outer[0], sys._getframe())

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._outer, self._stepped = None, []

    def _pre(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # The caller of a step hook is torch's wrapper of this very `step`: its frame is the identity of the call.
        frame = sys._getframe(1)
        if self._outer is not None:
            if _on_stack(self._outer[0], frame):
                return  # super().step(), or an optimizer inside another
            failed, self._outer = self._outer[1], None
            self._abandoned(failed)
        _refuse_step_in_backward()
        if any(optimizer is other for other in self._stepped):
            self._finish()
        self._outer = (frame, optimizer)
        self._before(optimizer, args[1] if len(args) > 1 else kwargs.get("closure"))  # args[0] is the optimizer

    def _post(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._outer is None or self._outer[0] is not sys._getframe(1):
            return
        self._outer = None
        self._stepped.append(optimizer)
        self._between(optimizer)
        alive = [known for ref in self._optimizers if (known := ref()) is not None]
        if all(any(known is done for done in self._stepped) for known in alive):
            self._finish()

    def _finish(self) -> None:
        stepped, self._stepped = self._stepped, []
        self._after(stepped)


def _on_stack(wanted: FrameType, frame: FrameType | None) -> bool:
    while frame is not None:
        if frame is wanted:
            return True
        frame = frame.f_back
    return False


def _refuse_step_in_backward() -> None:
    if torch._C._current_graph_task_id() != -1:
        raise AttachError(
            "an optimizer stepped while backward was still running (optimizer-in-backward): there is no single step "
            "of the whole model to measure. Step after backward, or detach the guard"
        )


def innermost(optimizer: Any) -> Optimizer:
    """Return the torch optimizer inside a wrapper such as Accelerate's.

    Raises:
        AttachError: if there is none with step hooks, or its ``step`` is known to do nothing (DeepSpeed).
    """
    seen = optimizer
    if type(optimizer).__module__.split(".")[0] == "deepspeed":
        raise AttachError(
            f"{type(optimizer).__name__} of DeepSpeed steps inside its engine, and its own step() does nothing that "
            "could be measured: safestep cannot guard it"
        )
    while not hasattr(seen, "_optimizer_step_post_hooks") and hasattr(seen, "optimizer"):
        seen = seen.optimizer
    if not isinstance(seen, Optimizer) or not hasattr(seen, "_optimizer_step_post_hooks"):
        raise AttachError(
            f"expected a torch.optim.Optimizer, or a wrapper with one in .optimizer; saw {type(optimizer).__name__}"
            + (", whose __init__ never called Optimizer.__init__" if isinstance(seen, Optimizer) else "")
        )
    return seen
