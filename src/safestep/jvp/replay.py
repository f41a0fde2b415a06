"""Runs a recorded forward again at other parameters, and puts back all that this changes on the model."""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from safestep._torch.rng import preserved_generators
from safestep._torch.unwrap import bare
from safestep.distributed.dtensor import gathered_as
from safestep.distributed.fsdp import gathered, names_in_units
from safestep.errors import MeasurementError
from safestep.recording.forward import Forward
from safestep.recording.forwards import Forwards
from safestep.recording.module_state import Snapshot, reachable
from safestep.recording.readout import Through

Mode = Literal["train", "eval"]
"""Replay in the train/eval flags the forward had, or with every module in eval mode."""


_ONE_AT_A_TIME = threading.RLock()
"""torch's forward-mode level and kernel switches belong to the process, not to a thread."""


def run(
    forwards: Forwards,
    forward: Forward,
    mode: Mode,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None,
    directions: Mapping[str, Tensor] | None = None,
) -> list[Tensor]:
    """Return the heads of a recorded forward at other parameters, as the model returns them.

    Call it inside `no_trace`. Buffers are cloned here, inside the call, so that BatchNorm's statistics stay untouched
    and forward-mode differentiation may write tangents into the clones.

    Args:
        forwards: the recorded forwards' model and how to read it.
        forward: the forward to run again.
        mode: ``"train"`` for the flags of the recorded forward, ``"eval"`` for eval mode throughout.
        tensors: parameters by name; those missing keep their present value.
        dtype: cast floating-point parameters, buffers and inputs to this dtype; None keeps each as it is.
        directions: tangents of ``tensors`` by name, to differentiate along; call it inside a dual level then.

    Returns:
        One tensor for each of the forward's heads.
    """
    model = bare(forwards.model)
    for module, flag in zip(model.modules(), forward.training, strict=True):
        module.training = flag and mode == "train"
    forward.generators.restore()
    forward.state.restore()
    buffers = dict(model.named_buffers()) | (forward.buffers if mode == "train" else {})
    present = dict(model.named_parameters()) if dtype is not None else {}

    def at(name: str, unit: Tensor | None = None) -> Tensor | None:
        tensor = tensors.get(name, present.get(name))
        if tensor is None:
            return None
        value: Tensor
        if unit is None:
            value, direction = _cast(tensor, dtype), (directions or {}).get(name)
        else:  # of this parameter the model's unit has gathered that
            value = gathered_as(_cast(tensor.detach(), dtype), unit)
            direction = None if directions is None else gathered_as(directions[name], unit)
        if direction is not None:
            value = forward_ad.make_dual(value, direction)
        # a unit may compute in a lower precision than its parameters have
        return value.to(unit.dtype) if unit is not None and dtype is None else value

    gathers = names_in_units(model)
    state: dict[str, Tensor] = {name: _cast(b.clone(), dtype) for name, b in buffers.items()}
    for name in {**present, **tensors}:
        if name not in gathers and (value := at(name)) is not None:
            state[name] = value
    # A forward that writes to its inputs was recorded with copies (and no versions); they must last for more replays.
    args, kwargs = _cast((forward.args, forward.kwargs), dtype, copy=not forward.inputs)
    with contextlib.ExitStack() as stack:
        if gathers:
            stack.enter_context(gathered(model, at))
        for kind in {"cpu", *forward.autocast}:
            wanted = forward.autocast.get(kind) if dtype is None else None
            if wanted is not None or torch.is_autocast_enabled(kind):
                # The autocast cache would hold casts of dual tensors: off.
                stack.enter_context(torch.autocast(kind, dtype=wanted, enabled=wanted is not None, cache_enabled=False))
        if forwards.readout is not None:
            placed = {f"model.{place}": tensor for place, tensor in _placed(model, state).items()}
            return [functional_call(Through(model, forwards.readout), placed, args, kwargs, tie_weights=False)]
        output = functional_call(model, _placed(model, state), args, kwargs, tie_weights=False)
        return forwards.reader.read(output, [head.path for head in forward.heads])


def _placed(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state under one name for each place that holds a tensor.

    Tied tensors have several places. A module registered under several names is one place all the same: given both
    names, functional_call swaps its tensors twice and puts the first swap back in the second's stead.
    """
    names = {tensor: name for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    return {
        place: state[names[tensor]]
        for prefix, module in model.named_modules(remove_duplicate=True)
        for place, tensor in (
            *module.named_parameters(prefix, recurse=False, remove_duplicate=False),
            *module.named_buffers(prefix, recurse=False, remove_duplicate=False),
        )
        if names[tensor] in state
    }


@contextlib.contextmanager
def without_autocast(device_type: str) -> Iterator[None]:
    """Compute in the types that tensors have, whatever region the step is taken in."""
    with contextlib.ExitStack() as stack:
        for kind in {"cpu", device_type}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextlib.contextmanager
def no_trace(model: nn.Module, *, differentiable: bool = True) -> Iterator[None]:
    """Leave the model, the generators and torch's global switches as they were, whatever a forward does inside.

    Attributes of modules come back by reference, and whatever else is reachable from them by value, see
    `recording.module_state`. Beyond it is what only a closure or a global knows. Warnings are not filtered: Python
    would forget which were shown.

    Args:
        model: the model that is run inside.
        differentiable: choose kernels that have a forward derivative; False keeps those of training.

    Raises:
        MeasurementError: if something changed that cannot be put back; it is named.
    """
    attributes = [(module, dict(vars(module))) for module in model.modules()]
    large = _written.setdefault(model, set())
    state = Snapshot(reachable(bare(model)), lambda node: model not in _looked or node.name in large)
    try:
        with _ONE_AT_A_TIME, torch.no_grad(), preserved_generators(), _kernels(model, differentiable):
            yield
    finally:
        _looked.add(model)
        large.update(node.name for node in state.changed())
        lost = state.restore()
        for module, before in attributes:
            now = vars(module)
            for name in now.keys() - before.keys():
                del now[name]
            for name, value in before.items():
                if now.get(name, attributes) is not value:
                    now[name] = value
    if lost:
        raise MeasurementError(
            f"running the model again changed {', '.join(lost)}, which cannot be put back: keep it out of the "
            "forward, or in a buffer"
        )


_looked: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_written: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()
"""Models that were run again, and large tensors on them that this was seen to write to: those are copied first."""


@contextlib.contextmanager
def _kernels(model: nn.Module, differentiable: bool) -> Iterator[None]:
    """Run eagerly; on request without fused attention, fused encoder and oneDNN's LSTM, which have no derivative."""
    with contextlib.ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # nothing can be compiled without it, and importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if differentiable:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if torch.backends.mha.get_fastpath_enabled() is True:  # in training the fast path is never taken
            torch.backends.mha.set_fastpath_enabled(False)
            stack.callback(torch.backends.mha.set_fastpath_enabled, True)
        if differentiable and torch.backends.mkldnn.enabled and any(isinstance(m, nn.LSTM) for m in model.modules()):
            torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
            stack.callback(setattr, torch.backends.mkldnn, "enabled", True)
        yield


def _cast(value: Any, dtype: torch.dtype | None, *, copy: bool = False) -> Any:
    """Cast floating-point tensors in plain containers; the containers are fresh, as a forward may change them."""
    if isinstance(value, Tensor):
        return value.to(dtype if dtype is not None and value.is_floating_point() else value.dtype, copy=copy)
    if type(value) in (tuple, list):
        return type(value)(_cast(item, dtype, copy=copy) for item in value)
    if type(value) is dict:
        return {key: _cast(item, dtype, copy=copy) for key, item in value.items()}
    return value
