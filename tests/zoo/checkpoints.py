"""A training with everything that a checkpoint has to hold: dropout, BatchNorm, schedule, scaler, micro-batches."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import safestep

STEPS = 12
OVERFLOW = 5
"""The step at which the scaled loss overflows, so that the scaler skips it."""
MICRO = (1, 1, 2, 1, 3)
"""Micro-batches of a step, in turn."""


def saved(state: Mapping[str, Any]) -> bytes:
    """Return a file of ``torch.save``."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def loaded(file: bytes) -> dict[str, Any]:
    """Read a file of ``torch.save`` as a user does who trusts no pickle."""
    state: dict[str, Any] = torch.load(io.BytesIO(file), weights_only=True)
    return state


class Journey:
    """A guarded training that can be stopped after any step and taken up by another object, in another process.

    Args:
        seed: of the parameters a new one starts with; what is loaded replaces them.
        sgd: whether to take SGD with momentum rather than AdamW.
        options: of `safestep.attach`.
    """

    def __init__(self, seed: int = 0, *, sgd: bool = False, **options: Any) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 3, bias=False)
        )
        parameters = self.model.parameters()
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(parameters, lr=0.1, momentum=0.9) if sgd else torch.optim.AdamW(parameters, lr=0.01)
        )
        self.scheduler = torch.optim.lr_scheduler.CyclicLR(
            self.optimizer, 0.01 if sgd else 1e-3, 0.5 if sgd else 0.3, step_size_up=STEPS // 2, cycle_momentum=False
        )
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        self.guard = safestep.attach(self.model, self.optimizer, **options)
        self.index = 0

    @property
    def parts(self) -> dict[str, Any]:
        return {"scheduler": self.scheduler, "scaler": self.scaler, "guard": self.guard}

    def batch(self, number: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(10 * self.index + number)
        return torch.randn(16, 4, generator=generator), torch.randint(3, (16,), generator=generator)

    def step(self) -> None:
        self.optimizer.zero_grad()
        count = MICRO[self.index % len(MICRO)]
        for number in range(count):
            x, y = self.batch(number)
            loss = cross_entropy(self.model(x), y) / count
            self.scaler.scale(loss * (torch.inf if self.index == OVERFLOW else 1.0)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.index += 1

    def steps(self, count: int) -> Journey:
        for _ in range(count):
            self.step()
        return self

    def state(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "rng": torch.get_rng_state(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: part.state_dict() for name, part in self.parts.items()},
        }

    def load_parts(self, state: Mapping[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
        self.index = state["index"]

    def saved(self) -> bytes:
        return saved(self.state())

    def load(self, file: bytes) -> Journey:
        state = loaded(file)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.load_parts(state)
        return self

    def template(self) -> dict[str, Any]:
        """Return what distributed checkpointing saves, and what it reads into."""
        from torch.distributed.checkpoint.state_dict import get_state_dict  # a second of imports that few need

        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {**self.state(), "model": model, "optimizer": optimizer}

    def save_distributed(self, path: Path) -> None:
        from torch.distributed import checkpoint as dcp

        dcp.save(self.template(), checkpoint_id=path, no_dist=True)

    def load_distributed(self, path: Path) -> Journey:
        from torch.distributed import checkpoint as dcp
        from torch.distributed.checkpoint.state_dict import set_state_dict

        state = self.template()
        dcp.load(state, checkpoint_id=path, no_dist=True)
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        self.load_parts(state)
        return self

    def everything(self) -> dict[str, Any]:
        """Return all that has to come out the same, and what the guard will go by."""
        return loaded(self.saved())

    @property
    def reports(self) -> list[safestep.StepReport]:
        return list(self.guard.history)
