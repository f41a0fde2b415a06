"""Random faults, each on one rank: whatever comes, the ranks stay together, finite, and able to learn."""

from __future__ import annotations

import random
import warnings

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from world import LONG, Run, adam, alike, batch, cross_entropy, momentum

from safestep import Cap, CurvatureRadius, Pin, PoisonedOptimizerError, SafestepWarning, SoftmaxRadius

SCHEDULES = 4 if not LONG else 100 if distributed.get_world_size() == 2 else 20
STEPS, CLEAN, LAST = 12, 20 if LONG else 10, 10_000
BAD = ("nan in the input", "overflow of the loss")
FAULTS = (*BAD, "no rows", "few rows", "spike", "ignored labels", "state reloaded")
RADII = (SoftmaxRadius(method="exact"), SoftmaxRadius(method="probe"), SoftmaxRadius(), CurvatureRadius())


def struck(fault: str, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss of the rank that a fault strikes."""
    if fault == "overflow of the loss":
        return cross_entropy(model, x, y) * torch.inf
    if fault == "no rows":
        return F.cross_entropy(model(x[:0]), y[:0], reduction="sum")
    inputs = {"nan in the input": x * torch.nan, "spike": 100 * x, "few rows": x[:1]}.get(fault, x)
    labels = {"few rows": y[:1], "ignored labels": torch.where(torch.arange(len(y)) > 0, -100, y)}.get(fault, y)
    return cross_entropy(model, inputs, labels)


def loss_now(run: Run) -> float:
    """Return the loss on the rows of the clean steps, the same on every rank."""
    x, y = batch(LAST)
    with torch.no_grad():
        return F.cross_entropy(run.model(x), y).item()


def go_on(run: Run) -> None:
    """Do what the message of a poisoned optimizer says."""
    run.optimizer.state.clear()


def schedule(seed: int) -> None:
    chance = random.Random(seed)  # the same on every rank
    kind, make = chance.choice(["data parallel", "sharded"]), chance.choice([momentum, adam])
    policy, radius = chance.choice([Cap(0.1), Cap(0.02), Pin(0.02)]), chance.choice(RADII)
    nonfinite = chance.choice(["undo", "skip"])
    run = Run(kind, make, radius=radius, policy=policy, on_nonfinite=nonfinite)
    expected = []
    for _ in range(STEPS):
        fault = chance.choice((*FAULTS, "none", "none"))
        rank = chance.randrange(distributed.get_world_size())
        here = distributed.get_rank() == rank
        if fault == "state reloaded":
            run.guard.load_state_dict(run.guard.state_dict())
        expected.append(fault in BAD)
        try:
            run.step((lambda *given, fault=fault: struck(fault, *given)) if here else None)
        except PoisonedOptimizerError:
            run.index += 1
            go_on(run)
        if expected[-1]:
            assert run.guard.last.status == ("undone" if nonfinite == "undo" else "skipped"), (seed, fault)
        if nonfinite == "undo" and run.guard.last.status == "undone":
            go_on(run)
        assert all(bool(torch.isfinite(weight).all()) for weight in run.weights()), (seed, fault)
    statuses = list(map(str, run.guard.history["status"]))
    assert [status in {"undone", "skipped"} for status in statuses] == expected, (seed, statuses, expected)
    alike((run.guard.history["scale"], statuses, run.guard.history["step"], run.guard.state_dict()["step"]))
    before = loss_now(run)
    for _ in range(CLEAN):
        run.index = LAST  # the same rows each time: clean steps on them lower their loss
        run.step()
    assert loss_now(run) < before or before < 1e-3, (seed, kind, before, loss_now(run))


def check_random_faults_on_one_rank() -> None:
    for seed in range(SCHEDULES):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SafestepWarning)
            schedule(seed)
