"""Whether the cheap ways of measuring protect as the exact one does."""

EXPERIMENTS = {"protection": "protection"}
