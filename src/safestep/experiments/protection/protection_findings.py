"""Pass or miss: what the protection runs say of each number that was to be met, in sentences for the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from safestep.experiments.protection.protection_ends import EXACT, Comparison, comparisons
from safestep.experiments.protection.protection_steps import CLEARLY_ABOVE, FAR_ABOVE
from safestep.experiments.protection.protection_verdict import MOST_ABOVE, verdicts
from safestep.experiments.runner.experiment import Row
from safestep.records.report import number

WORSE = 0.01
"""By how much a run may end worse than under the exact cap: accuracy, or loss in nats."""


def findings(rows: Sequence[Row], control: str) -> list[str]:
    """Return the verdict on every method.

    Args:
        rows: of results.json.
        control: the method that stands for chance; nothing is asked of its steps.
    """
    said: list[str] = []
    for verdict in (row for row in verdicts(rows) if row["workload"] is None):
        method = verdict["method"]
        if method != control:
            chosen = [row for row in rows if row["method"] == method]
            said += [f"{method}: {sentence}" for sentence in (*_lengths(verdict, chosen), _untouched(verdict))]
        if method != EXACT and (compared := comparisons(rows, method)):
            said.append(f"{method}: {_ends(compared)}")
    return said


def _lengths(verdict: Row, rows: Sequence[Row]) -> Iterator[str]:
    share, worst = number(verdict["share_above_105"]), number(verdict["worst"])
    yield (
        f"{_percent(share)} of {verdict['audited']} audited steps went above {CLEARLY_ABOVE:g} of the target (at most "
        f"{_percent(MOST_ABOVE)}): {_word(share <= MOST_ABOVE)}. In {verdict['runs_above']} of {verdict['runs']} runs "
        "the share is larger."
    )
    longest = max(rows, key=lambda row: _or_least(number(row["worst"])))
    where = "" if worst <= FAR_ABOVE else f" ({longest['label']}, seed {longest['seed']})"
    yield (
        f"the longest audited step reached {worst:.4g} of the target{where} (at most {FAR_ABOVE:g}): "
        f"{_word(worst <= FAR_ABOVE)}."
    )


def _untouched(verdict: Row) -> str:
    touched, needless = verdict["touched"], number(verdict["share_needless"])
    return (
        f"of {verdict['inside']} steps called inside, {touched} were not bit for bit what the optimizer made (none "
        f"may): {_word(touched == 0)}. Of the steps proposed clearly inside, {_percent(needless)} were shortened."
    )


def _ends(compared: Sequence[Comparison]) -> str:
    lost = [one for one in compared if not one.worse <= WORSE]
    unsure = sum(not one.worse - WORSE > 2 * one.error for one in lost)
    most = max(compared, key=lambda one: one.worse)
    chance = f" For {unsure} of them the excess is less than two standard errors." if lost and most.seeds > 1 else ""
    return (
        f"{len(lost)} of {len(compared)} settings end worse than under the exact cap by more than {WORSE:g} (accuracy, "
        f"or nats; mean over {most.seeds} {'seeds' if most.seeds > 1 else 'seed'}): {_word(not lost)}.{chance} "
        f"The largest difference is {most.worse:+.4f} ({most.setting})."
    )


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _word(holds: bool) -> str:
    return "pass" if holds else "miss"
