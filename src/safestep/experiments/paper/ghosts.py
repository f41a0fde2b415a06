"""ghosts: where the complex zeros of the partition function lie along the gradient while a model learns."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from safestep.experiments.paper.one_step import derivative, downhill, length_of
from safestep.experiments.paper.paper_experiment import TrainedExperiment, TrainedSettings, medians
from safestep.experiments.paper.paper_figures import Track, dots_in_the_plane, tracks
from safestep.experiments.paper.paper_tasks import LINEAR, PERCEPTRON, checkpoint
from safestep.experiments.paper.paper_words import GHOSTS
from safestep.experiments.report.sentences import span
from safestep.experiments.runner.experiment import Column, Record, Row, Run, Words, grouped
from safestep.formulas.softmax_ratio import radius_bound, spread
from safestep.records.report import plain
from safestep.zeros import nearest_zero

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class GhostSettings(TrainedSettings):
    """Settings of ghosts.

    Attributes:
        samples: of the batch, whose gradient is the direction.
    """

    QUICK: ClassVar[dict[str, Any]] = {"architectures": (LINEAR, PERCEPTRON), "checkpoints": (0, 5)}

    samples: int = 128
    architectures: tuple[str, ...] = (LINEAR, PERCEPTRON, "digits-cnn", "digits-vit")
    checkpoints: tuple[int, ...] = (0, 10, 30, 100, 300)

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_range(1, 384, "samples")


def two_class_radius(z: Tensor, a: Tensor, labels: Tensor) -> Tensor:
    """Return sqrt(gap^2 + pi^2) / |slope| of the label and its best rival, shape (samples,)."""
    mine, others = labels[:, None], z.scatter(-1, labels[:, None], -math.inf)
    gap, slope = (of.gather(-1, mine) - of.gather(-1, others.argmax(-1, keepdim=True)) for of in (z, a))
    return (torch.hypot(gap, torch.full_like(gap, math.pi)) / slope.abs())[:, 0]


@dataclass(frozen=True, kw_only=True)
class Ghosts(TrainedExperiment[GhostSettings]):
    """The nearest zero of every sample of a batch, along the gradient, at every checkpoint."""

    words: ClassVar[Words | None] = GHOSTS
    own_figures: ClassVar[tuple[str, ...]] = ("zeros_in_the_plane", "zeros_over_training")
    columns: tuple[Column, ...] = (
        Column("label", "model"), Column("exact", "exact radius / bound", ".2f", short="exact"),
        Column("sample", "median sample / bound", ".2f", short="sample"),
        Column("beyond", "two-class radius too long", ".1%", short="too long"),
        Column("pair", "two-class / exact, batch", ".2f"), Column("bound", "bound, a length", "#.3g"),
        Column("unknown", "not certified"),
    )  # fmt: skip
    summary_columns: tuple[Column, ...] = columns

    def seconds_per_run(self, settings: GhostSettings) -> float:
        """Return about how long one run takes on one core."""
        return 0.01 * (settings.samples + max(settings.checkpoints))

    def execute(self, settings: GhostSettings, run: Run) -> Generator[Record, None, Row]:
        """Train to the checkpoint, and find the zeros, t = 1 where the bound of the batch ends."""
        model, (inputs, labels), _ = checkpoint(run.seed, **run.options)
        batch = inputs[: settings.samples], labels[: settings.samples]
        step = downhill(model, batch)
        z, a = (part[0].double().flatten(0, -2) for part in derivative(model, batch[0], step))
        steps = radius_bound(float(spread(a).max()))
        labels, found = batch[1].flatten(), nearest_zero(z, steps * a)
        known = found.radius.isfinite()
        pairs = two_class_radius(z, steps * a, labels)
        name = {"label": run.label, "seed": run.seed, **run.options, "bound": steps * length_of(step)}
        zeros, right = torch.view_as_real(found.zero[known]), (z.argmax(-1) == labels)[known]
        yield cast(Record, plain({"kind": "zeros", **name, "zeros": zeros.tolist(), "right": right.tolist()}))
        exact = float(found.radius[known].min())
        beyond = (pairs / found.radius)[known] > 1 + 1e-9
        row = {"exact": exact, "sample": float(found.radius[known].median()), "pair": float(pairs.min()) / exact,
               "beyond": float(beyond.double().mean()), "unknown": int((~known).sum())}  # fmt: skip
        return cast(Row, plain({**name, **row}))

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return the medians over the seeds of every checkpoint."""
        keys = [column.key for column in self.columns[1:]]
        return [{"label": group[0]["label"], **medians(group, *keys)} for group in grouped(rows)]

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return how far the zeros lie beyond the bound, and what the two-class formula makes of them."""
        exact, sample, beyond, pair = (
            span(key, form)(results["rows"])
            for key, form in (("exact", ".2f"), ("sample", ".1f"), ("beyond", ".0%"), ("pair", ".2f"))
        )
        return [
            f"The nearest zero of a batch lies at {exact} times the bound π/Δ.",
            f"That of the median sample lies at {sample} times the bound of its batch.",
            f"The two-class formula is too long for {beyond} of the samples; of a batch it gives {pair} of the radius.",
        ]

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return the zeros in the plane of one architecture, and how far away they are over training for all."""
        groups = {group[0]["architecture"]: grouped(group, "steps") for group in grouped(records, "architecture")}
        chosen = groups.get(PERCEPTRON) or next(iter(groups.values()), [])
        panels = {}
        for name, moments in groups.items():
            far = [[[math.hypot(*at) * one["bound"] for at in one["zeros"]] for one in seeds] for seeds in moments]
            x, every = range(len(moments)), (0.0, 1.0)
            panels[name] = [
                Track("samples", x, [[size for one in seeds for size in one] for seeds in far], (0.1, 0.9)),
                Track("nearest of a batch", x, [[min(one) for one in seeds] for seeds in far], every),
                Track("bound π/Δ", x, [[one["bound"] for one in seeds] for seeds in moments], every),
            ]
        axes, steps = ("steps of training", "distance, a length"), [moment[0]["steps"] for moment in chosen]
        return {
            "zeros_in_the_plane": dots_in_the_plane({f"{seeds[0]['steps']} steps": seeds[0] for seeds in chosen}),
            "zeros_over_training": tracks(panels, axes, "Distance of the zeros", "80 % of samples, all seeds", steps),
        }


experiment = Ghosts(
    name="ghosts",
    about="where the complex zeros of the partition function lie along the gradient while a model learns",
    settings=GhostSettings,
)
