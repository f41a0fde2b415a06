"""Lightning: automatic optimization, by hand with two optimizers, on two processes, checkpoints."""

from __future__ import annotations

import csv
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
from lightning.pytorch.loggers import CSVLogger
from torch.nn import functional as F

import safestep
from frameworks.lit import ByHand, Lit, SafestepCallback, fit
from frameworks.task import STEPS, Classifier, loader
from frameworks.witness import EXACT, ROUGH, SLACK, assert_kept, assert_same_weights
from safestep.logs.recent import recent

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
    (callback,) = module.callbacks
    saved = torch.load(tmp_path / "all.ckpt", weights_only=True)["callbacks"][callback.state_key]
    assert saved == module.guard.state_dict()


def test_the_callback_is_what_one_would_wire_by_hand(tmp_path: Path) -> None:
    modules = ByHand(safestep.Cap(TARGET)), Lit(safestep.Cap(TARGET))
    for number, module in enumerate(modules):
        fit(module, tmp_path).save_checkpoint(tmp_path / f"{number}.ckpt", weights_only=False)
    resumed = ByHand(safestep.Cap(TARGET))
    fit(resumed, tmp_path, tmp_path / "0.ckpt", max_epochs=2)
    fit(modules[1], tmp_path, tmp_path / "1.ckpt", max_epochs=2)
    assert_same_weights(modules[1], resumed)
    assert [r.row() for r in modules[1].guard.history] == [r.row() for r in resumed.guard.history]


class Evaluated(Lit):
    """Evaluates in the middle of an epoch."""

    def val_dataloader(self) -> Any:
        return loader(2)

    def validation_step(self, batch: Any, number: int) -> None:
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))


@pytest.mark.parametrize("loop", LOOPS)
def test_with_the_default_limit_and_evaluation_a_resumed_run_goes_on_bit_for_bit(loop: str, tmp_path: Path) -> None:
    made, options = LOOPS[loop]
    options = {**options, "val_check_interval": 4}
    modules = [Evaluated(safestep.Cap(), radius=None, **made) for _ in range(3)]
    for module, epochs in zip(modules, (2, 1, 2), strict=True):
        resume = tmp_path / "half.ckpt" if module is modules[2] else None
        trainer = fit(module, tmp_path, resume, **options | {"max_epochs": epochs})
        if epochs == 1:
            trainer.save_checkpoint(tmp_path / "half.ckpt", weights_only=False)
    whole, begun, resumed = modules
    assert_same_weights(resumed, whole)
    rows = [report.row() for report in whole.guard.history]
    assert [report.row() for report in resumed.guard.history] == rows[len(begun.guard.history) :]
    assert sum(row["status"] == "capped" for row in rows) >= 2
    assert all(row["scale"] == 1.0 or row["applied_ratio"] <= 1 + SLACK for row in rows)
    assert "default_limit" in repr(whole.guard)


def test_the_trainers_log_has_the_numbers_of_the_records(tmp_path: Path) -> None:
    module, logger = Lit(safestep.Cap(TARGET)), CSVLogger(tmp_path)
    fit(module, tmp_path, logger=logger, log_every_n_steps=2)
    reports = list(module.guard.history)
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    assert [row["step"] for row in rows] == [1, 3, 5, 7]
    for row in rows:
        pair = reports[int(row["step"]) - 1 : int(row["step"]) + 1]
        assert math.isclose(row["safestep/ratio"], max(report.ratio for report in pair), rel_tol=1e-6)
        assert math.isclose(row["safestep/scale"], sum(report.scale for report in pair) / 2, rel_tol=1e-6)
        assert row["safestep/cap_share"] == sum(str(report.status) == "capped" for report in pair) / 2


def test_after_fitting_the_module_has_no_hooks_and_the_next_fit_begins_anew(tmp_path: Path) -> None:
    module = Lit(safestep.Cap(TARGET))
    fit(module, tmp_path)
    first = module.guard
    assert not first.attached
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in module.net.body)
    fit(module, tmp_path)
    assert module.guard is not first
    assert [report.step for report in module.guard.history] == list(range(STEPS))


class Two(Lit):
    """Two models that are trained by turns, as in a GAN, each with an optimizer of its own."""

    def __init__(self, guarded: bool) -> None:
        super().__init__(by_hand=True)
        self.other = Classifier()
        self.callbacks = [SafestepCallback(name, radius=EXACT) for name in ("net", "other") if guarded]

    def training_step(self, batch: Any, number: int) -> None:
        for model, optimizer in zip((self.net, self.other), self.optimizers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(F.cross_entropy(model(batch[0]), batch[1]))
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.net.parameters(), lr=50.0), torch.optim.Adam(self.other.parameters(), lr=3.0)]

    def on_train_start(self) -> None:
        pass


def test_two_callbacks_guard_two_parts(tmp_path: Path) -> None:
    whole, begun, resumed = Two(True), Two(True), Two(True)
    logged = fit(whole, tmp_path, max_epochs=2).callback_metrics
    fit(begun, tmp_path).save_checkpoint(tmp_path / "half.ckpt", weights_only=False)
    fit(resumed, tmp_path, tmp_path / "half.ckpt", max_epochs=2)
    assert_same_weights(resumed, whole)
    for one, other in zip(whole.callbacks, resumed.callbacks, strict=True):
        for name, number in recent(one.guard.history, 50).items():
            assert math.isclose(logged[name.replace("/", f"/{one.module}/")], number, rel_tol=1e-6)
        assert [r.row() for r in other.guard.history] == [r.row() for r in list(one.guard.history)[STEPS:]]
        assert max(report.applied_ratio for report in one.guard.history) <= 1 + SLACK
        assert sum(str(report.status) == "capped" for report in one.guard.history) >= 2


@pytest.mark.parametrize(
    ("part", "told"), [("nett", "no such part; it has net"), ("frozen", "none of the 1 optimizers trains")]
)
def test_a_part_that_cannot_be_guarded_is_refused_with_the_remedy(part: str, told: str, tmp_path: Path) -> None:
    module = Lit(safestep.Cap(TARGET))
    module.frozen = torch.nn.Linear(1, 1).requires_grad_(False)
    module.configure_optimizers = lambda: torch.optim.SGD(module.net.parameters(), lr=0.1)
    module.callbacks = [SafestepCallback(part)]
    with pytest.raises(safestep.AttachError, match=told):
        fit(module, tmp_path)
