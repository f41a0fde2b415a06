"""What a step will do, told beforehand by copies of the optimizers that no guard knows of."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from faults.training import Training, finite

BEFORE, HALF_WAY, AFTER = "raise before step", "raise half way", "raise after step"


@dataclass
class Forecast:
    """What has to come of a step.

    Attributes:
        kind: ``"applied"`` (a finite step), ``"undone"``, ``"nonfinite"`` (watched only), ``"skipped"``, ``"still"``
            (nothing moved), or an empty text where there must be no record: no optimizer was called, or the step
            raised before it ended.
        start: the parameters before it.
        end: as the optimizers put them.
        lrs: the learning rates.
        poisoned: whether an optimizer that stepped has a state that is not finite.
        ratio: the true r, where it was worked out; else nan.
        late: whether some optimizers did not step, so that the guard acts only when the model is used again.
    """

    kind: str
    start: list[Tensor]
    end: list[Tensor]
    lrs: list[float]
    poisoned: bool = False
    ratio: float = math.nan
    late: bool = False
    after: list[Tensor] | None = field(default=None, repr=False)


def foretell(training: Training, stop: tuple[int, str] | None, overflowed: list[bool], *, unscaled: bool) -> Forecast:
    """Forecast the step that is about to be taken on the present gradients.

    Args:
        training: what is trained.
        stop: which optimizer raises, and where.
        overflowed: which optimizers a scaler will skip.
        unscaled: whether the gradients have been divided by the scaler's factor already.
    """
    setting, memo = training.setting, {}
    copies = copy.deepcopy(training.optimizers, memo)
    start = training.parameters()
    twins = [memo[id(p)] for p in training.model.parameters()]
    scale = training.scaler.get_scale() if training.scaler is not None and not unscaled else 1.0
    for p, twin in zip(training.model.parameters(), twins, strict=True):
        twin.grad = None if p.grad is None else p.grad / scale
    bad = not finite([twin.grad for twin in twins if twin.grad is not None])
    fired, withheld, aborted = [], False, False
    for index, one in enumerate(copies):
        fused = bool(one.defaults.get("fused"))
        scaled = training.scaler is not None
        if overflowed[index] and not fused:
            continue  # the scaler does not call it
        if stop is not None and stop[0] == index and stop[1] in (BEFORE, HALF_WAY):
            aborted = True
            break
        fired.append(one)
        if setting.on_nonfinite == "skip" and setting.policy != "watch" and bad and not (scaled and fused):
            withheld = True
        elif not overflowed[index]:
            one.step()
        if stop is not None and stop == (index, AFTER):
            break
    end = [twin.detach().clone() for twin in twins]
    moved = not all(torch.equal(a, b) for a, b in zip(start, end, strict=True))
    if aborted or not fired:
        kind = ""
    elif not moved:
        kind = "skipped" if withheld else "still"
    elif not finite(end):
        kind = "nonfinite" if setting.policy == "watch" else "undone"
    else:
        kind = "applied"
    return Forecast(
        kind,
        start,
        end,
        [group["lr"] for one in training.optimizers for group in one.param_groups if "lr" in group],
        poisoned=not all(finite(one.state_dict()) for one in fired),
        late=bool(fired) and len(fired) < len(copies),
    )
