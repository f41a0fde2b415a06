"""What came out of a digits experiment, in sentences: who diverged, how well the rest does, at which rate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from safestep.experiments.report.sentences import by, count, each, span
from safestep.experiments.report.tables import cell
from safestep.experiments.runner.experiment import Row, grouped
from safestep.records.report import number

_NAMES = {"fixed": "left alone", "cap": "capped", "pin": "pinned"}


def digits_findings(rows: Sequence[Row]) -> list[str]:
    """Return what the rows of results.json come to; several seeds are so many runs.

    Example:
        >>> row = {"seed": 7, "final_acc": 0.981, "final_mean_lr": 0.1655, "diverged": False, "base_lr": 5.0}
        >>> plain = {**row, "policy": "fixed", "final_acc": 0.1, "diverged": True}
        >>> for sentence in digits_findings([plain, {**row, "policy": "cap"}]):
        ...     print(sentence)
        Diverged: left alone 1 of 1, capped 0 of 1.
        Accuracy in the end: left alone 10.0%, capped 98.1%.
        Capped, a rate of 5 became 0.166 in the last epoch.
    """
    groups = by(rows, "policy", _NAMES)
    told = [
        f"Diverged: {each(groups, count('diverged'))}.",
        f"Accuracy in the end: {each(groups, span('final_acc', '.1%'))}.",
    ]
    rates = []
    if capped := groups.get("capped"):
        highest = max(grouped(capped, "base_lr"), key=lambda group: number(group[0]["base_lr"]))
        rates.append(f"Capped, a rate of {highest[0]['base_lr']:g} became {_rate(highest)} in the last epoch")
    if pinned := groups.get("pinned"):
        rates.append(f"pinned, with no rate to choose, it was {_rate(pinned)}")
    return [*told, f"{'; '.join(rates)}."] if rates else told


def _rate(rows: Sequence[Row]) -> str:
    return cell(statistics.median(number(row["final_mean_lr"]) for row in rows), "#.3g")
