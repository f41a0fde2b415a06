"""resnet: a small residual network at rates where its loss jumps by itself, and whether r above 1 comes before."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from torch.optim import SGD

from safestep.experiments.evidence.evidence_methods import Contestant
from safestep.experiments.evidence.evidence_training import LOOKS, train
from safestep.experiments.limits.limits_summary import groups_of
from safestep.experiments.paper.jumps import LEADS, chance_above, jumps, largest_before
from safestep.experiments.paper.training_words import RESNET
from safestep.experiments.runner.experiment import Column, Experiment, Record, Row, Run, Words
from safestep.experiments.runner.settings import Settings
from safestep.guard.attach import attach
from safestep.lab.cifar10 import CHANNELS, SIDE, cifar10
from safestep.lab.disturbances import Disturbance
from safestep.lab.residual import resnet
from safestep.lab.rivals.stepper import Stepper
from safestep.lab.seeding import seed_everything
from safestep.lab.tasks import digits_mlp
from safestep.policy import Pin, Watch
from safestep.radius import SoftmaxRadius
from safestep.records.report import number, plain
from safestep.schedules import Constant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = {
    "rate 0.005": (1.11, 1 / 80, 0.804), "rate 0.01": (1.23, 13 / 80, 0.826), "rate 0.1": (5.87, 58 / 80, 0.785),
    "rate 0.5": (29.34, 70 / 80, 0.575), "pin r = 0.5": (0.5, 0.0, 0.804), "pin r = 1": (1.0, 0.0, 0.853),
    "pin r = 2": (2.0, 1.0, 0.844), "pin r = 4": (4.0, 1.0, 0.721),
}  # fmt: skip
"""Of ResNet-18 on CIFAR-10, the paper's Table 3: the largest r, the share of 80 logged steps above 1, the accuracy."""


@dataclass(frozen=True, kw_only=True)
class ResnetSettings(Settings):
    """Settings of resnet.

    Attributes:
        rates: of SGD with momentum 0.9 and weight decay 0.0005.
        pins: values of r that every step is given instead.
        steps: of a run.
        width: channels of the first block.
        folder: that of CIFAR-10's files; the digits, where it is empty.
    """

    QUICK: ClassVar[dict[str, Any]] = {"rates": (0.1, 0.5), "pins": (1.0,), "steps": 30, "width": 4}

    rates: tuple[float, ...] = (0.01, 0.1, 0.5, 2.0)
    pins: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    steps: int = 200
    width: int = 8
    folder: str = ""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for key in ("rates", "pins"):
            values = getattr(self, key)
            usable = len(values) == len(set(values)) and all(1e-9 <= one <= 1e9 for one in values)
            self.require(usable, key, "numbers from 1e-9 to 1e9, each once")
        self.require(bool(self.rates), "rates", "at least one number")
        self.require_range(LOOKS + 2, 10**6, "steps")
        self.require_range(1, 1024, "width")


@dataclass(frozen=True, kw_only=True)
class Resnet(Experiment[ResnetSettings]):
    """The network at every rate, only watched, and pinned to every r."""

    columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("final_acc", "accuracy", ".1%"),
        Column("max_r", "largest r", "#.3g"),
        Column("over", "steps of r > 1", ".0%", short="r > 1"),
        Column("jumps", "jumps"),
        Column("lost", "lost"),
    )
    summary_columns: tuple[Column, ...] = (
        Column("label", "run"),
        Column("final_acc", "accuracy", ".1%"),
        Column("jumps", "jumps"),
        Column("after", "jumps after r > 1", ".0%", short="after r > 1"),
        Column("ordinary", "other steps of r > 1", ".0%", short="others"),
        Column("chance_1", "chance that a jump’s r is larger", ".2f", short="chance"),
        Column("chance_5", "of five steps", ".2f"),
        Column("max_r", "largest r", "#.3g"),
        Column("over", "steps of r > 1", ".0%", short="r > 1"),
        Column("paper_max_r", "paper’s largest r", "#.3g"),
        Column("paper_over", "paper’s steps of r > 1", ".0%"),
        Column("paper_acc", "paper’s accuracy", ".1%"),
        Column("runs", "runs"),
    )
    summary_always: bool = True
    words: ClassVar[Words | None] = RESNET
    own_figures: ClassVar[tuple[str, ...]] = ("loss_and_r", "r_before_jumps")

    def runs(self, settings: ResnetSettings, seeds: Sequence[int]) -> list[Run]:
        """Return every run of every seed."""
        rates = [(f"rate {rate:g}", {"rate": rate, "pin": None}) for rate in settings.rates]
        pins = [(f"pin r = {pin:g}", {"rate": None, "pin": pin}) for pin in settings.pins]
        return [Run(label, seed, way) for (label, way), seed in itertools.product(rates + pins, seeds)]

    def seconds_per_run(self, settings: ResnetSettings) -> float:
        """Return about how long one run takes on one core."""
        return settings.steps * 0.0025 * settings.width * (16 if settings.folder else 1)

    def execute(self, settings: ResnetSettings, run: Run) -> Generator[Record, None, Row]:
        """Train once, with the exact r of every step's own batch."""
        name, pin = {"label": run.label, "seed": run.seed, **run.options}, run.options["pin"]
        seed_everything(run.seed)
        task = replace(digits_mlp(run.seed), model=resnet(width=settings.width))
        if settings.folder:
            task = cifar10(settings.folder, resnet(CHANNELS, SIDE, settings.width))
        rate = 0.1 if pin else run.options["rate"]  # the paper's code starts its pinned runs so; it drops out
        optimizer = SGD(task.model.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
        guard = attach(task.model, optimizer, radius=SoftmaxRadius(method="exact"), policy=Pin(pin) if pin else Watch(),
                       history=settings.steps)  # fmt: skip
        somebody = Contestant(Stepper(optimizer), guard)
        losses = [one.loss for one in train(task, somebody, Constant(), settings.steps, run.seed, Disturbance())]
        ratios = [report.applied_ratio for report in guard.history][: len(losses)]
        guard.detach()
        yield cast(Record, plain({"kind": "steps", **name, "loss": losses, "r": ratios}))
        _, accuracy = task.test()
        found, ordinary = jumps(losses)
        row = {
            "final_acc": accuracy,
            "max_r": max(ratios),
            "over": sum(one > 1.0 for one in ratios) / len(ratios),
            "jumps": len(found),
            "others": len(ordinary),
            "jumps_over": sum(ratios[step] > 1.0 for step in found),
            "others_over": sum(ratios[step] > 1.0 for step in ordinary),
            "chance": [
                chance_above(*(largest_before(ratios, steps, lead) for steps in (found, ordinary))) for lead in LEADS
            ],
            "lost": len(losses) < settings.steps,
        }
        return cast(Row, plain({**name, **row}))

    def summarise(self, rows: Sequence[Row]) -> list[Row]:
        """Return medians over the seeds and jumps of all of them, beside the paper's."""
        return [cast(Row, plain(_summary(label, group))) for (label,), group in groups_of(rows, "label").items()]

    def findings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what comes before jumps, and what r and accuracy come to beside the paper."""
        rows = [row for row in results["summary"] if row["jumps"] and row["rate"]]
        shares = [f"{row['label']} {row['after']:.0%} of {row['jumps']}, {row['ordinary']:.0%}" for row in rows]
        own = {row["label"]: row for row in results["summary"]}
        best = max(own.values(), key=lambda row: number(row["final_acc"]))
        most = ", ".join(f"{label} {number(row['max_r']):.3g} ({PAPER[label][0]:g})" for label, row in own.items()
                         if row["rate"] and label in PAPER)  # fmt: skip
        return [
            f"Jumps after a step of r > 1, and other steps above 1: {'; '.join(shares) or 'no jumps, 0'}.",
            f"Largest r (paper): {most or 'none of its 4 rates'}.",
            f"Best accuracy: {number(best['final_acc']):.1%} by {best['label']} (paper: 85.3% by pin r = 1).",
        ]

    def figures(self, results: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Figure]:
        """Return loss and r of one seed at every rate, and how much of what comes after r above a threshold."""
        from safestep.experiments.paper.training_figures import before_jumps, loss_and_r

        watched = [record for record in records if record["rate"]]
        first = [record for record in watched if record["seed"] == watched[0]["seed"]]
        return {
            "loss_and_r": loss_and_r(first, "Loss and r of every step"),
            "r_before_jumps": before_jumps(watched, "Does r above 1 precede loss jumps?"),
        }


def _summary(label: str, rows: Sequence[Row]) -> dict[str, Any]:
    found, others = (sum(row[key] for row in rows) for key in ("jumps", "others"))
    told: dict[str, float | None] = dict.fromkeys(("after", "ordinary", *(f"chance_{lead}" for lead in LEADS)))
    if found and others and rows[0]["rate"]:  # r of a pinned run is one number
        chances = [row["chance"] for row in rows if row["jumps"]]
        told = {
            "after": sum(row["jumps_over"] for row in rows) / found,
            "ordinary": sum(row["others_over"] for row in rows) / others,
            **{
                f"chance_{lead}": statistics.median(each)
                for lead, each in zip(LEADS, zip(*chances, strict=True), strict=True)
            },
        }
    paper = dict(zip(("paper_max_r", "paper_over", "paper_acc"), PAPER.get(label, (None, None, None)), strict=True))
    medians = {key: statistics.median(number(row[key]) for row in rows) for key in ("final_acc", "max_r", "over")}
    return {"label": label, "rate": rows[0]["rate"], **medians, "jumps": found, **told, **paper, "runs": len(rows)}


experiment = Resnet(
    name="resnet",
    about="a small residual network at rates where its loss jumps by itself, and whether r above 1 comes before",
    settings=ResnetSettings,
)
