"""``make tables``: writes the table of docs/training-loops.md anew."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["SAFESTEP_CHECK_SHAPES"] = "1"

import torch

from loops.table import write

torch.set_num_threads(1)
torch.sparse.check_sparse_tensor_invariants.enable()
write()
