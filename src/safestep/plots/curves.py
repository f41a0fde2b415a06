"""Curves over epochs, one per label, as median and quartiles over seeds: what the figures are drawn from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safestep.records.report import number

_IDENTITY = frozenset({"kind", "label", "optimizer", "policy", "base_lr", "seed", "epoch", "diverged"})


@dataclass(frozen=True)
class Band:
    """A quantity per epoch over seeds: its median, its quartiles and its maximum, all equal for one seed.

    Attributes:
        median: the middle value of each epoch.
        low: the first quartile of each epoch.
        high: the third quartile of each epoch.
        top: the largest value of each epoch, for what is said of every seed.
    """

    median: list[float]
    low: list[float]
    high: list[float]
    top: list[float]


@dataclass(frozen=True)
class Curve:
    """One labelled run, over all its seeds.

    Attributes:
        label: its name in tables and pictures, such as "capped 0.5".
        policy: "fixed", "cap" or "pin".
        base_lr: the learning rate given to the optimizer; None where the policy needs none.
        seeds: over how many seeds the bands are taken.
        diverged: whether the run diverged in any seed.
        epochs: the epochs, from 1, rising.
        columns: a band per quantity, by name, as long as ``epochs``.
    """

    label: str
    policy: str
    base_lr: float | None
    seeds: int
    diverged: bool
    epochs: list[int]
    columns: Mapping[str, Band]


def curves_of(records: Iterable[Mapping[str, Any]]) -> list[Curve]:
    """Gather the epoch lines of a records.jsonl into curves.

    Args:
        records: parsed lines; those of another kind than "epoch" are passed over. Where a label, seed and epoch
            comes twice (a run that was interrupted and done again) the later line counts.

    Returns:
        One curve per label, in the order of first appearance. A seed that lacks an epoch is left out there.

    Example:
        >>> line = {"kind": "epoch", "label": "pin", "policy": "pin", "base_lr": None, "epoch": 1, "diverged": False}
        >>> [curve] = curves_of([{**line, "seed": seed, "test_acc": seed / 10} for seed in range(5)])
        >>> curve.seeds, curve.columns["test_acc"]
        (5, Band(median=[0.2], low=[0.1], high=[0.3], top=[0.4]))
    """
    by_label: dict[str, dict[tuple[int, Any], Mapping[str, Any]]] = {}
    for record in records:
        if record.get("kind") == "epoch":
            by_label.setdefault(record["label"], {})[int(record["epoch"]), record["seed"]] = record
    return [_curve(label, lines) for label, lines in by_label.items()]


def quantile(values: Sequence[float], q: float) -> float:
    """Return the q-quantile by linear interpolation; nan and inf count as larger than every number.

    Example:
        >>> quantile([3.0, 1.0, 2.0, math.nan], 0.5), quantile([1.0, math.inf, math.inf], 0.5)
        (2.5, inf)
    """
    if len(values) == 1:
        return values[0]
    ranked = sorted(math.inf if math.isnan(value) else value for value in values)
    place = q * (len(ranked) - 1)
    below = ranked[math.floor(place)]
    above = ranked[math.ceil(place)]
    # Equal neighbours first: inf - inf would be nan.
    return below if below == above else below + (place - math.floor(place)) * (above - below)


def _curve(label: str, lines: Mapping[tuple[int, Any], Mapping[str, Any]]) -> Curve:
    records = list(lines.values())
    epochs = sorted({epoch for epoch, _ in lines})
    names = [name for name in records[0] if name not in _IDENTITY]
    columns = {}
    for name in names:
        by_epoch: dict[int, list[float]] = {epoch: [] for epoch in epochs}
        for (epoch, _), record in lines.items():
            if name in record:
                by_epoch[epoch].append(number(record[name]))
        seen = [values or [math.nan] for values in by_epoch.values()]
        columns[name] = Band(*([quantile(values, q) for values in seen] for q in (0.5, 0.25, 0.75, 1.0)))
    base_lr = records[0].get("base_lr")
    return Curve(
        label=label,
        policy=records[0]["policy"],
        base_lr=None if base_lr is None else number(base_lr),
        seeds=len({seed for _, seed in lines}),
        diverged=any(record.get("diverged", False) for record in records),
        epochs=epochs,
        columns=columns,
    )
