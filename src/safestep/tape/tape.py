"""The tape: records one forward pass as it runs, so that J p can be had without running it again."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from safestep.errors import TapeError
from safestep.tape.kinds import Kind, kind_of
from safestep.tape.replay import Replay
from safestep.tape.rules import Position, argument
from safestep.tape.slots import Slot

MAX_OPERATIONS = 100_000
"""Recorded operations after which the tape gives up: a mode that was never left."""

_UNKNOWN, _CONSTANT = -2, -1

_CHECKPOINTED = (
    "recomputes activations in backward (checkpointing, or other saved-tensor hooks): a tape would hold them"
)


@dataclass(eq=False, slots=True)
class Op:
    """One recorded operation: its arguments, with slots in the place of tensors, and its results.

    Attributes:
        kind: what sort of operation.
        args: positional arguments.
        kwargs: keyword arguments.
        results: slots of the results that are differentiated, None in place of the others.
        kept: slots of all results, where the rule needs their values.
        reason: why it cannot be differentiated; an empty text if it can.
        last: the cells that no later operation reads.
    """

    kind: Kind
    args: list[Any]
    kwargs: dict[str, Any]
    results: list[Slot | None]
    kept: list[Slot | None] = field(default_factory=list)
    reason: str = ""
    last: Container[int] = ()

    def slots(self) -> Iterator[Slot]:
        """Return the slots of the arguments."""
        for value in (*self.args, *self.kwargs.values()):
            if isinstance(value, Slot):
                yield value
            elif isinstance(value, list):
                yield from (one for one in value if isinstance(one, Slot))


@dataclass(eq=False, slots=True)
class _Note:
    """An operation about to run."""

    kind: Kind
    storages: set[int]
    op: Op | None
    constant: bool


class Tape(TorchDispatchMode):
    r"""Records the operations of one forward, below autograd, that lead from the parameters to the logits.

    Equation:
        ``dz = sum_q (dz / dq) p_q``, operation by operation: each recorded one turns the tangents of its arguments
        into that of its result, with the values that the forward computed. Two products for a layer with a matrix,
        one for the first: about two forwards of work, where dual numbers need three.

    Training is not disturbed: the same kernels run, nothing is drawn or read back, and an error while recording
    becomes the `problem`. The activations that rules need stay in memory until the tape is dropped; autograd holds
    most of them until backward, the tape until the step.

    Args:
        parameters: the parameters that may move.
        constants: tensors that require a gradient and yet do not depend on them, such as the inputs of the model.

    Attributes:
        problem: why this forward cannot be differentiated this way; an empty text if it can.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> with Tape([w]) as tape:
        ...     z = w.tanh() * 3
        >>> tape.close(z)
        >>> tape.tangent({w: w.detach().clone()}, lambda q: torch.tensor([1.0, 0.0]))
        tensor([1.2599, 0.0000])

    Note:
        It is the derivative of the function that ran: ``.detach()`` hides nothing from it, nor does a straight-through
        estimator. It cannot follow what happens outside of torch's operations (compiled regions, NumPy, kernels of
        one's own), checkpointed regions, or random draws whose distribution depends on a parameter; these are
        problems. Values overwritten after the forward are found by torch's version counters, which ``.data`` evades.
        In float16 the tangents of a tiny step underflow: give a rescaled ``direction``.
    """

    supports_higher_order_operators = True  # seen as operations of no known kind; otherwise torch would raise

    def __init__(self, parameters: Iterable[Tensor], constants: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.problem = ""
        self._ops: list[Op] = []
        self._cells: dict[int, int] = {}  # a storage's address, and its number
        self._addresses: list[StorageWeakRef] = []  # while these are held no address is used again
        self._parameters: dict[int, list[tuple[Tensor, Slot]]] = {}
        self._holding: dict[int, list[Slot]] = {}  # by a storage's address, the slots with values in it
        self._logits: Slot | None = None
        self._count = 0
        for parameter in parameters:
            cell = self._cell_for(parameter)
            self._parameters.setdefault(cell, []).append((parameter, _slot_of_parameter(parameter, cell)))
        for constant in constants:
            if constant.requires_grad and self._cell_of(constant) == _UNKNOWN:
                self._enter(constant, _CONSTANT)

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let a compiled region run compiled; the tape then says that it cannot look inside."""
        return True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the wrapper that skips it imports torch's compiler, which takes seconds

    def close(self, logits: Tensor) -> None:
        """End the recording: keep what leads to the logits, drop the rest."""
        try:
            cell = self._cell_of(logits)
            if not self.problem and cell < 0:
                self.problem = "the logits do not follow from the parameters through operations that the tape has seen"
            if not self.problem:
                self._logits = Slot.of(logits, cell)
                self._prune(cell)
        except Exception as error:
            self._stop(f"recording failed: {error!r}")
        self._cells, self._addresses, self._holding = {}, [], {}
        if self.problem:
            self._ops, self._parameters, self._logits = [], {}, None

    def tangent(self, start: Mapping[Tensor, Tensor], direction: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ``J p`` of the logits.

        Args:
            start: parameters as they were in the forward; one that is missing has not moved and is read as it is.
            direction: from a parameter to its ``p``; called once for each, when it is needed, and only read.

        Returns:
            The tangent, in the shape and dtype of the logits.

        Raises:
            TapeError: if there is a `problem`, if a value that is needed has been overwritten since the forward, or if
                torch has no forward derivative for an operation.
        """
        if self._logits is None:
            raise TapeError(self.problem or "the tape is still recording: close(logits) first")
        return Replay(self._ops, self._parameters, start, direction).run(self._logits)

    @property
    def operations(self) -> int:
        """How many operations lead to the logits (so far, while recording)."""
        return len(self._ops)

    # -- recording ------------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and write down what its derivative needs."""
        kwargs = kwargs or {}
        kind = kind_of(func)
        if kind.silent or self.problem or self._logits is not None:
            return func(*args, **kwargs)
        note = None
        try:
            note = self._before(kind, func, args, kwargs)
        except Exception as error:
            self._stop(f"recording {kind.name} failed: {error!r}")
        out = func(*args, **kwargs)
        if note is not None and not self.problem:
            try:
                self._after(note, func, args, kwargs, out)
            except Exception as error:
                self._stop(f"recording {kind.name} failed: {error!r}")
        return out

    def _stop(self, problem: str) -> None:
        self.problem = self.problem or problem
        self._ops = []

    def _before(self, kind: Kind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Note | None:
        for position in kind.writes:
            self._save_from(args[position] if isinstance(position, int) else kwargs.get(position))
        active: set[Position] = set()
        storages: set[int] = set()
        reason, constant = kind.reason, False
        unread = kind.rule.unread(lambda name: argument(func, args, kwargs, name)) if kind.rule else ()
        for position, tensor in _tensors(args, kwargs):
            address = _address(tensor)
            cell = self._cells.get(address, _UNKNOWN)
            storages.add(address)
            if cell >= 0:
                if position not in unread:
                    active.add(position)
            elif tensor.requires_grad:
                constant = True
                if cell == _UNKNOWN and not _leaf(tensor):
                    reason = f"reads a tensor of shape {tuple(tensor.shape)} that came about where the tape cannot see"
                    active.add(position)
        if not active:
            return _Note(kind, storages, None, constant) if constant else None
        if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None or _checkpointed(args):
            self._stop(f"the model {_CHECKPOINTED}")
            return None
        if self._count >= MAX_OPERATIONS:
            self._stop(f"more than {MAX_OPERATIONS} operations were recorded: was the tape never left?")
            return None
        self._count += 1
        rule = kind.rule
        if rule is None or reason:
            return _Note(kind, storages, self._impossible(kind, reason, args, kwargs), constant)
        if refusal := rule.refuses(lambda name: argument(func, args, kwargs, name)):
            return _Note(kind, storages, self._impossible(kind, refusal, args, kwargs), constant)
        kept = rule.keeps(active)
        named = {name: value for name, value in kwargs.items() if not (kind.out and name in kind.writes)}
        with _SHARED_VERSIONS():
            slots = [None if i in unread else self._slots(v, i in kept, i in kind.writes) for i, v in enumerate(args)]
            more = {name: self._slots(v, name in kept, False) for name, v in named.items()}
        return _Note(kind, storages, Op(kind, slots, more, []), constant)

    def _after(self, note: _Note, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        kind, op = note.kind, note.op
        outs = list(out) if isinstance(out, (tuple, list)) else [out]
        fresh = [t for t in outs if isinstance(t, Tensor) and (kind.writes or _address(t) not in note.storages)]
        if op is None:
            for tensor in fresh:
                if tensor.is_floating_point() and self._cell_of(tensor) == _UNKNOWN:
                    self._enter(tensor, _CONSTANT)
            return
        if not fresh and outs and not kind.writes and any(isinstance(t, Tensor) for t in outs):
            return  # views under another name, such as _unsafe_view
        written = [args[p] if isinstance(p, int) else kwargs.get(p) for p in kind.writes]
        if op.reason:
            self._lose(op, [t for t in (*fresh, *written) if isinstance(t, Tensor)])
            return
        rule = kind.rule
        assert rule is not None
        count = len(outs) if rule.outputs is None else rule.outputs
        op.results = [self._result(t) for t in outs[:count]]
        with _SHARED_VERSIONS():
            op.kept = [self._kept(t, bool(kind.writes)) if i in rule.results else None for i, t in enumerate(outs)]
        if any(op.results):
            self._ops.append(op)
        get = lambda name: argument(func, args, kwargs, name)  # noqa: E731
        others = [*outs[count:], *(args[position] for position in rule.spoiled(get))]
        if any(_differentiable(t) for t in others):
            reason = f"a result of {kind.name} has no rule"
            self._lose(Op(kind, op.args, op.kwargs, [], reason=reason), others)

    def _impossible(self, kind: Kind, reason: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Op:
        slots = [self._slots(value, False, False) for value in (*args, *kwargs.values())]
        return Op(kind, slots, {}, [], reason=f"{kind.name} {reason}")

    def _lose(self, op: Op, tensors: list[Any]) -> None:
        op.results = [self._result(t) for t in tensors]
        if any(op.results):
            self._ops.append(op)

    # -- slots ----------------------------------------------------------------------------------------------------

    def _enter(self, tensor: Tensor, cell: int) -> int:
        storage = tensor.untyped_storage()
        self._cells[storage._cdata] = cell
        self._addresses.append(StorageWeakRef(storage))
        return cell

    def _cell_of(self, tensor: Tensor) -> int:
        return self._cells.get(_address(tensor), _UNKNOWN)

    def _cell_for(self, tensor: Tensor) -> int:
        cell = self._cell_of(tensor)
        return cell if cell >= 0 else self._enter(tensor, len(self._addresses))

    def _hold(self, slot: Slot, tensor: Tensor, expected: int = 0) -> None:
        """Keep the value of a tensor, which is to be written to so many times before it is looked at."""
        slot.value = tensor.detach()
        if not tensor.is_inference():
            slot.version = slot.value._version + expected
        self._holding.setdefault(_address(tensor), []).append(slot)

    def _save_from(self, target: Any) -> None:
        """Copy the values that a write within the forward is about to destroy."""
        for one in target if isinstance(target, (list, tuple)) else (target,):
            if isinstance(one, Tensor):
                for slot in self._holding.pop(_address(one), ()):
                    assert slot.value is not None
                    slot.value, slot.version = slot.value.clone(), -1

    def _slots(self, value: Any, keep: bool, written: bool) -> Any:
        if isinstance(value, Tensor):
            cell = self._cell_of(value)
            if value.layout != torch.strided:  # sparse: it has no storage, and is kept as it is
                return value.detach() if keep else None
            slot = Slot.of(value, cell)
            if keep and cell not in self._parameters:
                if written:
                    slot.value = value.detach().clone()
                else:
                    self._hold(slot, value)
            return slot
        if isinstance(value, (list, tuple)):
            return [self._slots(one, keep, written) for one in value]
        return value

    def _result(self, tensor: Any) -> Slot | None:
        return Slot.of(tensor, self._cell_for(tensor)) if _differentiable(tensor) else None

    def _kept(self, tensor: Tensor, written: bool) -> Slot:
        slot = Slot.of(tensor, self._cell_of(tensor))
        self._hold(slot, tensor, expected=int(written))  # autograd counts a write only after it
        return slot

    # -- closing --------------------------------------------------------------------------------------------------

    def _prune(self, cell: int) -> None:
        """Keep the operations that lead to a cell, and tell each which cells nobody reads after it."""
        alive, kept = {cell}, []
        for op in reversed(self._ops):
            if not any(slot is not None and slot.cell in alive for slot in op.results):
                continue
            if op.reason:
                self.problem = op.reason
                return
            read = {slot.cell for slot in op.slots() if slot.cell >= 0}
            op.last = read - alive
            alive |= read
            kept.append(op)
        self._ops = kept[::-1]
        self._parameters = {cell: known for cell, known in self._parameters.items() if cell in alive}


def _slot_of_parameter(parameter: Tensor, cell: int) -> Slot:
    return Slot.of(parameter, cell)


def _SHARED_VERSIONS() -> Any:  # noqa: N802
    """A detached tensor shares its version counter only where autograd's bookkeeping of writes is not left out."""
    return torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.ADInplaceOrView, False)


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[Position, Tensor]]:
    for position, value in (*enumerate(args), *kwargs.items()):
        if isinstance(value, Tensor):
            yield position, value
        elif isinstance(value, (list, tuple)):
            for one in value:
                if isinstance(one, Tensor):
                    yield position, one


def _address(tensor: Tensor) -> int:
    try:
        address: int = tensor.untyped_storage()._cdata
    except NotImplementedError:  # sparse tensors and the like have none
        return 0
    return address


def _leaf(tensor: Tensor) -> bool:
    return tensor.is_leaf or (tensor._is_view() and tensor._base is not None and tensor._base.is_leaf)


def _differentiable(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and (tensor.is_floating_point() or tensor.is_complex())


def _checkpointed(args: tuple[Any, ...]) -> bool:
    """Return whether an argument came out of a reentrant checkpoint, which runs without saved-tensor hooks."""
    return any(
        isinstance(a, Tensor) and a.grad_fn is not None and a.grad_fn.name().startswith("CheckpointFunction")
        for a in args
    )
