"""Contract 7, what only some forwards show: a resumed guard knows what earlier ones taught the one before it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import safestep
from safestep import Cap, SoftmaxRadius, Status, Watch
from zoo.asserts import assert_identical, assert_same_reports
from zoo.checkpoints import loaded, saved


class Counting(nn.Module):
    """Counts its forwards in a buffer, and may do something at some of them."""

    def __init__(self, at_count: Callable[[Counting, int, Tensor], None]) -> None:
        super().__init__()
        self.hidden, self.head, self.at_count = nn.Linear(4, 6), nn.Linear(6, 3), at_count
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("shift", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.head(torch.tanh(self.hidden(x.clone()) + self.shift))
        self.at_count(self, int(self.count), x)
        self.count += 1
        return logits


def shifts(model: Counting, count: int, x: Tensor) -> None:
    """A buffer that every third forward changes, so that the first of two micro-batches may or may not."""
    if count % 3 == 2:
        model.shift += 2.0


def overwrites(model: Counting, count: int, x: Tensor) -> None:
    """An input that is written to, at first by none."""
    if count == 2:
        x.zero_()


def nothing(model: Counting, count: int, x: Tensor) -> None:
    """Nothing."""


Schedule = tuple[int, ...]
"""How many micro-batches each step has."""
WAYS = {
    "a buffer that changes now and then": (shifts, (2, 2, 2, 2, 2), Cap(0.02)),
    "an input overwritten late": (overwrites, (1, 1, 1, 1), Watch()),
    "several forwards, and then one": (nothing, (1, 2, 1, 1), Cap(0.02)),
}
STOP = 2


def run(model: Counting, optimizer: torch.optim.Optimizer, micro: Schedule, first: int) -> None:
    for index, number in list(enumerate(micro))[first:]:
        optimizer.zero_grad()
        generator = torch.Generator().manual_seed(index)
        for _ in range(number):
            x, y = torch.randn(8, 4, generator=generator), torch.randint(3, (8,), generator=generator)
            cross_entropy(model(x), y).backward()
        optimizer.step()


def begin(at_count, policy, seed=0):
    torch.manual_seed(seed)
    model = Counting(at_count)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return model, optimizer, safestep.attach(model, optimizer, radius=SoftmaxRadius(method="exact"), policy=policy)


@pytest.mark.filterwarnings("ignore::safestep.SafestepWarning")
@pytest.mark.parametrize(("at_count", "micro", "policy"), WAYS.values(), ids=WAYS.keys())
def test_what_earlier_forwards_taught_is_resumed(at_count, micro, policy):
    model, optimizer, guard = begin(at_count, policy)
    run(model, optimizer, micro[:STOP], 0)
    state = loaded(saved({"model": model.state_dict(), "guard": guard.state_dict()}))
    run(model, optimizer, micro, STOP)
    again, other, second = begin(at_count, policy, seed=1)
    again.load_state_dict(state["model"])
    second.load_state_dict(state["guard"])
    run(again, other, micro, STOP)
    assert_identical(dict(again.state_dict()), dict(model.state_dict()))
    assert_same_reports(list(second.history), list(guard.history)[STOP:])
    assert_identical(second.state_dict(), guard.state_dict())
    assert guard.history[0].status is not Status.UNMEASURED
