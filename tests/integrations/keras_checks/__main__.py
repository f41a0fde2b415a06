"""Runs the checks on the backend of KERAS_BACKEND, which is one for the whole process."""

from __future__ import annotations

from pathlib import Path

import torch

from processes import run_checks

torch.set_num_threads(1)
run_checks(Path(__file__).parent, ignored=("`torch.jit.script", "__array__ implementation doesn't accept a copy"))
