"""Run directories that no run has written: every outcome a page has to tell, in a moment."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safestep.experiments import find
from safestep.experiments.digits.digits_summary import over_seeds
from safestep.records.report import json_line, plain

EPOCHS = 6
RUNS = [
    ("fixed 0.5", "fixed", 0.5),
    ("fixed 5.0", "fixed", 5.0),
    ("capped 0.5", "cap", 0.5),
    ("capped 5.0", "cap", 5.0),
]


def epochs(label: str, policy: str, lr: float | None, seed: int) -> list[dict[str, Any]]:
    lost = label == "fixed 5.0"
    records = []
    for epoch in range(1, EPOCHS + 1):
        good = 1 - 0.5**epoch + seed / 1000
        records.append({
            "kind": "epoch",
            "label": label,
            "optimizer": "SGD",
            "policy": policy,
            "base_lr": lr,
            "seed": seed,
            "epoch": epoch,
            "train_loss": (1e30, math.inf, math.nan)[epoch % 3] if lost else 2.3 * 0.5**epoch,
            "test_acc": 0.1 if lost else good,
            "mean_r": math.inf if lost else 0.9,
            "max_r": 1.85e30 if lost else 1.0 if policy != "fixed" else 3.25,
            "mean_lr": lr if policy == "fixed" else 0.15,
            "mean_radius": 0.2,
            "cap_fraction": 0.0 if policy == "fixed" else 1.0,
            "diverged": lost,
        })  # fmt: skip
    return records


def row(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    last = records[-1]
    return {
        **{key: last[key] for key in ("label", "optimizer", "policy", "base_lr", "seed", "diverged")},
        "final_acc": last["test_acc"],
        "peak_r": max(record["max_r"] for record in records),
        "final_mean_r": last["mean_r"],
        "final_mean_lr": last["mean_lr"],
        "final_mean_radius": last["mean_radius"],
        "final_cap_fraction": last["cap_fraction"],
    }


def run_directory(path: Path, seeds: Sequence[int] = (7,), **changes: Any) -> Path:
    """Write a finished run of digits-sgd; ``changes`` replace what results.json holds."""
    runs = [epochs(*run, seed) for run in [*RUNS, ("pin", "pin", None)] for seed in seeds]
    rows = [plain(row(records)) for records in runs]
    results = {
        "experiment": "digits-sgd",
        "version": "9.8.7",
        "settings": {**find("digits-sgd").settings().as_record(), "epochs": EPOCHS, "lrs": [0.5, 5.0]},
        "seeds": list(seeds),
        "environment": {"python": "3.11.0", "torch": "2.6.0"},
        "started": "2026-03-04T05:06:07+00:00",
        "finished": "2026-03-04T05:06:19+00:00",
        "rows": rows,
        "summary": over_seeds(rows),
        "records": EPOCHS * len(rows),
        **changes,
    }
    path.mkdir(parents=True, exist_ok=True)
    (path / "results.json").write_text(json.dumps(results, allow_nan=False), encoding="utf-8")
    lines = [json_line(record) + "\n" for records in runs for record in records]
    (path / "records.jsonl").write_text("".join(lines), encoding="utf-8")
    return path
