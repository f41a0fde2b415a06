"""Where traces of a descent end, in words computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from safestep.plots.curves import quantile
from safestep.plots.frame import plain_number
from safestep.plots.headlines import sentence
from safestep.plots.panel import shorten
from safestep.plots.style import TITLE_SIZE

_NAME = 190.0
"""Points that a label takes of a title."""
_FEW = 3
"""So many labels are named with a number each; of more, the two outermost."""


def title_of(runs: Mapping[str, Tensor], minimum: Sequence[float] | None, value: Callable[[Tensor], Tensor]) -> str:
    """Say how far from the minimum each trace ends; without a minimum, how low.

    Args:
        runs: by label, shape ``(runs, points, 2)``; of several runs the median is told.
        minimum: where f is lowest, if known.
        value: f.

    Example:
        >>> flat = {"a": torch.tensor([[[3.0, 4.0]]]), "b": torch.tensor([[[0.0, 1.0]]])}
        >>> title_of(flat, (0.0, 0.0), lambda x: x.square().sum(-1))
        'From the minimum at the end: 5 (a), 1 (b)'
        >>> title_of(flat, None, lambda x: x.square().sum(-1))
        'f at the end: 25 (a), 1 (b)'
    """
    lasts = {label: stack[:, -1] for label, stack in runs.items() if stack.shape[0] and stack.shape[1]}
    if not lasts:
        return "No trace yet"
    if not any(bool(stack.isfinite().any()) for stack in runs.values()):
        return "No trace has a finite point"
    names = {label: shorten(label, _NAME, TITLE_SIZE) for label in lasts}
    if minimum is not None:
        ends = {names[label]: distance(last, minimum) for label, last in lasts.items()}
        if len(ends) > 1:
            return told(ends, "From the minimum at the end", "Nearest the minimum at the end:", "farthest:")
        ((name, end),) = ends.items()
        return capital(f"{name} ends {say(end)} from the minimum" if math.isfinite(end) else f"{name} diverges")
    if len(lasts) == 1:
        ((label, last),) = lasts.items()
        return capital(f"{names[label]} {_where(last)}")
    with torch.no_grad():
        heights = {names[label]: _median(value(last)) for label, last in lasts.items()}
    return told(heights, "f at the end", "f at the end: lowest with", "highest with")


def distance(last: Tensor, minimum: Sequence[float]) -> float:
    """Return the median distance of last points, shape ``(runs, 2)``, from the minimum; inf where it is not finite."""
    return _median((last - torch.tensor(list(minimum), dtype=last.dtype)).norm(dim=-1))


def ending(last: Tensor, minimum: Sequence[float] | None) -> str:
    """Say shortly where runs end, for a small picture.

    Example:
        >>> ending(torch.tensor([[3.0, 4.0]]), (0.0, 0.0)), ending(torch.tensor([[3.0, -0.125]]), None)
        ('5 off', '(3, −0.125)')
    """
    if minimum is not None:
        far = distance(last, minimum)
        return f"{say(far)} off" if math.isfinite(far) else "diverges"
    middle = _middle(last)
    return f"({_pair(middle)})" if all(map(math.isfinite, middle)) else "diverges"


def capital(text: str) -> str:
    """Return a text with a capital first letter, but for a symbol such as η or x.

    Example:
        >>> capital("constant"), capital("η = 0.1"), capital("x")
        ('Constant', 'η = 0.1', 'x')
    """
    word = text.split(" ", maxsplit=1)[0]
    return sentence(text) if word.isascii() and word.isalpha() and len(word) > 1 else text


def _where(last: Tensor) -> str:
    middle = _middle(last)
    if not all(map(math.isfinite, middle)):
        return "diverges"
    return f"ends {'around' if len(last) > 1 else 'at'} ({_pair(middle)})"


def _pair(middle: Sequence[float]) -> str:
    return ", ".join(map(say, middle))


def told(numbers: Mapping[str, float], few: str, least: str, most: str, lost: str = "diverges") -> str:
    """Tell the number of each of few names, or of many the smallest and the largest.

    Args:
        numbers: by name; what is not finite is told as ``lost``.
        few: what comes before the numbers of few names.
        least: what comes before the name with the smallest.
        most: what comes before the name with the largest.
        lost: a verb.

    Example:
        >>> told({"a": 0.5, "b": math.inf}, "Left", "Least:", "most:")
        'Left: 0.5 (a), b diverges'
        >>> told({"a": 0.5, "b": 2.0, "c": 1.0, "d": 0.7}, "Left", "Least:", "most:")
        'Least: a, 0.5; most: b, 2'
    """
    known = {name: number for name, number in numbers.items() if math.isfinite(number)}
    if len(numbers) <= _FEW:
        each = (f"{say(number)} ({name})" if name in known else f"{name} {lost}" for name, number in numbers.items())
        return f"{few}: {', '.join(each)}"
    if not known:
        return f"Every one of {len(numbers)} {lost}"
    low, high = min(known, key=lambda name: known[name]), max(known, key=lambda name: known[name])
    rest = f"; {most} {high}, {say(known[high])}" if known[high] > known[low] else ""
    gone = [name for name in numbers if name not in known]
    others = f"; {gone[0] if len(gone) == 1 else f'each of {len(gone)} others'} {lost}" if gone else ""
    return f"{least} {low}, {say(known[low])}{rest}{others}"


def say(value: float) -> str:
    """Write a number shortly, with a minus sign."""
    return plain_number(value).replace("-", "−")


def _median(values: Tensor) -> float:
    return quantile([value if math.isfinite(value) else math.inf for value in values.reshape(-1).tolist()], 0.5)


def _middle(last: Tensor) -> list[float]:
    return [_median(last[:, axis]) for axis in (0, 1)]
