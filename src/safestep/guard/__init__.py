"""The guard of a training: attached to model and optimizer, decides each step and reports it."""
