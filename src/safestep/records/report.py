"""The record of a step (`StepReport`), of many (`History`), and their file formats.

A file of JSON lines holds one object per step: non-finite numbers are the texts "inf", "-inf" and "nan", flags are
JSON booleans. A CSV file holds one row per step. Every number is dimensionless or in the units of the parameters.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from safestep._torch.extras import need
from safestep.errors import UnknownNameError
from safestep.records.reading import Reading, Status

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step proposed, how far that was, and what became of it.

    Attributes:
        step: index of the step, from 0: every call of ``optimizer.step()`` has one, of several every round.
        status: what the guard did, see `Status`.
        ratio: r of the proposed step, measured; nan where it was not measured.
        scale: the factor s that the step was multiplied by.
        would_scale: the factor the policy stands for; differs from ``scale`` under `Watch`.
        applied_ratio: r of the step as applied, ``s r``; nan where r was not measured.
        target: the r that the policy aims at; nan where it aims at none.
        radius: rho, the length at which r = 1 along this step, in units of the parameters; inf where unbounded,
            nan where r was not measured or nothing moved.
        step_length: ``||p||_2`` of the proposal over all parameters.
        applied_length: ``||s p||_2``.
        lrs: the learning rate of every parameter group, of all optimizers in order; nan where a group has none.
        effective_lrs: the same times ``s``.
        method: how r was measured; ``skip`` where it was predicted instead, which prints as ``predicted``.
        exact: whether r is what its definition says, not an estimate or a quantile.
        message: what the user should know of this step.
        age: steps since r was last measured; 0 if at this one.
        predicted_ratio: what r was taken to be where it was not measured; nan where it was.
        standard_error: of ``ratio``, where it was estimated from a part of the batch's rows; nan where it was not.
        predicted_kl: the mean KL divergence between the predictions before and after the step as applied, to second
            order, in nats: ``s^2 mean Var(J p) / 2``; nan where the radius does not tell it.
        fresh_share: how much of the slope ``g.p`` a fresh batch is expected to find; nan where the radius does not ask.
        extras: what the diagnostics added, by name.
    """

    step: int
    status: Status
    ratio: float
    scale: float
    would_scale: float
    applied_ratio: float
    target: float
    radius: float
    step_length: float
    applied_length: float
    lrs: tuple[float, ...]
    effective_lrs: tuple[float, ...]
    method: str
    exact: bool
    message: str = ""
    age: int = 0
    predicted_ratio: float = math.nan
    standard_error: float = math.nan
    predicted_kl: float = math.nan
    fresh_share: float = math.nan
    extras: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        reading: Reading,
        status: Status,
        length: float,
        scale: float,
        would_scale: float,
        target: float,
        lrs: tuple[float, ...],
    ) -> Self:
        """Return the report of a step of the given length that was multiplied by ``scale``."""
        ratio = math.nan if reading.predicted else reading.ratio
        radius = length / ratio if ratio != 0.0 else math.inf
        return cls(
            step=reading.step,
            status=status,
            ratio=ratio,
            scale=scale,
            would_scale=would_scale,
            applied_ratio=scale * ratio if scale > 0.0 else 0.0,  # 0 times nan would be nan
            target=target,
            radius=radius if length != 0.0 else math.nan,
            step_length=length,
            applied_length=scale * length if scale > 0.0 else 0.0,
            lrs=lrs,
            effective_lrs=tuple(scale * lr for lr in lrs),
            method=reading.method,
            exact=reading.exact,
            message=reading.message,
            age=reading.age,
            predicted_ratio=reading.ratio if reading.predicted else math.nan,
            # the very nan, so that equal reports compare equal
            standard_error=math.nan if math.isnan(reading.standard_error) else reading.standard_error,
            predicted_kl=math.nan if math.isnan(reading.kl) else scale * scale * reading.kl,
            fresh_share=math.nan if math.isnan(reading.fresh_share) else reading.fresh_share,
        )

    @property
    def predicted(self) -> bool:
        """Whether r was predicted in this step, and not measured."""
        return not math.isnan(self.predicted_ratio)

    @property
    def known_ratio(self) -> float:
        """The ratio as far as it is known: r where it was measured, else what it was taken to be."""
        return self.predicted_ratio if self.predicted else self.ratio

    @property
    def effective_lr(self) -> float:
        """The effective learning rate of the first parameter group."""
        return self.effective_lrs[0] if self.effective_lrs else math.nan

    def row(self) -> dict[str, Any]:
        """Return the report as one flat row of plain numbers, texts and flags; what diagnostics added are columns."""
        row = {name: getattr(self, name) for name in COLUMNS}
        return {**self.extras, **row, **{name: kind(row[name]) for name, kind in _KINDS.items()}}

    def __str__(self) -> str:
        """Return one readable line."""
        ratio, applied, radius = self.shown()
        rate = f"effective lr {self.effective_lr:.4g}  " if self.effective_lrs else ""
        text = (
            f"step {self.step}: {self.status}  r {ratio} -> {applied}  "
            f"(scale {self.scale:.4g})  ρ {radius}  ‖p‖ {self.step_length:.4g}  "
            f"{rate}[{self._way()}]"
        )
        return f"{text}  {self.message}".replace("\n", "; ") if self.message else text

    def _way(self) -> str:
        """Return how r came about, to print: a ``skip`` is no skipped step, but one whose r was predicted."""
        way = self.method or "not measured"
        return _SKIP.sub("predicted", way) if self.predicted else way

    def shown(self) -> tuple[str, str, str]:
        """Return r, r as applied and the radius to print; what comes of a prediction begins with ``~``."""
        if not self.predicted:
            return f"{self.ratio:.4g}", f"{self.applied_ratio:.4g}", f"{self.radius:.4g}"
        ratio = self.predicted_ratio
        radius = self.step_length / ratio if ratio != 0.0 else math.inf
        return f"~{ratio:.4g}", f"~{self.scale * ratio if self.scale > 0.0 else 0.0:.4g}", f"~{radius:.4g}"


class History:
    """The last reports of a guard, as columns, text or files.

    Args:
        limit: how many reports are kept; the oldest go first.

    Example:
        >>> history = History(limit=2)
        >>> len(history), history.columns()["ratio"]
        (0, [])
    """

    def __init__(self, limit: int = 10_000) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise ValueError(f"history={limit!r}: expected how many reports to keep, a whole number of at least 0")
        self._reports: deque[StepReport] = deque(maxlen=limit)

    def append(self, report: StepReport) -> None:
        """Add a report."""
        self._reports.append(report)

    def __len__(self) -> int:
        return len(self._reports)

    def __iter__(self) -> Iterator[StepReport]:
        return iter(self._reports)

    @overload
    def __getitem__(self, key: int) -> StepReport: ...
    @overload
    def __getitem__(self, key: slice) -> list[StepReport]: ...
    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    def __getitem__(self, key: int | slice | str) -> StepReport | list[StepReport] | list[Any]:
        """Return a report by position, several by slice, or a column by name."""
        if isinstance(key, str):
            if key in COLUMNS:  # without a row of each step
                kind = _KINDS.get(key)
                values = [getattr(report, key) for report in self._reports]
                return values if kind is None else [kind(value) for value in values]
            columns = self.columns()
            if key not in columns:
                raise UnknownNameError(f"no column {key!r}; there are: {', '.join(columns)}")
            return columns[key]
        return list(self._reports)[key] if isinstance(key, slice) else self._reports[key]

    def columns(self) -> dict[str, list[Any]]:
        """Return every column by name, oldest step first; a diagnostic that was silent at a step has nan there."""
        rows = [report.row() for report in self._reports]
        names = list(dict.fromkeys(name for row in rows for name in row)) or list(COLUMNS)
        return {name: [row.get(name, math.nan) for row in rows] for name in names}

    def to_jsonl(self, path: str | Path) -> Path:
        """Write one JSON object per step and return the path."""
        with Path(path).open("w", encoding="utf-8") as file:
            file.writelines(json_line(report.row()) + "\n" for report in self._reports)
        return Path(path)

    def to_csv(self, path: str | Path) -> Path:
        """Write a CSV file with a header and return the path; lists are joined by spaces."""
        columns = self.columns()
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(map(cell, row) for row in zip(*columns.values(), strict=True))
        return Path(path)

    def to_pandas(self) -> pd.DataFrame:
        """Return a pandas frame, one row a step.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        pandas: Any = need("pandas", "pandas")
        frame: pd.DataFrame = pandas.DataFrame(self.columns())
        return frame

    def __str__(self) -> str:
        """Return a table of the last reports."""
        if not self._reports:
            return "History: no steps yet"
        shown = list(self._reports)[-_SHOWN:]
        head = f"{'step':>7} {'status':<11} {'r':>10} {'applied r':>10} {'scale':>10} {'radius':>10} {'eff. lr':>10}"
        lines = [
            f"{r.step:>7} {r.status:<11} {ratio:>10} {applied:>10} {r.scale:>10.4g} {radius:>10} "
            f"{r.effective_lr:>10.4g}"
            for r in shown
            for ratio, applied, radius in [r.shown()]
        ]
        more = [f"({len(self) - len(shown)} earlier steps not shown)"] if len(self) > len(shown) else []
        return "\n".join([head, *lines, *more])

    def __repr__(self) -> str:
        return f"<History of {len(self)} steps>"


_SHOWN = 20
_SKIP = re.compile(r"(?<![^ ])skip(?![^/])")
"""The word in ``method`` for a prediction, which logs and checkpoints keep."""
COLUMNS = (*(f.name for f in fields(StepReport) if f.name != "extras"), "effective_lr")
"""The columns of every record, in order; those of diagnostics come beside them."""
LATER = frozenset({"predicted_ratio", "standard_error", "predicted_kl", "fresh_share"})
"""Columns that logs of earlier versions do not have."""
_KINDS: dict[str, Callable[[Any], Any]] = {"status": str, "lrs": list, "effective_lrs": list}
"""Columns whose cells are not the attribute as it is."""


def plain(value: Any) -> Any:
    """Return a value with non-finite numbers as the texts "inf", "-inf", "nan", ready for strict JSON.

    Example:
        >>> plain({"radius": math.inf, "exact": True})
        {'radius': 'inf', 'exact': True}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def number(value: Any) -> float:
    """Return a number from a record, where it may be one of the texts "inf", "-inf", "nan", or null."""
    return math.nan if value is None else float(value)


def json_line(row: Mapping[str, Any]) -> str:
    """Return a row as one line of strict JSON."""
    return json.dumps(plain(row), allow_nan=False)


def cell(value: Any) -> Any:
    """Return a value as a cell of a CSV file: lists are joined by spaces, and so are the lines of a text."""
    if isinstance(value, str):
        return " ".join(value.splitlines())
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
