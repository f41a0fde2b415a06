"""The r of a step by forward differentiation of the whole network, with no code of safestep."""

from __future__ import annotations

import copy
import math

from torch import Tensor
from torch.func import functional_call, jvp

from faults.task import Network

Call = tuple[Tensor, bool]
"""The input of a forward, and whether it took the branch."""


def true_ratio(model: Network, start: list[Tensor], end: list[Tensor], calls: list[Call]) -> float:
    """Return max over samples of spread(J p) / pi at ``start``, ``p = end - start``, for a model without dropout."""
    model = copy.deepcopy(model).double()
    names = [name for name, _ in model.named_parameters()]
    origin = dict(zip(names, (tensor.double() for tensor in start), strict=True))
    p = {name: tensor.double() - origin[name] for name, tensor in zip(names, end, strict=True)}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    largest = 0.0
    for x, taken in calls:

        def logits(parameters: dict[str, Tensor], x: Tensor = x, taken: bool = taken) -> Tensor:
            fresh = {name: buffer.clone() for name, buffer in buffers.items()}
            return functional_call(model, {**parameters, **fresh}, (x.double(), taken))

        _, a = jvp(logits, (origin,), (p,))
        largest = max(largest, (a.amax(-1) - a.amin(-1)).max().item())
    return largest / math.pi
