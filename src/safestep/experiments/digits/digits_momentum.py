"""digits-momentum: SGD with momentum; the radius bounds the whole step, momentum included."""

from __future__ import annotations

from dataclasses import dataclass

from safestep.experiments.digits.digits_protocol import DigitsExperiment
from safestep.experiments.digits.digits_sgd import SGDSettings


@dataclass(frozen=True, kw_only=True)
class MomentumSettings(SGDSettings):
    """Settings of digits-momentum: those of digits-sgd, with other defaults."""

    epochs: int = 20
    lrs: tuple[float, ...] = (0.05, 0.5, 2.0)
    momentum: float = 0.9


experiment = DigitsExperiment(
    name="digits-momentum",
    about="SGD on digits, by default with momentum: rates with the whole step capped by the radius, and left alone",
    settings=MomentumSettings,
    policies=("cap", "fixed"),
)
