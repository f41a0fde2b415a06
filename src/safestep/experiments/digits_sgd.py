"""digits-sgd: plain SGD at a small, a good and a hopeless rate; capped at the radius, and pinned to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from safestep.experiments.digits import DigitsExperiment, DigitsSettings


@dataclass(frozen=True, kw_only=True)
class SGDSettings(DigitsSettings):
    """Settings of digits-sgd: the protocol's, and the keyword arguments of `torch.optim.SGD`."""

    OPTIMIZER: ClassVar[str] = "SGD"

    epochs: int = 24
    lrs: tuple[float, ...] = (0.05, 0.5, 5.0)
    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0

    def __post_init__(self) -> None:
        """Check what `torch.optim.SGD` would refuse."""
        super().__post_init__()
        self.require(self.momentum >= 0, "momentum", "at least 0")
        plain = self.momentum > 0 and self.dampening == 0
        self.require(plain or not self.nesterov, "nesterov", "false, or momentum above 0 and dampening=0")


experiment = DigitsExperiment(
    name="digits-sgd",
    about="plain SGD on digits: three rates left alone, the same capped at the radius, and one pinned to it, no rate",
    settings=SGDSettings,
    policies=("fixed", "cap", "pin"),
)
