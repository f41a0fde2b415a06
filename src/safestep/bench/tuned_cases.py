"""What `safestep bench run` trains from start to end: models on real data, with a length and the best rate for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch.nn import functional

from safestep.bench.cases import Batch, Case, gpt_case, mlp_case, resnet_case
from safestep.lab.digits import load_split
from safestep.lab.stdlib_text import CHARACTERS, load_text, windows


@dataclass(frozen=True, kw_only=True)
class TunedCase(Case):
    """A model with data that it can learn.

    Attributes:
        held_out: makes the batch of the final loss, from data of which nothing is learned.
        rate: AdamW's peak learning rate: of 1, 2 and 5 times powers of ten the one at which the plain run's held-out
            loss ended lowest; ``--factor`` tries others, and docs/cost.md has the losses.
        steps: of a run.
    """

    held_out: Callable[[], Batch]
    rate: float
    steps: int

    def at(self, factor: float) -> TunedCase:
        """Return the same at a multiple of the best rate."""
        if factor == 1.0:
            return self
        return replace(self, rate=factor * self.rate, about=f"{self.about} × {factor:g}")


_digits = cache(partial(load_split, 0))
_text = cache(load_text)


def _drawn_digits(samples: int, channels: int, side: int, *, train: bool) -> Batch:
    """Draw scikit-learn's digits enlarged, turned, moved, coloured and on noise: endless data with true labels.

    Grey ones are rows of ``side * side`` features. They are made of the 1347 digits to learn from or of the 450 others.
    """
    pixels, labels = (_digits().train_x, _digits().train_y) if train else (_digits().test_x, _digits().test_y)
    places = torch.randint(len(labels), (samples,))
    angle, zoom, move = 0.3 * torch.randn(samples), 1.0 + 0.2 * torch.rand(samples), 0.2 * torch.randn(samples, 2, 1)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).unflatten(-1, (2, 2))
    grid = functional.affine_grid(torch.cat([zoom[:, None, None] * turn, move], -1), [samples, 1, side, side], False)
    images = functional.grid_sample(pixels[places].unflatten(-1, (1, 8, 8)), grid, align_corners=False)
    colours = torch.ones(samples, 1, 1, 1) if channels == 1 else torch.randn(samples, channels, 1, 1)
    images = colours * images + 0.3 * torch.randn(samples, channels, side, side)
    return images.flatten(1) if channels == 1 else images, labels[places]


def _drawn_text(batch: int, length: int) -> Batch:
    text = _text()[0]
    return windows(text, torch.randint(len(text) - length, (batch,)), length)


def _other_text(length: int) -> Batch:
    text = _text()[1]
    return windows(text, range(0, len(text) - length, length), length)


def _tuned(case: Case, data: str, **more: Any) -> TunedCase:
    about = f"{case.about}, {data}, {more['steps']} steps at {more['rate']:g}"
    return TunedCase(**(vars(case) | {"about": about} | more))


def _on_digits(case: Case, channels: int, side: int, tests: int, rate: float, steps: int) -> TunedCase:
    draw = partial(_drawn_digits, case.rows, channels, side, train=True)
    held_out = partial(_drawn_digits, tests, channels, side, train=False)
    return _tuned(case, "digits", draw=draw, held_out=held_out, rate=rate, steps=steps)


def _on_text(name: str, width: int, layers: int, length: int, batch: int, rate: float, steps: int) -> TunedCase:
    case = gpt_case(name, width=width, layers=layers, length=length, classes=len(CHARACTERS), batch=batch)
    draw, held_out = partial(_drawn_text, batch, length), partial(_other_text, length)
    return _tuned(case, "Python's text", draw=draw, held_out=held_out, rate=rate, steps=steps)


_FULL = (
    _on_digits(mlp_case(), 1, 28, 2048, 5e-3, 300),
    _on_text("gpt-1024", 128, 2, 128, 8, 2e-3, 300),
    _on_text("gpt-8192", 128, 2, 128, 64, 2e-3, 90),
    _on_digits(resnet_case(width=8, batch=64), 3, 32, 1024, 1e-2, 300),
)
_QUICK = (
    _on_digits(mlp_case(inputs=64, width=32, batch=16), 1, 8, 64, 1e-2, 6),
    _on_text("gpt-1024", 16, 1, 16, 2, 1e-2, 6),
    _on_text("gpt-8192", 16, 1, 16, 8, 1e-2, 6),
    _on_digits(resnet_case(width=2, batch=4, side=16), 3, 16, 32, 1e-2, 6),
)
TUNED = tuple(case.name for case in _FULL)
"""The cases of `safestep bench run`."""


def tuned_cases(*, quick: bool = False) -> dict[str, TunedCase]:
    """Return the cases by name; with ``quick``, small and short ones of the same kinds.

    Example:
        >>> tuned_cases()["mlp"].steps
        300
    """
    return {case.name: case for case in (_QUICK if quick else _FULL)}
