"""A rank that does not come. Runs last: a group that some ranks made and others did not leaves them out of step."""

from __future__ import annotations

import time

import torch
from torch import distributed
from world import Run, cross_entropy, here, raised, warned

import safestep
from safestep import Cap, CurvatureRadius, Ranks, SoftmaxRadius, Watch


def check_a_rank_that_does_not_come_is_told_in_time() -> None:
    for radius in (SoftmaxRadius(), CurvatureRadius()):
        run = Run("data parallel", radius=radius, ranks=Ranks(timeout=5.0)).steps(1)
        cross_entropy(run.model, *run.rows()).backward()
        before = run.weights()
        distributed.barrier()
        if not here():
            began = time.monotonic()
            text = raised(run.optimizer.step)
            assert 4.9 < time.monotonic() - began < 30.0
            assert "could not agree with the others on step 1, after at most 5 s" in text
            assert "another rank stopped, raised an error" in text
            assert all(torch.equal(a, b) for a, b in zip(run.weights(), before, strict=True))
            began = time.monotonic()  # who goes on even so does not wait again
            raised(run.optimizer.step)
            assert time.monotonic() - began < 3.0
        safestep.ranks._groups.clear()
        distributed.barrier()  # training's own group is none the worse


def check_watching_goes_on_without_a_rank() -> None:
    run = Run("sharded", policy=Watch(Cap(0.1)), ranks=Ranks(timeout=5.0)).steps(1)
    cross_entropy(run.model, *run.rows()).backward()
    distributed.barrier()
    if not here():
        with warned("could not agree with the others on step 1"):
            run.optimizer.step()
        assert run.guard.last.status == "unmeasured"
        assert run.guard.last.scale == 1.0
    safestep.ranks._groups.clear()
    distributed.barrier()


def check_a_rank_that_never_came_is_told_in_time() -> None:
    """As when only rank 0 attaches: at the first step the guards do not even come together."""
    for policy in (Cap(0.1), Watch(Cap(0.1))):
        safestep.ranks._groups.clear()
        run = Run("data parallel", policy=policy, ranks=Ranks(timeout=2.0))
        cross_entropy(run.model, *run.rows()).backward()
        before = run.weights()
        distributed.barrier()
        if not here() and policy.writes:
            assert "could not agree with the others on step 0, after at most 2 s" in raised(run.optimizer.step)
            assert all(torch.equal(a, b) for a, b in zip(run.weights(), before, strict=True))
            began = time.monotonic()
            assert "on step 0" in raised(run.optimizer.step)
            assert time.monotonic() - began < 1.5
        elif not here():
            with warned("could not agree with the others on step 0"):
                run.optimizer.step()
            assert run.guard.last.status == "unmeasured"
        distributed.barrier()
    safestep.ranks._groups.clear()
