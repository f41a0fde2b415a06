"""What a post-mortem found, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from safestep.tools.autopsy.outcome_of_step import Cause, Instead, Layer, Point, Sample

_TOLD = 8
"""Samples that a sentence names, at most."""


def findings(
    cause: Cause,
    ratio: float,
    size: float,
    layers: Sequence[Layer],
    samples: Sequence[Sample],
    instead: Sequence[Instead],
    ends: tuple[Point, Point],
    *,
    softmax: bool,
) -> Iterator[str]:
    """Yield sentences: how far the step goes, what the loss does along it, and what speaks for the cause."""
    inside = f"; {1.0 / ratio:.3g} of it, a length of {size / ratio:.3g}, is the longest inside" if ratio > 1.0 else ""
    yield f"The step has the length {size:.3g} and r = {ratio:.3g}{inside}."
    start, end = ends
    beside = f", that of an ordinary one from {start.ordinary:.3g} to {end.ordinary:.3g}"
    beside = "" if math.isnan(start.ordinary) else beside
    yield f"Along it the loss of its batch goes from {start.loss:.3g} to {end.loss:.3g}{beside}."
    falls = end.loss <= start.loss
    if cause is Cause.NONE:
        yield "It is inside its radius." if ratio <= 1.0 else "It is little beyond its radius, and the loss falls."
        if not falls:
            yield "The loss rises all the same: r knows of it what first derivatives tell."
    elif cause is Cause.LENGTH:
        yield f"The step as a whole is too long: {_told(instead) or 'there is nothing to leave out'}."
        yield "Look at the learning rate and at the optimizer's state."
        if math.isnan(start.ordinary):
            yield "No ordinary batch was given: a batch that is wrong as a whole looks the same."
    else:
        same = [one for one in instead if one.cause is cause and one.explains(ratio)]
        yield f"{_WHOM[cause]}: {_told(same)}."
    if cause is not Cause.NONE and falls:
        yield "The loss falls all the same: a step beyond the radius may do harm, and need not."
    if cause is Cause.LAYER:
        top = max(layers, key=lambda layer: layer.alone)
        share = top.length / top.size if top.size else math.inf
        yield f"The part of layer {top.name} alone goes to r = {top.alone:.3g}; it is {share:.3g} of its weights long."
    if cause is not Cause.NONE and samples and not math.isnan(samples[0].ratio):
        first = samples[0]
        place = f" at position {', '.join(map(str, first.place))}" if first.place else ""
        measure, middle = "r =" if softmax else "by", samples[len(samples) // 2].ratio
        far = f"Sample {first.index}{place} is moved farthest, {measure} {first.ratio:.3g}"
        yield f"{far}; the median sample {measure} {middle:.3g}."


def _told(instead: Sequence[Instead]) -> str:
    return ", ".join(f"{one.words} it goes to r = {one.ratio:.3g}" for one in instead)


def numbered(samples: Sequence[int]) -> str:
    """Return which samples, in words.

    Example:
        >>> numbered([40, 3]), numbered([1])
        ('samples 3, 40', 'sample 1')
    """
    told = ", ".join(map(str, sorted(samples)[:_TOLD]))
    return f"sample{'s' * (len(samples) > 1)} {told}{' …' * (len(samples) > _TOLD)}"


_WHOM = {Cause.BATCH: "The batch carries it", Cause.LAYER: "One layer carries it"}
