"""safestep measures how far a training step may go, in units that do not depend on the model, and keeps it inside."""

from typing import TYPE_CHECKING

from safestep import logs, schedules
from safestep._torch.lazily import lazily
from safestep._version import __version__
from safestep.averaging import Averaged
from safestep.distributed.ranks import Ranks
from safestep.errors import (
    AttachError,
    AveragingError,
    LogitsNotFoundError,
    LossMismatchError,
    MeasurementError,
    PoisonedOptimizerError,
    RanksError,
    SafestepError,
    SafestepWarning,
)
from safestep.guard.attach import attach
from safestep.guard.audit import Audit
from safestep.guard.guard import Guard
from safestep.logs import JsonLines
from safestep.policy import Cap, Pin, Policy, Throttle, Watch
from safestep.radius import (
    CurvatureRadius,
    HessianRadius,
    KLRadius,
    Radius,
    SecantCurvature,
    SoftmaxRadius,
    Tightest,
    default_limit,
)
from safestep.radius.tiers import Tiers
from safestep.recording.readout import Readout
from safestep.records.reading import Reading, Status
from safestep.records.report import History, StepReport
from safestep.tools import LearningRate, suggest_lr

if TYPE_CHECKING:
    from safestep import descent as descent
    from safestep import integrations as integrations
    from safestep import plots as plots
else:
    __getattr__, __dir__ = lazily(__name__, {"descent": "", "integrations": "", "plots": "matplotlib"})

__all__ = [
    "AttachError",
    "Audit",
    "Averaged",
    "AveragingError",
    "Cap",
    "CurvatureRadius",
    "Guard",
    "HessianRadius",
    "History",
    "JsonLines",
    "KLRadius",
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
    "default_limit",
    "logs",
    "schedules",
    "suggest_lr",
]
