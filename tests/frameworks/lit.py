"""A Lightning module as people write it, the callback that guards it, and the same guard wired by hand."""

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
from safestep.integrations.lightning import SafestepCallback


class Lit(lightning.LightningModule):
    """Automatic optimization, or by hand with an optimizer for each part."""

    def __init__(
        self,
        policy: safestep.Policy | None = None,
        *,
        by_hand: bool = False,
        audited: bool = False,
        warm: int = 0,
        **attached: Any,
    ) -> None:
        super().__init__()
        self.net, self.audited, self.warm = Classifier(), audited, warm
        self.automatic_optimization = not by_hand
        self.attached = {"policy": policy, "radius": EXACT, **attached}
        self.callbacks = [] if policy is None else [SafestepCallback("net", **self.attached)]

    @property
    def guard(self) -> Any:
        return self.callbacks[0].guard if self.callbacks else None

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
        if not self.warm:
            return optimizers
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizers[0], lambda step: min(1.0, step / self.warm))
        return optimizers, [{"scheduler": schedule, "interval": "step"}]

    def on_train_start(self) -> None:
        optimizers = self.trainer.optimizers
        self.audit = self.guard.audit(1.0) if self.audited else None
        self.witness = Witness(self.net, Classifier, plain).watch(*optimizers)  # after the callback has attached


class ByHand(Lit):
    """The guard attached where the optimizers are made, and saved with the rest, without a callback."""

    def __init__(self, policy: safestep.Policy) -> None:
        super().__init__(policy)
        self.callbacks, self.own, self.saved = [], None, None

    @property
    def guard(self) -> Any:
        return self.own

    def configure_optimizers(self) -> Any:
        made = super().configure_optimizers()
        self.own = safestep.attach(self, made, **self.attached)
        if self.saved is not None:
            self.own.load_state_dict(self.saved)
        return made

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["guard"] = self.guard.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.saved = checkpoint["guard"]  # no optimizer and no guard yet


def trainer(folder: Any, **options: Any) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(
        **{"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False, "default_root_dir": folder}
        | quiet
        | options
    )


def fit(module: Lit, folder: Any, resume: Any = None, batches: int = 8, **options: Any) -> Any:
    made = trainer(folder, **{"callbacks": module.callbacks} | options)
    made.fit(module, loader(batches), ckpt_path=resume)
    return made
