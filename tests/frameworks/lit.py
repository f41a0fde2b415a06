"""A Lightning module as people write it: the guard attached where the optimizers are made, and saved with the rest."""

from __future__ import annotations

from typing import Any

import pytest

lightning = pytest.importorskip("lightning", reason="lightning is not installed: make integrations")

import torch
from torch import Tensor
from torch.nn import functional as F

import safestep
from frameworks.task import Classifier, loader, plain
from frameworks.witness import EXACT, Witness


class Lit(lightning.LightningModule):
    """Automatic optimization, or by hand with an optimizer for each part."""

    def __init__(
        self, policy: safestep.Policy | None = None, *, by_hand: bool = False, audited: bool = False, warm: int = 0
    ) -> None:
        super().__init__()
        self.net, self.policy, self.audited, self.warm = Classifier(), policy, audited, warm
        self.automatic_optimization = not by_hand
        self.guard: safestep.Guard | None = None
        self.saved: dict[str, Any] | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, number: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        if not self.automatic_optimization:
            optimizers = self.optimizers()
            for optimizer in optimizers:
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in optimizers:
                optimizer.step()
        return loss

    def configure_optimizers(self) -> Any:
        if self.automatic_optimization:
            optimizers: list[Any] = [torch.optim.AdamW(self.parameters(), lr=0.5)]
        else:
            body, head = self.net.body.parameters(), self.net.head.parameters()
            optimizers = [torch.optim.SGD(body, lr=20.0, momentum=0.9), torch.optim.Adam(head, lr=0.5)]
        if self.policy is not None:
            self.guard = safestep.attach(self, optimizers, policy=self.policy, radius=EXACT)
            self.audit = self.guard.audit(1.0) if self.audited else None
            if self.saved is not None:
                self.guard.load_state_dict(self.saved)
        self.witness = Witness(self.net, Classifier, plain).watch(*optimizers)
        if not self.warm:
            return optimizers
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizers[0], lambda step: min(1.0, step / self.warm))
        return optimizers, [{"scheduler": schedule, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.guard is not None:
            checkpoint["guard"] = self.guard.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.saved = checkpoint.get("guard")  # no optimizer and no guard yet


def trainer(folder: Any, **options: Any) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(
        **{"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False, "default_root_dir": folder}
        | quiet
        | options
    )


def fit(module: Lit, folder: Any, resume: Any = None, batches: int = 8, **options: Any) -> Any:
    made = trainer(folder, **options)
    made.fit(module, loader(batches), ckpt_path=resume)
    return made
