"""The limit that a guard keeps where none is named, and what it goes by where that cannot be computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypedDict

from torch.optim import SGD, Optimizer

from safestep._torch.warn_once import warn
from safestep.errors import LossMismatchError, UnseenGradientError
from safestep.radius.across_ranks import measured
from safestep.radius.curvature import CurvatureRadius
from safestep.radius.radius import Needs, Radius, State
from safestep.radius.row_sample import Sample
from safestep.radius.softmax import SoftmaxRadius
from safestep.radius.tightest import Tightest
from safestep.recording.proposal import Proposal
from safestep.records.reading import Reading

CURVATURE, FRESH = 0.45, 0.5
"""Nine tenths of the way to the minimum of the quadratic model along the step, whose slope is halfway from this batch's
to a fresh one's."""
SPREAD = 0.5
"""Mean spread of the change of the logits, in units of pi."""


class Targets(TypedDict, total=False):
    """Targets of `default_limit`, those of them that are other than usual."""

    curvature: float
    spread: float


ALONG_GRADIENTS, ALONG_MOMENTUM = Targets(curvature=0.9, spread=1.5), Targets(curvature=0.9)
"""What is other under SGD, without and with momentum. Along the gradient itself the minimum of the model is a poor
place to stop: steps that end there zigzag. Up to 1 a longer one is stable on a quadratic loss."""

_INSTEAD = (
    "the default limit (curvature and mean spread) cannot be computed here: {why}. The step is kept within "
    "{instead} instead; to choose: attach(..., radius=...)"
)


@dataclass(frozen=True)
class DefaultLimit(Radius):
    """A limit, and another that takes over where the loss is not one of the first. Made by `default_limit`.

    Attributes:
        limit: asked first.
        instead: asked from the first step on whose loss the former refuses; said once. On several ranks nothing takes
            over, since one might refuse alone.
        follow_schedule: whether the target goes down with the optimizer's learning rates, see `default_limit`.
    """

    limit: Tightest
    instead: Radius = field(default_factory=SoftmaxRadius)
    follow_schedule: bool = True

    agrees_across_ranks: ClassVar[bool] = True

    @property
    def needs(self) -> Needs:
        """What either needs."""
        return self.limit.needs | self.instead.needs

    @property
    def parts(self) -> tuple[Radius, ...]:
        """The two."""
        return self.limit, self.instead

    def exact(self) -> DefaultLimit:
        """Return the same with exact methods, for an audit."""
        return DefaultLimit(self.limit.exact(), self.instead.exact(), self.follow_schedule)

    def found(self, state: State) -> str:
        """Return what the one that is asked has found out."""
        return "" if state is None else (self.instead if state["instead"] else self.limit).found(state["state"])

    def read_norms(self, proposal: Proposal, state: State) -> None:
        """Read off the step what the one that is asked needs to know of it."""
        radius = self.instead if state is not None and state["instead"] else self.limit
        radius.read_norms(proposal, None if state is None else state["state"])

    def measure(self, proposal: Proposal, state: State) -> tuple[Reading, State]:
        """Return the reading of the limit, or of what takes over. See `Radius.measure`."""
        instead, known = (False, None) if state is None else (state["instead"], state["state"])
        if not instead:
            try:
                reading, known = measured(self.limit, proposal, known)
                return reading, {"instead": False, "state": known}
            except (LossMismatchError, UnseenGradientError) as error:
                if not proposal.forwards.peers.alone:
                    raise
                reading, known = measured(self.instead, proposal, None)  # which may refuse this loss, too
                why = str(error).partition("\n")[0].partition(": let ")[0].partition(". ")[0]
                warn(_INSTEAD.format(why=why, instead=self.instead))
                return reading, {"instead": True, "state": known}
        reading, known = measured(self.instead, proposal, known)
        return reading, {"instead": True, "state": known}

    def __str__(self) -> str:
        """Return the call that makes it, where `default_limit` does."""
        first = self.limit.parts[0]
        sample: Sample = first.sample if isinstance(first, CurvatureRadius) else "some"
        curvature, spread = (target for _, target in self.limit.limits[:2])
        same = default_limit(sample=sample, curvature=curvature, spread=spread, follow_schedule=self.follow_schedule)
        if self != same:
            return repr(self)
        usual = {"sample": (sample, "some"), "curvature": (curvature, CURVATURE), "spread": (spread, SPREAD)}
        usual |= {"follow_schedule": (self.follow_schedule, True)}
        told = [f"{name}={value!r}" for name, (value, as_ever) in usual.items() if value != as_ever]
        return f"default_limit({', '.join(told)})"


def targets_for(optimizers: Sequence[Optimizer]) -> Targets:
    """Return the targets of `default_limit` for steps of these optimizers, where they are others: all are SGD.

    Example:
        >>> import torch
        >>> weights = [torch.zeros(1)]
        >>> steps = [SGD(weights, lr=1.0), SGD(weights, lr=1.0, momentum=0.9), torch.optim.Adam(weights)]
        >>> [targets_for([one]) for one in steps]
        [{'curvature': 0.9, 'spread': 1.5}, {'curvature': 0.9}, {}]
    """
    if not all(isinstance(one, SGD) for one in optimizers):
        return {}
    momentum = any(group.get("momentum") for one in optimizers for group in one.param_groups)
    return ALONG_MOMENTUM if momentum else ALONG_GRADIENTS


def default_limit(
    *, sample: Sample = "some", curvature: float = CURVATURE, spread: float = SPREAD, follow_schedule: bool = True
) -> DefaultLimit:
    r"""Return the recommended limit: about as far as the quadratic model of the loss goes down, seen with fresh eyes.

    Equation:
        ``r = max(p.Gp / (-2 sqrt(nu) g.p) / curvature, mean spread(J p) / (spread pi))``, so that ``r = 1`` is the
        recommended length: ``Cap(1.0)`` keeps every step within it, ``Pin(1.0)`` sets every step to it. ``nu`` is the
        share of the slope ``g.p`` that the next batches find, see ``fresh`` of `CurvatureRadius`.

    Args:
        sample: how much of each batch is measured, see `CurvatureRadius`.
        curvature: how far the model may be gone along; 0.5 is its minimum. `attach` takes 0.9 for `torch.optim.SGD`
            and its subclasses, and this for all others.
        spread: how far the logits may move, on average, in units of pi. `attach` takes 1.5 for SGD without momentum.
        follow_schedule: whether the target goes down with the optimizer's schedule: by ``min(1, sqrt(2 rate / peak))``.
            Where every step is cut to the limit, the shape of the schedule would be lost. Not where the policy has a
            schedule of its own. The peak is the highest rate so far, if it rose no faster than the square of the steps;
            of several groups the one counts that came down least. `attach` says no for averages, which do what a
            schedule does.

    Example:
        >>> [target for _, target in default_limit().limit.limits]
        [0.45, 0.5]

    Note:
        Where gradients are so large that the quadratic model promises more than there is to lose, or ``p.Gp`` and
        ``g.p`` vanish together, the curvature bounds nothing; the mean spread does, and is wide elsewhere. Both are
        made for cross-entropies, of a softmax or of sigmoids, and find by themselves which. Where the loss is another
        one with a softmax or sigmoids (weights of either sign, say), the largest spread takes over (`SoftmaxRadius`),
        which is said; any other loss is refused.
    """
    return DefaultLimit(
        Tightest(
            {
                CurvatureRadius(sample=sample, fresh=FRESH): curvature,
                SoftmaxRadius(over="mean", sample=sample): spread,
            }
        ),
        follow_schedule=follow_schedule,
    )
