"""Tools for users: suggest_lr, autopsy, diagnostics for records. They leave model and optimizer as they are."""

from typing import TYPE_CHECKING

from safestep._torch.lazily import lazily
from safestep.tools.learning_rate import LearningRate
from safestep.tools.suggest_lr import suggest_lr

if TYPE_CHECKING:
    from safestep.tools import autopsy as autopsy
    from safestep.tools import diagnostics as diagnostics
else:
    __getattr__, __dir__ = lazily(__name__, {"autopsy": "", "diagnostics": ""})

__all__ = ["LearningRate", "suggest_lr"]
