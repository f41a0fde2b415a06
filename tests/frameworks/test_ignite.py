"""Ignite: its own supervised trainer, with checkpoints of everything."""

from __future__ import annotations

from pathlib import Path

import pytest

engine = pytest.importorskip("ignite.engine", reason="pytorch-ignite is not installed: make integrations")

import torch
from ignite import handlers
from torch.nn import functional as F

import safestep
from frameworks.task import STEPS, Classifier, loader, plain
from frameworks.witness import EXACT, Witness, assert_kept, assert_same_weights

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

TARGET = 0.3
LOOPS = {"float32": 1, "accumulated": 2}


class Run:
    """A model, its guard and the trainer."""

    def __init__(self, policy: safestep.Policy | None, every: int = 1) -> None:
        self.model = Classifier()
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.5)
        self.guard = self.audit = None
        if policy is not None:
            self.guard = safestep.attach(self.model, optimizer, policy=policy, radius=EXACT)
            self.audit = self.guard.audit(1.0)
        self.witness = Witness(self.model, Classifier, plain).watch(optimizer)
        self.trainer = engine.create_supervised_trainer(
            self.model, optimizer, F.cross_entropy, gradient_accumulation_steps=every
        )
        self.parts = {"model": self.model, "optimizer": optimizer, "trainer": self.trainer}
        if self.guard is not None:
            self.parts["guard"] = self.guard

    def train(self, epochs: int = 1) -> Run:
        self.trainer.run(loader(), max_epochs=epochs)
        return self


@pytest.mark.parametrize("every", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("policy", [safestep.Watch(), safestep.Cap(1e6)], ids=str)
def test_inside_training_is_bit_for_bit_what_it_is_without_a_guard(policy: safestep.Policy, every: int) -> None:
    bare, guarded = (Run(p, every).train() for p in (None, policy))
    assert_same_weights(guarded.model, bare.model)


@pytest.mark.parametrize("every", LOOPS.values(), ids=LOOPS)
def test_no_step_goes_beyond_the_target_and_the_records_count_the_steps(every: int) -> None:
    run = Run(safestep.Cap(TARGET), every).train()
    assert_kept(run.guard, run.audit, run.witness, TARGET, (0, 1, 3))
    assert len(run.guard.history) == STEPS // every


def test_a_resumed_run_goes_on_bit_for_bit_with_caps_acting(tmp_path: Path) -> None:
    whole, begun, resumed = (Run(safestep.Cap(TARGET)) for _ in range(3))
    whole.train(2)
    begun.train()
    handlers.Checkpoint(begun.parts, str(tmp_path))(begun.trainer)
    handlers.Checkpoint.load_objects(resumed.parts, checkpoint=next(tmp_path.glob("*.pt")))
    resumed.train(2)
    assert_same_weights(resumed.model, whole.model)
    assert [r.row() for r in resumed.guard.history] == [r.row() for r in list(whole.guard.history)[STEPS:]]
