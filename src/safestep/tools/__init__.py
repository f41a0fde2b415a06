"""For the user at his desk: questions about a model, an optimizer and a batch, answered without touching them."""

from safestep.tools.learning_rate import LearningRate
from safestep.tools.suggest_lr import suggest_lr

__all__ = ["LearningRate", "suggest_lr"]
