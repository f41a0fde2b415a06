"""Everything that a run consists of, made from a setting; saved to bytes, and made again from them."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR

import safestep
from faults.schedule import Setting
from faults.task import Network
from safestep import Cap, Pin, SoftmaxRadius, Throttle, Watch
from safestep.schedules import Inverse

BUILDS: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda groups: SGD(groups, lr=0.3),
    "sgd-fused": lambda groups: SGD(groups, lr=0.3, fused=True),
    "momentum": lambda groups: SGD(groups, lr=0.05, momentum=0.9),
    "nesterov-foreach": lambda groups: SGD(groups, lr=0.05, momentum=0.9, nesterov=True, foreach=True),
    "adam": lambda groups: Adam(groups, lr=0.01),
    "adam-fused": lambda groups: Adam(groups, lr=0.01, fused=True),
    "adamw": lambda groups: AdamW(groups, lr=0.01, weight_decay=0.01),
    "adamw-fused": lambda groups: AdamW(groups, lr=0.01, weight_decay=0.01, fused=True),
    "rmsprop": lambda groups: RMSprop(groups, lr=0.003),
}


class Training:
    """A model, its optimizers and schedules, a gradient scaler where one is wanted, and a guard with a log.

    Args:
        setting: what to build.
        seed: of the generators.
        log: the file that the guard appends to.
        device: where the model lives.
    """

    def __init__(self, setting: Setting, seed: int, log: Path, device: str = "cpu") -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        self.setting, self.device = setting, device
        self.model = Network(setting.model).to(device)
        names = setting.optimizer.split("+")
        body = [*self.model.body.parameters(), *self.model.norm.parameters()]
        heads = [*self.model.head.parameters(), *self.model.branch.parameters()]
        shares = [[body, heads]] if len(names) == 1 else [[body[:1], body[1:]], [heads[:2], heads[2:]]]
        self.optimizers = [
            BUILDS[name]([{"params": part} for part in parts]) for name, parts in zip(names, shares, strict=True)
        ]
        self.schedules = [LambdaLR(optimizer, Inverse(0.01)) for optimizer in self.optimizers]
        self.scaler = torch.amp.GradScaler(device, growth_interval=5) if "scaler" in setting.precision else None
        self.guard = safestep.attach(
            self.model,
            self.optimizers,
            log=log,
            on_nonfinite=setting.on_nonfinite,
            max_forwards=setting.max_forwards,
            **_limits(setting),
        )

    @property
    def autocast(self) -> Any:
        dtype = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.setting.precision.split("-")[0])
        return torch.autocast(self.device, dtype=dtype or torch.bfloat16, enabled=dtype is not None)

    def save(self) -> bytes:
        """Return a checkpoint. The guard comes first: it may have to finish a step of one of two optimizers."""
        file = io.BytesIO()
        torch.save(
            {
                "guard": self.guard.state_dict(),
                "model": self.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "schedules": [schedule.state_dict() for schedule in self.schedules],
                "scaler": self.scaler.state_dict() if self.scaler else {},
                "generators": (torch.get_rng_state(), random.getstate()),
            },
            file,
        )
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        """Go on from a checkpoint."""
        state = torch.load(io.BytesIO(saved), weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, one in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(one)
        for schedule, one in zip(self.schedules, state["schedules"], strict=True):
            schedule.load_state_dict(one)
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.guard.load_state_dict(state["guard"])
        torch.set_rng_state(state["generators"][0])
        random.setstate(state["generators"][1])

    def heal(self, saved: bytes | None) -> None:
        """Do what a `PoisonedOptimizerError` says: load the optimizers of a checkpoint, or clear their state."""
        states = torch.load(io.BytesIO(saved), weights_only=True)["optimizers"] if saved else []
        for optimizer, state in zip(self.optimizers, states, strict=False):
            optimizer.load_state_dict(state)
        if not states or not all(map(finite, states)):
            for optimizer in self.optimizers:
                optimizer.state.clear()

    def parameters(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]

    def gradients(self) -> list[Tensor]:
        return [p.grad for p in self.model.parameters() if p.grad is not None]

    def overflowed(self) -> list[bool]:
        """Which optimizers a scaler will skip: those with gradients that are not finite when it looks at them."""
        return [
            self.scaler is not None
            and not finite([p.grad for group in one.param_groups for p in group["params"] if p.grad is not None])
            for one in self.optimizers
        ]

    def zero(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def loss(self, x: Tensor, y: Tensor) -> float:
        """Return the loss of everything, as the model is used after training."""
        self.model.eval()
        with torch.no_grad():
            loss = nn.functional.cross_entropy(self.model(x), y).item()
        self.model.train()
        return loss


def _limits(setting: Setting) -> dict[str, Any]:
    method, _, never = setting.method.partition("-")
    radius = SoftmaxRadius(method=method, sync="never" if never else "auto")
    return {
        "cap-small": {"radius": radius, "policy": Cap(0.1)},
        "cap": {"radius": radius, "policy": Cap(1.0)},
        "pin": {"radius": radius, "policy": Pin(0.1)},
        "throttle": {"policy": Throttle()},
        "watch": {"radius": radius, "policy": Watch(Cap(1.0))},
    }[setting.policy]


def finite(state: Any) -> bool:
    """Return whether every tensor in nested containers is finite."""
    if isinstance(state, Tensor):
        return bool(torch.isfinite(state).all())
    values = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return all(map(finite, values))
