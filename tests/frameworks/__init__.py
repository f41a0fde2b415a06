"""Real training frameworks on tiny random models, one file each; a framework that is not installed is skipped."""

from frameworks import torchvision_operators

torchvision_operators.name()
