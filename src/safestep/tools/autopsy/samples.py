"""The samples of a batch: how far a step moves each, which stand out, and the batch without these."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from safestep.formulas.softmax_ratio import step_ratio
from safestep.jvp.selection import Route
from safestep.jvp.tangents import Tangents
from safestep.radius.spreads import Spreads, head_of
from safestep.recording.forwards import Forwards
from safestep.recording.step import Step
from safestep.tools.autopsy.outcome_of_step import Sample


def samples_of(step: Step, forwards: Forwards, *, softmax: bool) -> list[Sample]:
    """Return every sample of a step's batch, the farthest first; outputs have to have the samples first.

    Measured is the spread of the logits, of a loss without a softmax the size of their change.
    """
    if not forwards.resolved:  # no radius has looked for the outputs
        forwards.resolve("any")
    tangents, first, found = Tangents(step, forwards, "train", Route()), 0, dict[int, Sample]()
    measured = iter(tangents)
    for forward in forwards.kept:
        count = 0
        for _ in forward.heads:
            output, value, tangent = next(measured)
            rows = _rows(output, value, tangent, softmax=softmax)
            count = len(rows)
            for index, row in enumerate(rows.reshape(len(rows), -1), first):
                at = int(row.argmax())
                place = tuple(int(one) for one in torch.unravel_index(torch.tensor(at), rows.shape[1:] or (1,)))
                ratio = float(row[at]) * tangents.unit
                if index not in found or found[index].ratio < ratio:
                    found[index] = Sample(index, ratio, place if rows.ndim > 1 else ())
        first += count
    return sorted(found.values(), key=lambda sample: -sample.ratio)


def _rows(output: Any, value: Tensor, tangent: Tensor, *, softmax: bool) -> Tensor:
    shape = torch.atleast_2d(head_of(output).read(value)).shape[:-1]
    if not softmax:
        sizes: Tensor = torch.linalg.vector_norm(torch.atleast_2d(tangent), dim=-1)
        return sizes
    spreads = Spreads()
    spreads.add(output, value, tangent)
    counted = torch.where(spreads.active[0], spreads.values[0], 0.0) if spreads.active[0].any() else spreads.values[0]
    return counted.reshape(shape) * step_ratio(1.0)


def outstanding(samples: Sequence[Sample]) -> list[int]:
    """Return the samples, the farthest first and at most a quarter, before the widest gap between their ratios.

    Example:
        >>> outstanding([Sample(i, r) for i, r in ((5, 9.0), (2, 8.0), *((i, 1.0) for i in range(8, 14)))])
        [5, 2]
    """
    most = len(samples) // 4
    if not most:
        return []
    falls = [a.ratio / max(b.ratio, 1e-300) for a, b in pairwise(samples[: most + 1])]
    return [sample.index for sample in samples[: falls.index(max(falls)) + 1]]


def without(batch: Any, left_out: Sequence[int], count: int) -> Any:
    """Return a batch without some samples: every tensor in it that has ``count`` rows loses those.

    Example:
        >>> without({"x": torch.arange(4), "scale": 2.0}, [1, 2], 4)
        {'x': tensor([0, 3]), 'scale': 2.0}
    """
    if isinstance(batch, Tensor):
        if batch.ndim == 0 or len(batch) != count:
            return batch
        stay = torch.ones(count, dtype=torch.bool)
        stay[list(left_out)] = False
        return batch[stay.to(batch.device)]
    if isinstance(batch, dict):
        return {key: without(value, left_out, count) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        parts = [without(value, left_out, count) for value in batch]
        return parts if isinstance(batch, list) else tuple(parts)
    return batch
