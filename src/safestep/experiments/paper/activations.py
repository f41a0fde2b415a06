"""activations: how near the singularities of an activation come along a step, beside the zeros of the softmax."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from safestep.experiments.paper.one_step import Displacement, derivative
from safestep.experiments.paper.paper_experiment import KEPT, PaperExperiment, PaperSettings, log_spread, medians
from safestep.experiments.paper.paper_figures import Line
from safestep.experiments.paper.paper_tasks import ACTIVATIONS
from safestep.experiments.paper.paper_words import ON_ACTIVATIONS
from safestep.experiments.report.sentences import by, each, span
from safestep.experiments.runner.experiment import Column, Record, Row, Run, Words, grouped
from safestep.records.report import number, plain

PAPER = {"gelu": math.inf, "silu": math.pi, "softplus": math.pi, "sigmoid": math.pi,
         "tanh": math.pi / 2, "gelu-tanh": math.pi / 2, "relu": 0.0}  # fmt: skip
"""Distance of the singularities from the real axis, from its appendix 2."""
_NEAREST = {"gelu": (), "tanh": (math.pi / 2,), "relu": (0.0,)}


def singularities(activation: str) -> list[complex]:
    """Return where an activation is not analytic, in the first quadrant, as far as preactivations up to 15 need it."""
    if activation != "gelu-tanh":
        return [complex(0.0, height) for height in _NEAREST.get(activation, (math.pi,))]
    c = (
        1 / 0.044715
    )  # tanh's argument sqrt(2 / pi) (x + x^3 / c) is i pi odd / 2: the eigenvalues of a companion matrix
    lasts = [0.5j * odd * math.pi * c * math.sqrt(math.pi / 2) for odd in range(1, 200, 2)]
    companions = torch.tensor([[[0, -c, last], [1, 0, 0], [0, 1, 0]] for last in lasts], dtype=torch.complex128)
    found = torch.linalg.eigvals(companions).flatten().tolist()
    return [root for root in found if root.real >= 0 and root.imag >= 0]


def distance(activation: str, h: Tensor) -> Tensor:
    """Return how far real preactivations are from the nearest singularity of an activation."""
    nearest = torch.full_like(h, math.inf)
    for place in singularities(activation):
        nearest = nearest.minimum(torch.hypot(h.abs() - place.real, torch.full_like(h, place.imag)))
    return nearest


@dataclass(frozen=True, kw_only=True)
class ActivationSettings(PaperSettings):
    """Settings of activations."""

    QUICK: ClassVar[dict[str, Any]] = {"architectures": ("tanh", "relu"), "checkpoints": (2, 10), "points": 9}

    architectures: tuple[str, ...] = tuple(ACTIVATIONS)
    checkpoints: tuple[int, ...] = (10, 300)
    directions: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_names("architectures", ACTIVATIONS)


@dataclass(frozen=True, kw_only=True)
class Activations(PaperExperiment[ActivationSettings]):
    """The perceptron with every activation, down the gradient."""

    words: ClassVar[Words | None] = ON_ACTIVATIONS
    pictures: ClassVar[Mapping[str, tuple[str, str, str]]] = {
        "over_activations": ("inflation", "loss / loss before", "Loss after one step")
    }
    own_figures: ClassVar[tuple[str, ...]] = tuple(pictures)
    dotted: ClassVar[str] = "nearest singularity"
    summary_columns: tuple[Column, ...] = (
        Column("label", "activation"), Column("distance", "distance of singularities", "#.4g", short="distance"),
        Column("paper", "paper", "#.4g"), Column("limit", "r of the nearest", "#.3g", short="r there"),
        Column("onset", "r of the onset", "#.3g", short="onset"), KEPT,
    )  # fmt: skip

    def beside(self, model: nn.Module, inputs: Tensor, step: Displacement, run: Run) -> dict[str, float]:
        """Return the r at which the first preactivation, as it moves at first, is at a singularity."""
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][:-1]
        values, changes = derivative(model, inputs, step, *layers)
        reached = [
            distance(run.options["architecture"], h) / dh.abs() for h, dh in zip(values[1:], changes[1:], strict=True)
        ]
        return {"limit": min(float(steps.min()) for steps in reached)}

    def lines(self, record: Record, shown: str) -> Iterator[tuple[str, Line]]:
        """Yield the course, and where the nearest singularity is, upright."""
        label = f"{record['steps']} steps"
        yield record["architecture"], Line(label, record["r"], record[shown])
        yield record["architecture"], Line(label, [number(record["limit"])] * 2, [0.1, 100.0], dotted=True)

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return medians over the seeds of every activation and checkpoint, and the distances of the paper."""
        found = []
        for group in grouped(rows):
            name, kept = group[0]["architecture"], min(number(row["kept"]) for row in group)
            far = min((place.imag for place in singularities(name)), default=math.inf)
            told = {"label": group[0]["label"], "distance": far, "paper": PAPER[name], "kept": kept}
            found.append(plain({**told, **medians(group, "limit", "onset")}))
        return found

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return how far apart both radii are, and which of them tells where the loss rises."""
        limits, onsets = ([number(row[key]) for row in results["rows"]] for key in ("limit", "onset"))
        smaller = log_spread(onset / min(1.0, limit) for onset, limit in zip(onsets, limits, strict=True))
        told = f"spread {log_spread(onsets):.2f} in r, {smaller:.2f} in the smaller of both radii"
        grown, poles = results["settings"]["inflation"], min(place.imag for place in singularities("gelu-tanh"))
        return [
            f"Nearest singularity at r = {each(by(results['rows'], 'architecture'), span('limit', '#.2g'))}.",
            f"Loss ×{grown:g} at r = {span('onset', '#.2g')(results['rows'])}; {told}.",
            f"GELU by tanh: {poles:.3f} from the real axis (paper: π/2 = 1.571, that of tanh’s argument).",
        ]


experiment = Activations(
    name="activations",
    about="how near the singularities of an activation come along a step, beside the zeros of the softmax",
    settings=ActivationSettings,
)
