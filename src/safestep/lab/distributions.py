"""The laws a component of an input may follow: how it is drawn, and its first two moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safestep._torch.extras import need


@dataclass(frozen=True)
class Law:
    """A distribution of a number; the components of an input are drawn independently of it.

    Attributes:
        words: how a text names it.
        mean: its mean.
        variance: its variance.
        draw: from a NumPy generator and a shape to an array.
    """

    words: str
    mean: float
    variance: float
    draw: Callable[[Any, tuple[int, int]], Any]

    def sample(self, seed: int, samples: int, inputs: int) -> Tensor:
        """Return float64 samples of shape ``(samples, inputs)``, the same for the same seed.

        Raises:
            MissingExtraError: if NumPy is not installed.
        """
        generator = need("numpy.random", "experiments").default_rng(seed)
        return torch.from_numpy(self.draw(generator, (samples, inputs)))

    def sigma_points(self, inputs: int) -> Tensor:
        r"""Return ``2 inputs`` points whose mean and second moments are exactly those of the law, without chance.

        Equation:
            ``mu +- sigma sqrt(d) e_k`` for each of the ``d`` components: mean ``mu``, covariance ``sigma^2 I``.

        Args:
            inputs: ``d``, at least 1.

        Example:
            >>> x = LAWS["uniform"].sigma_points(2)
            >>> torch.allclose(x.T @ x / len(x), torch.eye(2, dtype=x.dtype) / 12 + 1 / 4)
            True

        Source:
            S. J. Julier, J. K. Uhlmann, "A new extension of the Kalman filter to nonlinear systems", 1997, eq. 12
            with kappa = 0.
        """
        apart = (self.variance * inputs) ** 0.5 * torch.eye(inputs, dtype=torch.float64)
        return self.mean + torch.cat([apart, -apart])


LAWS: Mapping[str, Law] = {
    "uniform": Law("U(0, 1)", 1 / 2, 1 / 12, lambda generator, shape: generator.uniform(0.0, 1.0, shape)),
    "symmetric": Law("U(-1, 1)", 0.0, 1 / 3, lambda generator, shape: generator.uniform(-1.0, 1.0, shape)),
    "normal": Law("N(0, 1)", 0.0, 1.0, lambda generator, shape: generator.standard_normal(shape)),
}
"""Every law by its name in settings."""
