"""How every picture looks: colours for policies, line styles for rates, sizes that a phone can show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from safestep.plots.curves import Curve

# Okabe and Ito's colours: told apart under every common colour blindness, and in print by their lightness.
COLOURS: Mapping[str, str] = {"fixed": "#D55E00", "cap": "#0072B2", "pin": "#009E73"}
OTHER, INK, FAINT, GRID = "#CC79A7", "#1f2328", "#57606a", "#d8dee4"
MARKERS: Mapping[str, str] = {"fixed": "o", "cap": "s", "pin": "^"}
SERIES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#7a4a21", "#E69F00", "#56B4E9")
"""Colours of curves that stand for no policy, in the order they are given out."""
LEAVES = "leaves the frame"
"""What a legend says of a triangle on the edge."""
_DASHES: tuple[Any, ...] = ((0, (1, 1)), (0, (3.5, 1.2)), "solid", (0, (6, 1.2, 1, 1.2)), (0, (3, 1, 1, 1, 1, 1)))
_SOLID = 2
"""Where the solid line is in ``_DASHES``: of the third rate, and of runs without one."""

# A figure of 4.3 inches that is shown 330 CSS pixels wide turns a point into a little more than a pixel.
WIDTH, HEIGHT, DPI = 4.3, 4.1, 220
TITLE_SIZE, TEXT_SIZE, LABEL_SIZE = 12.5, 10.5, 10.5


def colour(policy: str) -> str:
    """Return the colour of a policy; one of its own for a policy that came later than this file."""
    return COLOURS.get(policy, OTHER)


def palette(labels: Iterable[str]) -> dict[str, str]:
    """Give every label a colour, the same for the same order; the eighth has the colour of the first again."""
    return {label: SERIES[place % len(SERIES)] for place, label in enumerate(dict.fromkeys(labels))}


def lines(curves: Sequence[Curve]) -> dict[str, dict[str, Any]]:
    """Return how to draw the line of each label: colour and marker by policy, dashes by rate.

    Runs at a fixed rate lie broad below, and every second rate has hollow markers, so that a curve on top of another
    lets it be seen.
    """
    rates = sorted({curve.base_lr for curve in curves if curve.base_lr is not None})
    places = {rate: i for i, rate in enumerate(rates)}
    styles = {}
    for curve in curves:
        place = places.get(curve.base_lr, _SOLID) if curve.base_lr is not None else _SOLID
        main, broad, hollow = colour(curve.policy), curve.policy == "fixed", place % 2 == 1
        styles[curve.label] = {
            "color": main,
            "ls": _DASHES[place % len(_DASHES)],
            "lw": 2.9 if broad else 1.7,
            "zorder": 2 if broad else 3,
            "marker": MARKERS.get(curve.policy, "D"),
            "ms": 7.0 if broad else 4.8,
            "mfc": "white" if hollow else main,
            "mec": main if hollow else "white",
            "mew": 1.2 if hollow else 0.6,
        }
    return styles
