"""What came out of policy-optimisation, in sentences: the highest rate, by limit."""

from __future__ import annotations

from collections.abc import Sequence

from safestep.experiments.report.sentences import by, each, span
from safestep.experiments.runner.experiment import Row, grouped
from safestep.lab.cart_pole import LONGEST
from safestep.records.report import number


def policy_findings(summary: Sequence[Row], max_kl: float) -> list[str]:
    """Return, at the highest rate, how long the pole stood and how far an update went."""
    if not summary:
        return []
    highest = max(grouped(summary, "factor"), key=lambda group: number(group[0]["factor"]))
    limits = by(highest, "limit")
    stood, far = each(limits, span("length", ".0f")), each(limits, span("kl_most", "#.3g"))
    return [
        f"At ×{highest[0]['factor']:g} of the rate the pole stood, of {LONGEST} steps: {stood}.",
        f"The farthest update there, in nats, at a threshold of {max_kl:g}: {far}.",
    ]
