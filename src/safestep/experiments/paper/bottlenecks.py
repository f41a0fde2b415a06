"""bottlenecks: which part of a transformer has the smallest radius as it learns: output, attention or feed-forward."""

from __future__ import annotations

import math
import statistics
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from safestep.experiments.paper.one_step import Displacement, derivative, length_of
from safestep.experiments.paper.paper_experiment import COMPARED, against
from safestep.experiments.paper.paper_figures import Track, tracks
from safestep.experiments.paper.paper_tasks import ClassToken
from safestep.experiments.paper.paper_words import BOTTLENECKS
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, Words, grouped
from safestep.experiments.runner.settings import Settings
from safestep.formulas.softmax_ratio import radius_bound, spread
from safestep.lab.models import Block
from safestep.lab.seeding import seed_everything
from safestep.lab.tasks import digits_transformer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS, THIRDS, BINDS, RADIUS = (
    ("feed-forward", "output", "attention"),
    ("early", "middle", "late"),
    "binds, %",
    "radius",
)
_TABLE = {
    BINDS: ((94, 6, 0), (48, 52, 0), (800 / 105, 9700 / 105, 0)),
    RADIUS: ((0.0164, 0.0307, 0.645), (0.0131, 0.0107, 0.203), (0.0131, 0.00793, 0.168)),
}
"""Table 2 of the paper, by third of the training and part: % of the evaluations where it binds, and median radius."""
PAPER = {
    f"{third}: {part} {what}": _TABLE[what][nth][place]
    for what in _TABLE for nth, third in enumerate(THIRDS) for place, part in enumerate(PARTS)
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BottleneckSettings(Settings):
    """Settings of bottlenecks: the paper's, but for fewer images.

    Attributes:
        steps: of training, with 61 evaluations as there.
        samples: images, all of them in every step; the paper has 1257.
    """

    QUICK: ClassVar[dict[str, Any]] = {"steps": 8, "samples": 32}

    steps: int = 1200
    samples: int = 128

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        self.require_range(2, 10**6, "steps")
        self.require_range(1, 10**4, "samples")


def radii(model: nn.Module, inputs: Tensor, step: Displacement) -> list[float]:
    """Return, in such steps, the 1 % quantile of |h / dh|, and pi / spread of the change of logits and of scores."""
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    within = [part for block in blocks for part in (block.query_key_value, block.perceptron[0])]
    (_, *values), (moved, *changes) = derivative(model, inputs, step, *within)
    widest = 0.0
    for block, *pair in zip(blocks, values[::2], changes[::2], strict=True):
        (q, k, _), (dq, dk, _) = (part.unflatten(-1, (3, block.heads, -1)).movedim(-3, 0) for part in pair)
        scores = torch.einsum("bqhd,bkhd->bhqk", dq, k) + torch.einsum("bqhd,bkhd->bhqk", q, dk)
        widest = max(widest, float(spread(scores).max()) / math.sqrt(q.shape[-1]))
    kinks = torch.cat([(h / dh).abs().flatten() for h, dh in zip(values[1::2], changes[1::2], strict=True)])
    kink = float(kinks.kthvalue(math.ceil(0.01 * len(kinks))).values)
    return [kink, radius_bound(float(spread(moved).max())), radius_bound(widest)]


@dataclass(frozen=True, kw_only=True)
class Bottlenecks(Experiment[BottleneckSettings]):
    """The digits' transformer, every step of AdamW brought to the smallest of the three radii, as in the paper."""

    words: ClassVar[Words | None] = BOTTLENECKS
    own_figures: ClassVar[tuple[str, ...]] = ("radii_over_training", "which_binds")
    summary_always: bool = True
    columns: tuple[Column, ...] = (Column("label", "run"), Column("accuracy", "accuracy", ".1%"))
    summary_columns: tuple[Column, ...] = COMPARED

    def runs(self, settings: BottleneckSettings, seeds: Sequence[int]) -> list[Run]:
        """Return one run a seed."""
        return [Run("transformer", seed) for seed in seeds]

    def seconds_per_run(self, settings: BottleneckSettings) -> float:
        """Return about how long one run takes on one core."""
        return settings.steps * (0.015 + 2e-4 * settings.samples)

    def execute(self, settings: BottleneckSettings, run: Run) -> Generator[Record, None, Row]:
        """Train on all samples at once, and yield the radii, as lengths, of every so many steps."""
        seed_everything(run.seed)
        task = replace(digits_transformer(run.seed), model=ClassToken())
        batch = next(task.batches(settings.samples, torch.Generator().manual_seed(run.seed)))
        parameters = dict(task.model.named_parameters())
        optimizer = torch.optim.AdamW(parameters.values(), lr=1.0, weight_decay=1e-4)  # its direction alone counts
        found: list[list[float]] = []
        name = {"label": run.label, "seed": run.seed}
        for count in range(settings.steps + 1):
            optimizer.zero_grad()
            (loss := task.loss(*batch)).backward()
            before = {key: parameter.detach().clone() for key, parameter in parameters.items()}
            optimizer.step()
            step = {key: parameter.detach() - before[key] for key, parameter in parameters.items()}
            task.model.load_state_dict(before, strict=False)
            reach = radii(task.model, batch[0], step)
            task.model.load_state_dict({key: before[key] + min(reach) * step[key] for key in step}, strict=False)
            if count % max(1, settings.steps // 60) == 0:
                found.append([length_of(step) * steps for steps in reach])
                yield {"kind": "radii", **name, "step": count, "loss": loss.item(), "radii": found[-1]}
        row = {**name, "accuracy": task.test()[1], "evaluations": len(found)}
        row["outputs"] = sum(output < attention for _, output, attention in found)
        for nth, third in enumerate(THIRDS):
            inside = found[len(found) * nth // 3 : len(found) * (nth + 1) // 3]
            for place, part in enumerate(PARTS):
                row[f"{third}: {part} {BINDS}"] = 100 * statistics.fmean(min(one) == one[place] for one in inside)
                row[f"{third}: {part} {RADIUS}"] = statistics.median(one[place] for one in inside)
        return row

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return how often every part binds in every third, and its median radius, beside the paper."""
        return [against(label, [row[label] for row in rows], paper) for label, paper in PAPER.items() if rows]

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return which part binds when, beside the paper, and which without the feed-forward one."""
        first = [row for row in results["summary"] if row["label"].endswith(f"{PARTS[0]} {BINDS}")]
        ours, paper = (", ".join(f"{row[key]:.0f}" for row in first) for key in ("ours", "paper"))
        outputs, all_of = (sum(row[key] for row in results["rows"]) for key in ("outputs", "evaluations"))
        return [
            f"The feed-forward part binds in {ours} % of early, middle and late evaluations (paper: {paper} %).",
            f"GELU has no kink, though. Without that part the output binds in {outputs} of {all_of} evaluations.",
        ]

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return the radii over training, and how often each part binds, beside the paper."""
        moments, rows, band = grouped(records, "step"), results["rows"], "middle half of the seeds"
        steps = [group[0]["step"] for group in moments]
        radii, shares = [], []
        for place, part in enumerate(PARTS):
            cases = [f"{third}: {part} {BINDS}" for third in THIRDS]
            radii.append(Track(part, steps, [[one["radii"][place] for one in group] for group in moments]))
            shares.append(Track(part, range(3), [[row[case] for row in rows] for case in cases]))
            shares.append(Track(part, range(3), [[PAPER[case]] for case in cases], dotted=True))
        return {
            "radii_over_training": tracks(
                {"": radii}, ("steps of training", "radius, a length"), "Radii of three parts", band
            ),
            "which_binds": tracks(
                {"": shares}, ("third of training", "% of evaluations"), "Which radius binds", band, THIRDS
            ),
        }


experiment = Bottlenecks(
    name="bottlenecks",
    about="which part of a small transformer has the smallest radius while it learns: output, attention, feed-forward",
    settings=BottleneckSettings,
)
