"""The layers of a model."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

_MOST = 64
"""So many layers at most: of more, those with a beginning of the name in common are one."""


def layers_of(model: nn.Module, moving: Iterable[Tensor]) -> dict[str, list[Tensor]]:
    """Return the parameters that move by the module that has them.

    Example:
        >>> model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1, bias=False))
        >>> {name: len(parameters) for name, parameters in layers_of(model, model.parameters()).items()}
        {'0': 2, '1': 1}
    """
    names: dict[Tensor, list[str]] = {parameter: name.split(".")[:-1] for name, parameter in model.named_parameters()}
    paths = {parameter: names.get(parameter, ["(outside the model)"]) for parameter in moving}
    depth = max(map(len, paths.values()), default=0)
    while True:
        found: dict[str, list[Tensor]] = {}
        for parameter, path in paths.items():
            found.setdefault(".".join(path[:depth]) or type(model).__name__, []).append(parameter)
        if len(found) <= _MOST or depth <= 1:
            return found
        depth -= 1
