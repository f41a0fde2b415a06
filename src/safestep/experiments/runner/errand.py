"""One run sent to another machine (`Errand`), and the row and records that come back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from safestep._torch.threads import one_thread
from safestep.errors import SafestepError
from safestep.experiments.runner.environment import versions
from safestep.experiments.runner.experiment import Experiment, Record, Row, Run
from safestep.experiments.runner.settings import Settings

_ALONE = threading.Lock()
"""Runs seed the generators of their process, so that it can carry out one at a time, however many threads it has."""


class UnwantedError(SafestepError):
    """Nobody waits for this run any more; nobody is there to read this."""


@dataclass(frozen=True)
class ErrandOutcome:
    """What comes home of a run."""

    records: list[Record]
    row: Row


@dataclass(frozen=True)
class Errand:
    """A run, with all that is needed to carry it out elsewhere; `versions` are those of the machine that asks."""

    experiment: Experiment[Any]
    settings: Settings
    run: Run
    versions: dict[str, str] = field(default_factory=versions)

    def carry_out(self, wanted: Callable[[], bool] = lambda: True) -> ErrandOutcome:
        """Carry it out in this process.

        Args:
            wanted: tells whether somebody still waits for it; asked before each record.

        Raises:
            SafestepError: if this machine has other versions than the one that asks, whose page names one of each; or
                nobody waits any more.
        """
        here = versions()
        if differ := [name for name in here if self.versions.get(name) != here[name]]:
            found = ", ".join(f"{name} {here[name]} (asked for: {self.versions.get(name)})" for name in differ)
            raise SafestepError(
                f"the worker on {socket.gethostname()} has {found}: the numbers of one run directory come from "
                "machines with the same versions. Install them there, or start the command on a machine like that one"
            )
        records: list[Record] = []
        with _ALONE, one_thread():
            steps = self.experiment.execute(self.settings, self.run)
            while wanted():
                try:
                    records.append(next(steps))
                except StopIteration as end:
                    return ErrandOutcome(records, end.value)
        raise UnwantedError(f"{self.run.label}, seed {self.run.seed}: nobody waits for it any more")
