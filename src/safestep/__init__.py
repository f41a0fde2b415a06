"""safestep measures how far a training step may go, in units that do not depend on the model, and keeps it inside."""

from safestep import logs, schedules
from safestep._version import __version__
from safestep.audit import Audit
from safestep.errors import (
    AttachError,
    LogitsNotFoundError,
    LossMismatchError,
    MeasurementError,
    PoisonedOptimizerError,
    RanksError,
    SafestepError,
    SafestepWarning,
)
from safestep.guard import Guard
from safestep.logs import JsonLines
from safestep.policy import Cap, Pin, Policy, Throttle, Watch
from safestep.radius import CurvatureRadius, HessianRadius, Radius, SecantCurvature, SoftmaxRadius, Tightest
from safestep.ranks import Ranks
from safestep.reading import Reading, Status
from safestep.readout import Readout
from safestep.record import History, StepReport
from safestep.tiers import Tiers
from safestep.tools import LearningRate, suggest_lr
from safestep.wiring import attach

__all__ = [
    "AttachError",
    "Audit",
    "Cap",
    "CurvatureRadius",
    "Guard",
    "HessianRadius",
    "History",
    "JsonLines",
    "LearningRate",
    "LogitsNotFoundError",
    "LossMismatchError",
    "MeasurementError",
    "Pin",
    "PoisonedOptimizerError",
    "Policy",
    "Radius",
    "Ranks",
    "RanksError",
    "Reading",
    "Readout",
    "SafestepError",
    "SafestepWarning",
    "SecantCurvature",
    "SoftmaxRadius",
    "Status",
    "StepReport",
    "Throttle",
    "Tiers",
    "Tightest",
    "Watch",
    "__version__",
    "attach",
    "logs",
    "schedules",
    "suggest_lr",
]
