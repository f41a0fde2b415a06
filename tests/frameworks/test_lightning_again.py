"""Lightning: broken off and begun again, checkpoints that are only tested, copies of the callback, messages."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

lightning = pytest.importorskip("lightning", reason="lightning is not installed: make integrations")

import torch
from torch.nn import functional as F

import safestep
from frameworks.lit import Lit, SafestepCallback, fit, trainer
from frameworks.task import STEPS, Classifier, loader
from safestep.errors import NothingToMeasureError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.isinstance.treespec, LeafSpec:FutureWarning",
    "ignore:The '(train|test)_dataloader' does not have many workers",
    "ignore:`torch.jit:DeprecationWarning",
    "ignore:Be aware that when using `ckpt_path`",
)


def steps(module: Lit) -> list[int]:
    return [report.step for report in module.guard.history]


class Breaks(lightning.pytorch.Callback):
    """Breaks a training off."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 3:
            raise RuntimeError("broken off")


def test_another_callback_may_guard_the_module_of_a_fit_that_was_broken_off(tmp_path: Path) -> None:
    """A notebook holds on to the trainer that failed: it keeps the traceback."""
    module = Lit(safestep.Cap())
    failed = trainer(tmp_path, callbacks=[*module.callbacks, Breaks()])
    with pytest.raises(RuntimeError, match="broken off"):
        failed.fit(module, loader())
    assert not module.guard.attached
    assert steps(module) == [0, 1, 2]
    module.callbacks = [SafestepCallback("net")]
    fit(module, tmp_path)
    assert steps(module) == list(range(STEPS))


class Examined(Lit):
    """Can be tested."""

    def test_step(self, batch: Any, number: int) -> None:
        self(batch[0])


def test_the_state_of_a_checkpoint_that_is_only_tested_is_not_that_of_the_next_fit(tmp_path: Path) -> None:
    module = Examined(safestep.Cap())
    first = fit(module, tmp_path)
    first.save_checkpoint(tmp_path / "all.ckpt", weights_only=False)
    first.test(module, loader(), ckpt_path=tmp_path / "all.ckpt", verbose=False)
    fit(module, tmp_path)
    assert steps(module) == list(range(STEPS))


def test_a_checkpoint_without_a_guard_is_told(tmp_path: Path) -> None:
    fit(Lit(), tmp_path).save_checkpoint(tmp_path / "half.ckpt", weights_only=False)
    module = Lit(safestep.Cap())
    with pytest.warns(safestep.SafestepWarning, match=r"half\.ckpt has no state of a guard with module='net'"):
        fit(module, tmp_path, tmp_path / "half.ckpt", max_epochs=2)
    assert steps(module) == list(range(STEPS))


def test_where_the_part_is_not_what_the_step_calls_the_error_says_what_to_name(tmp_path: Path) -> None:
    module = Lit(safestep.Cap())
    module.callbacks = [SafestepCallback("net")]
    module.forward = lambda x: module.net.head(module.net.body(x))
    with pytest.raises(NothingToMeasureError) as raised:
        fit(module, tmp_path)
    assert raised.value.__notes__ == ["SafestepCallback(module='net'): name the part that training_step calls"]
    assert not module.guard.attached


@pytest.mark.parametrize("made", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_of_the_callback_guards_a_fit_of_its_own(made: Callable[[Any], Any], tmp_path: Path) -> None:
    module, other = Lit(safestep.Cap()), Lit()
    fit(module, tmp_path)
    other.callbacks = [made(module.callbacks[0])]
    assert other.guard is None
    assert other.callbacks[0].state_dict() == {}
    fit(other, tmp_path)
    assert steps(other) == steps(module) == list(range(STEPS))


class FromWithin(Lit):
    """Attaches to what Lightning calls its optimizers."""

    def on_train_start(self) -> None:
        self.own = safestep.attach(self.net, self.optimizers())


@pytest.mark.parametrize("by_hand", [False, True], ids=["automatic", "by hand, two optimizers"])
def test_lightnings_wrappers_of_optimizers_are_seen_through(by_hand: bool, tmp_path: Path) -> None:
    module, other = FromWithin(by_hand=by_hand), Lit(safestep.Cap(), radius=None, by_hand=by_hand)
    for one in (module, other):
        fit(one, tmp_path)
    assert [report.row() for report in module.own.history] == [report.row() for report in other.guard.history]


@pytest.mark.parametrize("late", [False, True], ids=["attached first", "attached after setup"])
def test_fabric(late: bool, tmp_path: Path) -> None:
    fabric, net = lightning.Fabric(accelerator="cpu", precision="bf16-mixed"), Classifier()
    inner = torch.optim.AdamW(net.parameters(), lr=0.5)
    guard = None if late else safestep.attach(net, inner)
    model, optimizer = fabric.setup(net, inner)
    guard = guard or safestep.attach(model, optimizer)
    for x, y in fabric.setup_dataloaders(loader()):
        optimizer.zero_grad()
        fabric.backward(F.cross_entropy(model(x), y))
        optimizer.step()
    assert [report.step for report in guard.history] == list(range(STEPS))
    assert sum(str(report.status) == "capped" for report in guard.history) >= 2
    state = guard.state_dict()
    fabric.save(tmp_path / "all.ckpt", {"model": model, "optimizer": optimizer, "guard": guard})
    fabric.load(tmp_path / "all.ckpt", {"model": model, "optimizer": optimizer, "guard": guard})
    assert guard.state_dict() == state
