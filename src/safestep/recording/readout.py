"""A way to logits for measuring only, where training never makes them: fused and chunked cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from safestep.heads.labels import labelled_rows

_CHUNK = 1 << 24
"""Logits that are made at a time, at most: 64 MiB in float32."""


@dataclass(frozen=True)
class Readout:
    """Makes the logits of some rows of a batch, for ``attach(..., forward=Readout(function))``.

    Attributes:
        function: called with the model and the arguments of its forward, it returns the logits of shape
            ``(*samples, classes)``; or, so that those are never made in full, a pair of the features of shape
            ``(*samples, width)`` and a function from features to logits. It must call the model it is given.
        rows: how many samples are looked at, evenly spread over those that have a label (all samples if none of the
            arguments is called ``labels``); at least 1.
        chunk: how many logits (rows times classes) may be made at a time; fewer rows are taken where it asks for that.

    Raises:
        TypeError: at construction, for something that cannot be called.
        ValueError: at construction, for a number of rows or logits that is no whole number of at least 1.

    Example:
        >>> Readout(lambda model, ids, labels: (model.body(ids), model.head)).rows
        256

    Note:
        r is then the largest over a sample of the rows, and no reading is called exact. Dropout masks are those of
        training only if the function runs what training ran, in the same order.
    """

    function: Callable[..., Any]
    rows: int = 256
    chunk: int = _CHUNK

    def __post_init__(self) -> None:
        """Check the options."""
        if not callable(self.function):
            raise TypeError(
                f"Readout({self.function!r}): expected a function from the model and its arguments to logits"
            )
        for name in ("rows", "chunk"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Readout({name}={value!r}): expected a whole number of at least 1")

    def logits(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Return the logits of the sample, shape ``(rows, classes)``.

        Raises:
            TypeError: if the function returns neither logits nor features with a function.
        """
        found = self.function(model, *args, **kwargs)
        values, head = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
        if not isinstance(values, Tensor) or values.ndim < 2 or not (head is None or callable(head)):
            raise TypeError(
                f"forward= returned {type(found).__name__}: expected logits of shape (*samples, classes), or a pair of "
                "features of shape (*samples, width) and a function from features to logits"
            )
        flat = values.flatten(0, -2)
        classes = flat.shape[-1] if head is None else head(flat[:1]).shape[-1]
        labelled = labelled_rows(model, args, kwargs, values.shape[:-1])
        places = torch.arange(len(flat), device=flat.device)
        places = places if labelled is None or not bool(labelled.any()) else places[labelled.flatten()]
        count = max(1, min(self.rows, self.chunk // max(1, classes), len(places)))
        chosen = flat[places[torch.arange(count, device=flat.device) * len(places) // count]]
        logits: Tensor = chosen if head is None else head(chosen)
        return logits


class Through(nn.Module):
    """Runs a readout as the forward of a module that holds the model, so that other parameters can be put in place.

    Args:
        model: the model.
        readout: what is run.
    """

    def __init__(self, model: nn.Module, readout: Readout) -> None:
        super().__init__()
        self.model, self._readout = model, readout
        self.training = model.training

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the logits of the sample."""
        return self._readout.logits(self.model, args, kwargs)


def readout_of(forward: Callable[..., Any] | Readout | None) -> Readout | None:
    """Return a readout of what ``attach(forward=...)`` was given."""
    return forward if forward is None or isinstance(forward, Readout) else Readout(forward)
