"""Accelerate: `prepare`, accumulation, clipping, mixed precision, schedules, `save_state`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed: make integrations")

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import safestep
from frameworks.task import STEPS, Classifier, loader
from frameworks.witness import EXACT, ROUGH, SLACK, Batch, Witness, assert_kept, assert_same_weights

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

TARGET = 0.3
LOOPS: dict[str, dict[str, Any]] = {
    "float32": {},
    "accumulated": {"every": 2},
    "warm-up": {"warm": 3},
    "bfloat16": {"precision": "bf16"},
    "bfloat16, loss in the forward": {"precision": "bf16", "inside": True},
    "all of it": {"precision": "bf16", "inside": True, "every": 2, "warm": 3},
}


class WithLoss(Classifier):
    """As many Hugging Face models: the loss is part of the forward."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        z = super().forward(x)
        return z if y is None else {"loss": F.cross_entropy(z.float(), y), "logits": z}


def rows(function: Any, batch: Batch) -> Tensor:
    return function(batch[0][0])


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Accelerate keeps its settings for the process."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


class Run:
    """A training loop as Accelerate's documentation writes it, the guard attached before or after `prepare`."""

    def __init__(
        self,
        policy: safestep.Policy | None,
        *,
        late: bool = False,
        precision: str = "no",
        inside: bool = False,
        every: int = 1,
        warm: int = 0,
        audited: bool = False,
    ) -> None:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        accelerate.state.GradientState._reset_state()
        self.all = accelerate.Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=every)
        self.inside, self.guard, self.audit = inside, None, None
        model = WithLoss()
        inner = torch.optim.AdamW(model.parameters(), lr=0.5)
        scheduler = torch.optim.lr_scheduler.LambdaLR(inner, lambda step: min(1.0, step / warm) if warm else 1.0)
        if not late:
            self._attach(policy, audited, model, inner)
        parts = self.all.prepare(model, inner, loader(), scheduler)
        self.model, self.optimizer, self.loader, self.scheduler = parts
        if late:
            self._attach(policy, audited, self.model, self.optimizer)
        self.witness = Witness(model, WithLoss, rows).watch(inner)
        if self.guard is not None:
            self.all.register_for_checkpointing(self.guard)

    def _attach(self, policy: safestep.Policy | None, audited: bool, model: nn.Module, optimizer: Any) -> None:
        if policy is not None:
            self.guard = safestep.attach(model, optimizer, policy=policy, radius=EXACT)
            self.audit = self.guard.audit(1.0) if audited else None

    def epochs(self, count: int) -> Run:
        for _ in range(count):
            for x, y in self.loader:
                with self.all.accumulate(self.model):
                    output = self.model(x, y) if self.inside else self.model(x)
                    loss = output["loss"] if self.inside else F.cross_entropy(output, y)
                    self.all.backward(loss)
                    if self.all.sync_gradients:
                        self.all.clip_grad_norm_(self.model.parameters(), 1.0)
                    self.optimizer.step()
                    self.scheduler.step()
                    self.optimizer.zero_grad()
        return self


@pytest.mark.parametrize("policy", [safestep.Watch(), safestep.Cap(1e6)], ids=str)
@pytest.mark.parametrize("loop", LOOPS)
def test_inside_training_is_bit_for_bit_what_it_is_without_a_guard(loop: str, policy: safestep.Policy) -> None:
    plain, guarded = (Run(p, **LOOPS[loop]).epochs(1) for p in (None, policy))
    assert_same_weights(guarded.model, plain.model)
    assert {str(report.status) for report in guarded.guard.history} <= {"watched", "inside", "still"}


@pytest.mark.parametrize("late", [False, True], ids=["attached first", "attached after prepare"])
@pytest.mark.parametrize("loop", LOOPS)
def test_no_step_goes_beyond_the_target_and_the_records_count_the_steps(loop: str, late: bool) -> None:
    run = Run(safestep.Cap(TARGET), late=late, audited=True, **LOOPS[loop]).epochs(1)
    rough = ROUGH if "precision" in LOOPS[loop] else SLACK
    assert_kept(run.guard, run.audit, run.witness, TARGET, (1, 2, 3), rough=rough)
    assert len(run.guard.history) == STEPS / LOOPS[loop].get("every", 1)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_resumed_run_goes_on_bit_for_bit_with_caps_acting(loop: str, tmp_path: Path) -> None:
    whole = Run(safestep.Cap(TARGET), **LOOPS[loop]).epochs(2)
    Run(safestep.Cap(TARGET), **LOOPS[loop]).epochs(1).all.save_state(str(tmp_path))
    resumed = Run(safestep.Cap(TARGET), **LOOPS[loop])
    resumed.all.load_state(str(tmp_path))
    resumed.epochs(1)
    assert_same_weights(resumed.model, whole.model)
    records = [report.row() for report in whole.guard.history]
    assert [report.row() for report in resumed.guard.history] == records[len(records) // 2 :]
    assert sum(str(report.status) == "capped" for report in resumed.guard.history) >= 2
