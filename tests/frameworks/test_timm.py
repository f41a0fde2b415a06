"""timm: its models, optimizers, scheduler, scaler, clipping and averages, in the order of its training script."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("timm", reason="timm is not installed: make integrations")

import timm.optim
import timm.scheduler
import timm.utils
import torch
from torch.nn import functional as F

import safestep
from frameworks.task import CLASSES, STEPS, plain
from frameworks.witness import EXACT, ROUGH, SLACK, Witness, assert_kept, assert_same_weights

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

TARGET = 0.3
LOOPS: dict[str, dict[str, Any]] = {
    "float32": {},
    "accumulated": {"every": 2},
    "warm-up": {"warm": 3},
    "clipped": {"clip": 0.1},
    "bfloat16": {"dtype": torch.bfloat16},
    "ResNet": {"name": "test_resnet"},
}


def built(name: str) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=CLASSES, **({"img_size": 16, "patch_size": 8} if "vit" in name else {}))


class Run:
    """What `train.py` of timm makes, and a guard."""

    def __init__(
        self,
        policy: safestep.Policy | None,
        *,
        name: str = "test_vit",
        every: int = 1,
        warm: int = 0,
        clip: float | None = None,
        dtype: torch.dtype = torch.float32,
        audited: bool = False,
    ) -> None:
        self.model, self.every, self.clip, self.dtype, self.count = built(name), every, clip, dtype, 0
        self.optimizer = timm.optim.create_optimizer_v2(self.model, opt="adamw", lr=0.1, weight_decay=0.05)
        self.guard = self.audit = None
        if policy is not None:
            self.guard = safestep.attach(self.model, self.optimizer, policy=policy, radius=EXACT)
            self.audit = self.guard.audit(1.0) if audited else None
        self.witness = Witness(self.model, partial(built, name), plain, look=1e-3).watch(self.optimizer)
        self.average = timm.utils.ModelEmaV3(self.model, decay=0.9)
        self.scaler = timm.utils.NativeScaler(device="cpu")
        self.schedule = timm.scheduler.CosineLRScheduler(
            self.optimizer, t_initial=2 * STEPS, warmup_t=warm, warmup_lr_init=0.0, t_in_epochs=False
        )

    def train(self, steps: int = STEPS) -> Run:
        for _ in range(steps * self.every):
            chance = torch.Generator().manual_seed(self.count)
            images = torch.randn(4, 3, 16, 16, generator=chance)
            labels = torch.randint(0, CLASSES, (4,), generator=chance)
            with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
                loss = F.cross_entropy(self.model(images), labels) / self.every
            self.count += 1
            due = self.count % self.every == 0
            self.scaler(loss, self.optimizer, self.clip, parameters=self.model.parameters(), need_update=due)
            if due:
                self.optimizer.zero_grad()
                self.average.update(self.model, step=self.count)
                self.schedule.step_update(self.count // self.every)
        return self

    def parts(self) -> dict[str, Any]:
        named = {"model": self.model, "optimizer": self.optimizer, "average": self.average, "scaler": self.scaler}
        return named | {"schedule": self.schedule} | ({} if self.guard is None else {"guard": self.guard})


@pytest.mark.parametrize("policy", [safestep.Watch(), safestep.Cap(1e6)], ids=str)
@pytest.mark.parametrize("loop", LOOPS)
def test_inside_training_is_bit_for_bit_what_it_is_without_a_guard(loop: str, policy: safestep.Policy) -> None:
    bare, guarded = (Run(p, **LOOPS[loop]).train() for p in (None, policy))
    assert_same_weights(guarded.model, bare.model)
    assert_same_weights(guarded.average, bare.average)


@pytest.mark.parametrize("loop", LOOPS)
def test_no_step_goes_beyond_the_target_and_the_records_count_the_steps(loop: str) -> None:
    run = Run(safestep.Cap(TARGET), audited=True, **LOOPS[loop]).train()
    rough = ROUGH if "dtype" in LOOPS[loop] else SLACK
    assert_kept(run.guard, run.audit, run.witness, TARGET, (1, 2, 5), rough=rough)
    assert len(run.guard.history) == STEPS


@pytest.mark.parametrize("loop", LOOPS)
def test_a_resumed_run_goes_on_bit_for_bit_with_caps_acting(loop: str, tmp_path: Path) -> None:
    whole, begun, resumed = (Run(safestep.Cap(TARGET), **LOOPS[loop]) for _ in range(3))
    whole.train()
    begun.train(4)
    torch.save({name: part.state_dict() for name, part in begun.parts().items()}, tmp_path / "all.pt")
    for name, state in torch.load(tmp_path / "all.pt", weights_only=True).items():
        resumed.parts()[name].load_state_dict(state)
    resumed.count = begun.count
    resumed.train(4)
    assert_same_weights(resumed.model, whole.model)
    assert_same_weights(resumed.average, whole.average)
    rows = [report.row() for report in resumed.guard.history]
    assert rows == [report.row() for report in whole.guard.history][4:]
    assert sum(row["status"] == "capped" for row in rows) >= 2
