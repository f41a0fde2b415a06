"""The exact radius of the steps that were taken, and how far beyond the bound of the softmax radius it lies."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from safestep.formulas.softmax_ratio import step_ratio
from safestep.heads.head import Head
from safestep.jvp.selection import Route
from safestep.jvp.tangents import Tangents, check_forwards
from safestep.radius.spreads import Spreads, head_of
from safestep.recording.forwards import Forwards
from safestep.recording.step import Step
from safestep.records.report import StepReport
from safestep.zeros.nearest_zero import nearest_zero


class ExactRadius:
    r"""Records the exact radius of a step as it was taken: where the Taylor series of some sample's loss along it ends.

    ============  ================================================================================================
    exact_ratio   ``r* = max_i 1 / rho*_i``, ``rho*_i`` the distance of the nearest zero of sample i along ``s p``
    exact_radius  ``rho* = ||s p|| / r*``, in the units of the parameters
    exact_slack   ``rho* / rho_a = r / r*``, at least 1: what the bound ``pi / spread`` leaves, ``r`` that of
                  ``SoftmaxRadius(method="exact")``
    ============  ================================================================================================

    A sample whose bound ``pi / spread(a)`` is beyond the nearest zero so far is not looked at, so that few are; see
    `safestep.zeros.nearest_zero`. Independent sigmoids have a closed form.

    Args:
        most: samples that are looked at in a step; all columns are nan where they do not settle it.

    Raises:
        ValueError: if ``most`` is not positive.

    Example:
        >>> import safestep
        >>> model = torch.nn.Linear(1, 3, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=3.0)
        >>> guard = safestep.attach(model, sgd, policy=safestep.Watch(), diagnostics=[ExactRadius()])
        >>> loss = torch.nn.functional.cross_entropy(model(torch.ones(1, 1)), torch.tensor([0]))
        >>> loss.backward(); sgd.step()  # a = (2, -1, -1): exp(2 t) + 2 exp(-t) = 0 where 3 t = log 2 + i pi
        >>> round(3 / guard.last.extras["exact_ratio"], 6) == round(math.hypot(math.log(2.0), math.pi), 6)
        True

    Note:
        It costs an exact measurement of J p, and some ten milliseconds for each sample that is looked at. Samples
        without a gradient do not count, as in `SoftmaxRadius`; a step of scale 0 has no columns. nan where a zero
        cannot be certified. On several ranks: of the samples of the rank that writes the record.

    Reference:
        P. Sao, arXiv 2603.13552 (2026).
    """

    def __init__(self, most: int = 256) -> None:
        if not most > 0:
            raise ValueError(f"most={most!r}: expected a positive number of samples")
        self._most, self._route = most, Route()

    def __call__(self, step: Step, forwards: Forwards, report: StepReport) -> Mapping[str, float]:
        """Return the columns."""
        if report.scale == 0.0:
            return {}
        applied = step.applied()
        check_forwards(forwards, _resolve)
        tangents = Tangents(applied, forwards, "train", self._route)
        seen, bound, ratio = Spreads(), 0.0, 0.0
        for output, value, tangent in tangents:
            seen.add(output, value, tangent)
            head, spreads, active = head_of(output), seen.values[-1].double(), seen.active[-1]
            rows = active if bool(active.any()) else torch.ones_like(active)
            z, a = (torch.atleast_2d(head.read(tensor.detach())).flatten(0, -2)[rows] for tensor in (value, tangent))
            bound = max([bound, *map(step_ratio, spreads[rows].tolist())])
            ratio = self._largest(ratio, head, z, a, spreads[rows])
        self._route = tangents.route
        if seen.empty:
            return {}
        ratio, bound = ratio * tangents.unit, bound * tangents.unit
        known = ratio > 0.0
        return {
            "exact_ratio": ratio,
            "exact_radius": applied.length / ratio if known else math.nan,
            "exact_slack": bound / ratio if known else math.nan,
        }

    def _largest(self, ratio: float, head: Head, z: Tensor, a: Tensor, spreads: Tensor) -> float:
        """Return the largest ratio of earlier samples and of these; nan where that is not settled."""
        if math.isnan(ratio) or not bool(spreads.isfinite().all()):
            return math.nan
        if head.kind == "sigmoid":
            gaps, slopes = z.double(), a.double()
            ratios = slopes.abs() / torch.hypot(gaps, torch.full_like(gaps, math.pi))
            return max(ratio, float(ratios.max())) if ratios.numel() else ratio
        # largest spreads first: after a few the others are out of the question
        for count, place in enumerate(spreads.argsort(descending=True).tolist()):
            if step_ratio(float(spreads[place])) <= ratio:
                break
            found = float(nearest_zero(z[place], a[place]).radius) if count < self._most else math.nan
            if math.isnan(found):
                return math.nan
            ratio = max(ratio, 1.0 / found)
        return ratio


def _resolve(forwards: Forwards) -> None:
    """Find the heads, where no radius did: what the guard was told of them stands."""
    if not forwards.resolved:
        forwards.resolve("softmax")
