"""Which way J p is measured for a model: forward mode where it works, differences where it does not, said once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from safestep.derivative import Line, central_difference, forward_mode
from safestep.errors import MeasurementError, SafestepWarning
from safestep.forward import Forward, Seen
from safestep.replay import Mode, bare

RouteName = Literal["forward-mode", "difference"]

_FAILURES = (RuntimeError, NotImplementedError, TypeError, ValueError)
"""What torch raises for a layer without a forward derivative, or one that knows no float64."""

_AGREE = 0.1
"""Relative distance up to which a rough difference confirms a forward-mode derivative."""


@dataclass(frozen=True, slots=True)
class Route:
    """What a guard has learned about measuring its model.

    Attributes:
        name: the way in use.
        checked: whether a forward-mode derivative has been compared with a difference.
    """

    name: RouteName = "forward-mode"
    checked: bool = False

    def derivative(self, seen: Seen, forward: Forward, mode: Mode, line: Line) -> tuple[Tensor, Tensor, Route]:
        """Return logits, their derivative along the line, and the route to take from now on.

        Raises:
            MeasurementError: if neither way works for this model; it names the layer.
        """
        if self.name == "difference":
            return (*_difference(seen, forward, mode, line), self)
        try:
            value, tangent = forward_mode(seen, forward, mode, line)
        except torch.OutOfMemoryError:
            raise
        except _FAILURES as error:
            layer = _failing_layer(seen, forward, mode, line)
            other = Route("difference", checked=True)
            value, tangent = _difference(seen, forward, mode, line)
            warnings.warn(
                f"forward-mode differentiation fails in {layer} ({_first_line(error)}): "
                "r is measured by central differences of the logits instead, as the records say",
                SafestepWarning,
                stacklevel=2,
            )
            return value, tangent, other
        if self.checked and bool(tangent.any()):
            return value, tangent, self
        return self._confirmed(seen, forward, mode, line, value, tangent)

    def _confirmed(
        self, seen: Seen, forward: Forward, mode: Mode, line: Line, value: Tensor, tangent: Tensor
    ) -> tuple[Tensor, Tensor, Route]:
        """Compare with a difference: a tangent that was lost on the way is wrong without an error."""
        confirmed = Route(self.name, checked=True)
        if not bool(torch.isfinite(tangent).all()):
            return value, tangent, self
        slope: Tensor | None = None
        for dtype in (torch.float32, torch.float64):  # the cheap look first; near kinks it is rough
            slope = _attempt(seen, forward, mode, line, dtype)
            if slope is not None and _largest(tangent - slope) <= _AGREE * max(_largest(tangent), _largest(slope)):
                return value, tangent, confirmed
        if slope is None:  # the model runs in neither precision: nothing to compare with
            return value, tangent, confirmed
        warnings.warn(
            "forward-mode differentiation and a difference of the logits disagree (largest change "
            f"{_largest(tangent):.3g} against {_largest(slope):.3g}): something in the model hides its parameters from "
            "differentiation (.detach(), a compiled or checkpointed region, a straight-through estimator). The larger "
            "of the two is used from now on",
            SafestepWarning,
            stacklevel=2,
        )
        if _largest(tangent) >= _largest(slope):
            return value, tangent, confirmed
        return (*_difference(seen, forward, mode, line), Route("difference", checked=True))


def _largest(tensor: Tensor) -> float:
    return tensor.abs().amax().item() if tensor.numel() else 0.0


def _attempt(seen: Seen, forward: Forward, mode: Mode, line: Line, dtype: torch.dtype) -> Tensor | None:
    try:
        return central_difference(seen, forward, mode, line, dtype)[1].nan_to_num(nan=0.0)  # nan: a logit of -inf
    except torch.OutOfMemoryError:
        raise
    except _FAILURES:
        return None


def _difference(seen: Seen, forward: Forward, mode: Mode, line: Line) -> tuple[Tensor, Tensor]:
    try:
        return central_difference(seen, forward, mode, line, torch.float64)
    except torch.OutOfMemoryError:
        raise
    except _FAILURES:
        pass  # a layer that knows no float64: float32 must do
    try:
        return central_difference(seen, forward, mode, line, torch.float32)
    except torch.OutOfMemoryError:
        raise
    except _FAILURES as error:
        raise MeasurementError(
            "r cannot be measured: running the model again fails in "
            f"{_failing_layer(seen, forward, mode, line)} ({_first_line(error)}). The forward must be repeatable with "
            "torch.func.functional_call; replace this layer, or attach with policy=Watch() to train unprotected"
        ) from error


def _failing_layer(seen: Seen, forward: Forward, mode: Mode, line: Line) -> str:
    """Run the failing forward once more and return the innermost module it was in."""
    inside: list[nn.Module] = []
    module_hooks = torch.nn.modules.module
    handles = (
        module_hooks.register_module_forward_pre_hook(lambda module, args: inside.append(module)),
        module_hooks.register_module_forward_hook(lambda module, args, output: _leave(inside)),
    )
    try:
        forward_mode(seen, forward, mode, line)
    except _FAILURES:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if not inside:
        return "the model"
    names = {module: name for name, module in bare(seen.model).named_modules()}
    where = names.get(inside[-1], "")
    return f"layer '{where}' ({type(inside[-1]).__name__})" if where else f"the model ({type(inside[-1]).__name__})"


def _leave(inside: list[nn.Module]) -> None:
    inside.pop()


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"


def as_state(route: Route) -> dict[str, Any]:
    """Return a route as plain data, for a checkpoint."""
    return {"route": route.name, "checked": route.checked}


def from_state(state: dict[str, Any] | None) -> Route:
    """Return the route of a checkpoint; None is the untried one."""
    return Route(state["route"], bool(state["checked"])) if state else Route()
