"""When a step begins and ends: the public step hooks of one or several optimizers."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FrameType
from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from safestep._torch.call_stack import eager, nearest, on_stack, past_compiler
from safestep.errors import AttachError

_OUTSIDE = (
    "safestep looks at the parameters before and after a step, which cannot be part of a graph: "
    "compile the step without fullgraph=True"
)


class StepHooks:
    """Calls back before each optimizer steps, and once after the last of them stepped.

    A round is one step of every optimizer. If one steps again before the others did, the round ends there. A
    ``step`` that calls ``super().step()`` counts once; one that raised is abandoned when the next begins. Of an
    optimizer that steps another one inside its own step, both count. In a compiled step the hooks stay out of the
    graph, which breaks there.

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
        self._outer: tuple[FrameType | None, Optimizer] | None = None
        self._inner: list[Optimizer] = []
        self._nested: list[FrameType | None] = []
        pre, post = eager(self._pre, _OUTSIDE), eager(self._post, _OUTSIDE)
        self._handles: list[RemovableHandle] = []
        try:
            for optimizer in optimizers:
                self._handles.append(optimizer.register_step_pre_hook(pre))
                self._handles.append(optimizer.register_step_post_hook(post))
        except BaseException:
            self.close()
            raise

    @property
    def running(self) -> bool:
        """Whether an optimizer is inside its step: the caller runs in its closure."""
        return self._outer is not None and on_stack(self._outer[0], sys._getframe())

    @property
    def waiting(self) -> bool:
        """Whether some optimizers of a round have stepped and others have not yet."""
        return bool(self._stepped)

    def recover(self) -> bool:
        """Abandon a step that raised and so never ended; return whether there was one."""
        if self._outer is None or self.running:
            return False
        failed, self._outer, self._inner, self._nested = [self._outer[1], *self._inner], None, [], []
        for one in failed:
            self._abandoned(one)
        return True

    def finish(self) -> None:
        """End the round with those that have stepped, if any have."""
        if self._stepped:
            stepped, self._stepped = self._stepped, []
            self._after(stepped)

    def drop(self) -> None:
        """End the round without a word."""
        self._stepped = []

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._outer, self._inner, self._nested, self._stepped = None, [], [], []

    def _pre(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # The caller of a step hook is torch's wrapper of this very `step`: its frame is the identity of the call.
        frame = past_compiler(sys._getframe(1))
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # args[0] is the optimizer
        self.recover()
        if self._outer is not None:
            self._nested.append(frame)
            if not _among(optimizer, [self._outer[1], *self._inner]):  # else it is super().step()
                self._inner.append(optimizer)
                self._before(optimizer, closure)
            return
        if _among(optimizer, self._stepped):
            self.finish()
        self._outer, self._nested = (frame, optimizer), []
        self._before(optimizer, closure)

    def _post(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._outer is None or nearest([self._outer[0], *self._nested], sys._getframe(1)) is not self._outer[0]:
            return
        done, self._outer, self._inner, self._nested = [optimizer, *self._inner], None, [], []
        self._stepped += done
        for one in done:
            self._between(one)
        if all(known is None or _among(known, self._stepped) for known in (ref() for ref in self._optimizers)):
            self.finish()


def _among(optimizer: Optimizer, others: list[Optimizer]) -> bool:
    return any(optimizer is other for other in others)


def loss_scale() -> float:
    """Return what the gradient scaler that drives the running step multiplied the loss by; 1 without one.

    Neither the optimizer nor the model knows of it: the scaler's own call is looked up among the callers.
    """
    frame = _caller(torch.amp.GradScaler.step.__code__)
    return 1.0 if frame is None else float(frame.f_locals["self"].get_scale())


def learns_state() -> bool:
    """Return whether distributed checkpointing takes the running step, of rate 0, to learn what an optimizer keeps."""
    module = sys.modules.get("torch.distributed.checkpoint.state_dict")
    return module is not None and _caller(module._init_optim_state.__code__) is not None


def _caller(code: CodeType) -> FrameType | None:
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame


def in_backward() -> bool:
    """Return whether backward is running at this moment."""
    running: int = torch._C._current_graph_task_id()
    return running != -1


def layers(optimizer: Any) -> list[Any]:
    """Return an optimizer and what it wraps in ``.optimizer``, from the outside in."""
    found = [optimizer]
    while not _has_hooks(found[-1]) and hasattr(found[-1], "optimizer"):
        found.append(found[-1].optimizer)
    return found


def _has_hooks(optimizer: object) -> bool:
    """Return whether its steps call hooks: Lightning's wrappers name those of the inner one as their own."""
    return hasattr(optimizer, "_optimizer_step_post_hooks") and "_optimizer_step_post_hooks" in vars(optimizer)


def _holds(name: str) -> Callable[[object], bool]:
    return lambda given: isinstance(getattr(given, name, None), Optimizer)


_REMEDIES: tuple[tuple[Callable[[object], bool], str], ...] = (
    (lambda given: given is None, "make the optimizer first, then attach(model, optimizer)"),
    (lambda given: isinstance(given, torch.nn.Module), "the arguments are attach(model, optimizer), in this order"),
    (
        lambda given: isinstance(given, Mapping) and "optimizer" in given,
        'give what is under its key: attach(model, configured["optimizer"])',
    ),
    (
        lambda given: isinstance(given, (list, tuple)),
        "give one optimizer or a flat list; of configure_optimizers' ([optimizers], [schedulers]) the first part",
    ),
    (
        lambda given: type(given).__name__ == "ScheduleFreeWrapper",
        (
            "it moves the parameters itself after its inner optimizer has stepped, so that no step of a torch "
            "optimizer is the whole; use schedulefree's own AdamWScheduleFree or SGDScheduleFree, with policy=Watch()"
        ),
    ),
    (_holds("opt"), "give the torch optimizer inside: attach(model, optimizer.opt)"),
    (_holds("base"), "give the torch optimizer inside, if its step is the whole step: attach(model, optimizer.base)"),
)
"""What is given where an optimizer belongs, and what to do instead."""


def _kind(given: object) -> str:
    return "None" if given is None else f"a {type(given).__name__}"


def innermost(optimizer: Any) -> Optimizer:
    """Return the torch optimizer inside a wrapper such as Accelerate's.

    Raises:
        AttachError: if there is none with step hooks, or its ``step`` is known to do nothing (DeepSpeed).
    """
    *wrappers, inner = layers(optimizer)
    for inside, remedy in _REMEDIES:
        if inside(optimizer) or (inner is not None and inside(inner)):
            raise AttachError(f"expected a torch.optim.Optimizer, saw {_kind(optimizer)}: {remedy}")
    for wrapper in wrappers:
        if "deepspeed" in type(wrapper).__module__.split("."):  # its own, or Accelerate's for it
            raise AttachError(
                f"{type(wrapper).__name__} of DeepSpeed steps inside its engine, and its own step() does nothing that "
                "could be measured: safestep cannot guard it"
            )
    if not isinstance(inner, Optimizer) or not _has_hooks(inner):
        raise AttachError(
            f"expected a torch.optim.Optimizer, or a wrapper with one in .optimizer; saw {type(optimizer).__name__}"
            + (", whose __init__ never called Optimizer.__init__" if isinstance(inner, Optimizer) else "")
        )
    return inner
