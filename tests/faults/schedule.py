"""What happens in one run: a setting, and for each step its micro-batches and perhaps a fault. All from one integer."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

STEPS = 24
"""Steps with faults; clean ones follow."""

OPTIMIZERS = (
    "sgd",
    "sgd-fused",
    "momentum",
    "nesterov-foreach",
    "adam",
    "adam-fused",
    "adamw",
    "adamw-fused",
    "rmsprop",
    "momentum+adamw",
    "sgd+adam-fused",
)
POLICIES = ("cap-small", "cap", "pin", "throttle", "watch")
METHODS = ("tiered", "tiered-never", "probe", "exact")
MODELS = ("plain", "dropout", "norm", "norm-dropout")
PRECISIONS = ("float32", "float32", "scaler", "bfloat16", "float16-scaler")

FAULTS = {
    "overflow": 3,  # an infinity in a gradient
    "overflowing loss": 1,  # infinite gradients from one micro-batch on
    "nan": 3,  # a nan in a gradient
    "nan loss": 1,
    "raise in forward": 1,
    "raise in backward": 1,
    "raise before step": 1,
    "raise half way": 1,  # one parameter group has moved, the next has not
    "raise after step": 1,
    "kill": 5,
    "unused": 3,  # a branch is not taken: gradients that are None
    "spike": 2,  # ten thousand times the learning rate
    "dropped loss": 1,  # one micro-batch is run, and never followed by backward
    "zeroed between": 1,  # the gradients go after the first micro-batch
    "evaluation": 1,  # the model is used between backward and step
}
"""Kinds of faults, and how often each comes beside the others."""

KILLS = ("before forward", "before step", "between steps", "after step", "torn log")
"""Where a run is killed; the last also cuts the last line of the log short."""


@dataclass(frozen=True)
class Setting:
    """How a run trains.

    Attributes:
        optimizer: one of `OPTIMIZERS`; two of them with a plus.
        policy: one of `POLICIES`.
        method: one of `METHODS`, of the softmax radius; `Throttle` brings a radius of its own.
        model: one of `MODELS`.
        precision: one of `PRECISIONS`.
        on_nonfinite: as for `attach`.
        clip: whether gradients are clipped.
        max_forwards: as for `attach`.
        every: steps from one checkpoint to the next.
    """

    optimizer: str
    policy: str
    method: str
    model: str
    precision: str
    on_nonfinite: str
    clip: bool
    max_forwards: int
    every: int


@dataclass(frozen=True)
class Plan:
    """One step.

    Attributes:
        sizes: samples of each micro-batch.
        fault: one of `FAULTS`; an empty text for none.
        part: which micro-batch it meets.
        optimizer: which optimizer it meets.
        where: one of `KILLS`.
        interrupt: whether what is raised is an interrupt from the keyboard rather than an error.
        reload: whether a poisoned optimizer is loaded from the checkpoint rather than cleared.
    """

    sizes: tuple[int, ...]
    fault: str = ""
    part: int = 0
    optimizer: int = 0
    where: str = ""
    interrupt: bool = False
    reload: bool = False

    def __str__(self) -> str:
        words = [f"{self.fault or 'clean'}, micro-batches of {' '.join(map(str, self.sizes))}"]
        words += [self.where] if self.where else []
        if self.fault.startswith("raise"):
            words.append(f"{'interrupt' if self.interrupt else 'error'}, optimizer {self.optimizer}")
        return ", ".join(words)


@dataclass(frozen=True)
class Schedule:
    """A run: `Schedule.of(seed)` is the same on every machine."""

    seed: int
    setting: Setting
    plans: tuple[Plan, ...] = field(repr=False)

    @classmethod
    def of(cls, seed: int, steps: int = STEPS) -> Schedule:
        draw = random.Random(seed)
        setting = Setting(
            draw.choice(OPTIMIZERS),
            draw.choice(POLICIES),
            draw.choice(METHODS),
            draw.choice(MODELS),
            draw.choice(PRECISIONS),
            draw.choice(("undo", "skip")),
            draw.random() < 0.25,
            draw.choice((2, 256, 256)),
            draw.choice((1, 3, 5)),
        )
        usual, plans = draw.choice(((16,), (12, 12), (6, 6, 6), (4, 4, 4, 4))), []
        for _ in range(steps):
            sizes = usual if draw.random() < 0.7 else tuple(draw.randint(2, 20) for _ in range(draw.randint(1, 4)))
            fault = draw.choices(list(FAULTS), list(FAULTS.values()))[0] if draw.random() < 0.5 else ""
            if fault == "spike" and setting.policy == "watch":
                fault = ""  # nobody holds it back, and no clean step brings such a run home
            plans.append(
                Plan(
                    sizes,
                    fault,
                    part=draw.randrange(len(sizes)),
                    optimizer=draw.randrange(2),
                    where=draw.choice(KILLS) if fault == "kill" else "",
                    interrupt=draw.random() < 0.3,
                    reload=draw.random() < 0.5,
                )
            )
        return cls(seed, setting, tuple(plans))

    def __str__(self) -> str:
        return "\n".join(
            [f"seed {self.seed}: {self.setting}", *(f"  {i}: {plan}" for i, plan in enumerate(self.plans))]
        )
