"""The tables of docs/evidence.md, from the records of its runs. Printed by `python tests/docs/evidence_tables.py`."""

from __future__ import annotations

import gzip
import json
import math
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from safestep.experiments import find
from safestep.experiments.evidence.evidence_summary import TUNED, beside_tuned
from safestep.experiments.evidence.evidence_tasks import OPTIMIZERS, SUBJECTS
from safestep.experiments.limits.limits_summary import ALLOWED, score

RECORDS = Path(__file__).parents[2] / "docs" / "records" / "evidence"
"""Each the ``results.json`` of a run, without its ``records.jsonl``: enough for `safestep report`."""
STUDIES = {
    "rates": (
        "rates-gpt",
        "rates-gpt-others",
        "rates-mlp",
        "rates-cnn-vit",
        "rates-others",
        "rates-lstm",
        "rates-lstm-others",
    ),
    "rates-fixed": (
        "rates-gpt-fixed",
        "rates-gpt-others-fixed",
        "rates-mlp-fixed",
        "rates-cnn-vit-fixed",
        "rates-others-fixed",
        "rates-lstm-fixed",
    ),
    "rates-long": ("rates-gpt-1500",),
    "rates-larger": ("rates-gpt-5m",),
    "averages": ("rates-averaged-gpt", "rates-averaged-mlp"),
    "averages-elsewhere": ("rates-averaged-others",),
    "no-rate": ("no-rate-gpt", "no-rate-digits", "no-rate-lstm"),
    "no-rate-long": ("no-rate-gpt-1500",),
    "no-rate-larger": ("no-rate-gpt-5m",),
    "spikes": ("spikes", "spikes-vit"),
    "spikes-text": ("spikes-gpt",),
}
"""Of each study its records, which together are one run of it."""
EXPERIMENTS = {
    **dict.fromkeys(("rates-fixed", "rates-long", "rates-larger", "averages", "averages-elsewhere"), "rates"),
    **dict.fromkeys(("no-rate-long", "no-rate-larger"), "no-rate"),
    "spikes-text": "spikes",
}
"""Which experiment a study is a run of, where it has another name."""


def rows_of(name: str) -> list[dict[str, Any]]:
    """Return the rows of a record."""
    rows: list[dict[str, Any]] = json.loads(gzip.decompress((RECORDS / f"{name}.json.gz").read_bytes()))["rows"]
    return rows


def summary(study: str) -> list[dict[str, Any]]:
    """Return what the rows of all records of a study come to, by the code as it is."""
    experiment = find(EXPERIMENTS.get(study, study))
    return [row for name in STUDIES[study] for row in experiment.summarise(rows_of(name))]


def averages() -> Iterator[str]:
    """Yield median gaps to the tuned AdamW run without averages, by rate: AdamW, and averaged, each way."""
    rows = [row for name in ("rates-gpt", "rates-averaged-gpt") for row in rows_of(name)]
    tuned = {row["seed"]: row["final_loss"] for row in beside_tuned(rows_of("rates-gpt")) if row["tuned"]}
    there = [row for row in rows if row["schedule"] == "cosine" and row["seed"] in tuned]
    shared = sorted({row["rate"] for row in there if row["method"] == "safestep"})
    yield _line(["optimizer, method", *(f"×{rate:g}" for rate in shared)])
    yield _line(["---"] * (1 + len(shared)))
    for way in [(o, m) for o in ("adamw", "averaged-adamw") for m in ("plain", "clip", "safestep")]:
        own = [row for row in there if (row["optimizer"], row["method"]) == way]
        cells = []
        for rate in shared:
            ends = [
                math.inf if row["lost"] else row["final_loss"] - tuned[row["seed"]]
                for row in own
                if row["rate"] == rate
            ]
            cells.append(gap(statistics.median(ends), "loss"))
        yield _line([", ".join(way), *cells])


ELSEWHERE = {
    "digits-mlp": ("rates-mlp", "rates-averaged-mlp"),
    "digits-cnn": ("rates-cnn-vit", "rates-averaged-others"),
    "digits-vit": ("rates-cnn-vit", "rates-averaged-others"),
    "text-lstm": ("rates-lstm", "rates-averaged-others"),
}
"""Of each other task the records of AdamW as it is, and averaged."""


def beside_adamw(task: str) -> dict[float, list[float]]:
    """Return the gaps of averages under the default limit to AdamW's tuned run, by rate, in what they are judged by."""
    plain, averaged = ELSEWHERE[task]
    tuned = {
        row["seed"]: score(row)
        for row in beside_tuned(row for row in rows_of(plain) if (row["task"], row["optimizer"]) == (task, "adamw"))
        if row["tuned"]
    }
    found: dict[float, list[float]] = {}
    for row in rows_of(averaged):
        if (row["task"], row["method"]) == (task, "safestep"):
            found.setdefault(row["rate"], []).append(math.inf if row["lost"] else score(row) - tuned[row["seed"]])
    return dict(sorted(found.items()))


def averages_elsewhere() -> Iterator[str]:
    """Yield median gaps of averages under the default limit to AdamW's tuned run, by rate, on the other tasks."""
    gaps = {task: beside_adamw(task) for task in ELSEWHERE}
    shared = [rate for rate in gaps["digits-mlp"] if all(rate in of_task for of_task in gaps.values())]
    yield _line(["task", *(f"×{rate:g}" for rate in shared)])
    yield _line(["---"] * (1 + len(shared)))
    for task, of_task in gaps.items():
        judged = SUBJECTS[task].judged
        yield _line([task, *(gap(statistics.median(of_task[rate]), judged) for rate in shared)])


def gap(value: Any, judged: str) -> str:
    """Return a gap in nats, or in points of accuracy."""
    if value is None:
        return "–"
    number = float(value)
    told = f"{number:+.3f}" if judged == "loss" else f"{100 * number:+.1f}"
    return {"+inf": "lost"}.get(told, told)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def rates() -> Iterator[str]:
    """Yield the share of good runs from the tuned rate up, and the worst gap there, by task, optimizer and method.

    At the end the share of safestep, and the largest of a clipping rule, beside the run that is best in hindsight.
    """
    rows = summary("rates")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cases: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        cases.setdefault((row["task"], row["optimizer"]), {})[row["method"]] = row
    yield _line(["task, optimizer", *methods, "hindsight: safestep", "best rule"])
    yield _line(["---"] * (3 + len(methods)))
    for case in sorted(cases, key=_in_order):
        by = cases[case]
        cells = [
            f"{_share(by[method]['above'])}, {gap(by[method]['worst'], by[method]['judged'])}" for method in methods
        ]
        rule = max(by[method]["hindsight"] for method in methods if method not in {"plain", "safestep"})
        yield _line([", ".join(case), *cells, _share(by["safestep"]["hindsight"]), _share(rule)])


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}".replace("%", " %")


FIXED = "safestep-fixed"


def fixed() -> Iterator[str]:
    """Yield by task and optimizer what the default limit comes to with a target that stays, and with one that follows.

    From the tuned rate up: the share of good runs, the worst gap, and the mean gap of rates from ×100 on.
    """
    yield _line(["task, optimizer", *(f"{what}: {way}" for what in WHATS for way in ("fixed", "follows"))])
    yield _line(["---"] * (1 + 2 * len(WHATS)))
    ways = both_ways()
    for pair in sorted((pair for pair, both in ways.items() if len(both) > 1), key=_in_order):
        judged = SUBJECTS[pair[0]].judged
        told = [
            (_share(one["good"]), gap(one["worst"], judged), gap(one["beyond"], judged)) for one in ways[pair].values()
        ]
        yield _line([", ".join(pair), *(cell for cells in zip(*told, strict=True) for cell in cells)])


WHATS = ("good", "worst", "mean from ×100")


def both_ways() -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """Return of each pair of task and optimizer, fixed and following: good, worst, and the mean gap from ×100 on."""
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for study, method in (("rates-fixed", FIXED), ("rates", "safestep")):
        groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for name in STUDIES[study]:
            for row in on_the_grid(rows_of(name), method):
                if row["method"] == method and row["bold"]:
                    groups.setdefault((row["task"], row["optimizer"]), []).append(row)
        for pair, rows in groups.items():
            found.setdefault(pair, {})[method] = {
                "good": statistics.fmean(row["excess"] <= 1.0 for row in rows),
                "worst": max(row["gap"] for row in rows),
                "beyond": statistics.fmean(row["gap"] for row in rows if row["rate"] > 10.0),
            }
    return found


def _in_order(pair: tuple[str, str]) -> list[int]:
    return [list(names).index(name) for names, name in zip((SUBJECTS, OPTIMIZERS), pair, strict=True)]


def by_rate(study: str) -> Iterator[str]:
    """Yield the median gap and the worst one of every method by rate, of runs with warm-up and cosine."""
    rows = [row for name in STUDIES[study] for row in on_the_grid(rows_of(name))]
    shared = sorted({row["rate"] for row in rows})
    yield _line(["method", *(f"×{rate:g}" for rate in shared)])
    yield _line(["---"] * (1 + len(shared)))
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for rate in shared:
            own = [row for row in rows if (row["method"], row["rate"]) == (method, rate)]
            judged, gaps = own[0]["judged"], [row["gap"] for row in own]
            cells.append(f"{gap(statistics.median(gaps), judged)}, {gap(max(gaps), judged)}")
        yield _line([method, *cells])


FAR = 10.0
"""In units of what is allowed: a run that far behind has failed."""


def in_short() -> Iterator[str]:
    """Yield of each method with a rate its shares from the tuned rate up, over all pairs of task and optimizer alike.

    Of the runs that are good, and of those that are far behind or lost: up to ten times the first guess, from a hundred
    times on, and all; in how many pairs its worst gap is the least of all; and the time of a step.
    """
    rows = summary("rates")
    shares = [f"{place}: {what}" for place in ("to ×10", "from ×100", "all") for what in ("good", "far")]
    yield _line(["method", *shares, "best worst run", "time of a step"])
    yield _line(["---"] * 9)
    pairs = list(dict.fromkeys((row["task"], row["optimizer"]) for row in rows))
    least = [min((row for row in rows if (row["task"], row["optimizer"]) == pair), key=_worst) for pair in pairs]
    runs = [row for name in STUDIES["rates"] for row in on_the_grid(rows_of(name)) if row["bold"]]
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in runs if row["method"] == method]
        places = [[row for row in own if row["rate"] <= 10.0], [row for row in own if row["rate"] > 10.0], own]
        cells = [
            _share(statistics.fmean(map(statistics.fmean, by_pair)))
            for place in places
            for by_pair in (
                _by_pair(place, lambda row: row["excess"] <= 1.0),
                _by_pair(place, lambda row: row["excess"] > FAR),
            )
        ]
        wins = f"{sum(row['method'] == method for row in least)} of {len(pairs)}"
        time = statistics.median(row["time"] for row in rows if row["method"] == method)
        yield _line([method, *cells, wins, f"{time:.1f}"])


def _by_pair(rows: list[dict[str, Any]], asked: Callable[[dict[str, Any]], bool]) -> list[list[bool]]:
    groups: dict[tuple[str, str], list[bool]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["optimizer"]), []).append(asked(row))
    return list(groups.values())


def on_the_grid(rows: list[dict[str, Any]], method: str = "safestep") -> list[dict[str, Any]]:
    """Return the runs with a cosine at the rates that a method has, beside the tuned plain run."""
    there = [row for row in beside_tuned(rows) if row["schedule"] == "cosine"]
    shared = {row["rate"] for row in there if row["method"] == method}
    return [row for row in there if row["rate"] in shared]


def _worst(row: dict[str, Any]) -> float:
    return float(row["worst"])


def no_rate(study: str = "no-rate") -> Iterator[str]:
    """Yield the median gap of everybody, by task, and when it was as good as the tuned run ended, if ever."""
    rows = summary(study)
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    yield _line(["method", *tasks])
    yield _line(["---"] * (1 + len(tasks)))
    for method in dict.fromkeys(row["method"] for row in rows):
        own = {row["task"]: _with_target(row) for row in rows if row["method"] == method}
        yield _line([method, *(own.get(task, "–") for task in tasks)])


def no_rate_in_short() -> Iterator[str]:
    """Yield on how many tasks everybody is good, by the median run, the worst task in what is allowed, and the time."""
    rows = [row for row in summary("no-rate") if row["method"] != TUNED]
    found = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        gaps = [float(row["median"]) / ALLOWED[row["judged"]] for row in own]
        good = sum(gap <= 1.0 for gap in gaps)
        time = statistics.median(row["time"] for row in own)
        found.append(
            (-good / len(own), max(gaps), [method, f"{good} of {len(own)}", f"{max(gaps):.1f}", f"{time:.1f}"])
        )
    yield _line(["method", "good on", "worst task", "time of a step"])
    yield _line(["---"] * 4)
    for _, _, cells in sorted(found):
        yield _line(cells)


def _with_target(row: dict[str, Any]) -> str:
    reached = f", {_share(row['target'])}" if row["target"] is not None else ""
    return gap(row["median"], row["judged"]) + reached


def spikes(study: str = "spikes") -> Iterator[str]:
    """Yield of how many runs of all tasks the loss came back, and the worst median gap of a task, by disturbance."""
    rows = summary(study)
    wrongs = list(dict.fromkeys(row["wrong"] for row in rows))
    yield _line(["method", *wrongs])
    yield _line(["---"] * (1 + len(wrongs)))
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for wrong in wrongs:
            own = [row for row in rows if (row["method"], row["wrong"]) == (method, wrong)]
            runs, back = sum(row["runs"] for row in own), sum(row["recovered"] * row["runs"] for row in own)
            worst = max(own, key=lambda row: float(row["median"]))
            cells.append(f"{back:.0f} of {runs}, {gap(worst['median'], worst['judged'])}")
        yield _line([method, *cells])


TABLES = {
    "in-short": in_short,
    "rates": rates,
    "fixed": fixed,
    "long": partial(by_rate, "rates-long"),
    "larger": partial(by_rate, "rates-larger"),
    "averages": averages,
    "averages-elsewhere": averages_elsewhere,
    "no-rate-in-short": no_rate_in_short,
    "no-rate": no_rate,
    "no-rate-long": partial(no_rate, "no-rate-long"),
    "no-rate-larger": partial(no_rate, "no-rate-larger"),
    "spikes": spikes,
    "spikes-text": partial(spikes, "spikes-text"),
}

if __name__ == "__main__":
    for table in TABLES.values():
        print(*table(), sep="\n")
        print()
