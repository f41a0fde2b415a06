"""Where runs are carried out: here, or on a Dask or Ray cluster that is running already (`Engine`)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from safestep._torch.extras import need
from safestep.errors import SafestepError
from safestep.experiments.runner.errand import Errand, Outcome

_EXPECTED = "local, dask://HOST:PORT, dask:SCHEDULER_FILE, ray://HOST:PORT or ray:ADDRESS"
_MODULES = {"dask": "distributed", "ray": "ray"}
"""What each kind of engine needs; its extra has the engine's name."""


@dataclass(frozen=True)
class Engine:
    """An engine that carries out runs on other machines.

    Attributes:
        name: as the user wrote it.
        kind: which library reaches it.
        address: as that library takes it.
    """

    name: str
    kind: str
    address: str

    @classmethod
    def of(cls, text: str) -> Engine | None:
        """Return the engine that a text names; None for ``local``.

        Raises:
            SafestepError: for anything else.
            MissingExtraError: if the library that reaches it is not installed.

        Example:
            >>> Engine.of("local"), Engine.of("dask://scheduler:8786").address
            (None, 'tcp://scheduler:8786')
        """
        kind, colon, rest = text.partition(":")
        if text == "local":
            return None
        if not colon or kind not in _MODULES or not rest.strip("/"):
            raise SafestepError(f"engine={text}: expected {_EXPECTED}")
        need(_MODULES[kind], kind)
        short = {"dask": "tcp:", "ray": "ray:"}[kind] if rest.startswith("//") else ""
        return cls(text, kind, f"{short}{rest}")

    def outcomes(self, errands: Sequence[Errand], jobs: int | None) -> Iterator[Outcome]:
        """Carry out errands, ``jobs`` at a time, or all that the engine has room for; yield what comes home."""
        outcomes: Iterator[Outcome] = importlib.import_module(f"safestep.experiments.runner.on_{self.kind}").outcomes(
            self.address, errands, jobs
        )
        return outcomes
