"""Every row of "What works with what", by every method: r is right, or the refusal is the one that the table gives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import safestep
from loops import compiled
from loops.observe import observe
from loops.row import IMPLEMENTATIONS, METHODS, Loop, Row
from loops.table import ROWS, cell, notes, read
from safestep import Cap, Status, Watch
from zoo import LONG
from zoo.asserts import assert_untouched

TABLE = read()
QUICK = {"whole iteration compiled", "compiled step, `fullgraph=True`"}
"""Of the compiled rows, each of which takes a second."""
only_long = pytest.mark.skipif(not LONG, reason="SAFESTEP_LONG=1 runs every combination")


def chosen(row: Row, quick: bool) -> bool:
    """In the quick form each row by two methods and three implementations, and few compiled ones."""
    return LONG or (quick and (row not in compiled.ROWS or row.name in QUICK))


@pytest.fixture(autouse=True)
def nothing_compiled(request):
    yield
    if "compile" in request.node.name or "inductor" in request.node.name:
        torch.compiler.reset()


def check(row: Row, method: str) -> str:
    """Hold what three steps came to against the truth; return how r was measured."""
    seen = observe(row, method)
    if refusal := row.refusal(method):
        assert refusal in seen.error
        assert not seen.left  # refused before any harm
        return seen.way
    assert not seen.error
    reports = [step.report for step in seen.steps if step.report]
    assert len(reports) == row.counted
    assert all(step.moved == (step.report is not None) for step in seen.steps)
    near = row.precision(method)
    if method in row.off:
        assert any(abs(step.truth - 1.0) > near for step in seen.steps)
        return seen.way
    for step in seen.steps:
        if step.report is None:
            continue
        if step.report.status is Status.WATCHED:
            assert step.report.ratio == pytest.approx(step.truth, rel=near)
        elif step.report.status is Status.CAPPED:
            assert step.truth == pytest.approx(1.0, rel=near)
        else:
            assert step.report.status is Status.INSIDE
            assert step.truth <= 1.0 + near
    assert reports[0].status in {Status.CAPPED, Status.WATCHED}
    assert row.type is torch.float32 or not any(report.exact for report in reports)
    return seen.way


@pytest.mark.parametrize(
    ("row", "method"),
    [
        pytest.param(row, method, id=f"{row}-{method}")
        for row in ROWS
        for method in METHODS
        if chosen(row, method == "exact" or (method == "probe" and row not in compiled.ROWS))
    ],
)
def test_a_row_is_what_the_table_says(row, method):
    assert TABLE[row.name][method] == cell(row, method, check(row, method))


def test_the_table_has_these_rows_and_notes():
    """``make tables`` writes it anew."""
    assert {name: cells[""] for name, cells in TABLE.items()} == {row.name: notes(row) for row in ROWS}


@only_long
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("row", compiled.rows("inductor"), ids=str)
def test_inductor_comes_to_the_same(row, method):
    check(row, method)


# -- contract 1 -------------------------------------------------------------------------------------------------------


def untouched(row: Row, implementation: str, method: str) -> None:
    recipe = row.recipe if row.fixed else IMPLEMENTATIONS[implementation]
    plain = Loop(row, recipe)
    row.attached(plain)
    for _ in range(3):
        plain.step()
    alone = plain.everything()
    guarded = Loop(row, recipe)
    # Momentum may go uphill on its batch, a step that the curvature radius holds at any target.
    guard = guarded.attach(method=method, policy=Watch() if method == "curvature" else Cap(1e6))
    for _ in range(3):
        guarded.step()
    assert len(guard.history) >= row.counted  # with smaller steps, more may have a gradient
    assert all(report.scale == 1.0 and not math.isnan(report.ratio) for report in guard.history)
    assert_untouched(guarded.everything(), alone)


SOME = {("SGD for-loop", "exact"), ("AdamW foreach", "tiered"), ("AdamW fused", "probe")}


@pytest.mark.parametrize(
    ("row", "implementation", "method"),
    [
        pytest.param(row, implementation, method, id=f"{row}-{implementation}-{method}")
        for row in ROWS
        for implementation in (("SGD for-loop",) if row.fixed else IMPLEMENTATIONS)
        for method in METHODS
        if not row.refusal(method)
        and chosen(
            row, (implementation, method) in (SOME if row not in compiled.ROWS else {("AdamW foreach", "tiered")})
        )
    ],
)
def test_untouched_when_inside(row, implementation, method):
    if row.type is torch.bfloat16 and implementation == "SGD fused" and "parameters" in row.name:
        pytest.skip(
            "torch's own: its fused SGD leaves uninitialised numbers in momentum of bfloat16, run by run others"
        )
    untouched(row, implementation, method)


@only_long
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("row", compiled.rows("inductor"), ids=str)
def test_untouched_under_inductor(row, method):
    if not row.refusal(method):
        untouched(row, "AdamW foreach", method)


@only_long
def test_untouched_under_inductor_in_short():
    """Model and step compiled to C++: the bits of compiled code, not those of eager code."""
    row = next(row for row in compiled.rows("inductor") if row.name == "compiled model and compiled step")
    untouched(row, "AdamW foreach", "exact")


@pytest.mark.parametrize("first", [True, False])
def test_a_step_post_hook_sees_the_applied_step_if_registered_after(first):
    """Torch runs post-hooks in the order of their registration: one before attach() sees the proposal."""
    model, seen = nn.Linear(4, 3), []
    optimizer = torch.optim.SGD(model.parameters(), lr=100.0)
    look = lambda *_: seen.append(model.weight.detach().clone())  # noqa: E731
    if first:
        optimizer.register_step_post_hook(look)
    guard = safestep.attach(model, optimizer)
    if not first:
        optimizer.register_step_post_hook(look)
    F.cross_entropy(model(torch.randn(5, 4)), torch.randint(3, (5,))).backward()
    optimizer.step()
    assert guard.last.status is Status.CAPPED
    assert torch.equal(seen[0], model.weight) is not first
