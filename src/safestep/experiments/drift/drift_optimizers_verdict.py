"""What the runs over drifting inputs come to: medians over seeds, steps against those without control, pass or miss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from safestep.experiments.runner.experiment import Row
from safestep.records.report import number, plain

NONE = "none"
"""The law that the others are compared with."""
PLACE = ("student", "optimizer", "batch", "rate")
"""What tells a case from another, the law aside."""


def most_slowdown(optimizer: str) -> float:
    """Return by which factor the steps to the target may grow where nothing needs control.

    Example:
        >>> most_slowdown("sgd"), most_slowdown("adam")
        (1.05, 1.1)
    """
    return 1.05 if optimizer == "sgd" else 1.1


def verdicts(rows: Sequence[Row]) -> list[Row]:
    """Return one summary for every label, in the order in which the labels appear.

    Args:
        rows: of results.json.

    Returns:
        Where the run belongs, the number of ``seeds`` and how many were ``lost``; medians over the seeds of the losses,
        ``steps_to_target`` and the shares; the largest ``peak_factor``, the peak of the loss over the loss when the
        drift came; ``slowdown``, the median steps over those of the same runs without control, nan where these do not
        get there, or where any of them diverges; and ``most_slowdown``, the largest that is allowed.
    """
    labels = dict.fromkeys(row["label"] for row in rows)
    found: list[Row] = plain([_verdict([row for row in rows if row["label"] == label], rows) for label in labels])
    return found


def _verdict(chosen: Sequence[Row], rows: Sequence[Row]) -> dict[str, Any]:
    seeds = {row["seed"] for row in chosen}
    free = [row for row in rows if row["law"] == NONE and _same(row, chosen[0]) and row["seed"] in seeds]
    steps, usual = _median(chosen, "steps_to_target"), _median(free, "steps_to_target")
    calm = free and not any(row["diverged"] for row in free) and 0 < usual < math.inf
    return {
        **{key: chosen[0][key] for key in ("label", *PLACE, "lr", "gain", "law")},
        "seeds": len(chosen),
        "lost": sum(bool(row["diverged"]) for row in chosen),
        "peak_factor": max(_peak(row) for row in chosen),
        **{key: _median(chosen, key) for key in ("first_loss", "final_loss", "target_loss")},
        "steps_to_target": steps,
        "slowdown": steps / usual if calm else math.nan,
        "most_slowdown": most_slowdown(chosen[0]["optimizer"]),
        **{key: _median(chosen, key) for key in ("held_share", "shortened_share", "uphill_share")},
    }


def findings(rows: Sequence[Row]) -> list[str]:
    """Return the verdict on every law: whether it protects, and what it costs where nothing needs protection."""
    found = verdicts(rows)
    return [
        sentence
        for law in dict.fromkeys(row["law"] for row in found if row["law"] != NONE)
        for sentence in _said(law, [row for row in found if row["law"] == law], found)
    ]


def _said(law: str, chosen: Sequence[Row], every: Sequence[Row]) -> Iterator[str]:
    free = {tuple(row[key] for key in PLACE): row for row in every if row["law"] == NONE}
    pairs = [(row, free[place]) for row in chosen if (place := tuple(row[key] for key in PLACE)) in free]
    needed = [row for row, without in pairs if without["lost"]]
    if needed:
        lost = [row for row in needed if row["lost"]]
        yield (
            f"{law}: of the {len(needed)} cases in which runs without control diverge, it loses runs in {len(lost)} "
            f"(none may): {_word(not lost)}.{_listed(lost, 'lost')}"
        )
    new = [row for row, without in pairs if row["lost"] and not without["lost"]]
    if new:
        cases = "1 case" if len(new) == 1 else f"{len(new)} cases"
        yield f"{law}: in {cases} runs diverge that do not without it.{_listed(new, 'lost')}"
    calm = [row for row, without in pairs if row["rate"] == "quiet" and not math.isnan(number(row["slowdown"]))]
    if calm:
        slow = [row for row in calm if number(row["slowdown"]) > most_slowdown(row["optimizer"])]
        yield (
            f"{law}: of the {len(calm)} quiet cases, {len(slow)} take more steps to the target than allowed (1.05 "
            "times those without control for SGD, 1.10 for momentum and Adam; medians over the seeds): "
            f"{_word(not slow)}.{_listed(slow, 'slowdown')}"
        )
        held = [number(row["held_share"]) for row in calm]
        yield f"{law}: in the quiet cases between {min(held):.1%} and {max(held):.1%} of the steps are held."


def _listed(rows: Sequence[Row], column: str) -> str:
    named = "; ".join(f"{row['label'].rpartition(':')[0]}: {_figure(row, column)}" for row in rows)
    return f" {named}." if named else ""


def _figure(row: Row, column: str) -> str:
    return f"{row[column]} of {row['seeds']}" if column == "lost" else f"{number(row[column]):.3f}"


def _same(row: Row, other: Row) -> bool:
    return all(row[key] == other[key] for key in PLACE)


def _median(rows: Sequence[Row], key: str) -> float:
    values = [number(row[key]) for row in rows]
    return statistics.median(math.inf if math.isnan(value) else value for value in values) if values else math.nan


def _peak(row: Row) -> float:
    peak, first = number(row["peak_loss"]), number(row["first_loss"])
    return peak / first if math.isfinite(first) else math.inf


def _word(holds: bool) -> str:
    return "pass" if holds else "miss"
