"""The tape: records one forward pass as it runs, so that J p can be had without running it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from safestep.errors import TapeError
from safestep.tape.kinds import OpKind, kind_of
from safestep.tape.ledger import UNKNOWN, Ledger, address_of, differentiable, shared_versions
from safestep.tape.op import Op, leading_to
from safestep.tape.slots import Slot
from safestep.tape.tangent_pass import Parameters, TangentPass

MAX_OPERATIONS = 100_000
"""Recorded operations after which the tape gives up: a mode that was never left."""

_REDUCED = (torch.float16, torch.bfloat16)

_UNRELATED = "the logits do not follow from the parameters through operations that the tape has seen"

_CHECKPOINTED = (
    "the model recomputes activations in backward (checkpointing, or other saved-tensor hooks): a tape would hold them"
)


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
        It is the derivative of the function that ran: ``.detach()`` hides nothing from it. What it refuses is in the
        README of this folder. Values overwritten after the forward are found by torch's version counters, which
        ``.data`` evades. In float16 the tangents of a tiny step underflow: give a rescaled ``direction``.
    """

    supports_higher_order_operators = True  # seen as operations of no known kind; otherwise torch would raise

    def __init__(self, parameters: Iterable[Tensor], constants: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.problem = ""
        self.reduced: set[torch.dtype] = set()
        self.quantised = False
        self._ops: list[Op] = []
        self._ledger: Ledger | None = Ledger(parameters, constants)
        self._parameters: Parameters = self._ledger.parameters
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
            if not self.problem:
                cells = [ledger.cell_at(address_of(output)) for output in outputs]
                self._outputs = [
                    Slot.of(output, cell) if cell >= 0 else _UNRELATED
                    for output, cell in zip(outputs, cells, strict=True)
                ]
                self._ops = leading_to([cell for cell in cells if cell >= 0], self._ops, self._parameters)
                if len(outputs) == 1:  # of several, it is decided later which count
                    self._leading_to([0])
        except TapeError as error:
            self.problem = str(error)
        except Exception as error:
            self._stop(f"recording failed: {error!r}")
        if self.problem:
            self._ops, self._parameters, self._outputs = [], {}, []

    def _leading_to(self, which: Sequence[int]) -> tuple[list[Op], list[Slot]]:
        """Return the operations that lead to some outputs, and their slots; TapeError if one has no derivative."""
        slots: list[Slot] = []
        for index in which:
            output = self._outputs[index]
            if isinstance(output, str):
                raise TapeError(output)
            slots.append(output)
        ops = leading_to([slot.cell for slot in slots], self._ops, self._parameters)
        if reason := next((op.reason for op in reversed(ops) if op.reason), ""):
            raise TapeError(reason)
        return ops, slots

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
        ops, slots = self._leading_to(which)
        return TangentPass(ops, self._parameters, start, direction).run(slots)

    # -- recording ------------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and write down what its derivative needs."""
        kwargs = kwargs or {}
        kind, ledger = kind_of(func), self._ledger
        if kind.signature is None or self.problem or ledger is None:
            return func(*args, **kwargs)
        op = None
        try:
            values = kind.signature.bind(args, kwargs)
            op = self._before(ledger, kind, values)
        except Exception as error:  # whatever goes wrong here is the tape's trouble, not the user's
            self._stop(f"recording {kind.name} failed: {error!r}")
        out = func(*args, **kwargs)
        if op is not None and not self.problem:
            try:
                self._after(ledger, op, values, list(out) if isinstance(out, (tuple, list)) else [out])
            except Exception as error:
                self._stop(f"recording {kind.name} failed: {error!r}")
        return out

    def _stop(self, problem: str) -> None:
        self.problem = self.problem or problem
        self._ops = []

    def _before(self, ledger: Ledger, kind: OpKind, values: list[Any]) -> Op | None:
        """Return the record of an operation about to run, without results.

        None if nothing that requires a gradient goes in; without arguments if what does cannot move.
        """
        for _, tensor in _tensors(values, kind.writes):
            ledger.save_from_write(tensor)
        rule, reason, get = kind.rule, kind.reason, partial(kind.argument, values)
        unread = () if rule is None else rule.unread(get)
        active: set[int] = set()
        constant = False
        for place, tensor in _tensors(values):
            cell = ledger.cell_at(address_of(tensor))
            if cell >= 0:
                if place not in unread:
                    active.add(place)
            elif tensor.requires_grad:
                constant = True
                if cell == UNKNOWN and not _leaf(tensor):
                    reason = f"reads a tensor of shape {tuple(tensor.shape)} that came about where the tape cannot see"
                    active.add(place)
        if not active:
            return Op(kind, []) if constant else None
        self._count += 1
        if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None or any(
            _checkpointed(tensor) for _, tensor in _tensors(values)
        ):
            self._stop(_CHECKPOINTED)
        elif self._count > MAX_OPERATIONS:
            self._stop(f"more than {MAX_OPERATIONS} operations were recorded: was the tape never left?")
        elif rule is None or (reason := reason or rule.refuses(get)):
            return Op(kind, [ledger.slots(value) for value in values], reason=f"{kind.name} {reason}")
        else:
            with shared_versions():
                args = [
                    None if i in unread else ledger.slots(value, keep=rule.keeps(i, active), written=i in kind.writes)
                    for i, value in enumerate(values[: kind.reads])
                ]
            return Op(kind, args)
        return None

    def _after(self, ledger: Ledger, op: Op, values: list[Any], outs: list[Any]) -> None:
        """Note the results of an operation that has run."""
        kind, rule = op.kind, op.kind.rule
        addresses = () if kind.writes else {address_of(tensor) for _, tensor in _tensors(values)}
        fresh = [t for t in outs if isinstance(t, Tensor) and address_of(t) not in addresses]
        self.reduced.update(t.dtype for t in fresh if t.dtype in _REDUCED)
        if not op.args:
            for tensor in fresh:
                ledger.settle(tensor)
        elif op.reason or rule is None:
            self._lose(ledger, op, [*fresh, *(tensor for _, tensor in _tensors(values, kind.writes))])
        elif fresh:  # else it makes a view under another name, such as _unsafe_view
            count = len(outs) if rule.outputs is None else rule.outputs
            op.results = [ledger.result(t) if differentiable(t) else None for t in outs[:count]]
            if rule.results:
                op.values = [None] * len(outs)
                with shared_versions():
                    for index in rule.results:
                        op.values[index] = slot = Slot.of(outs[index], ledger.cell_at(address_of(outs[index])))
                        ledger.keep(slot, outs[index], writes=int(kind.returns_written))
            if any(op.results):
                self._ops.append(op)
            self.quantised = self.quantised or rule.quantises
            others = [*outs[count:], *(values[i] for i in rule.unread(partial(kind.argument, values)))]
            self._lose(ledger, Op(kind, op.args, reason=f"a result of {kind.name} has no rule"), others)

    def _lose(self, ledger: Ledger, op: Op, tensors: list[Any]) -> None:
        """Note that these tensors depend on a parameter in a way that cannot be differentiated."""
        op.results = [ledger.result(tensor) for tensor in tensors if differentiable(tensor)]
        if op.results:
            self._ops.append(op)


def _tensors(values: Sequence[Any], places: Iterable[int] | None = None) -> Iterator[tuple[int, Tensor]]:
    """Return the tensors in arguments, lists included, each with the place of its argument."""
    for place in range(len(values)) if places is None else places:
        value = values[place]
        if isinstance(value, Tensor):
            yield place, value
        elif isinstance(value, (list, tuple)):
            yield from ((place, one) for one in value if isinstance(one, Tensor))


def _leaf(tensor: Tensor) -> bool:
    return tensor.is_leaf or (tensor._is_view() and tensor._base is not None and tensor._base.is_leaf)


def _checkpointed(tensor: Tensor) -> bool:
    """Return whether a tensor came out of a reentrant checkpoint, which runs without saved-tensor hooks."""
    return tensor.grad_fn is not None and tensor.grad_fn.name().startswith("CheckpointFunction")
