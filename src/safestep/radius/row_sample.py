"""Which rows of a step's batch are run again, and whether they can be run without the others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from safestep._torch.unwrap import bare
from safestep.heads.output import Output
from safestep.jvp.replay import Mode
from safestep.radius.subset import batch_of, cut_to
from safestep.recording.forward import Forward
from safestep.recording.forwards import Forwards

Sample = int | float | Literal["some", "all"]
"""How much of a batch is looked at: a number of entries (tokens, or samples), a share in (0, 1), all of it, or
``"some"``: 256, of fewer than 1024 a quarter, and never below 64."""
Going = Literal["alone", "drawn", "together"]
"""How rows go: without the others, as they went in training; without them, but with random numbers of their own
(dropout); or only with the rest of the batch (BatchNorm, contrastive losses)."""

_OVER_ROWS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_FEWEST = 2
"""Rows that a standard error needs."""
_SOME, _PART, _LEAST = 256, 0.25, 64
"""Training by 256 of 1024 tokens is like training by all of them; by 64, of one text, it is not."""


def check_sample(sample: Sample) -> None:
    """Raise ValueError for what is no part of a batch.

    Example:
        >>> check_sample(256)
    """
    whole = isinstance(sample, int) and not isinstance(sample, bool) and sample >= 1
    share = isinstance(sample, float) and 0.0 < sample < 1.0
    if not (whole or share or sample in ("some", "all")):
        raise ValueError(
            f"sample={sample!r}: expected a number of entries of a batch (tokens, or samples) of at least 1, a share "
            "in (0, 1), 'some' or 'all'"
        )


@dataclass(frozen=True, slots=True)
class RowSample:
    """Some rows of the forwards of a step.

    Attributes:
        parts: forwards to run again.
        share: the part of all rows that they hold; 1 if these are the forwards as they were.
        cuts: of each part the forward that it is cut from, and which rows.
    """

    parts: list[Forward]
    share: float = 1.0
    cuts: tuple[tuple[Forward, slice], ...] = ()


def drawn(forwards: Forwards, sample: Sample, index: int) -> RowSample:
    """Return an even sample of the rows of a step's batch; all of them if that is hardly more.

    Every n-th row of all micro-batches, counted through, from one that moves on from step to step: no generator is
    drawn from. Micro-batches without such a row are not run, unless a forward needs all ranks.

    Args:
        forwards: of the step.
        sample: how many entries are wanted; rows are whole, and at least two.
        index: the number of the step.
    """
    everything = RowSample(forwards.kept)
    sizes = [batch_of(forward) for forward in forwards.kept]
    if sample == "all" or not all(sizes) or any(output.head and output.head.axis == 0 for output in _heads(forwards)):
        return everything
    rows, entries = sum(sizes), sum(_entries(forward) for forward in forwards.kept)
    one_in = int(rows / max(_FEWEST, math.ceil(_wanted(sample, entries) * rows / entries)))
    if one_in < 2:
        return everything
    parts, cuts = list[Forward](), list[tuple[Forward, slice]]()
    first, lockstep = index % one_in, forwards.peers.lockstep
    for forward, size in zip(forwards.kept, sizes, strict=True):
        start = first % size if lockstep else first
        if start < size:
            cut = slice(start, None, one_in)
            if (part := cut_to(forward, cut)) is None:
                return everything
            parts.append(part)
            cuts.append((forward, cut))
        first = (first - size) % one_in
    return RowSample(parts, sum(map(batch_of, parts)) / rows, tuple(cuts))


def mixes(forwards: Forwards, mode: Mode) -> bool:
    """Return whether a layer takes statistics over the rows of a batch, so that they go together only."""
    flags = next(iter(forwards.kept)).training
    modules = zip(bare(forwards.model).modules(), flags, strict=True)
    return mode == "train" and any(flag and isinstance(module, _OVER_ROWS) for module, flag in modules)


def _wanted(sample: int | float | str, entries: int) -> float:
    if isinstance(sample, str):
        return min(_SOME, max(_LEAST, _PART * entries), entries)
    return sample * entries if isinstance(sample, float) else min(sample, entries)


def _heads(forwards: Forwards) -> Iterator[Output]:
    return (output for forward in forwards.kept for output in forward.heads)


def _entries(forward: Forward) -> int:
    """Return how many entries a forward has: samples, or the tokens of all of them."""
    return max((output.max_logits.numel() for output in forward.heads), default=0)
