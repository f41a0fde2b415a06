"""Runs on an existing Ray cluster, by Ray's own tasks; written by its documentation and not run in the tests.

Nothing is written anywhere but in the process that asked. When that is gone, Ray ends what it asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from safestep._torch.extras import need
from safestep.errors import SafestepError
from safestep.experiments.runner.errand import Errand, Outcome

_RETRIES = 3
"""How often a run is carried out again whose worker died; an error of its own is not repeated."""


def outcomes(address: str, errands: Sequence[Errand], jobs: int | None) -> Iterator[Outcome]:
    """Yield the outcomes in the order in which they come.

    Args:
        address: as ``ray.init`` takes it.
        errands: what to carry out, one CPU each.
        jobs: how many to hand in at a time; None for all of them.

    Raises:
        SafestepError: if no cluster answers, or workers died of a run.
    """
    ray = need("ray", "ray")
    try:
        ray.init(address=address, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise SafestepError(
            f"no Ray cluster answers at {address} ({error}): `ray start --head` starts one; without --engine the runs "
            "are carried out here"
        ) from None
    task, named = ray.remote(num_cpus=1, max_retries=_RETRIES)(Errand.carry_out), {}
    try:
        waiting = iter(errands)
        named = {task.remote(errand): errand for errand in islice(waiting, jobs)}
        while named:
            (done,), _ = ray.wait(list(named), num_returns=1)
            outcome = _result(ray, done, named.pop(done))
            named |= {task.remote(errand): errand for errand in islice(waiting, 1)}
            yield outcome
    finally:
        for reference in named:
            ray.cancel(reference)
        ray.shutdown()


def _result(ray: Any, reference: Any, errand: Errand) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except ray.exceptions.RayError as error:
        raise SafestepError(
            f"{errand.run.label}, seed {errand.run.seed} was given up ({type(error).__name__}: {error}). What was "
            "finished is kept; the same command continues"
        ) from None
    return outcome
