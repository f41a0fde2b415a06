"""A run of `test_transformers.py` on two processes: with and without a guard, stopped and resumed."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import torch

import safestep
from frameworks.hf import train
from frameworks.witness import assert_same_weights

TARGET = 0.02


def main(folder: Path) -> None:
    warnings.simplefilter("error", safestep.SafestepWarning)
    torch.set_num_threads(1)
    plain, watched = (train(folder, policy, ddp_backend="gloo") for policy in (None, safestep.Watch()))
    saving = {"ddp_backend": "gloo", "save_strategy": "steps", "save_steps": 3}
    capped = train(folder, safestep.Cap(TARGET), **saving)
    resumed = train(folder, safestep.Cap(TARGET), resume=3, **saving)
    assert_same_weights(resumed.model, capped.model)
    reports = list(capped.guard.history)
    states = [[value.tolist() for value in run.model.state_dict().values()] for run in (plain, watched)]
    seen = {
        "identical": states[0] == states[1],
        "resumed": [r.row() for r in resumed.guard.history] == [r.row() for r in reports[3:]],
        "statuses": [str(report.status) for report in reports],
        "applied": [report.applied_ratio for report in reports],
        "true": [capped.witness.ratio(number) for number in range(len(capped.witness.steps))],
    }
    (folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
