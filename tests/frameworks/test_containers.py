"""Containers of optimizers, as in torchtitan: an optimizer for each part of a model, stepped one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.nn import functional as F

import safestep
from frameworks.task import STEPS, Classifier, loader, plain
from frameworks.witness import EXACT, Witness, assert_kept, assert_same_weights

TARGET = 0.3


class Run:
    """A container and its guard."""

    def __init__(self, policy: safestep.Policy | None) -> None:
        self.model = Classifier()
        matrices, others = ([p for p in self.model.parameters() if (p.ndim == 2) == flat] for flat in (True, False))
        self.optimizers: list[Any] = [torch.optim.Muon(matrices, lr=0.5), torch.optim.AdamW(others, lr=0.5)]
        self.guard = self.audit = None
        if policy is not None:
            self.guard = safestep.attach(self.model, self.optimizers, policy=policy, radius=EXACT)
            self.audit = self.guard.audit(1.0)
        self.witness = Witness(self.model, Classifier, plain).watch(*self.optimizers)

    def train(self, first: int = 0, last: int = STEPS) -> Run:
        for x, y in list(loader())[first:last]:
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            F.cross_entropy(self.model(x), y).backward()
            for optimizer in self.optimizers:
                optimizer.step()
        return self

    def parts(self) -> dict[str, Any]:
        return {"model": self.model, **{f"optimizer {n}": one for n, one in enumerate(self.optimizers)}}


@pytest.mark.parametrize("policy", [safestep.Watch(), safestep.Cap(1e6)], ids=str)
def test_inside_training_is_bit_for_bit_what_it_is_without_a_guard(policy: safestep.Policy) -> None:
    bare, guarded = (Run(p).train() for p in (None, policy))
    assert_same_weights(guarded.model, bare.model)


def test_no_step_goes_beyond_the_target_and_the_records_count_the_steps() -> None:
    run = Run(safestep.Cap(TARGET)).train()
    assert_kept(run.guard, run.audit, run.witness, TARGET, (0, 1, 3))
    assert len(run.guard.history) == STEPS


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # so says torch of one process
def test_a_resumed_run_goes_on_bit_for_bit_with_caps_acting(tmp_path: Path) -> None:
    whole, begun, resumed = (Run(safestep.Cap(TARGET)) for _ in range(3))
    whole.train()
    begun.train(last=4)
    torch.save({name: part.state_dict() for name, part in begun.parts().items()}, tmp_path / "parts.pt")
    dcp.save({"guard": begun.guard}, checkpoint_id=tmp_path / "guard", no_dist=True)
    for name, state in torch.load(tmp_path / "parts.pt", weights_only=True).items():
        resumed.parts()[name].load_state_dict(state)
    dcp.load({"guard": resumed.guard}, checkpoint_id=tmp_path / "guard", no_dist=True)
    resumed.train(first=4)
    assert_same_weights(resumed.model, whole.model)
    rows = [report.row() for report in resumed.guard.history]
    assert rows == [report.row() for report in whole.guard.history][4:]
    assert sum(row["status"] == "capped" for row in rows) >= 2
