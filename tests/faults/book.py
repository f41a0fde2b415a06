"""Keeps book of a run, apart from the guard: which steps there were, what became of them, and holds the log to it."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from faults.forecast import Forecast
from faults.schedule import Setting

ALLOWED = {
    "cap": {"inside", "capped", "unbounded"},
    "cap-small": {"inside", "capped", "unbounded"},
    "pin": {"inside", "pinned", "unbounded"},
    "throttle": {"inside", "throttled", "held", "unbounded"},
    "watch": {"watched"},
}
TARGETS = {"cap": 1.0, "cap-small": 0.1, "pin": 0.1}
_PRECISION = 1e-3
"""Of an exact r in float32."""
PATIENCE = 3
"""Undone steps in a row after which a poisoned optimizer is an error, as the documentation says."""


class Broken(AssertionError):
    """What happened is not what had to happen."""


def ensure(true: object, text: str) -> None:
    if not true:
        raise Broken(text)


class Book:
    """The records that must be in the log, and what the parameters must be after each.

    A life is what lies between two kills; in each, the log must hold one line for each expected record, in order.

    Attributes:
        step: the number of the next record.
        undone: undone steps in a row.
        owed: whether a `PoisonedOptimizerError` has to come that has not come yet.
        statuses: how many records of each kind were found.
    """

    def __init__(self, setting: Setting, log: Path) -> None:
        self._setting, self._log = setting, log
        self.step = self.undone = 0
        self.owed = False
        self.statuses: Counter[str] = Counter()
        self.measured = 0  # records whose r was held against the true one
        self.again = 0  # steps that were repeated after a kill, and found to be the same
        self._expected: list[tuple[int, int, Forecast]] = []
        self._waiting: Forecast | None = None
        self._known: dict[int, str] = {}
        self._read = self._tears = 0  # whole lines before this life; times that a line was cut short
        self._saved = (0, 0)

    # -- while the run goes on ----------------------------------------------------------------------------------------

    def write(self, position: int, forecast: Forecast) -> None:
        """A step was taken at this position of the schedule."""
        if forecast.late:
            self._waiting = forecast
        if not forecast.kind:
            return
        self._expected.append((position, self.step, forecast))
        self.step += 1
        if forecast.kind == "undone":
            self.undone += 1
            self.owed = self.owed or (self.undone >= PATIENCE and forecast.poisoned)
        elif forecast.kind in ("applied", "nonfinite"):
            self.undone = 0

    def strike(self) -> None:
        """The latest step was not judged after all: an error of an earlier one came up first, and it was undone."""
        _, self.step, forecast = self._expected.pop()
        self.undone -= forecast.kind == "undone"
        self._waiting = None

    def poisoned(self) -> None:
        """A `PoisonedOptimizerError` came."""
        ensure(self.owed, f"PoisonedOptimizerError after {self.undone} undone steps in a row")
        self.owed = False

    @property
    def waiting(self) -> bool:
        """Whether the guard has not yet acted on a step of which some optimizers were missing."""
        return self._waiting is not None

    def cut(self) -> None:
        """The run was killed before the last of the optimizers stepped."""
        self._waiting = self._expected[-1][2] if self._expected else None

    def arrived(self, parameters: list[torch.Tensor]) -> None:
        """The guard has acted on a step of which some optimizers were missing."""
        if self._waiting is not None:
            self._waiting.after, self._waiting = parameters, None

    def save(self) -> None:
        """A checkpoint was taken."""
        self._saved = self.step, self.undone

    # -- the log ------------------------------------------------------------------------------------------------------

    def close(self, *, killed: bool) -> None:
        """Hold the log of a life that has ended against what was expected."""
        lines = self._lines()[self._read :]
        # the last record is written when the next step begins, if it was decided on the device or is incomplete
        last = self._expected[-1][2] if self._expected else None
        unwritten = (last is self._waiting) + ("never" in self._setting.method) if killed and last is not None else 0
        missing = len(self._expected) - len(lines)
        ensure(
            0 <= missing <= unwritten,
            f"{len(lines)} lines where {len(self._expected)} were expected:\n{self._beside(lines)}",
        )
        for line, (position, step, forecast) in zip(lines, self._expected, strict=False):
            row = json.loads(line)
            try:
                self._check(row, step, forecast)
            except Broken as error:
                raise Broken(f"at {position}, {forecast.kind}: {error}\n{line}\n{self._beside(lines)}") from None
            self.statuses[row["status"]] += 1
            if position in self._known:
                ensure(
                    line == self._known[position], f"resumed differs at {position}:\n{self._known[position]}\n{line}"
                )
                self.again += 1
            self._known[position] = line

    def reopen(self, *, since: int | None = None, tear: int = 0) -> None:
        """Begin a new life at the last checkpoint.

        Args:
            since: what was known from this position on holds no more.
            tear: bytes to cut off the log, as a machine that went down would.
        """
        if tear and self._expected and len(self._lines()) > self._read:
            self._tears += 1
            with self._log.open("r+b") as file:
                file.truncate(self._log.stat().st_size - tear)
        self._read = len(self._lines())
        self._expected, self._waiting, self.owed = [], None, False
        self.step, self.undone = self._saved
        if since is not None:
            self._known = {position: row for position, row in self._known.items() if position < since}

    def _lines(self) -> list[str]:
        """Return the whole lines of the log; there must be no others but those that were cut short."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        whole = [line for line in lines if _is_row(line)]
        ensure(len(lines) - len(whole) <= self._tears, f"{len(lines) - len(whole)} lines cannot be read")
        return whole

    def _beside(self, lines: list[str]) -> str:
        rows = [json.loads(line) for line in lines]
        found = [f"{row['step']} {row['status']}" for row in rows]
        wanted = [f"{step} {forecast.kind} at {position}" for position, step, forecast in self._expected]
        return f"found: {found[-6:]}\nwanted: {wanted[-6:]}"

    def _check(self, row: dict[str, Any], step: int, forecast: Forecast) -> None:
        ensure(row["step"] == step, f"record of step {row['step']}, expected {step}")
        wanted = {"undone": {"undone"}, "nonfinite": {"nonfinite"}, "skipped": {"skipped"}, "still": {"still"}}
        allowed = wanted.get(forecast.kind, ALLOWED[self._setting.policy])
        ensure(row["status"] in allowed, f"status {row['status']}, expected one of {sorted(allowed)}")
        ensure(row["lrs"] == forecast.lrs, f"learning rates {row['lrs']}, expected {forecast.lrs}")
        if forecast.kind == "applied":
            p = [end - start for start, end in zip(forecast.start, forecast.end, strict=True)]
            length = math.sqrt(sum(q.double().square().sum().item() for q in p))
            ensure(math.isclose(row["step_length"], length, rel_tol=1e-4), f"length {length} by the twin")
            target = TARGETS.get(self._setting.policy, math.inf)
            ratio = float(row["ratio"])
            known = row["exact"] and not math.isnan(forecast.ratio)
            ensure(not known or math.isclose(ratio, forecast.ratio, rel_tol=_PRECISION), f"true r {forecast.ratio}")
            self.measured += known
            predicted = float(row["predicted_ratio"])
            applied = float(row["applied_ratio"]) if math.isnan(predicted) else row["scale"] * predicted
            ensure(applied <= target * (1 + 1e-3), f"applied beyond the target {target}")
        self._check_place(row["scale"], forecast)

    def _check_place(self, scale: float, forecast: Forecast) -> None:
        if forecast.after is None:
            return
        ensure(scale == 1.0 or self._setting.policy != "watch" or forecast.kind == "skipped", "watched, and scaled")
        for start, end, after in zip(forecast.start, forecast.end, forecast.after, strict=True):
            if forecast.kind in ("undone", "skipped") or scale == 0.0:
                ensure(torch.equal(after, start), "the parameters are not where the step began")
            elif scale == 1.0:
                ensure(torch.equal(after.nan_to_num(), end.nan_to_num()), "the parameters are not where the step ended")
            else:
                wanted = start.double() + scale * (end.double() - start.double())
                room = 4 * torch.finfo(start.dtype).eps * (start.double().abs() + scale * end.double().abs())
                ensure(bool(((after - wanted).abs() <= room).all()), "the parameters are not at start + scale p")


def _is_row(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
