"""Hugging Face ``Trainer``: guarded twice, broken off and begun again, copies of the callback."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="transformers is not installed: make integrations")
pytest.importorskip("accelerate", reason="accelerate is not installed: make integrations")

import transformers

import safestep
from frameworks.hf import QUIET, gpt2, trainer_of
from safestep.integrations.transformers import SafestepCallback, guard_trainer

pytestmark = pytest.mark.filterwarnings(*QUIET)


class Breaks(transformers.TrainerCallback):
    """Breaks a training off, as an interrupt does."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt


def broken_off(folder: Path, model: Any) -> tuple[Any, SafestepCallback]:
    trainer = trainer_of(folder, model, callbacks=[Breaks()])
    guarded = guard_trainer(trainer)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.remove_callback(Breaks)
    return trainer, guarded


def test_a_training_that_was_broken_off_begins_anew(tmp_path: Path) -> None:
    trainer, guarded = broken_off(tmp_path, gpt2())
    trainer.train()
    assert [report.step for report in guarded.guard.history] == [0, 1, 2]
    assert not guarded.guard.attached


def test_another_trainer_may_train_the_model_of_one_that_was_broken_off(tmp_path: Path) -> None:
    """A notebook holds on to the trainer that failed: it keeps the traceback."""
    model = gpt2()
    _, former = broken_off(tmp_path, model)
    assert former.guard.attached
    trainer = trainer_of(tmp_path, model)
    guarded = guard_trainer(trainer)
    trainer.train()
    assert not former.guard.attached
    assert [report.step for report in guarded.guard.history] == [0, 1, 2]


@pytest.mark.parametrize("begin", [trainer_of, lambda folder: broken_off(folder, gpt2())[0]], ids=["new", "broken off"])
def test_of_two_calls_of_the_line_the_last_one_counts(begin: Callable[[Path], Any], tmp_path: Path) -> None:
    """As where a cell of a notebook is run again."""
    trainer = begin(tmp_path)
    guard_trainer(trainer)
    guarded = guard_trainer(trainer, policy=safestep.Watch())
    trainer.train()
    assert {str(report.status) for report in guarded.guard.history} == {"watched"}
    assert all("safestep/ratio" in row for row in trainer.state.log_history if "loss" in row)


def test_two_callbacks_in_one_training_are_refused(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, callbacks=[SafestepCallback(), SafestepCallback()])
    with pytest.raises(safestep.AttachError, match="has a guard already"):
        trainer.train()


@pytest.mark.parametrize("made", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_of_the_callback_guards_a_training_of_its_own(made: Callable[[Any], Any], tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, callbacks=[guarded := SafestepCallback(history=2)])
    trainer.train()
    other = made(guarded)
    assert other.guard is None
    trainer_of(tmp_path, callbacks=[other], save_strategy="steps", save_steps=1).train()
    assert [report.step for report in other.guard.history] == [1, 2]
    assert len(guarded.guard.history) == 2
