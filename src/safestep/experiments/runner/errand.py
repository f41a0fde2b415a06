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


def _here() -> dict[str, str]:
    return {"safestep": __version__, **environment()}


class UnwantedError(SafestepError):
    """Nobody waits for this run any more; nobody is there to read this."""


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
    environment: dict[str, str] = field(default_factory=_here)

    def carry_out(self, wanted: Callable[[], bool] = lambda: True) -> Outcome:
        """Carry it out in this process.

        Args:
            wanted: tells whether somebody still waits for it; asked before each record.

        Raises:
            SafestepError: if this machine has other versions than the one that asks, or nobody waits any more.
        """
        _compare(self.environment, _here())
        records: list[Record] = []
        with _ALONE, one_thread():
            going = self.experiment.execute(self.settings, self.run)
            while wanted():
                try:
                    records.append(next(going))
                except StopIteration as end:
                    return Outcome(records, end.value)
        raise UnwantedError(f"{self.run.label}, seed {self.run.seed}: nobody waits for it any more")


@dataclass(frozen=True)
class Outcome:
    """What comes home."""

    records: list[Record]
    row: Row


def _compare(there: dict[str, str], here: dict[str, str]) -> None:
    """Refuse to mix numbers of different versions in one table, whose page names one of each."""
    if differ := [name for name in {**there, **here} if there.get(name) != here.get(name)]:
        seen = ", ".join(
            f"{name} {here.get(name, '(none)')} (asked for: {there.get(name, '(none)')})" for name in differ
        )
        raise SafestepError(
            f"the worker on {socket.gethostname()} has {seen}: the numbers of one run directory come from machines "
            "with the same versions. Install them there, or start the command on a machine like that one"
        )
