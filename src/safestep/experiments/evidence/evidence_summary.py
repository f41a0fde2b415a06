"""What the runs of a comparison come to, by method: gaps to the tuned plain run of the seed, and what was lost."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from safestep.experiments.evidence.evidence_methods import PLAIN
from safestep.experiments.limits.limits_plan import HELD_OUT, TUNING
from safestep.experiments.limits.limits_summary import ALLOWED, groups_of, score, with_gaps
from safestep.experiments.runner.experiment import Row, key_of
from safestep.records.report import number, plain

TUNED = "plain, tuned"
"""The run that gaps are to, as a row of its own."""


def beside_tuned(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the held-out rows with their ``gap`` to the tuned plain run of the same task, optimizer and seed.

    Tuned is the rate and schedule whose plain runs are the best on average over the tuning seeds, over all where there
    are none. ``excess`` is the gap in units of what is allowed, ``bold`` says whether the rate is the tuned one or
    higher, or there is none; ``tuned`` marks the run itself. A lost run is infinitely far behind, however good the
    weights are that it ended early with. Where the tuned run itself is lost, the best plain run of its seed stands in.
    """
    found = []
    for group in groups_of(_lost_last(rows), "task", "optimizer").values():
        plain_rows = [row for row in group if row["policy"] == PLAIN]
        tried = groups_of([row for row in plain_rows if row["role"] == TUNING] or plain_rows, "schedule", "rate")
        if not tried:
            continue
        best = min(tried, key=lambda way: statistics.fmean(map(score, tried[way])))
        held_out = [row for row in group if row["role"] == HELD_OUT]
        tuned = {row["seed"]: row for row in held_out if row["policy"] == PLAIN and _way(row) == best}
        for seed in [seed for seed, row in tuned.items() if row["lost"]]:
            tuned[seed] = min((row for row in held_out if row["policy"] == PLAIN and row["seed"] == seed), key=score)
        for row in held_out:
            if reference := tuned.get(row["seed"]):
                gap = 0.0 if score(row) == score(reference) else score(row) - score(reference)
                bold = row["rate"] is None or row["rate"] >= best[1]
                extra = {"gap": gap, "excess": gap / ALLOWED[row["judged"]], "bold": bold, "tuned": row is reference}
                found.append({**row, **extra})
    return found


def _lost_last(rows: Iterable[Row]) -> list[Row]:
    return [{**row, "final_loss": "nan", "final_acc": "nan"} if row["lost"] else row for row in rows]


def _way(row: Row) -> tuple[Any, ...]:
    return row["schedule"], row["rate"]


def over_rates(rows: Iterable[Row]) -> list[Row]:
    """Return, for every task, optimizer and method: over which rates it is as good as the tuned plain run.

    ``decades`` is the share of all rates of the grid, ``above`` that of the rates from the tuned one up, ``worst``
    and ``mean`` are gaps over the latter; ``hindsight`` is what ``above`` is beside the plain run that turned out best
    on the very seed. The plain runs count at the schedule that all methods have.
    """
    rows = list(rows)
    gaps = [row for row in beside_tuned(rows) if row["schedule"] == "cosine"]
    later = {key_of(row): row for row in with_gaps(row for row in _lost_last(rows) if row["role"] == HELD_OUT)}
    shared = {rate for (rate,), group in groups_of(gaps, "rate").items() if len({row["method"] for row in group}) > 1}
    summaries = []
    for (task, optimizer, method), group in groups_of(gaps, "task", "optimizer", "method").items():
        grid = [row for row in group if row["rate"] in shared]
        bold = [row for row in grid if row["bold"]]
        hindsight = [later[key_of(row)] for row in grid if later[key_of(row)]["bold"]]
        summaries.append(
            {
                "label": f"{task} {optimizer}, {method}",
                **_of(group[0], "task", "optimizer", "method", "judged"),
                "decades": _within(grid),
                "above": _within(bold),
                "hindsight": _within(hindsight),
                "worst": max((row["gap"] for row in bold), default=None),
                "mean": statistics.fmean(row["gap"] for row in bold) if bold else None,
                **_counts(grid, gaps),
            }
        )
    return _told(summaries)


def without_rates(rows: Iterable[Row]) -> list[Row]:
    """Return, for every task and method: the gaps of its runs, and when it was as good as the tuned plain run ended.

    ``target`` is the part of the run after which that was so, of the median seed; None if most never got there.
    """
    gaps, summaries = beside_tuned(rows), []
    for (task,), of_task in groups_of(gaps, "task").items():
        plain_ones = [row for row in of_task if row["policy"] == PLAIN]
        tuned = {row["seed"]: row for row in plain_ones if row["tuned"]}
        methods = groups_of([row for row in of_task if row["policy"] != PLAIN], "method")
        for method, group in {(TUNED,): list(tuned.values()), **methods}.items():
            summaries.append(
                {
                    "label": f"{task}, {method[0]}",
                    **_of(group[0], "task", "judged"),
                    "method": method[0],
                    **_spread([row["gap"] for row in group]),
                    "target": _median([_reached(row, tuned[row["seed"]]) for row in group]),
                    **_counts(group, plain_ones),
                }
            )
    return _told(summaries)


def after_disturbances(rows: Iterable[Row]) -> list[Row]:
    """Return, for every task, disturbance and method: gaps to the undisturbed plain run, and steps until recovery.

    ``recovered`` is the share of runs whose loss came back to what it was, ``recovery`` the median of their steps.
    """
    gaps, summaries = beside_tuned(rows), []
    for (task, wrong, method), group in groups_of(gaps, "task", "wrong", "method").items():
        if wrong == "none":
            continue
        back = [row["recovery"] for row in group if row["recovery"] is not None]
        summaries.append(
            {
                "label": f"{task}, {method}, {wrong}",
                **_of(group[0], "task", "wrong", "method", "judged"),
                **_spread([row["gap"] for row in group]),
                "recovered": len(back) / len(group),
                "recovery": _median(back),
                **_counts(group, gaps),
            }
        )
    return _told(summaries)


def _of(row: Row, *keys: str) -> dict[str, Any]:
    return {key: row[key] for key in keys}


def _counts(rows: Sequence[Row], reference: Sequence[Row]) -> dict[str, Any]:
    """Return how many runs are lost of how many, and the time of a step beside that of plain ones of its optimizer."""
    alike = [row for row in reference if rows and all(row[key] == rows[0][key] for key in ("task", "optimizer"))]
    times = [row["milliseconds"] for row in alike if row["policy"] == PLAIN]
    own, plain_time = _median([row["milliseconds"] for row in rows]), _median(times)
    return {
        "lost": sum(bool(row["lost"]) for row in rows),
        "runs": len(rows),
        "time": own / plain_time if own and plain_time else None,
    }


def _spread(gaps: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(gaps), "best": min(gaps), "worst": max(gaps)}


def _within(rows: Sequence[Mapping[str, Any]]) -> float | None:
    return statistics.fmean(row["excess"] <= 1.0 for row in rows) if rows else None


def _reached(row: Row, tuned: Row) -> float | None:
    """Return the part of a run after which it was within what is allowed of the end of the tuned one.

    None for never, and for a run that is lost later on.
    """
    if row["lost"]:
        return None
    sign = 1.0 if row["judged"] == "loss" else -1.0
    end = number(tuned["final_loss"] if row["judged"] == "loss" else tuned["final_acc"])
    course = [sign * (number(value) - end) <= ALLOWED[row["judged"]] for value in row["course"]]
    return (course.index(True) + 1) / len(course) if True in course else None


def _median(values: Sequence[float | None]) -> float | None:
    """Return the median, None if that is of something missing, which counts as more than everything."""
    ordered = sorted(values, key=lambda value: (value is None, value))
    return ordered[(len(ordered) - 1) // 2] if ordered else None


def _told(summaries: Sequence[Row]) -> list[Row]:
    told: list[Row] = plain(list(summaries))
    return told
