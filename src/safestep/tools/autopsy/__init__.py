"""The post-mortem of a step: what made the loss jump, asked again from the checkpoint before it."""

from safestep.tools.autopsy.examine import autopsy
from safestep.tools.autopsy.outcome_of_step import Autopsy, Cause, Layer, Sample
from safestep.tools.autopsy.step_to_examine import Scene

__all__ = ["Autopsy", "Cause", "Layer", "Sample", "Scene", "autopsy"]
