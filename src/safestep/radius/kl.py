"""A limit in nats: the mean KL divergence between the predictions before and after a step, or from a reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, get_args

import torch
from torch import Tensor

from safestep._torch.rng import preserved_generators
from safestep.distributed.dtensor import whole
from safestep.errors import MeasurementError, NothingToMeasureError
from safestep.formulas.kl_divergence import divergence_ratio, sigmoid_divergence, softmax_divergence
from safestep.formulas.softmax_ratio import Head
from safestep.heads.output import Output
from safestep.heads.places import Path, named
from safestep.jvp.replay import without_autocast
from safestep.jvp.selection import Route, as_state, from_state
from safestep.jvp.tangents import Tangents, check_forwards, say_doubts_of_heads, unit_of
from safestep.radius.across_ranks import mean
from safestep.radius.radius import Needs, Radius, State
from safestep.radius.spreads import head_of
from safestep.recording.forwards import Forwards
from safestep.recording.mute import unheard
from safestep.recording.proposal import Proposal
from safestep.records.reading import Reading

Reference = Callable[..., Any]
"""From what the model was called with to what an older policy returned for it."""

_CHUNK = 1 << 18
"""Elements of the logits that are looked at at a time, as in `quadratic_model`."""
_BEYOND = "at or beyond max_kl from the reference, and the step leads farther away"


@dataclass(frozen=True)
class KLRadius(Radius):
    r"""Limits how far a step moves the predictions, in nats.

    Equation:
        The predictions before and after the step, ``P`` and ``P_s`` for the step times ``s``, are apart by

            ``KL(s) = s^2 / 2 mean_i Var_P(a_i)``,     ``r = sqrt(KL(1) / max_kl)``

        to second order in the change ``a = J p`` of the logits, with the mean over all samples ``i`` of the step, those
        without a gradient too. For independent sigmoids ``sum_k P_k (1 - P_k) a_k^2`` takes the place of the variance.
        Several heads add up. So `Cap` (1.0) keeps the predicted KL at or below ``max_kl``, and `Pin` (1.0) sets it.

        With a reference ``q`` older than the step,

            ``KL(s) = mean_i [KL(q_i || P_i) + s (P_i - q_i) . a_i + s^2 / 2 Var_P(a_i)]``,     ``r = 1 / s*``

        for the largest ``s*`` with ``KL(s*) <= max_kl``. Only the part of this very step is approximated; what earlier
        steps have used up is the exact ``KL(q || P)``.

    Attributes:
        max_kl: the largest mean KL divergence, in nats a sample; positive.
        reference: a function that is called with what the model was called with, and returns what the older policy
            returned for it: a frozen copy of the model; or, with stored logits,
            ``lambda *_: old_logits[rows]``, where ``rows`` is the minibatch of the loop at the time of the step. None
            for the predictions just before the step.
        head: ``"softmax"`` as the gradient tells, ``"sigmoid"`` for independent logits, see `SoftmaxRadius`.

    Raises:
        ValueError: at construction, for an unknown head or a limit that is not positive.
        TypeError: at construction, for a reference that is no function.

    Example:
        >>> import torch, safestep
        >>> policy = torch.nn.Linear(1, 2, bias=False)
        >>> optimizer = torch.optim.SGD(policy.parameters(), lr=100.0)
        >>> guard = safestep.attach(policy, optimizer, radius=KLRadius(max_kl=0.005), policy=safestep.Cap(1.0))
        >>> x = torch.ones(8, 1)
        >>> before = policy(x).log_softmax(-1)
        >>> (-before[:, 0].mean()).backward()
        >>> optimizer.step()
        >>> after = policy(x).log_softmax(-1)
        >>> bool((0.004 < (before.exp() * (before - after)).sum(-1).mean()) & (guard.last.ratio > 10))
        True

    Note:
        By how much the logits' own change exceeds its first order nothing is said; as far as they are linear along the
        step, KL of a sample is right within ``s^3 spread(a)^3 / (36 sqrt(3))``: 0.002 nats at a spread of half a nat,
        0.016 at one. The mean is over the samples of the minibatch, padding and ignored labels included; of other
        samples it says as much as these stand for them. An output of one dimension under sigmoids is one a sample.

        ``r(c p) = c r(p)`` for c > 0, with a reference too. But then KL is not ``r^2 max_kl``: `Cap` (0.5) keeps half
        of the way that is left, not a quarter of the divergence, and r of ``-p`` is another. Where ``KL(q || P)`` is at
        or beyond ``max_kl`` and the step leads farther away, no length is short enough: r is inf and a guard that acts
        holds the parameters (``"held"``), until the next batch brings a new reference. If it leads back, it may go as
        far as there is an inside to leave again, or else as near as it gets. `Pin` spends with its first step all that
        there is.

        The reference is called at the step, without gradients; the random generators are put back.

    Reference:
        J. Schulman et al., "Trust region policy optimization", ICML 2015, whose constraint is the mean
        ``KL(q || P_s)``; there the direction is chosen for it, here any optimizer's step is shortened.
    """

    max_kl: float = 0.01
    reference: Reference | None = None
    head: Head = "softmax"

    agrees_across_ranks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0.0 < self.max_kl < math.inf:
            raise ValueError(f"max_kl={self.max_kl!r}: expected a positive number of nats, such as 0.01")
        if not (self.reference is None or callable(self.reference)):
            raise TypeError(
                f"reference={type(self.reference).__name__}: expected a function from what the model is called with to "
                "what the older policy returned for it, such as lambda *_: old_logits[rows]"
            )
        if self.head not in get_args(Head):
            raise ValueError(f"head={self.head!r}: expected one of {', '.join(map(repr, get_args(Head)))}")

    @property
    def needs(self) -> Needs:
        """The recorded training pass."""
        return Needs(tape=True)

    def measure(self, proposal: Proposal, state: State) -> tuple[Reading, State]:
        """Return r of a step over the recorded forwards, and what was learned of the model. See `Radius.measure`."""
        step, forwards = proposal.step, proposal.forwards
        route = Route() if state is None else from_state(state["route"])
        unit = unit_of(step.length)  # a power of two, the same on all ranks

        def found() -> _Terms:
            nonlocal route
            references: dict[int, Tensor] = {}
            # what may fail here alone, while others wait in a forward, is a check
            check_forwards(forwards, self._resolve, lambda forwards: references.update(self._referred(forwards)))
            tangents = Tangents(step, forwards, "train", route)
            sums: dict[Path, Tensor] = {}
            try:
                for output, value, tangent in tangents:
                    summed = _summed(output, value, tangent, references.get(id(output)))
                    sums[output.path] = sums[output.path] + summed if output.path in sums else summed
            finally:
                route = tangents.route
            return _mean(list(sums.values()), unit / tangents.unit, exact=tangents.exact)

        # On several ranks the mean is over theirs, as that of the loss is.
        terms = _Terms(*mean(proposal, found, len(_Terms._fields)))
        ratio = divergence_ratio(terms.value, terms.slope, terms.bend, self.max_kl) * unit
        uphill = ratio == math.inf and math.isfinite(terms.slope + terms.bend)
        way = f"{route.way}/train" if self.reference is None else f"{route.way}/train/reference"
        message = _BEYOND if uphill else forwards.kept_of_all
        exact, kl = terms.rough == 0.0, terms.bend * unit**2 / 2.0
        reading = Reading(step.index, ratio, way, exact, message, uphill=uphill, kl=kl)
        return reading, {"route": as_state(route)}

    def _resolve(self, forwards: Forwards) -> None:
        forwards.resolve(self.head)
        say_doubts_of_heads(forwards)

    def _referred(self, forwards: Forwards) -> dict[int, Tensor]:
        """Return the reference's logits for every head of every forward."""
        found: dict[int, Tensor] = {}
        if self.reference is None:
            return found
        with torch.no_grad(), preserved_generators(), unheard():
            for forward in forwards.kept:
                given = self.reference(*forward.args, **forward.kwargs)
                alone = isinstance(given, Tensor) and len(forward.heads) == 1 and not forwards.reader.chosen
                for head in forward.heads:
                    try:
                        logits = given if alone else forwards.reader.read(given, [head.path])[0]
                    except (LookupError, TypeError, AttributeError):
                        logits = None
                    if not isinstance(logits, Tensor):
                        raise MeasurementError(
                            f"reference= returned a {type(given).__name__} without logits at {named(head.path)}: "
                            "expected what the model returns"
                        )
                    if head.shape:  # of outputs that are made for measuring the shape is not known yet
                        _check_shape(logits, head.shape, head)
                    found[id(head)] = logits
        return found


class _Terms(NamedTuple):
    """Means over samples, added over heads, for a direction ``p / unit``; and whether that is not exact."""

    value: float
    slope: float
    bend: float
    rough: float


def _mean(sums: list[Tensor], factor: float, *, exact: bool) -> _Terms:
    rows = [float(summed[3]) for summed in sums]
    if not any(rows):
        raise NothingToMeasureError("the recorded forward holds no samples (an empty batch): nothing to measure r on")
    value, slope, bend = (
        sum(float(summed[index]) / count for summed, count in zip(sums, rows, strict=True) if count)
        for index in range(3)
    )
    if value == math.inf:
        raise MeasurementError(
            "KL from the reference is infinite: it gives a probability to a class that the model masks by -inf. Mask "
            "the same classes in both"
        )
    return _Terms(value, slope / factor, bend / factor**2, float(not exact))


def _summed(output: Output, value: Tensor, tangent: Tensor, reference: Tensor | None) -> Tensor:
    """Return value, slope and bend added up over the samples of one output, and how many these are."""
    head = head_of(output)
    tensors = [whole(head.read(tensor)) for tensor in (value, tangent)]
    if reference is not None:
        _check_shape(reference, value.shape, output)
        tensors.append(whole(head.read(reference.to(value.device))))
    sigmoid = head.kind == "sigmoid"
    if sigmoid and value.ndim == 1:
        tensors = [tensor.unsqueeze(-1) for tensor in tensors]
    rows = [torch.atleast_2d(tensor).flatten(0, -2) for tensor in tensors]
    few = max(1, _CHUNK // max(1, rows[0].shape[-1]))
    divergence = sigmoid_divergence if sigmoid else softmax_divergence
    total = torch.zeros(4, dtype=torch.float64, device=value.device)
    with without_autocast(value.device.type):
        for pieces in zip(*(tensor.split(few) for tensor in rows), strict=True):
            # a log-probability in bfloat16 is off by more than most limits
            wide = (piece.to(torch.promote_types(piece.dtype, torch.float32)) for piece in pieces)
            total[:3] += torch.stack([term.sum(dtype=torch.float64) for term in divergence(*wide)])
    total[3] = len(rows[0])
    return total.cpu()


def _check_shape(logits: Tensor, shape: torch.Size, output: Output) -> None:
    if logits.shape != shape:
        raise MeasurementError(
            f"reference= gave logits of shape {tuple(logits.shape)} for {named(output.path)} of shape {tuple(shape)}: "
            "expected one row for each sample of this very forward (old_logits[rows] of the minibatch?)"
        )
