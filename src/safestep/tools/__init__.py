"""Tools for users: suggest_lr, and diagnostics for a guard's records. They leave model and optimizer as they are."""

from safestep.tools.learning_rate import LearningRate
from safestep.tools.suggest_lr import suggest_lr

__all__ = ["LearningRate", "suggest_lr"]
