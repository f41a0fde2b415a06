"""A witness beside the guard: what each step did to the parameters, and its exact r, by code of its own.

The r of an applied step is that of ``torch.func.jvp`` in float64 on another model, made anew and given the weights the
step began with, over every row that the loss counted in every micro-batch of the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from safestep import SoftmaxRadius

Batch = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a forward."""


EXACT = SoftmaxRadius(method="exact")

SLACK = 1e-3
"""How far r may be off, relatively, where it is exact (contract 2)."""
ROUGH = 0.05
"""The same in reduced precision: docs/training-loops.md."""

PROMPT = 3
"""How many tokens at the beginning of each text of the tests are no part of the loss."""


@dataclass
class Applied:
    """One call of ``optimizer.step()``: where it began, what it moved, what it was computed from."""

    start: dict[str, Tensor]
    moved: dict[str, Tensor]
    batches: list[Batch]

    @property
    def length(self) -> float:
        return math.sqrt(sum(p.square().sum().item() for p in self.moved.values()))


@dataclass
class Witness:
    """Sees every step of an optimizer. Made after ``attach``, so that its hooks run after the guard has acted.

    Attributes:
        model: what the framework trains.
        build: makes it anew.
        logits: from a model and a batch to the logits of the rows that count, shape (rows, classes).
        steps: what was seen.
        look: 0 for ``torch.func.jvp``. Where a model detaches a part of itself that does move (DoRA's norms), the part
            of the step by which a central difference looks ahead.
    """

    model: nn.Module
    build: Callable[[], nn.Module]
    logits: Callable[[Callable[..., Any], Batch], Tensor]
    steps: list[Applied] = field(default_factory=list)
    look: float = 0.0

    def watch(self, *optimizers: Optimizer) -> Witness:
        """Watch a step of these optimizers: from the first's beginning to the last's end."""
        self._batches: list[Batch] = []
        self.model.register_forward_pre_hook(self._forward, with_kwargs=True)
        optimizers[0].register_step_pre_hook(lambda *_: self._begin())
        optimizers[-1].register_step_post_hook(lambda *_: self._end())
        return self

    def ratio(self, number: int) -> float:
        """Return the exact r of a step as it was applied."""
        applied = self.steps[number]
        twin = self.build().double()
        twin.load_state_dict({**twin.state_dict(), **{name: value.double() for name, value in applied.start.items()}})
        parameters = {name: p.detach() for name, p in twin.named_parameters()}
        moved = {name: applied.moved.get(name, torch.zeros_like(p)) for name, p in parameters.items()}
        largest = 0.0
        for batch in applied.batches:

            def run(at: dict[str, Tensor], batch: Batch = batch) -> Tensor:
                return self.logits(lambda *args, **kwargs: torch.func.functional_call(twin, at, args, kwargs), batch)

            with sdpa_kernel(SDPBackend.MATH):
                if self.look:
                    ends = [run({n: p + h * moved[n] for n, p in parameters.items()}) for h in (self.look, -self.look)]
                    a = (ends[0] - ends[1]) / (2 * self.look)
                else:
                    _, a = torch.func.jvp(run, (parameters,), (moved,))
            largest = max(largest, (a.amax(-1) - a.amin(-1)).max().item() / math.pi)
        return largest

    def _values(self) -> dict[str, Tensor]:
        return {name: p.detach().double() for name, p in self.model.named_parameters()}

    def _forward(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # What a guard tries by itself runs without gradients, or inside a transform.
        if torch.is_grad_enabled() and torch._C._functorch.maybe_current_level() is None:
            self._batches.append(_wide((args, kwargs)))

    def _begin(self) -> None:
        self._start = self._values()

    def _end(self) -> None:
        moved = {name: value - self._start[name] for name, value in self._values().items()}
        self.steps.append(Applied(self._start, moved, self._batches))
        self._batches = []


def causal(function: Callable[..., Any], batch: Batch) -> Tensor:
    """Return the logits of a causal language model at the places whose next token the loss counts."""
    kwargs = {name: value for name, value in batch[1].items() if name in {"input_ids", "attention_mask"}}
    return function(**kwargs).logits[:, PROMPT - 1 : -1]


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().double() if value.is_floating_point() else value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _wide(item) for key, item in value.items()}
    return type(value)(_wide(item) for item in value) if isinstance(value, (tuple, list)) else value


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    """Bit for bit the same parameters and buffers."""
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    different = [name for name, value in ours.items() if not torch.equal(value, theirs[name])]
    assert not different, f"{len(different)} of {len(ours)} differ, first {different[0]}"


def assert_kept(
    guard: Any,
    audit: Any,
    witness: Witness,
    target: float,
    numbers: Sequence[int],
    *,
    rough: float = SLACK,
    exact: bool | None = None,
) -> None:
    """Assert that caps acted, and that by the audit and by the witness no step went beyond the target.

    Args:
        guard: the guard.
        audit: its ``guard.audit(1.0)``.
        witness: who saw its steps.
        target: that of its policy.
        numbers: the steps to ask the witness about.
        rough: how far r may be off: in reduced precision as docs/training-loops.md says, since the witness computes in
            float64 and the audit rounds otherwise than the measurement did.
        exact: what the records have to say of themselves; by default that r is exact unless it may be off.
    """
    reports = list(guard.history)
    assert [report.step for report in reports] == list(range(len(witness.steps)))
    assert {report.exact for report in reports if str(report.status) != "still"} == {
        rough == SLACK if exact is None else exact
    }
    assert sum(str(report.status) == "capped" for report in reports) >= 2, reports
    assert audit.unmeasured == 0
    assert audit.worst <= 1 + rough
    for number in numbers:
        true, report = witness.ratio(number), reports[number]
        assert true <= target * (1 + rough), f"true r {true}: {report}"
        if str(report.status) == "capped":
            assert math.isclose(true, target, rel_tol=rough), f"true r {true}: {report}"
