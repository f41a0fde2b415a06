"""One run sent to another machine (`Errand`), and the row and records that come back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from safestep._torch.threads import one_thread
from safestep._version import __version__
from safestep.errors import SafestepError
from safestep.experiments.runner.environment import environment
from safestep.experiments.runner.experiment import Experiment, Record, Row, Run
from safestep.experiments.runner.settings import Settings

_ALONE = threading.Lock()
"""Runs seed the generators of their process, so that it can carry out one at a time, however many threads it has."""


def _versions() -> dict[str, str]:
    return {"safestep": __version__, **environment()}


class UnwantedError(SafestepError):
    """Nobody waits for this run any more; nobody is there to read this."""


@dataclass(frozen=True)
class Outcome:
    """What comes home of a run."""

    records: list[Record]
    row: Row


@dataclass(frozen=True)
class Errand:
    """A run, with all that is needed to carry it out elsewhere.

    Attributes:
        experiment: whose run it is.
        settings: of the run.
        run: the run.
        environment: of the machine that asks for it.
    """

    experiment: Experiment[Any]
    settings: Settings
    run: Run
    environment: dict[str, str] = field(default_factory=_versions)

    def carry_out(self, wanted: Callable[[], bool] = lambda: True) -> Outcome:
        """Carry it out in this process.

        Args:
            wanted: tells whether somebody still waits for it; asked before each record.

        Raises:
            SafestepError: if this machine has other versions than the one that asks, or nobody waits any more.
        """
        self._require_same_versions()
        records: list[Record] = []
        with _ALONE, one_thread():
            steps = self.experiment.execute(self.settings, self.run)
            while wanted():
                try:
                    records.append(next(steps))
                except StopIteration as end:
                    return Outcome(records, end.value)
        raise UnwantedError(f"{self.run.label}, seed {self.run.seed}: nobody waits for it any more")

    def _require_same_versions(self) -> None:
        """Refuse to mix numbers of different versions in one table, whose page names one of each."""
        asked, here = self.environment, _versions()
        if differ := [name for name in here if asked.get(name) != here[name]]:
            versions = ", ".join(f"{name} {here[name]} (asked for: {asked.get(name, '(none)')})" for name in differ)
            raise SafestepError(
                f"the worker on {socket.gethostname()} has {versions}: the numbers of one run directory come from "
                "machines with the same versions. Install them there, or start the command on a machine like that one"
            )
