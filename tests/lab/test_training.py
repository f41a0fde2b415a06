"""The training loop: its columns against a plain loop, and runs that diverge, stand still or are poisoned."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from safestep import Cap, Pin, SafestepWarning, SoftmaxRadius, Status, Watch, attach
from safestep.lab.models import mlp
from safestep.lab.training import EpochRecord, largest, train

SAMPLES, BATCH, FEATURES, CLASSES = 40, 16, 6, 3
BATCHES = 3


def data(x: torch.Tensor | None = None) -> tuple[DataLoader, DataLoader]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(SAMPLES, FEATURES, generator=generator) if x is None else x
    y = torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
    return DataLoader(TensorDataset(x, y), BATCH, shuffle=True), DataLoader(TensorDataset(x, y), 30)


def trained(policy, lr, epochs=2, optimizer=torch.optim.SGD, loaders=None) -> tuple[list[EpochRecord], object]:
    torch.manual_seed(0)
    model = mlp(FEATURES, 8, CLASSES)
    steps = optimizer(model.parameters(), lr=lr)
    guard = attach(model, steps, radius=SoftmaxRadius(), policy=policy)
    train_loader, test_loader = loaders or data()
    return list(train(model, steps, guard, train_loader, test_loader, epochs, CLASSES)), guard


def test_loss_and_accuracy_are_those_of_a_plain_loop():
    records, _ = trained(Watch(), lr=0.5)
    torch.manual_seed(0)
    model = mlp(FEATURES, 8, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    train_loader, test_loader = data()
    for record in records:
        losses = []
        for x, y in train_loader:
            optimizer.zero_grad()
            each = nn.functional.cross_entropy(model(x), y, reduction="none")
            losses += each.tolist()
            each.mean().backward()
            optimizer.step()
        right = [int(a) for x, y in test_loader for a in model(x).argmax(1) == y]
        assert record.train_loss == pytest.approx(statistics.fmean(losses), rel=1e-5)
        assert record.test_acc == statistics.fmean(right)


@pytest.mark.parametrize("policy", [Watch(), Cap(0.2), Pin(0.5)])
def test_columns_are_taken_from_the_steps_of_their_epoch(policy):
    records, guard = trained(policy, lr=1.0)
    assert [record.epoch for record in records] == [1, 2]
    for record, steps in zip(records, (guard.history[:BATCHES], guard.history[BATCHES:]), strict=True):
        assert len(steps) == BATCHES
        assert record.mean_r == pytest.approx(statistics.fmean(s.scale * s.known_ratio for s in steps))
        assert record.max_r == max(s.scale * s.known_ratio for s in steps)
        assert record.mean_lr == pytest.approx(statistics.fmean(s.scale for s in steps))  # of a rate of 1
        assert record.mean_radius == pytest.approx(statistics.fmean(s.step_length / s.known_ratio for s in steps))
        assert not record.diverged


def test_cap_fraction_is_the_share_of_steps_beyond_the_target():
    records, guard = trained(Cap(0.1), lr=1.0, epochs=4)
    beyond = [step.ratio > 0.1 for step in guard.history]
    assert 0 < sum(beyond) < len(beyond)  # otherwise this test says nothing
    for record in records:
        assert record.cap_fraction == sum(beyond[BATCHES * (record.epoch - 1) : BATCHES * record.epoch]) / BATCHES


def test_a_fixed_rate_caps_nothing_and_a_pin_everything():
    assert {record.cap_fraction for record in trained(Watch(Cap(0.01)), lr=1.0)[0]} == {0.0}
    assert {record.cap_fraction for record in trained(Pin(0.01), lr=1.0)[0]} == {1.0}


@pytest.mark.parametrize("lr", [1e3, 1e20])  # huge but finite losses; losses that are not finite
def test_a_diverging_run_goes_on_to_the_end_and_is_flagged(lr):
    records, _ = trained(Watch(), lr=lr, epochs=4)
    assert [record.epoch for record in records] == [1, 2, 3, 4]
    assert all(record.diverged for record in records)
    assert (lr == 1e20) != math.isfinite(records[-1].train_loss)


class Passes:
    """A loader whose passes differ."""

    def __init__(self, *loaders: DataLoader) -> None:
        self._loaders = iter(loaders)

    def __iter__(self):
        return iter(next(self._loaders))


def spoiled(value: float) -> DataLoader:
    x = torch.zeros(SAMPLES, FEATURES)
    x[0] = value
    return data(x)[0]


def test_divergence_is_remembered():
    """A batch loss above 10 ln(classes) once is divergence, though the loss comes back."""
    train_loader, test_loader = data()
    records, _ = trained(Cap(0.01), lr=0.1, loaders=(Passes(spoiled(1e6), train_loader), test_loader))
    assert [record.diverged for record in records] == [True, True]
    assert records[0].train_loss > 10 * math.log(CLASSES) > 3 * BATCHES * records[1].train_loss


def test_a_poisoned_optimizer_does_not_end_the_run():
    train_loader, test_loader = data()
    passes = Passes(train_loader, spoiled(math.nan), train_loader, train_loader)
    with pytest.warns(SafestepWarning, match="not finite"):
        records, guard = trained(Cap(), 0.01, 4, torch.optim.Adam, (passes, test_loader))
    assert [record.diverged for record in records] == [False, True, True, True]
    assert [step.scale for step in guard.history[-2 * BATCHES :]] == [0.0] * 2 * BATCHES  # it stands still
    assert records[-1].max_r == records[-1].mean_lr == 0.0
    assert records[-1].test_acc == records[-2].test_acc
    assert math.isfinite(records[-1].train_loss)


def test_steps_that_move_nothing_have_no_rate_and_no_radius():
    records, guard = trained(Cap(), lr=0.0)
    assert {report.status for report in guard.history} == {Status.STILL}
    for record in records:
        assert (record.mean_r, record.max_r, record.cap_fraction, record.diverged) == (0.0, 0.0, 0.0, False)
        assert math.isnan(record.mean_lr)
        assert math.isnan(record.mean_radius)


def test_nan_is_larger_than_everything():
    assert largest([1.0, math.inf, 2.0]) == math.inf
    assert math.isnan(largest([math.nan, 1.0]))
    assert math.isnan(largest([1.0, math.nan]))
