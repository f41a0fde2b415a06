"""What the records of a run say, in plain sentences: for the top of its page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from safestep.logs.every import LOST, is_lost
from safestep.looking.counting import farthest, median, share, shortened
from safestep.records.reading import Status
from safestep.records.report import StepReport


def findings(reports: Sequence[StepReport]) -> list[str]:
    """Return what the records come to, the most important first: lost steps, shortened steps, r, the effective rate.

    Args:
        reports: at least one, in the order of the steps.

    Example:
        >>> from safestep import Reading
        >>> inside = StepReport.of(Reading(0, 0.25, "exact"), Status.INSIDE, 1.0, 1.0, 1.0, 1.0, (0.5,))
        >>> for sentence in findings([inside]): print(sentence)
        No step was shortened: the guard left the run as it was.
        The longest step that was proposed went to r = 0.25 (step 0), inside its target 1.
        The median learning rate was 0.5.
    """
    return [*_lost(reports), *_shortened(reports), *_farthest(reports), *_rates(reports)]


def _lost(reports: Sequence[StepReport]) -> list[str]:
    lost = [report for report in reports if is_lost(report)]
    if not lost:
        return []
    counts = Counter(str(report.status) if report.status in LOST else "infinite in r" for report in lost)
    kinds = ", ".join(f"{many} {status}" for status, many in counts.most_common())
    said = f" It said: {lost[0].message}" if lost[0].message else ""
    return [f"{_steps(len(lost))} not taken, not finite or not measured: {kinds}; the first is {lost[0].step}.{said}"]


def _shortened(reports: Sequence[StepReport]) -> list[str]:
    pinned = sum(report.status is Status.PINNED for report in reports)
    cut = [report for report in reports if shortened(report) and report.status is not Status.PINNED]
    would = sum(report.would_scale < 1.0 and report.scale == 1.0 for report in reports)
    sentences = []
    if pinned:
        sentences.append(f"{_steps(pinned)} set to the target, whatever length the optimizer gave them.")
    if cut:
        sentences.append(
            f"{_steps(len(cut))} shortened, {share(reports):.1%} of all, the first at {cut[0].step} and the last at "
            f"{cut[-1].step}; the smallest scale is {min(report.scale for report in cut):.3g}."
        )
    if would:
        sentences.append(f"{_steps(would)} only watched that the policy would have shortened.")
    if not sentences and any(map(is_lost, reports)):
        return ["No step that was taken was shortened."]
    return sentences or ["No step was shortened: the guard left the run as it was."]


def _farthest(reports: Sequence[StepReport]) -> list[str]:
    far = farthest(report for report in reports if not math.isinf(report.known_ratio))
    if all(math.isnan(report.known_ratio) for report in reports):
        if any(report.scale < 1.0 for report in reports):  # skipped, or undone
            return ["r was never measured."]
        return ["r was never measured: this guard held nothing. The column message says why."]
    if far is None:
        return ["r was never finite."]
    told = "was predicted to go" if far.predicted else "went"
    if math.isnan(far.target):
        beside = ""
    elif far.known_ratio > far.target:
        beside = f", {far.known_ratio / far.target:.3g} times its target {far.target:.3g}"
    else:
        beside = f", inside its target {far.target:.3g}"
    return [f"The longest step that was proposed {told} to r = {far.known_ratio:.3g} (step {far.step}){beside}."]


def _rates(reports: Sequence[StepReport]) -> list[str]:
    given, effective = median(r.lrs[0] for r in reports if r.lrs), median(r.effective_lr for r in reports)
    if math.isnan(given):
        return []
    changed = sum(r.scale != 1.0 for r in reports)
    several = " of the first parameter group" if any(len(set(r.lrs)) > 1 for r in reports) else ""
    if not changed:
        return [f"The median learning rate{several} was {given:.3g}."]
    both = f"{given:.3g} as given and {effective:.3g} as it took effect"
    return [f"The median learning rate{several} was {both}; the two differ at {changed} of {len(reports)} steps."]


def _steps(many: int) -> str:
    return "1 step was" if many == 1 else f"{many} steps were"
