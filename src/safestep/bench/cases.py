"""What is trained in the benchmark: a model, batches for it, and two learning rates, one inside and one capped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from safestep.bench.networks import GPT, ResNet18
from safestep.lab.models import mlp

Situation = Literal["inside", "capped"]
"""Every step far inside the target, or every step beyond it."""

Batch = tuple[Tensor, Tensor]

RATES: Mapping[Situation, float] = {"inside": 1e-5, "capped": 0.1}
"""AdamW's learning rates."""
TARGETS: Mapping[Situation, float] = {"inside": 1.0, "capped": 0.1}
"""Targets of the cap. The records confirm the situation of each timed step; rate and target only make it likely. The
lower one keeps a model that is capped at every step healthy: on labels that say nothing, steps of r = 1 at such rates
wear it out until no step moves its logits any more."""


@dataclass(frozen=True)
class Case:
    """A model of one size with the batches it is trained on.

    Attributes:
        name: short name, as on the command line.
        about: the sizes, in words.
        build: makes the model.
        draw: makes a batch, inputs and labels, on the CPU from the global generator. Labels are drawn too, so that
            nothing can be learnt by heart, and the thousandth step is like the tenth.
        rows: rows of logits of a batch: samples, or tokens.
        size: parameters, batch, length and classes, the axes of `safestep bench scale`.
        autocast: reduced precision of the forward; None for float32 throughout.
        timed: whether steps are timed, or memory alone is measured.
    """

    name: str
    about: str
    build: Callable[[], nn.Module]
    draw: Callable[[], Batch]
    rows: int
    size: Mapping[str, int] = field(default_factory=dict)
    autocast: torch.dtype | None = None
    timed: bool = True


def _features(shape: tuple[int, ...], classes: int) -> Batch:
    """Draw a batch of features or images, the first size being that of the batch."""
    return torch.randn(shape), torch.randint(0, classes, shape[:1])


def _tokens(batch: int, length: int, classes: int) -> Batch:
    ids = torch.randint(0, classes, (batch, length + 1))
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def mlp_case(name: str = "mlp", *, inputs: int = 784, width: int = 1024, classes: int = 10, batch: int = 256) -> Case:
    """Return a perceptron with two hidden layers and exact GELU."""
    about = f"MLP {inputs}-{width}-{width}-{classes}, batch {batch}"
    return Case(name, about, partial(mlp, inputs, width, classes), partial(_features, (batch, inputs), classes), batch)


def gpt_case(
    name: str = "gpt",
    *,
    width: int = 256,
    layers: int = 4,
    length: int = 128,
    classes: int = 4096,
    batch: int = 8,
    tied: bool = False,
    autocast: torch.dtype | None = None,
    timed: bool = True,
) -> Case:
    """Return a GPT with heads of up to 64 features."""
    matrices = 12 * width * width + 13 * width  # of a block: four of attention, eight of the layers behind it, biases
    parameters = layers * matrices + (length + (1 if tied else 2) * classes + 2) * width
    about = (
        f"GPT d {width}, {layers} layer{'s' * (layers != 1)}, {length} tokens, {classes} classes, batch {batch}, "
        f"{'tied' if tied else 'untied'} head{', bf16 autocast' if autocast is torch.bfloat16 else ''}"
    )
    build = partial(GPT, width, layers, max(1, width // 64), length, classes, tied=tied)
    size = {"parameters": parameters, "batch": batch, "length": length, "classes": classes}
    return Case(name, about, build, partial(_tokens, batch, length, classes), batch * length, size, autocast, timed)


def resnet_case(*, width: int = 32, batch: int = 32, side: int = 32) -> Case:
    """Return a ResNet-18 with BatchNorm in train mode."""
    about = f"ResNet-18 width {width}, images 3×{side}×{side}, batch {batch}"
    return Case("resnet", about, partial(ResNet18, width), partial(_features, (batch, 3, side, side), 10), batch)


_FULL = (
    mlp_case(),
    gpt_case(),
    resnet_case(),
    gpt_case("wide-head", width=64, layers=1, length=1024, classes=131_072, batch=4, timed=False),
    gpt_case("gpt2-small", width=768, layers=12, length=1024, classes=50_257, tied=True, autocast=torch.bfloat16),
)
_QUICK = (
    mlp_case(inputs=32, width=32, batch=16),
    gpt_case(width=16, layers=1, length=8, classes=32, batch=2),
    resnet_case(width=2, batch=4, side=16),
    gpt_case("wide-head", width=8, layers=1, length=64, classes=2048, batch=2, timed=False),
    gpt_case("gpt2-small", width=64, layers=2, length=16, classes=64, batch=2, tied=True, autocast=torch.bfloat16),
)
_EIGHT = Case("eight", "linear 3-2, 8 parameters, batch 4", partial(nn.Linear, 3, 2), partial(_features, (4, 3), 2), 4)
_THOUSAND = mlp_case("thousand", inputs=16, width=20, classes=10, batch=8)
FIXED = {case.name: case for case in (_EIGHT, replace(_THOUSAND, about="MLP 16-20-20-10, 970 parameters, batch 8"))}
"""The cases of `safestep bench fixed`, so small that all that a guard costs them is fixed."""
NAMES = tuple(case.name for case in _FULL)
"""The cases of `safestep bench overhead`; memory alone is measured of ``wide-head``."""
ON_CPU = tuple(name for name in NAMES if name != "gpt2-small")
"""Those measured on a CPU unless others are named."""


def cases(*, quick: bool = False) -> dict[str, Case]:
    """Return the cases of `safestep bench overhead` by name; with ``quick``, small ones of the same kinds.

    Example:
        >>> cases()["mlp"].about
        'MLP 784-1024-1024-10, batch 256'
    """
    return {case.name: case for case in (_QUICK if quick else _FULL)}


_BASE = {"width": 128, "length": 64, "classes": 1024, "batch": 8}
_GRID: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "parameters": ("width", (64, 128, 256, 512)),
    "batch": ("batch", (2, 8, 32)),
    "length": ("length", (16, 64, 256)),
    "classes": ("classes", (256, 1024, 4096, 16_384)),
}
AXES = tuple(_GRID)
"""What `safestep bench scale` varies, one at a time: parameters (by the width), batch, sequence length, classes."""


def sizes(axis: str, *, quick: bool = False) -> list[Case]:
    """Return GPTs with four layers (two with ``quick``) that differ along one axis, from small to large.

    Example:
        >>> [case.size["batch"] for case in sizes("batch")]
        [2, 8, 32]
    """
    key, values = _GRID[axis]
    base = {name: value // 8 for name, value in _BASE.items()} if quick else _BASE
    layers = 2 if quick else 4
    return [
        gpt_case(layers=layers, **(base | {key: value}))  # type: ignore[arg-type]
        for value in ((base[key], 2 * base[key]) if quick else values)
    ]
