"""digits-adam: Adam, whose preconditioned steps are measured and capped like any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from safestep.experiments.digits.digits_protocol import DigitsExperiment, DigitsSettings


@dataclass(frozen=True, kw_only=True)
class AdamSettings(DigitsSettings):
    """Settings of digits-adam: the protocol's, and the keyword arguments of `torch.optim.Adam`."""

    OPTIMIZER: ClassVar[str] = "Adam"

    lrs: tuple[float, ...] = (0.001, 0.5, 2.0)
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        """Check what `torch.optim.Adam` would refuse."""
        super().__post_init__()
        self.require(all(0 <= beta < 1 for beta in self.betas), "betas", "two numbers from 0 to below 1")


experiment = DigitsExperiment(
    name="digits-adam",
    about="Adam on digits: rates with the preconditioned step capped by the radius, and the same rates left alone",
    settings=AdamSettings,
    policies=("cap", "fixed"),
)
