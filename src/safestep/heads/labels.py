"""The labels among the arguments of a forward: which samples the loss is made of, where no gradient tells."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_NAMES = ("labels", "label", "targets", "target", "y")


def labelled_rows(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], samples: torch.Size
) -> Tensor | None:
    """Return which samples have a label, None if no argument that is named like labels has their shape.

    A negative label is ignored, as torch's -100 is and the -1 of many loops. Where a model shifts the labels of
    sequences inside, a place counts if its own label or the next one does: rather one sample too many.

    Args:
        model: names its positional arguments.
        args: positional arguments of the forward.
        kwargs: keyword arguments.
        samples: the shape of the logits without the classes.
    """
    given = dict(kwargs)
    with contextlib.suppress(TypeError, ValueError):  # a forward that hides its arguments
        given |= inspect.signature(model.forward).bind(*args, **kwargs).arguments
    for name in _NAMES:
        labels = given.get(name)
        if isinstance(labels, Tensor) and labels.ndim and labels[..., 1:].shape == samples:
            labels = labels[..., 1:]  # logits of all places but the last predict the labels of all but the first
            return None if labels.is_floating_point() else labels >= 0
        if isinstance(labels, Tensor) and labels.shape == samples and not labels.is_floating_point():
            valid = labels >= 0
            if name == "labels" and valid.ndim > 1:
                valid = valid.clone()
                valid[:, :-1] |= labels[:, 1:] >= 0
            return valid
    return None
