"""Lightning: automatic optimization, by hand with two optimizers, on two processes, checkpoints."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning", reason="lightning is not installed: make integrations")

import torch

import safestep
from frameworks.lit import Lit, fit
from frameworks.task import STEPS
from frameworks.witness import ROUGH, SLACK, assert_kept, assert_same_weights

pytestmark = pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec, LeafSpec:FutureWarning",
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:`torch.jit:DeprecationWarning",
    r"ignore:You defined a `validation_step` but",
)

TARGET = 0.3
LOOPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "automatic": ({}, {}),
    "accumulated": ({}, {"accumulate_grad_batches": 2}),
    "warm-up": ({"warm": 3}, {}),
    "clipped": ({}, {"gradient_clip_val": 0.1}),
    "bfloat16": ({}, {"precision": "bf16-mixed"}),
    "by hand, two optimizers": ({"by_hand": True}, {}),
}


@pytest.mark.parametrize("policy", [safestep.Watch(), safestep.Cap(1e6)], ids=str)
@pytest.mark.parametrize("loop", LOOPS)
def test_inside_training_is_bit_for_bit_what_it_is_without_a_guard(
    loop: str, policy: safestep.Policy, tmp_path: Path
) -> None:
    made, options = LOOPS[loop]
    plain, guarded = Lit(**made), Lit(policy, **made)
    for module in (plain, guarded):
        fit(module, tmp_path, **options)
    assert_same_weights(guarded, plain)
    assert {str(report.status) for report in guarded.guard.history} <= {"watched", "inside", "still"}


@pytest.mark.parametrize("loop", LOOPS)
def test_no_step_goes_beyond_the_target_and_the_records_count_the_steps(loop: str, tmp_path: Path) -> None:
    made, options = LOOPS[loop]
    module = Lit(safestep.Cap(TARGET), audited=True, **made)
    trainer = fit(module, tmp_path, **options)
    rough = ROUGH if "precision" in options else SLACK
    assert_kept(module.guard, module.audit, module.witness, TARGET, (1, 2, 3), rough=rough)
    # Lightning counts the steps of each optimizer; the guard those of the model.
    assert len(module.guard.history) == trainer.global_step / (2 if made.get("by_hand") else 1)
    assert len(module.guard.history) == STEPS / options.get("accumulate_grad_batches", 1)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_resumed_run_goes_on_bit_for_bit_with_caps_acting(loop: str, tmp_path: Path) -> None:
    made, options = LOOPS[loop]
    whole, begun, resumed = (Lit(safestep.Cap(TARGET), **made) for _ in range(3))
    fit(whole, tmp_path, **options | {"max_epochs": 2})
    fit(begun, tmp_path, **options).save_checkpoint(tmp_path / "half.ckpt", weights_only=False)
    fit(resumed, tmp_path, tmp_path / "half.ckpt", **options | {"max_epochs": 2})
    assert_same_weights(resumed, whole)
    rows = [report.row() for report in whole.guard.history]
    assert [report.row() for report in resumed.guard.history] == rows[len(rows) // 2 :]
    assert sum(row["status"] == "capped" for row in rows[len(rows) // 2 :]) >= 2


@pytest.mark.parametrize("by_hand", [False, True], ids=["automatic", "by hand, two optimizers"])
def test_on_two_processes(by_hand: bool, tmp_path: Path) -> None:
    """`ddp_run.py` says what each rank does; Lightning's own launcher starts the second one."""
    script = Path(__file__).with_name("ddp_run.py")
    path = os.pathsep.join([str(script.parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(int(by_hand))],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    for seen in ranks:
        assert seen["identical"], "Watch, Cap(1e6) and no guard: not the same weights"
        assert seen["statuses"].count("capped") >= 2
        assert len(seen["statuses"]) == STEPS // 2
    assert ranks[0]["applied"] == ranks[1]["applied"]
    assert ranks[0]["weights"] == ranks[1]["weights"]
    for capped, mine, other in zip(ranks[0]["statuses"], ranks[0]["true"], ranks[1]["true"], strict=True):
        assert max(mine, other) <= TARGET * (1 + SLACK)  # r is the largest over the ranks' samples
        assert capped != "capped" or math.isclose(max(mine, other), TARGET, rel_tol=SLACK)


def test_the_state_of_the_guard_goes_through_weights_only(tmp_path: Path) -> None:
    module = Lit(safestep.Cap(TARGET))
    fit(module, tmp_path).save_checkpoint(tmp_path / "all.ckpt", weights_only=False)
    assert torch.load(tmp_path / "all.ckpt", weights_only=True)["guard"] == module.guard.state_dict()
