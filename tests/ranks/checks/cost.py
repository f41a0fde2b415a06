"""What agreement costs: reductions by step, and what is whole in memory."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed
from world import KINDS, LONG, Run, adam, alike, said

from safestep import Cap, CurvatureRadius, SoftmaxRadius, default_limit
from safestep.distributed.consensus import Peers
from safestep.jvp import replay


@contextlib.contextmanager
def counted() -> Iterator[list[int]]:
    """Count the reductions among guards."""
    count, plain = [0], Peers._reduce

    def reduce(*arguments: Any) -> Any:
        count[0] += 1
        return plain(*arguments)

    Peers._reduce = reduce
    try:
        yield count
    finally:
        Peers._reduce = plain


def by_step(run: Run, steps: int) -> list[tuple[str, int]]:
    found = []
    for _ in range(steps):
        with counted() as count:
            run.step()
        found.append((run.guard.last.method.split("/")[0], count[0]))
    return found


def check_one_reduction_a_step_where_every_step_is_measured() -> None:
    for radius in (SoftmaxRadius(method="exact"), SoftmaxRadius(method="probe"), CurvatureRadius()):
        counts = [count for _, count in by_step(Run("data parallel", radius=radius), 5)]
        assert counts == [1] * 5, (radius, counts)


def check_one_on_skipped_steps_and_two_on_measured() -> None:
    run = Run("data parallel", lambda p: torch.optim.SGD(p, lr=1e-3), radius=SoftmaxRadius(), policy=Cap(1.0))
    found = by_step(run, 24)
    assert {count for method, count in found if method == "skip"} == {1}
    assert {count for method, count in found if method != "skip"} == {2}
    assert sum(method == "skip" for method, _ in found) > 12


def check_pinned_steps_have_one() -> None:
    from safestep import Pin

    assert {count for _, count in by_step(Run("data parallel", policy=Pin(0.1)), 4)} == {1}


def check_sampled_steps_of_the_default_limit_have_three() -> None:
    """On the factor of the gradients, on curvature and on spread; the 1st, 2nd, 4th measurement is of whole batches."""
    run = Run("data parallel", radius=default_limit(sample=4), policy=Cap(1.0))
    counts = [count for _, count in by_step(run, 7)]
    assert {counts[step] for step in (2, 4, 5, 6)} == {3}, counts


def check_sharded_steps_that_skip_have_one() -> None:
    run = Run("sharded", lambda p: torch.optim.SGD(p, lr=1e-3), radius=SoftmaxRadius(), policy=Cap(1.0))
    found = by_step(run, 12)
    assert {count for method, count in found if method == "skip"} == {1}
    assert any(method == "skip" for method, _ in found)


def check_nothing_is_whole_beyond_a_unit() -> None:
    """What is gathered to measure with is gone before the next unit gathers."""
    plain, alive, most = replay.gathered_as, weakref.WeakSet(), [0]

    def whole(tensor: Tensor, unit: Tensor) -> Tensor:
        found = plain(tensor, unit)
        if found is not tensor and found.ndim:
            alive.add(found)
            most[0] = max(most[0], sum(one.numel() for one in alive))
        return found

    run = Run("sharded")
    units = [module for module in run.model.modules() if hasattr(module, "reshard")]
    largest = max(sum(p.numel() for p in unit.parameters(recurse=unit is not run.model)) for unit in units)
    replay.gathered_as = whole
    try:
        run.steps(4)
    finally:
        replay.gathered_as = plain
    assert 0 < most[0] <= 2 * largest, (most[0], largest)  # values and directions
    total = sum(p.numel() for p in run.model.parameters())
    assert largest < total / 1.5


def check_all_ranks_make_the_same_plan() -> None:
    for kind in KINDS:
        run = Run(kind, lambda p: torch.optim.Adam(p, lr=2e-3), radius=SoftmaxRadius(), policy=Cap(0.5)).steps(
            40 if LONG else 20
        )
        alike(["skip" in method for method in run.guard.history["method"]])
        alike(run.guard.history["ratio"])
        alike([report.known_ratio for report in run.guard.history])
        assert {"skip/train", "probe/train"} <= set(run.guard.history["method"])


def check_an_audit_on_several_ranks() -> None:
    for kind in KINDS:
        run = Run(kind, adam, policy=Cap(0.05))
        audit = run.guard.audit(0.5)
        with said(kind):
            run.steps(8)
        alike(list(audit.excesses.items()))
        assert audit.count >= 3
        assert audit.worst <= 1 + 1e-3
    assert distributed.is_initialized()
    assert torch.is_grad_enabled()
