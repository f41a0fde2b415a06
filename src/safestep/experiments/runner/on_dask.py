"""Runs on a Dask cluster that is there already. Its own client and not joblib's: that waits for ever for a dead worker.

Nothing is written anywhere but in the process that asked. When that is gone, interrupted or killed, the scheduler drops
the runs that wait, and those under way end at their next record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from safestep._torch.extras import need
from safestep._version import __version__
from safestep.errors import SafestepError
from safestep.experiments.runner.errand import Errand, ErrandOutcome

_CONNECT_SECONDS = 10.0
_WORKER_SECONDS = 60.0
"""How long the first worker may take to join: a cluster that grows on demand needs a while."""
_CLOSE_SECONDS = 5.0
_TICK = 0.05
_KEPT = "What was finished is kept; the same command continues"


@dataclass(frozen=True)
class Engine:
    """A Dask cluster that carries out runs.

    Attributes:
        name: as the user wrote it.
        address: of its scheduler, ``tcp://HOST:PORT``, or a scheduler file.
    """

    name: str
    address: str

    @classmethod
    def of(cls, text: str) -> Engine | None:
        """Return the engine that a text names; None for ``local``.

        Raises:
            SafestepError: for anything else.
            MissingExtraError: if Dask is not installed.

        Example:
            >>> Engine.of("local"), Engine.of("dask://scheduler:8786").address
            (None, 'tcp://scheduler:8786')
        """
        if text == "local":
            return None
        kind, _, rest = text.partition(":")
        if kind != "dask" or not rest.strip("/"):
            raise SafestepError(f"engine={text}: expected local, dask://HOST:PORT or dask:SCHEDULER_FILE")
        need("distributed", "dask")
        return cls(text, f"tcp:{rest}" if rest.startswith("//") else rest)

    def outcomes(self, errands: Sequence[Errand], jobs: int | None) -> Iterator[ErrandOutcome]:
        """Carry out errands, and yield the outcomes in the order in which they come.

        So many jobs are handed in at a time; with None all of them, so that the cluster sees what it has before it.

        Raises:
            SafestepError: if there is no scheduler or no worker, or it is lost; or workers died of a run.
        """
        distributed = need("distributed", "dask")
        client = _connect(distributed, self.address)
        try:
            waiting = iter(errands)
            handed_in = {_submit(client, errand): errand for errand in islice(waiting, jobs)}
            coming = distributed.as_completed(list(handed_in), loop=client.loop)
            while handed_in:
                _wait(client, coming, self.address)
                future = next(coming)
                outcome = _result(distributed, future, handed_in.pop(future), self.address)
                for errand in islice(waiting, 1):
                    later = _submit(client, errand)
                    handed_in[later] = errand
                    coming.add(later)
                yield outcome
        finally:
            client.close(timeout=_CLOSE_SECONDS)  # which lets go of everything that is not done


def _connect(distributed: Any, address: str) -> Any:
    """Return a client. What is no address, or no scheduler file, is refused before Dask sees it: it would hang."""
    try:
        where = address
        if "://" not in address:
            where = str(json.loads(Path(address).read_text(encoding="utf-8"))["address"])
        parts = urlsplit(where)
        if parts.scheme not in {"tcp", "tls", "ucx", "ws", "wss"} or not parts.hostname or not parts.port:
            raise ValueError(f"{where} is no address: expected tcp://HOST:PORT, or with tls, ucx, ws or wss")
        return distributed.Client(where, timeout=_CONNECT_SECONDS, name="safestep", set_as_default=False)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SafestepError(
            f"no Dask scheduler answers at {address} ({error}): `dask scheduler` starts one, `dask worker` its "
            "workers; without --engine the runs are carried out here"
        ) from None


def _submit(client: Any, errand: Errand) -> Any:
    name = f"{errand.experiment.name} {errand.run.label} {errand.run.seed}"
    # As bytes: what a worker cannot import would end its connection, and the run would go from worker to worker.
    pickled = need("cloudpickle", "dask").dumps(errand)
    return client.submit(_by_value(), pickled, key=f"{name} {uuid4().hex}", pure=False)


def _by_value() -> Callable[[bytes], ErrandOutcome]:
    """Return a function that travels as it is, not by the name of this module, which a worker may not have."""

    def load_and_carry_out(pickled: bytes) -> Any:
        import pickle

        from safestep.experiments.runner.on_dask import carry_out

        return carry_out(pickle.loads(pickled))

    return load_and_carry_out


def carry_out(errand: Errand) -> ErrandOutcome:
    """Carry out an errand in a task of Dask, until it is done or nobody waits for it."""
    worker = need("distributed", "dask").get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state != "cancelled"

    return errand.carry_out(wanted)


def _wait(client: Any, coming: Any, address: str) -> None:
    """Wait for the next outcome, as long as there is a worker to bring it."""
    asked = time.monotonic()
    while not coming.has_ready():
        time.sleep(_TICK)
        if time.monotonic() - asked > _WORKER_SECONDS:
            asked = time.monotonic()
            if not client.scheduler_info()["workers"]:
                raise SafestepError(
                    f"the Dask scheduler at {address} has no worker since {_WORKER_SECONDS:g} s: start some (`dask "
                    f"worker {address} --nthreads 1`). {_KEPT}"
                )


def _result(distributed: Any, future: Any, errand: Errand, address: str) -> ErrandOutcome:
    run = f"{errand.run.label}, seed {errand.run.seed}"
    try:
        outcome: ErrandOutcome = future.result()
    except distributed.KilledWorker:
        raise SafestepError(
            f"the workers that carried out {run} died one after another, perhaps for want of memory: it was given up. "
            f"{_KEPT}"
        ) from None
    except ImportError as error:
        raise SafestepError(
            f"a worker cannot load {run} ({error}): the workers need safestep {__version__} with its extra "
            "'experiments', as it is here"
        ) from None
    except distributed.CancelledError:
        raise SafestepError(f"the Dask scheduler at {address} was lost. {_KEPT}") from None
    future.release()
    return outcome
