"""The tape: records one forward pass as it runs, so that J p can be had without running it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from safestep.errors import TapeError
from safestep.tape.kinds import Kind, kind_of
from safestep.tape.ledger import UNKNOWN, Ledger, address_of, differentiable, shared_versions
from safestep.tape.op import Op, leading_to
from safestep.tape.replay import Known, Replay
from safestep.tape.rules import Position, argument
from safestep.tape.slots import Slot

MAX_OPERATIONS = 100_000
"""Recorded operations after which the tape gives up: a mode that was never left."""

_REDUCED = (torch.float16, torch.bfloat16)

_UNRELATED = "the logits do not follow from the parameters through operations that the tape has seen"

_CHECKPOINTED = (
    "the model recomputes activations in backward (checkpointing, or other saved-tensor hooks): a tape would hold them"
)


@dataclass(eq=False, slots=True)
class _Note:
    """An operation about to run.

    Attributes:
        kind: what sort of operation.
        storages: addresses of its arguments' storages.
        op: its record; None if it depends on no parameter, and yet requires a gradient.
    """

    kind: Kind
    storages: set[int]
    op: Op | None


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
        reduced: the types of less precision than float32 that values on the way had.
        quantised: whether a rule goes straight through a staircase, as backward does.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> with Tape([w]) as tape:
        ...     z = w.tanh() * 3
        >>> tape.close(z)
        >>> tape.tangent({w: w.detach().clone()}, lambda q: torch.tensor([1.0, 0.0]))
        tensor([1.2599, 0.0000])

    Note:
        It is the derivative of the function that ran: ``.detach()`` hides nothing from it. Torch's fake quantisation is
        passed straight through, as in backward; any other rounding is a problem, since backward may pass it by. So are
        tensors that require a gradient and were made where the tape cannot see (compiled regions, kernels of one's own,
        casts that autocast remembers from an earlier forward), checkpointed regions, and random draws whose
        distribution depends on a parameter. Values that leave torch without a gradient (``.item()``, ``.numpy()``)
        count as constants. Values overwritten after the forward are found by torch's version counters, which ``.data``
        evades. In float16 the tangents of a tiny step underflow: give a rescaled ``direction``.
    """

    supports_higher_order_operators = True  # seen as operations of no known kind; otherwise torch would raise

    def __init__(self, parameters: Iterable[Tensor], constants: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.problem = ""
        self.reduced: set[torch.dtype] = set()
        self.quantised = False
        self._ops: list[Op] = []
        self._ledger: Ledger | None = Ledger(parameters, constants)
        self._known: Known = self._ledger.parameters
        self._outputs: list[Slot | str] = []  # a text says why it cannot be had
        self._count = 0

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let a compiled region run compiled; the tape then says that it cannot look inside."""
        return True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the wrapper that skips it imports torch's compiler, which takes seconds

    def close(self, *outputs: Tensor) -> None:
        """End the recording: keep what leads to these outputs, drop the rest."""
        ledger, self._ledger = self._ledger, None
        if ledger is None:
            return
        try:
            cells = [ledger.cell_at(address_of(output)) for output in outputs]
            if not self.problem:
                self._outputs = [
                    Slot.of(output, cell) if cell >= 0 else _UNRELATED
                    for output, cell in zip(outputs, cells, strict=True)
                ]
                self._ops = leading_to([cell for cell in cells if cell >= 0], self._ops, self._known)
                if len(outputs) == 1:  # of several, it is seen later which count
                    self.problem = self._obstacle([0])
        except Exception as error:
            self._stop(f"recording failed: {error!r}")
        if self.problem:
            self._ops, self._known, self._outputs = [], {}, []

    def _obstacle(self, which: Sequence[int]) -> str:
        """Return why some outputs cannot be differentiated; an empty text if they can."""
        slots = [self._outputs[index] for index in which]
        unrelated = next((slot for slot in slots if isinstance(slot, str)), "")
        if unrelated:
            return unrelated
        cells = [slot.cell for slot in slots if isinstance(slot, Slot)]
        return next((op.reason for op in reversed(leading_to(cells, self._ops, self._known)) if op.reason), "")

    def tangent(self, start: Mapping[Tensor, Tensor], direction: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ``J p`` of the first output, see `tangents`."""
        return self.tangents(start, direction, [0])[0]

    def tangents(
        self, start: Mapping[Tensor, Tensor], direction: Callable[[Tensor], Tensor], which: Sequence[int]
    ) -> list[Tensor]:
        """Return ``J p`` of some of the outputs.

        Args:
            start: parameters as they were in the forward; one that is missing has not moved and is read as it is.
            direction: from a parameter to its ``p``; called once for each, when it is needed, and only read.
            which: the places of the outputs, as `close` was given them.

        Returns:
            The tangents, each in the shape and dtype of its output.

        Raises:
            TapeError: if there is a `problem`, if a value that is needed has been overwritten since the forward, or if
                torch has no forward derivative for an operation.
        """
        if not self._outputs:
            raise TapeError(self.problem or "the tape is still recording: close(logits) first")
        if obstacle := self._obstacle(which):
            raise TapeError(obstacle)
        slots = [slot for index in which if isinstance(slot := self._outputs[index], Slot)]
        ops = leading_to([slot.cell for slot in slots], self._ops, self._known)
        return Replay(ops, self._known, start, direction).run(slots)

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
        kind, ledger, note = kind_of(func), self._ledger, None
        if kind.silent or self.problem or ledger is None:
            return func(*args, **kwargs)
        try:
            note = self._before(ledger, kind, func, args, kwargs)
        except Exception as error:  # whatever goes wrong here is the tape's trouble, not the user's
            self._stop(f"recording {kind.name} failed: {error!r}")
        out = func(*args, **kwargs)
        if note is not None and not self.problem:
            try:
                self._after(ledger, note, func, args, kwargs, out)
            except Exception as error:
                self._stop(f"recording {kind.name} failed: {error!r}")
        return out

    def _stop(self, problem: str) -> None:
        self.problem = self.problem or problem
        self._ops = []

    def _before(
        self, ledger: Ledger, kind: Kind, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> _Note | None:
        for position in kind.writes:
            ledger.save_from(args[position] if isinstance(position, int) else kwargs.get(position))
        get, rule, reason = partial(argument, func, args, kwargs), kind.rule, kind.reason
        unread = rule.unread(get) if rule is not None and rule.unread is not None else ()
        active: set[Position] = set()
        storages: set[int] = set()
        constant = False
        for position, tensor in _tensors(args, kwargs):
            address = address_of(tensor)
            storages.add(address)
            cell = ledger.cell_at(address)
            if cell >= 0:
                if position not in unread:
                    active.add(position)
            elif tensor.requires_grad:
                constant = True
                if cell == UNKNOWN and not _leaf(tensor):
                    reason = f"reads a tensor of shape {tuple(tensor.shape)} that came about where the tape cannot see"
                    active.add(position)
        if not active:
            return _Note(kind, storages, None) if constant else None
        self._count += 1
        if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None or _checkpointed(args):
            self._stop(_CHECKPOINTED)
            return None
        if self._count > MAX_OPERATIONS:
            self._stop(f"more than {MAX_OPERATIONS} operations were recorded: was the tape never left?")
            return None
        if rule is not None and rule.refuses is not None:
            reason = reason or rule.refuses(get)
        if rule is None or reason:
            slots = [ledger.slots(value) for value in (*args, *kwargs.values())]
            return _Note(kind, storages, Op(kind, slots, {}, reason=f"{kind.name} {reason}"))
        kept = rule.keeps(active)
        with shared_versions():
            positional = [
                None if i in unread else ledger.slots(value, keep=i in kept, written=i in kind.writes)
                for i, value in enumerate(args)
            ]
            named = {
                name: ledger.slots(value, keep=name in kept)
                for name, value in kwargs.items()
                if not (kind.out and name in kind.writes)
            }
        return _Note(kind, storages, Op(kind, positional, named))

    def _after(
        self, ledger: Ledger, note: _Note, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        kind, op, rule = note.kind, note.op, note.kind.rule
        outs = list(out) if isinstance(out, (tuple, list)) else [out]
        fresh = [t for t in outs if isinstance(t, Tensor) and (kind.writes or address_of(t) not in note.storages)]
        self.reduced.update(t.dtype for t in fresh if t.dtype in _REDUCED)
        if op is None:
            for tensor in fresh:
                ledger.settle(tensor)
            return
        if op.reason or rule is None:
            written = tuple(args[p] if isinstance(p, int) else kwargs.get(p) for p in kind.writes)
            self._lose(ledger, op, [*fresh, *(tensor for _, tensor in _tensors(written, {}))])
            return
        if not fresh:
            return  # views under another name, such as _unsafe_view
        count = len(outs) if rule.outputs is None else rule.outputs
        op.results = [ledger.result(tensor) for tensor in outs[:count]]
        if rule.results:
            with shared_versions():
                op.kept = ledger.kept(outs, rule.results, written=kind.returns_written)
        if any(op.results):
            self._ops.append(op)
        self.quantised = self.quantised or rule.quantises
        spoiled = rule.spoiled(partial(argument, func, args, kwargs)) if rule.spoiled is not None else ()
        others = [*outs[count:], *(args[position] for position in spoiled)]
        if any(map(differentiable, others)):
            reason = f"a result of {kind.name} has no rule"
            self._lose(ledger, Op(kind, op.args, op.kwargs, reason=reason), others)

    def _lose(self, ledger: Ledger, op: Op, tensors: list[Any]) -> None:
        """Note that these tensors depend on a parameter in a way that cannot be differentiated."""
        op.results = [ledger.result(tensor) for tensor in tensors]
        if any(op.results):
            self._ops.append(op)


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[Position, Tensor]]:
    arguments: list[tuple[Position, Any]] = [*enumerate(args), *kwargs.items()]
    for position, value in arguments:
        if isinstance(value, Tensor):
            yield position, value
        elif isinstance(value, (list, tuple)):
            for one in value:
                if isinstance(one, Tensor):
                    yield position, one


def _leaf(tensor: Tensor) -> bool:
    return tensor.is_leaf or (tensor._is_view() and tensor._base is not None and tensor._base.is_leaf)


def _checkpointed(args: tuple[Any, ...]) -> bool:
    """Return whether an argument came out of a reentrant checkpoint, which runs without saved-tensor hooks."""
    return any(
        isinstance(a, Tensor) and a.grad_fn is not None and a.grad_fn.name().startswith("CheckpointFunction")
        for a in args
    )
