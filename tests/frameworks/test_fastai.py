"""fastai: a `Learner` with an optimizer of torch's, its one-cycle schedule, clipping, evaluation after each epoch."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastai", reason="fastai is not installed: make integrations")

with warnings.catch_warnings():  # it sets an option that pandas has given up
    warnings.simplefilter("ignore")
    import fastai.callback.schedule  # noqa: F401  # a learner has fit_one_cycle then
    from fastai.callback.training import GradientAccumulation, GradientClip

import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import Adam, OptimWrapper
from torch.nn import functional as F

import safestep
from frameworks.task import SIZE, STEPS, Classifier, loader, plain
from frameworks.witness import EXACT, Witness, assert_kept, assert_same_weights

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning", "ignore:numpy.core is deprecated:DeprecationWarning"
)

TARGET = 0.3
LOOPS: dict[str, list[Any]] = {
    "float32": [],
    "clipped": [GradientClip(0.1)],
    "accumulated": [GradientAccumulation(2 * SIZE)],
}


class Guarded(Callback):
    """Attaches a guard, and puts what was saved of one into it."""

    def __init__(self, policy: safestep.Policy | None, saved: dict[str, Any] | None) -> None:
        self.policy, self.saved, self.guard, self.audit = policy, saved, None, None

    def before_fit(self) -> None:
        model, optimizer = self.learn.model, self.learn.opt.opt
        if self.policy is not None:
            self.guard = safestep.attach(model, optimizer, policy=self.policy, radius=EXACT)
            self.audit = self.guard.audit(1.0)
        if self.saved is not None:
            self.guard.load_state_dict(self.saved)
        self.witness = Witness(model, Classifier, plain).watch(optimizer)

    def after_fit(self) -> None:
        if self.guard is not None:
            self.guard.detach()


def learner(policy: safestep.Policy | None, loop: str, saved: Any = None) -> tuple[Any, Guarded]:
    guarded, wrapped = Guarded(policy, saved), partial(OptimWrapper, opt=torch.optim.AdamW)
    batches = DataLoaders(loader(), loader(2))
    model = Classifier()
    return Learner(batches, model, loss_func=F.cross_entropy, opt_func=wrapped, cbs=[*LOOPS[loop], guarded]), guarded


def fit(policy: safestep.Policy | None, loop: str) -> tuple[Any, Guarded]:
    made, guarded = learner(policy, loop)
    with made.no_bar(), made.no_logging():
        made.fit_one_cycle(1, 0.5)
    return made, guarded


@pytest.mark.parametrize("policy", [safestep.Watch(), safestep.Cap(1e6)], ids=str)
@pytest.mark.parametrize("loop", LOOPS)
def test_inside_training_is_bit_for_bit_what_it_is_without_a_guard(loop: str, policy: safestep.Policy) -> None:
    (bare, _), (guarded, _) = (fit(p, loop) for p in (None, policy))
    assert_same_weights(guarded.model, bare.model)


@pytest.mark.parametrize("loop", LOOPS)
def test_no_step_goes_beyond_the_target_and_the_records_count_the_steps(loop: str) -> None:
    _, run = fit(safestep.Cap(TARGET), loop)
    assert_kept(run.guard, run.audit, run.witness, TARGET, (0, 1, 3))
    assert len(run.guard.history) == STEPS / (2 if loop == "accumulated" else 1)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_resumed_run_goes_on_bit_for_bit_with_caps_acting(loop: str, tmp_path: Path) -> None:
    whole, one = learner(safestep.Cap(TARGET), loop)
    with whole.no_bar(), whole.no_logging():
        whole.fit(1, 0.5)
        whole.save(tmp_path / "half")
        torch.save(one.guard.state_dict(), tmp_path / "guard.pt")
        one.saved = torch.load(tmp_path / "guard.pt", weights_only=True)
        whole.fit(1, 0.5, reset_opt=False)
    resumed, other = learner(safestep.Cap(TARGET), loop, one.saved)
    resumed.create_opt()
    resumed.load(tmp_path / "half")
    with resumed.no_bar(), resumed.no_logging():
        resumed.fit(1, 0.5, reset_opt=False)
    assert_same_weights(resumed.model, whole.model)
    rows = [report.row() for report in other.guard.history]
    assert rows == [report.row() for report in one.guard.history]
    assert sum(row["status"] == "capped" for row in rows) >= 2


def test_an_optimizer_of_its_own_is_refused() -> None:
    made, _ = learner(None, "float32")
    made.opt_func = Adam
    made.create_opt()
    with pytest.raises(safestep.AttachError, match=r"expected a torch.optim.Optimizer"):
        safestep.attach(made.model, made.opt)
