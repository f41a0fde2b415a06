"""digits-adam: Adam, whose preconditioned steps are measured and capped like any other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Adam, Optimizer

from safestep.experiments.digits.digits_protocol import DigitsExperiment, DigitsSettings


@dataclass(frozen=True, kw_only=True)
class AdamSettings(DigitsSettings):
    """Settings of digits-adam: the protocol's, and the keyword arguments of `torch.optim.Adam`."""

    lrs: tuple[float, ...] = (0.001, 0.5, 2.0)
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        """Check what `torch.optim.Adam` would refuse."""
        super().__post_init__()
        self.require(all(0 <= beta < 1 for beta in self.betas), "betas", "two numbers from 0 to below 1")

    def optimizer(self, parameters: Iterable[Tensor], lr: float) -> Optimizer:
        """Return the optimizer with all its settings."""
        return Adam(parameters, lr=lr, betas=self.betas, weight_decay=self.weight_decay)


experiment = DigitsExperiment(
    name="digits-adam",
    about="Adam on digits: rates with the preconditioned step capped by the radius, and the same rates left alone",
    settings=AdamSettings,
    policies=("cap", "fixed"),
)
