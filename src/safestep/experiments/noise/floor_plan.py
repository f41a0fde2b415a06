"""Settings of noise-floor, and its cells: a kind of noise, a batch size and a learning rate each."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Literal, cast

import torch

from safestep.descent import PLANE, Batches, Bowls, Gaussian, Noise, Objective, stationary_law
from safestep.experiments.runner.settings import Settings

Kind = Literal["gaussian", "replacement", "distinct"]
WORDS = {"gaussian": "Gaussian", "replacement": "with replacement", "distinct": "without replacement"}
"""The kinds of noise in the words of labels and pictures."""
_FORGOTTEN = 1e-4
"""The start is forgotten when what is left of it in f is this share of the floor."""
_NO_FLOOR = 1e-8
"""The floor of a descent without noise, as far as forgetting the start is concerned."""


@dataclass(frozen=True, kw_only=True)
class NoiseFloorSettings(Settings):
    """Settings of noise-floor.

    Attributes:
        rates: learning rates, rising; with the curvatures 2 and 4 there is a floor below 0.5.
        batches: gradients in a batch.
        noises: "gaussian" (variance 1/batch), "replacement" and "distinct" (batches of a finite sum, drawn with and
            without replacement).
        samples: of the finite sum.
        scale: standard deviation of each component of a single gradient.
        runs: in each ensemble.
        most_steps: taken at most; fewer where the start is forgotten sooner.
        unstable_steps: taken where there is no floor.
        data_seed: of the finite sum; the seed of a run is that of its noise.
    """

    QUICK: ClassVar[dict[str, Any]] = {"rates": (0.05, 0.1, 0.4, 0.55), "batches": (1, 4), "runs": 500}

    rates: tuple[float, ...] = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.48, 0.5, 0.55)
    batches: tuple[int, ...] = (1, 4, 16)
    noises: tuple[str, ...] = ("gaussian", "replacement", "distinct")
    samples: int = 32
    scale: float = 1.0
    runs: int = 5000
    most_steps: int = 2000
    unstable_steps: int = 200
    data_seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        rising = list(self.rates) == sorted(set(self.rates)) != [] and self.rates[0] >= 1e-5 and self.rates[-1] <= 10
        self.require(rising, "rates", "rising learning rates from 0.00001 to 10")
        self.require_range(3, 10_000, "samples")
        usable = len(set(self.batches)) == len(self.batches) > 0 and all(1 <= b <= self.samples for b in self.batches)
        self.require(usable, "batches", f"sizes from 1 to the {self.samples} samples, each once")
        self.require_names("noises", WORDS)
        self.require(0 < self.scale <= 1e6, "scale", "a positive standard deviation up to 1000000")
        self.require_range(2, 10**6, "runs")
        self.require_range(1, 10**5, "most_steps", "unstable_steps")
        self.require_range(0, 2**32 - 1, "data_seed")


def law_floor(kind: Kind, rate: float, batch: int, scale: float, samples: int) -> float:
    r"""Return the stationary mean of f above its minimum; inf where there is none.

    Equation:
        ``sum over h = 2, 4 of eta kappa sigma^2 / (2 (2 - eta h))`` with ``kappa = 1 / b``, or
        ``(n - b) / (b (n - 1))`` for batches of ``n`` samples without replacement. Of batches only this covariance
        matters, since all samples have the same curvatures.

    Args:
        kind: "gaussian", "replacement" or "distinct".
        rate: ``eta``.
        batch: ``b``.
        scale: ``sigma``.
        samples: ``n``.

    Example:
        >>> round(law_floor("gaussian", 0.1, 1, 1.0, 32), 4), law_floor("gaussian", 0.5, 1, 1.0, 32)
        (0.059, inf)
    """
    share = 1 / batch if kind == "gaussian" else Batches(batch, kind).variance_factor(samples)
    return stationary_law(PLANE, rate, Gaussian(scale * math.sqrt(share))).loss.item()


@dataclass(frozen=True)
class Cell:
    """One ensemble: the settings of all, and what is its own."""

    settings: NoiseFloorSettings
    kind: Kind
    batch: int
    rate: float

    @property
    def series(self) -> str:
        """The label of all rates together."""
        return f"{WORDS[self.kind]}, b = {self.batch}"

    @property
    def label(self) -> str:
        """The label of the row."""
        return f"{self.series}, η = {self.rate:g}"

    @property
    def objective(self) -> Objective:
        """The plane, or a finite sum whose mean has its curvatures and its minimum, at another height."""
        if self.kind == "gaussian":
            return PLANE
        scale, seed = self.settings.scale, self.settings.data_seed
        return Bowls.scattered(self.settings.samples, PLANE.hessian, PLANE.start, scale=scale, seed=seed)

    @property
    def noise(self) -> Noise:
        """What makes the gradients of a step differ from the mean gradient."""
        if self.kind == "gaussian":
            return Gaussian(self.settings.scale, batch=self.batch)
        return Batches(self.batch, self.kind)

    @property
    def law_floor(self) -> float:
        """The stationary mean of f above its minimum; inf where there is none."""
        return law_floor(self.kind, self.rate, self.batch, self.settings.scale, self.settings.samples)

    @property
    def steps(self) -> int:
        """How many steps the slowest direction takes to forget the start, within the bounds of the settings."""
        if math.isinf(self.law_floor):
            return self.settings.unstable_steps
        slowest = max(abs(1 - self.rate * h) for h in PLANE.matrix.diagonal().tolist())
        start = PLANE.value(torch.tensor([PLANE.start], dtype=torch.float64)).item()
        if slowest == 0:
            return 1
        wanted = _FORGOTTEN * max(self.law_floor, _NO_FLOOR) / start
        return max(1, min(self.settings.most_steps, math.ceil(math.log(wanted) / (2 * math.log(slowest)))))

    def seed(self, seed: int) -> int:
        """Return the seed of this cell's noise, so that no two cells have the same."""
        return zlib.crc32(f"{self.label}, seed {seed}".encode())


def cells(settings: NoiseFloorSettings) -> Iterator[Cell]:
    """Yield every cell in the order of the table.

    Example:
        >>> [cell.label for cell in cells(NoiseFloorSettings())][:2]
        ['Gaussian, b = 1, η = 0.0125', 'Gaussian, b = 1, η = 0.025']
    """
    for noise, batch, rate in product(settings.noises, settings.batches, settings.rates):
        yield Cell(settings, cast(Kind, noise), batch, rate)
