"""A proposed step as a radius sees it: where it goes, the forwards it was made from, and what a policy aims at."""

from __future__ import annotations

import math
from dataclasses import dataclass

from safestep.recording.forwards import Forwards
from safestep.recording.step import Step


@dataclass(frozen=True, slots=True)
class Proposal:
    """A step that an optimizer has made, before anything is done about it.

    Attributes:
        step: where it started and its displacement ``p``. The parameters of the model hold ``theta + p``.
        forwards: the forwards whose logits backward reached since the last step.
        target: the r that the policy aims at; nan where it aims at none.
        always: whether the policy scales steps that are inside the target too, so that r matters at any size.
        fresh_share: see `safestep.records.reading.Reading`, where this step was measured before; nan where it was not.
    """

    step: Step
    forwards: Forwards
    target: float = math.nan
    always: bool = True
    fresh_share: float = math.nan

    @property
    def aim(self) -> float:
        """The target; 1, the radius itself, where there is none."""
        return 1.0 if math.isnan(self.target) else self.target
