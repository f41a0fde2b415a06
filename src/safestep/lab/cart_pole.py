"""A pole on a cart, many at a time: something for a policy to learn, in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

GRAVITY, CART, POLE, HALF_LENGTH, SECONDS = 9.8, 1.0, 0.1, 0.5, 0.02
"""Metres, kilograms, seconds, as in the source; the pole's length is twice the half."""
FORCES = (-10.0, -5.0, 0.0, 5.0, 10.0)
"""Newtons, one for each action. The source has the outer two."""
TRACK, TILT = 2.4, math.radians(12.0)
"""Where an episode ends: metres from the middle, radians from upright."""
LONGEST = 200
"""Steps after which an episode ends though the pole stands."""


class CartPoles:
    """Carts on tracks of their own, each of which starts again when its episode ends.

    Equation:
        With angle ``b``, place ``x``, force ``u`` and ``m = CART + POLE``: ``t = (u + POLE l b'^2 sin b) / m``,
        ``b'' = (g sin b - t cos b) / (l (4/3 - POLE cos^2 b / m))``, ``x'' = t - POLE l b'' cos b / m``, by Euler's
        rule in steps of 0.02 s. Each step is worth a reward of 1.

    Args:
        count: how many carts.
        generator: the only one that is drawn from.

    Attributes:
        state: ``x, x', b, b'`` of each, shape ``(count, 4)``, in metres, radians and seconds.
        age: steps of the episode so far, shape ``(count,)``.

    Reference:
        A. Barto, R. Sutton and C. Anderson, "Neuronlike adaptive elements that can solve difficult learning control
        problems", IEEE Trans. SMC 13 (1983).
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self._generator = generator
        self.state = self._fresh(count)
        self.age = torch.zeros(count, dtype=torch.int64)

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Push every cart.

        Args:
            action: indices into `FORCES`, shape ``(count,)``.

        Returns:
            The states reached, before any cart starts again; which poles fell or ran off the track; and which episodes
            ended, for that or their length.
        """
        _, speed, angle, turning = self.state.unbind(1)
        force, mass = torch.tensor(FORCES)[action], CART + POLE
        sine, cosine = angle.sin(), angle.cos()
        push = (force + POLE * HALF_LENGTH * turning.square() * sine) / mass
        spin = (GRAVITY * sine - push * cosine) / (HALF_LENGTH * (4.0 / 3.0 - POLE * cosine.square() / mass))
        drive = push - POLE * HALF_LENGTH * spin * cosine / mass
        reached = self.state + SECONDS * torch.stack([speed, drive, turning, spin], 1)
        self.age = self.age + 1
        fell = (reached[:, 0].abs() > TRACK) | (reached[:, 2].abs() > TILT)
        over = fell | (self.age >= LONGEST)
        self.state = torch.where(over[:, None], self._fresh(len(over)), reached)
        self.age = torch.where(over, 0, self.age)
        return reached, fell, over

    def _fresh(self, count: int) -> Tensor:
        return 0.1 * torch.rand(count, 4, generator=self._generator) - 0.05
