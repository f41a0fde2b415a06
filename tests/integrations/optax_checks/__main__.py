"""Runs the checks in a process whose jax has float64 and two devices, which is settled when it is imported."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import torch

from processes import run_checks

torch.set_num_threads(1)
# each example of another shape would be compiled anew
hypothesis.settings.register_profile("few", derandomize=True, max_examples=20, deadline=None, database=None)
hypothesis.settings.load_profile("few")
run_checks(Path(__file__).parent, ignored=("`torch.jit.script", "jax.pmap is"))
