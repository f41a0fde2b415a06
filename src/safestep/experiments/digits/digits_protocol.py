"""The digits protocol: one small network, an optimizer at several rates, each left alone, capped or pinned.

What differs between experiments on it is data: the optimizer's name and keyword arguments, the rates, the policies.
Source of the protocol: the tutorials of github.com/piyush314/ghosts-of-softmax, and P. Sao, arXiv 2603.13552 (2026).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from safestep.experiments.digits.digits_findings import digits_findings
from safestep.experiments.digits.digits_summary import over_seeds
from safestep.experiments.digits.digits_words import WORDS
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, Words
from safestep.experiments.runner.settings import SettingError, Settings
from safestep.guard.attach import attach
from safestep.lab.digits import CLASSES, load_split, loaders
from safestep.lab.models import mlp
from safestep.lab.seeding import seed_everything
from safestep.lab.training import EpochRecord, largest, train
from safestep.policy import Cap, Pin, Policy, Watch
from safestep.radius import SoftmaxRadius

PolicyName = Literal["fixed", "cap", "pin"]

_NAMES: dict[PolicyName, str] = {"fixed": "fixed", "cap": "capped", "pin": "pin"}
"""The policies as labels have them."""
_POLICIES: dict[PolicyName, Callable[[float], Policy]] = {"fixed": lambda target: Watch(), "cap": Cap, "pin": Pin}
"""From the target to the policy; a fixed rate is watched, so that its r is known."""
_PIN_RATE = 1.0
"""The rate a pinned optimizer runs at; it drops out."""
_IMAGES = 1347
"""Training images of the split."""
LARGEST = 1e30
"""The largest factor in an optimizer's arithmetic, and one over the smallest rate: float32 can hold both."""
_SECONDS_PER_STEP = 0.003
"""About what a guarded step of this network takes."""


@dataclass(frozen=True, kw_only=True)
class DigitsSettings(Settings, ABC):
    """Settings of a digits experiment; a subclass adds its optimizer and the keyword arguments of that.

    Attributes:
        target: the largest r (`Cap`) or the r of every step (`Pin`).
        epochs: passes over the training images.
        batch_size: images in a step.
        width: units of both hidden layers.
        lrs: learning rates, each fixed and capped.
        device: where to compute, as torch writes it.
        weight_decay: of the optimizer.
    """

    QUICK: ClassVar[dict[str, Any]] = {"epochs": 3}

    target: float = 1.0
    epochs: int = 20
    batch_size: int = 128
    width: int = 128
    lrs: tuple[float, ...] = (0.05, 0.5, 2.0)
    device: str = "cpu"
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges. What torch's optimizers would refuse is refused here: loading them takes a second."""
        super().__post_init__()
        self.require(1e-6 <= self.target <= 1e6, "target", "a positive number from 1e-6 to 1e6; 1 is the radius")
        self.require_range(1, 10**6, "epochs", "batch_size")
        self.require_range(1, 10**5, "width")
        self.require(0 <= self.weight_decay <= LARGEST, "weight_decay", f"at least 0 and at most {LARGEST:g}")
        usable = len(self.lrs) > 0 and all(1 / LARGEST <= lr <= LARGEST for lr in self.lrs)
        self.require(usable, "lrs", f"positive numbers from {1 / LARGEST:g} to {LARGEST:g}, separated by commas")
        self.require(len(set(self.lrs)) == len(self.lrs), "lrs", "each rate once")
        try:
            torch.zeros(1, device=self.device).item()  # a device may take tensors and give no numbers, as meta
        except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without this device
            reason = str(error).splitlines()[0]
            raise SettingError(f"device={self.device}: expected a device that torch finds here ({reason})") from None

    @abstractmethod
    def optimizer(self, parameters: Iterable[Tensor], lr: float) -> Optimizer:
        """Return the optimizer with all its settings."""


@dataclass(frozen=True, kw_only=True)
class DigitsExperiment(Experiment[DigitsSettings]):
    """The digits protocol with one optimizer.

    Attributes:
        policies: in the order of the table.
    """

    words: ClassVar[Words | None] = WORDS

    policies: tuple[PolicyName, ...]
    columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("diverged", "diverged"),
        Column("final_acc", "accuracy", ".3f"),
        Column("final_mean_lr", "effective lr", "#.3g", short="lr"),
        Column("final_cap_fraction", "capped steps", ".3f", short="capped"),
        Column("peak_r", "peak r", "#.3g"),
        Column("final_mean_r", "mean r", "#.3g"),
        Column("final_mean_radius", "radius ρ", "#.3g", short="ρ"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("diverged", "diverged"),
        Column("final_acc_mean", "accuracy: mean", ".3f", short="acc"),
        Column("final_mean_lr_median", "effective lr: median", "#.3g", short="lr"),
        Column("final_cap_fraction_median", "capped steps: median", ".3f", short="capped"),
        Column("peak_r_median", "peak r: median", "#.3g", short="peak r"),
        Column("seeds", "seeds"),
        Column("final_acc_std", "accuracy: std", ".3f", short="std"),
        Column("final_acc_median", "accuracy: median", ".3f", short="median"),
    )

    def runs(self, settings: DigitsSettings, seeds: Sequence[int]) -> list[Run]:
        """Return every policy at every rate it takes, each with every seed."""
        return [
            Run(
                label=_NAMES[policy] if lr is None else f"{_NAMES[policy]} {float(lr)}",
                seed=seed,
                options={"policy": policy, "base_lr": lr},
            )
            for policy in self.policies
            for lr in ((None,) if policy == "pin" else settings.lrs)
            for seed in seeds
        ]

    def seconds_per_run(self, settings: DigitsSettings) -> float:
        """Return about how long one run takes on one core."""
        return settings.epochs * math.ceil(_IMAGES / settings.batch_size) * _SECONDS_PER_STEP

    def execute(self, settings: DigitsSettings, run: Run) -> Generator[Record, None, Row]:
        """Train once. The order of what draws random numbers is part of the protocol: loaders, then the model."""
        policy, base_lr = run.options["policy"], run.options["base_lr"]
        seed_everything(run.seed)
        train_loader, test_loader = loaders(load_split(run.seed), settings.batch_size)
        model = mlp(width=settings.width, classes=CLASSES).to(settings.device)
        optimizer = settings.optimizer(model.parameters(), _PIN_RATE if base_lr is None else base_lr)
        name = {"label": run.label, "optimizer": type(optimizer).__name__, **run.options, "seed": run.seed}
        epochs: list[EpochRecord] = []
        with attach(
            model,
            optimizer,
            radius=SoftmaxRadius(method="exact", mode="eval"),
            policy=_POLICIES[policy](settings.target),
            history=0,
        ) as guard:
            for epoch in train(model, optimizer, guard, train_loader, test_loader, settings.epochs, CLASSES):
                epochs.append(epoch)
                yield {"kind": "epoch", **name, **asdict(epoch)}
        last = epochs[-1]
        return {
            **name,
            "final_acc": last.test_acc,
            "peak_r": largest([epoch.max_r for epoch in epochs]),
            "final_mean_r": last.mean_r,
            "final_mean_lr": last.mean_lr,
            "final_mean_radius": last.mean_radius,
            "final_cap_fraction": last.cap_fraction,
            "diverged": last.diverged,
        }

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what came out, in sentences."""
        return digits_findings(results["rows"])

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return accuracy, peak r and cap fraction over the seeds of every label."""
        return over_seeds(rows)
