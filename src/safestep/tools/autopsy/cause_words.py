"""What a post-mortem found, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from safestep.tools.autopsy.outcome_of_step import Autopsy, Cause, Instead

_TOLD = 8
"""Samples that a sentence names, at most."""


def findings(found: Autopsy) -> Iterator[str]:
    """Yield sentences: how far the step goes, what the loss does along it, and what speaks for the cause."""
    ratio, size = found.ratio, found.step_length
    inside = (
        f"; {1.0 / ratio:.3g} of it, a length of {size / ratio:.3g}, is the longest inside"
        if 1.0 < ratio < math.inf
        else ""
    )
    yield f"The step has the length {size:.3g} and r = {ratio:.3g}{inside}."
    start, end = found.curve[0], next(point for point in found.curve if point.t == 1.0)
    beside = f", that of an ordinary one from {start.ordinary:.3g} to {end.ordinary:.3g}"
    beside = "" if math.isnan(start.ordinary) else beside
    yield f"Along it the loss of its batch goes from {start.loss:.3g} to {end.loss:.3g}{beside}."
    falls = end.loss <= start.loss
    if found.cause is Cause.NONE:
        yield "It is inside its radius." if ratio <= 1.0 else "It is little beyond its radius, and the loss falls."
        if not falls:
            yield "The loss rises all the same: r is of first order, and of its batch alone."
        return
    if found.cause is Cause.LENGTH:
        tried = (
            f"leaving out a suspect helps too little: {_told(found.instead)}"
            if found.instead
            else "nothing to leave out"
        )
        yield f"The step as a whole is too long; {tried}."
        yield "Look at the learning rate and at the optimizer's state."
        if math.isnan(start.ordinary):
            yield "No ordinary batch was given: a batch that is wrong as a whole looks the same."
    else:
        whom = "The batch" if found.cause is Cause.BATCH else "One layer"
        same = [one for one in found.instead if one.cause is found.cause and one.explains(ratio)]
        yield f"{whom} carries it: {_told(same)}."
    if falls:
        yield "The loss falls all the same: a step beyond the radius may do harm, and need not."
    if found.cause is Cause.LAYER:
        top = max(found.layers, key=lambda layer: layer.alone)
        yield f"The part of layer {top.name} alone has r = {top.alone:.3g}."
    if found.samples and "largest" in found.ratios:
        first, middle = found.samples[0], found.samples[len(found.samples) // 2]
        yield f"Sample {first.name} is moved farthest, r = {first.ratio:.3g}; the median is {middle.ratio:.3g}."


def _told(instead: Sequence[Instead]) -> str:
    return ", ".join(f"r = {one.ratio:.3g} {one.words}" for one in instead)


def numbered(samples: Sequence[int]) -> str:
    """Return which samples, in words.

    Example:
        >>> numbered([40, 3]), numbered([1])
        ('samples 3, 40', 'sample 1')
    """
    told = ", ".join(map(str, sorted(samples)[:_TOLD]))
    return f"sample{'s' * (len(samples) > 1)} {told}{' …' * (len(samples) > _TOLD)}"
