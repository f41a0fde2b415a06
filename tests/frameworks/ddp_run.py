"""A run of `test_lightning.py` on two processes: trains with and without a guard and writes what each rank saw."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import torch

import safestep
from frameworks.lit import Lit, fit

TARGET = 0.3


def main(folder: Path, by_hand: bool) -> None:
    warnings.simplefilter("error", safestep.SafestepWarning)
    torch.set_num_threads(1)
    options = {"strategy": "ddp", "devices": 2}
    modules = [
        Lit(policy, by_hand=by_hand) for policy in (None, safestep.Watch(), safestep.Cap(1e6), safestep.Cap(TARGET))
    ]
    for module in modules:
        fit(module, folder, **options)
    capped = modules[-1]
    states = [{name: value.tolist() for name, value in module.state_dict().items()} for module in modules]
    assert capped.guard is not None
    reports = list(capped.guard.history)
    seen = {
        "identical": all(states[0] == state for state in states[1:3]),
        "statuses": [str(report.status) for report in reports],
        "applied": [report.applied_ratio for report in reports],
        "weights": states[3],
        "true": [capped.witness.ratio(number) for number in range(len(capped.witness.steps))],
    }
    (folder / f"rank{os.environ.get('LOCAL_RANK', '0')}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), bool(int(sys.argv[2])))
