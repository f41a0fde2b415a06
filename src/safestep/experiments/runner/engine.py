"""Carries out runs: here, in local worker processes, or on a Dask cluster; each record is kept as it comes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from safestep._torch.extras import need
from safestep._torch.threads import one_thread
from safestep.errors import SafestepError
from safestep.experiments.runner.errand import Errand
from safestep.experiments.runner.experiment import Experiment, Row, Run
from safestep.experiments.runner.on_dask import Engine
from safestep.experiments.runner.rundir import append_records
from safestep.experiments.runner.settings import Settings

_START_SECONDS = 4.0
"""About what a process takes to start: it imports torch and scikit-learn."""


def execute(
    experiment: Experiment[Any],
    settings: Settings,
    runs: Sequence[Run],
    path: Path,
    jobs: int | None,
    engine: Engine | None = None,
) -> Iterator[Row]:
    """Execute runs, append their records to those of a run directory, and yield their rows as they finish.

    One job means in this process, more means as many processes of one thread each; None leaves it to the engine. With
    an engine this process alone writes, the records of a run when it is finished: there may be no file that the
    machines share.

    Raises:
        SafestepError: if a process dies, or the engine cannot carry them out.
    """
    if engine is not None:
        for outcome in engine.outcomes([Errand(experiment, settings, run) for run in runs], jobs):
            append_records(path, *outcome.records)
            yield outcome.row
        return
    joblib = need("joblib", "experiments")
    parallel = joblib.Parallel(n_jobs=jobs, backend="loky", batch_size=1, return_as="generator_unordered")
    there = path.absolute()  # the processes may have been started in another working directory
    rows = parallel(joblib.delayed(_execute_one)(experiment, settings, run, there, os.getpid()) for run in runs)
    try:
        while (row := _without_warning(next, rows, None)) is not None:
            yield row
    except BrokenProcessPool:
        raise SafestepError(
            "a process that carried out runs died, perhaps for want of memory. What was finished is kept; "
            "the same command with fewer --jobs continues"
        ) from None
    finally:
        _without_warning(rows.close)


def jobs_for(runs: int, seconds_per_run: float, jobs: int | None) -> int:
    """Return how many runs to execute at a time: at most ``jobs``.

    With -1 it is one per core; with None one per core if they are sooner done than one by one.
    """
    cores: int = need("joblib", "experiments").cpu_count()
    most = max(1, min(runs, cores if jobs in {None, -1} else jobs))
    saved = runs * seconds_per_run * (1 - 1 / most)
    return 1 if jobs is None and saved < _START_SECONDS else most


def _without_warning(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call, without joblib's warning that runs were cancelled: after an error or interrupt that is what is wanted."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ tasks ", UserWarning)
        return call(*arguments)


def _execute_one(experiment: Experiment[Any], settings: Settings, run: Run, path: Path, owner: int) -> Row:
    with one_thread():
        records = experiment.execute(settings, run)
        while True:
            try:
                record = next(records)
            except StopIteration as end:
                row: Row = end.value
                return row
            if owner not in {os.getpid(), os.getppid()}:
                # Who asked is gone, and another may have taken the directory over. No exception: nobody is left to
                # take it, and joblib would start the next run.
                os._exit(1)
            append_records(path, record)
