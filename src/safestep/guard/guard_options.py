"""What a guard is made of besides the model and its optimizers; `safestep.attach` checks it."""

from __future__ import annotations

from dataclasses import dataclass

from safestep.distributed.ranks import Ranks
from safestep.guard.diagnose import Diagnostic
from safestep.logs.sinks import Sinks
from safestep.policy import Policy
from safestep.radius import Radius
from safestep.recording.logits import LogitsFinder
from safestep.recording.readout import Readout


@dataclass(frozen=True, kw_only=True)
class GuardOptions:
    """See the arguments of `safestep.attach`, which have these names, but for three.

    Attributes:
        skips: whether gradients that are not finite are withheld from the optimizers.
        readout: a way to logits for measuring, where the model makes none.
        joins: whether an optimizer had a guard before, so that its steps are no surprise.
    """

    radius: Radius
    policy: Policy
    logits: LogitsFinder | None
    diagnostics: tuple[Diagnostic, ...]
    log: Sinks
    history: int
    skips: bool
    ranks: Ranks | None
    max_forwards: int
    readout: Readout | None
    joins: bool
