"""What a picture of training shows, in words computed from its curves: true for any settings, or not said."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from safestep.plots.curves import Curve
from safestep.plots.frame import plain_number

_TOLERANCE = 1e-3
"""A capped step may pass the target by rounding only (contract 2)."""


def loss_title(curves: Sequence[Curve]) -> str:
    """Say which runs diverge and which policies never do; without any, which run gets lowest.

    Example:
        >>> from safestep.plots.curves import Band
        >>> fixed, cap = [Curve(f"{p} 5", p, 5.0, 1, p == "fixed", [1], {}) for p in ("fixed", "cap")]
        >>> loss_title([fixed, cap])
        'Fixed 5 diverges; no capped run does'
    """
    lost = [curve for curve in curves if curve.diverged]
    if not lost:
        last = [(_last(curve, "train_loss"), curve.label) for curve in curves]
        best = min(((loss, label) for loss, label in last if math.isfinite(loss)), default=None)
        return f"No run diverges; {best[1]} ends lowest, at {plain_number(best[0])}" if best else "No run diverges"
    if len(lost) == len(curves) > 1:
        return "Every run diverges"
    named = named_list([curve.label for curve in lost]) if len(lost) <= 4 else f"{len(lost)} of {len(curves)} runs"
    some = " in at least one seed" if any(curve.seeds > 1 for curve in lost) else ""
    safe = [word for policy, word in _WORDS.items() if _none_lost(curves, policy)]
    rest = f"; no {' or '.join(safe)} run does" if safe else ""
    return sentence(f"{named} {'diverges' if len(lost) == 1 else 'diverge'}{some}{rest}")


def accuracy_title(curves: Sequence[Curve]) -> str:
    """Say between which accuracies the runs of each policy end.

    Example:
        >>> from safestep.plots.curves import Band
        >>> ends = [("fixed", 0.1), ("fixed", 0.953), ("pin", 0.962)]
        >>> accuracy_title([Curve(p, p, None, 1, False, [1], {"test_acc": Band(*4 * [[a]])}) for p, a in ends])
        'Fixed runs end at 10–95 %, pin at 96 %'
    """
    parts: list[str] = []
    for policy in dict.fromkeys(curve.policy for curve in curves):
        chosen = [curve for curve in curves if curve.policy == policy]
        ends = [end for curve in chosen if math.isfinite(end := _last(curve, "test_acc"))]
        if not ends:
            continue
        several = len(chosen) > 1
        name = chosen[0].label if not several else f"{_adjective(policy)} {'ones' if parts else 'runs'}"
        verb = "" if parts else "end " if several else "ends "
        parts.append(f"{name} {verb}at {between(f'{100 * end:.0f}' for end in (min(ends), max(ends)))} %")
    return sentence(", ".join(parts)) if parts else "No run was tested"


def lr_title(curves: Sequence[Curve]) -> str:
    """Say to which effective rates the cap brought the base rates, and which the pin chose, in the last epoch.

    Example:
        >>> from safestep.plots.curves import Band
        >>> cap = Curve("capped 5.0", "cap", 5.0, 1, False, [1], {"mean_lr": Band(*4 * [[0.17]])})
        >>> lr_title([cap])
        'The cap brings base rate 5.0 down to 0.17'
    """
    ends = {curve.label: _last(curve, "mean_lr") for curve in curves}
    caps = [curve for curve in curves if curve.policy == "cap" and curve.base_lr is not None]
    cut = [curve for curve in caps if ends[curve.label] < 0.99 * (curve.base_lr or 0)]
    pins = [ends[curve.label] for curve in curves if curve.policy == "pin" and math.isfinite(ends[curve.label])]
    parts = []
    if cut:
        rates = _join([curve.label.split(" ")[-1] for curve in cut])
        plural = "s" if len(cut) > 1 else ""
        parts.append(f"the cap brings base rate{plural} {rates} down to {_span([ends[curve.label] for curve in cut])}")
    elif caps and all(_close(ends[curve.label], curve.base_lr) for curve in caps):
        parts.append("the cap leaves every rate as it is at the end")
    if pins:
        parts.append(f"the pin chooses {_span(pins)}")
    if not parts and curves and all(_close(ends[curve.label], curve.base_lr) for curve in curves):
        return "The rates end where they were set"
    known = [end for end in ends.values() if math.isfinite(end)]
    return sentence("; ".join(parts) or (f"The rates end at {_span(known)}" if known else "No rate took effect"))


def ratio_title(curves: Sequence[Curve], target: float) -> str:
    """Say whose steps stay within the target and whose pass it, over the whole run and all seeds.

    Example:
        >>> from safestep.plots.curves import Band
        >>> ends = [("fixed", 18.0), ("cap", 1.0)]
        >>> ratio_title([Curve(p, p, 0.5, 1, False, [1], {"max_r": Band(*4 * [[r]])}) for p, r in ends], 1.0)
        'Capped steps stay within r = 1; fixed reaches 18'
    """
    goal = f"r = {plain_number(target)}"
    peaks = {curve.label: _peak(curve) for curve in curves}
    past = [curve for curve in curves if not peaks[curve.label] <= target * (1 + _TOLERANCE)]
    if not past:
        return f"No step of any run goes past {goal}"
    held = [word for policy, word in _WORDS.items() if policy != "fixed" and _none_past(curves, past, policy)]
    some = " in at least one seed" if any(curve.seeds > 1 for curve in past) else ""
    named = named_list([curve.label for curve in past]) if len(past) <= 4 else f"{len(past)} of {len(curves)} runs"
    verb = f"reaches {plain_number(peaks[past[0].label])}" if len(past) == 1 else "go past it"
    if held:
        return sentence(f"{' and '.join(held)} steps stay within {goal}; {named} {verb}{some}")
    return sentence(f"{named} {verb}{some}" if len(past) == 1 else f"{named} go past {goal}{some}")


def over_seeds(curves: Sequence[Curve]) -> str:
    """Return what a line and its band are, for the subtitle; empty for one seed."""
    seeds = max((curve.seeds for curve in curves), default=1)
    return f" Line: median of {seeds} seeds; band: quartiles." if seeds > 1 else ""


def sentence(text: str) -> str:
    """Return a text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def named_list(labels: Sequence[str]) -> str:
    """Join labels, naming a shared first word once.

    Example:
        >>> named_list(["fixed 0.5", "fixed 5.0", "pin"])
        'fixed 0.5, 5.0 and pin'
    """
    words, before = [], ""
    for label in labels:
        first, _, rest = label.partition(" ")
        words.append(rest if rest and first == before else label)
        before = first
    return _join(words)


def between(ends: Iterable[str]) -> str:
    """Return "low–high", or one of them where they read the same."""
    return "–".join(dict.fromkeys(ends))


_WORDS = {"cap": "capped", "pin": "pinned", "fixed": "fixed"}


def _adjective(policy: str) -> str:
    return _WORDS.get(policy, policy)


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _span(values: Sequence[float]) -> str:
    return between(f"{value:.2g}" for value in (min(values), max(values)))


def _close(end: float, rate: float | None) -> bool:
    return rate is not None and abs(end - rate) <= 0.01 * rate


def _last(curve: Curve, column: str) -> float:
    band = curve.columns.get(column)
    return band.median[-1] if band and band.median else math.nan


def _peak(curve: Curve) -> float:
    band = curve.columns.get("max_r")
    values = band.top if band else []
    return max((math.inf if math.isnan(value) else value for value in values), default=math.nan)


def _none_lost(curves: Sequence[Curve], policy: str) -> bool:
    chosen = [curve for curve in curves if curve.policy == policy]
    return bool(chosen) and not any(curve.diverged for curve in chosen)


def _none_past(curves: Sequence[Curve], past: Sequence[Curve], policy: str) -> bool:
    return any(curve.policy == policy for curve in curves) and not any(curve.policy == policy for curve in past)
