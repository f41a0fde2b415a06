"""The noise on the gradients as it is written on a command line."""

from __future__ import annotations

from safestep.descent import Gaussian
from safestep.experiments.runner.settings import SettingError
from safestep.simulation.values import numbers, rows


def read_noise(text: str, batch: int) -> Gaussian | None:
    """Return Gaussian noise, or None.

    Args:
        text: a standard deviation, one for each variable, the rows of a covariance matrix, or ``none``.
        batch: the gradient is as if it were the mean over so many samples.

    Raises:
        SettingError: for anything else.
        DescentError: for numbers that are no standard deviations or covariance.

    Example:
        >>> read_noise("1,3", 2), read_noise("none", 1)
        (Gaussian(scale=(1.0, 3.0), covariance=None, batch=2), None)
        >>> read_noise("2,1;1,2", 1).covariance
        ((2.0, 1.0), (1.0, 2.0))
    """
    if text.strip().lower() == "none":
        if batch != 1:
            raise SettingError(f"batch={batch} without noise: expected a noise, which a larger batch makes smaller")
        return None
    if ";" in text:
        return Gaussian(covariance=rows(text, "noise"), batch=batch)
    scale = numbers(text, "noise")
    return Gaussian(scale[0] if len(scale) == 1 else scale, batch=batch)
