"""digits-sgd: plain SGD at a small, a good and a hopeless rate; capped at the radius, and pinned to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor
from torch.optim import SGD, Optimizer

from safestep.experiments.digits.digits_protocol import LARGEST, DigitsExperiment, DigitsSettings


@dataclass(frozen=True, kw_only=True)
class SGDSettings(DigitsSettings):
    """Settings of digits-sgd: the protocol's, and the keyword arguments of `torch.optim.SGD`."""

    epochs: int = 24
    lrs: tuple[float, ...] = (0.05, 0.5, 5.0)
    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0

    def __post_init__(self) -> None:
        """Check what `torch.optim.SGD` would refuse."""
        super().__post_init__()
        self.require(0 <= self.momentum <= LARGEST, "momentum", f"at least 0 and at most {LARGEST:g}")
        self.require(abs(self.dampening) <= LARGEST, "dampening", f"a number between {-LARGEST:g} and {LARGEST:g}")
        plain = self.momentum > 0 and self.dampening == 0
        self.require(plain or not self.nesterov, "nesterov", "false, or momentum above 0 and dampening=0")

    def optimizer(self, parameters: Iterable[Tensor], lr: float) -> Optimizer:
        """Return the optimizer with all its settings."""
        return SGD(
            parameters, lr, self.momentum, self.dampening, weight_decay=self.weight_decay, nesterov=self.nesterov
        )


experiment = DigitsExperiment(
    name="digits-sgd",
    about="SGD on digits: rates left alone, the same capped by the radius, and one run pinned to it, without a rate",
    settings=SGDSettings,
    policies=("fixed", "cap", "pin"),
)
