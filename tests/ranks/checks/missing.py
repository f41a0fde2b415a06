"""A rank that does not come. Runs last: a group that some ranks made and others did not leaves them out of step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from unittest import mock

import torch
from torch import distributed
from world import PATIENT, Run, cross_entropy, here, raised, warned

import safestep
from safestep import Cap, CurvatureRadius, Ranks, SoftmaxRadius, Watch

WAIT = 1.0
"""Seconds to wait for the rank that does not come. However slow the machine is, it does not: it waits at a barrier."""


def impatient(run: Run) -> None:
    """Let this rank wait no longer; until here a rank that merely lagged was waited for."""
    run.guard._group.peers(0).timeout = WAIT


@contextlib.contextmanager
def asking_nobody() -> Iterator[None]:
    """Fail if a rank asks the others again, or looks for them: it would wait again."""
    asked = AssertionError("asked again")
    with mock.patch.multiple(
        distributed, all_reduce=mock.Mock(side_effect=asked), new_group=mock.Mock(side_effect=asked)
    ):
        yield


def check_a_rank_that_does_not_come_is_told_in_time() -> None:
    for radius in (SoftmaxRadius(), CurvatureRadius()):
        run = Run("data parallel", radius=radius).steps(1)
        cross_entropy(run.model, *run.rows()).backward()
        before = run.weights()
        distributed.barrier()
        if not here():
            impatient(run)
            began = time.monotonic()
            text = raised(run.optimizer.step)
            assert 0.9 * WAIT < time.monotonic() - began < PATIENT.timeout / 2
            assert f"could not agree with the others on step 1, after at most {WAIT:g} s" in text
            assert "another rank stopped, raised an error" in text
            assert all(torch.equal(a, b) for a, b in zip(run.weights(), before, strict=True))
            with asking_nobody():  # who goes on even so does not wait again
                assert "could not agree with the others on step 1" in raised(run.optimizer.step)
        safestep.distributed.ranks._groups.clear()
        distributed.barrier()  # training's own group is none the worse


def check_watching_goes_on_without_a_rank() -> None:
    run = Run("sharded", policy=Watch(Cap(0.1))).steps(1)
    cross_entropy(run.model, *run.rows()).backward()
    distributed.barrier()
    if not here():
        impatient(run)
        with warned("could not agree with the others on step 1"):
            run.optimizer.step()
        assert run.guard.last.status == "unmeasured"
        assert run.guard.last.scale == 1.0
    safestep.distributed.ranks._groups.clear()
    distributed.barrier()


def check_a_rank_that_never_came_is_told_in_time() -> None:
    """As when only rank 0 attaches: at the first step the guards do not even come together."""
    for policy in (Cap(0.1), Watch(Cap(0.1))):
        safestep.distributed.ranks._groups.clear()
        run = Run("data parallel", policy=policy, ranks=Ranks(timeout=WAIT))
        cross_entropy(run.model, *run.rows()).backward()
        before = run.weights()
        distributed.barrier()
        if not here() and policy.writes:
            text = raised(run.optimizer.step)
            assert f"could not agree with the others on step 0, after at most {WAIT:g} s" in text
            assert all(torch.equal(a, b) for a, b in zip(run.weights(), before, strict=True))
            with asking_nobody():
                assert "on step 0" in raised(run.optimizer.step)
        elif not here():
            with warned("could not agree with the others on step 0"):
                run.optimizer.step()
            assert run.guard.last.status == "unmeasured"
        distributed.barrier()
    safestep.distributed.ranks._groups.clear()
