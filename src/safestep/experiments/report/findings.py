"""What came out of the training runs, in sentences computed from the rows: for the top of the page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safestep.plots.frame import plain_number
from safestep.plots.headlines import named_list, sentence
from safestep.records.report import number

_KEYS = {"label", "policy", "base_lr", "seed", "final_acc", "peak_r", "final_mean_lr", "diverged"}
_RUN = {"fixed": "run at a fixed rate", "cap": "capped run", "pin": "pinned run"}


@dataclass(frozen=True)
class _Outcome:
    """One label over its seeds: medians, the largest r of all, and how many seeds diverged."""

    label: str
    policy: str
    base_lr: float
    accuracy: float
    lr: float
    peak_r: float
    seeds: int
    diverged: int


def findings(rows: Sequence[Mapping[str, Any]], target: float = math.nan) -> list[str]:
    """Return what the rows say, one sentence a finding; none for rows of other columns than training runs have.

    Args:
        rows: the rows of results.json.
        target: the r that the policies aim at; nan where there is none.

    Example:
        >>> row = {"label": "pin", "policy": "pin", "base_lr": None, "seed": 7, "final_acc": 0.9622, "peak_r": 1.0,
        ...        "final_mean_lr": 0.16, "diverged": False}
        >>> findings([row])[0]
        'The pinned run did not diverge.'
    """
    outcomes = _outcomes([row for row in rows if row.keys() >= _KEYS])
    if not outcomes:
        return []
    return [*_divergence(outcomes), *_same_rate(outcomes), *_without_rate(outcomes), *_lengths(outcomes, target)]


def _outcomes(rows: Sequence[Mapping[str, Any]]) -> list[_Outcome]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["label"], []).append(row)
    return [
        _Outcome(
            label,
            group[0]["policy"],
            number(group[0]["base_lr"]),
            statistics.median(number(row["final_acc"]) for row in group),
            statistics.median(number(row["final_mean_lr"]) for row in group),
            max(_worst(number(row["peak_r"])) for row in group),
            len(group),
            sum(bool(row["diverged"]) for row in group),
        )
        for label, group in groups.items()
    ]


def _worst(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _divergence(outcomes: Sequence[_Outcome]) -> Iterator[str]:
    for policy in dict.fromkeys(outcome.policy for outcome in outcomes):
        chosen = [outcome for outcome in outcomes if outcome.policy == policy]
        runs, lost = sum(outcome.seeds for outcome in chosen), [outcome for outcome in chosen if outcome.diverged]
        noun = _RUN.get(policy, f"{policy} run")
        plural = noun.replace("run", "runs", 1)
        if not lost:
            yield f"None of the {runs} {plural} diverged." if runs > 1 else f"The {noun} did not diverge."
        elif runs == 1:
            yield f"The {noun} diverged."
        else:
            of = "" if all(outcome.diverged == outcome.seeds for outcome in lost) else "some of the seeds of "
            count = sum(outcome.diverged for outcome in lost)
            yield f"{count} of the {runs} {plural} diverged: {of}{named_list([outcome.label for outcome in lost])}."


def _same_rate(outcomes: Sequence[_Outcome]) -> Iterator[str]:
    fixed = {outcome.base_lr: outcome for outcome in outcomes if outcome.policy == "fixed"}
    for capped in outcomes:
        plain = fixed.get(capped.base_lr)
        if capped.policy != "cap" or plain is None:
            continue
        start = f"At learning rate {capped.base_lr}"
        middle = " (median over the seeds)" if capped.seeds > 1 else ""
        if _percent(plain.accuracy) == _percent(capped.accuracy):
            yield f"{start} the plain and the capped run both end at {_percent(plain.accuracy)} test accuracy{middle}."
        else:
            yield (
                f"{start} the plain run ends at {_percent(plain.accuracy)} test accuracy, "
                f"the capped one at {_percent(capped.accuracy)}{middle}."
            )


def _without_rate(outcomes: Sequence[_Outcome]) -> Iterator[str]:
    for outcome in outcomes:
        if outcome.policy == "pin":
            end = " (medians over the seeds)" if outcome.seeds > 1 else ""
            yield (
                f"{sentence(outcome.label)}, without any learning rate, ends at {_percent(outcome.accuracy)} test "
                f"accuracy; its effective rate in the last epoch is {plain_number(outcome.lr)}{end}."
            )


def _lengths(outcomes: Sequence[_Outcome], target: float) -> Iterator[str]:
    held = [outcome for outcome in outcomes if outcome.policy in {"cap", "pin"}]
    free = [outcome for outcome in outcomes if outcome.policy == "fixed"]
    if held:
        goal = "" if math.isnan(target) else f" (target {plain_number(target)})"
        which = " or ".join(dict.fromkeys(_RUN[outcome.policy].removesuffix(" run") for outcome in held))
        longest = max(outcome.peak_r for outcome in held)
        yield f"The longest step that a {which} run takes has r = {plain_number(longest)}{goal}."
    if free:
        boldest = max(free, key=lambda outcome: outcome.peak_r)
        size = f"r = {plain_number(boldest.peak_r)}" if math.isfinite(boldest.peak_r) else "an r that is not finite"
        yield f"The longest step at a fixed rate has {size} ({boldest.label})."


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f} %"
