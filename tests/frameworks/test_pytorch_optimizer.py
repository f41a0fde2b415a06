"""Ten optimizers of pytorch_optimizer: hooks, closures and states that are not torch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest

library = pytest.importorskip("pytorch_optimizer", reason="pytorch_optimizer is not installed: make integrations")

import torch
from torch.nn import functional as F

import safestep
from frameworks.task import STEPS, Classifier, loader, plain
from frameworks.witness import EXACT, Witness, assert_kept, assert_same_weights

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

TARGET = 0.05
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Lion": {},
    "AdaBelief": {},
    "Adan": {},
    "LaProp": {},
    "Lamb": {},
    "ADOPT": {},
    "SOAP": {},
    "Muon": {},
    "StableAdamW": {},
    "Shampoo": {},
}


def made(name: str, model: Classifier) -> Any:
    given: Any = model.parameters()
    if name == "Muon":  # takes the matrices by its own rule, the rest by AdamW
        matrices = [p for p in model.parameters() if p.ndim == 2]
        others = [p for p in model.parameters() if p.ndim != 2]
        given = [{"params": matrices, "use_muon": True}, {"params": others, "use_muon": False}]
    return getattr(library, name)(given, lr=0.05, **OPTIMIZERS[name])


class Run:
    def __init__(self, name: str, policy: safestep.Policy | None, *, audited: bool = False) -> None:
        self.model = Classifier()
        self.optimizer = made(name, self.model)
        self.guard = self.audit = None
        if policy is not None:
            self.guard = safestep.attach(self.model, self.optimizer, policy=policy, radius=EXACT)
            self.audit = self.guard.audit(1.0) if audited else None
        self.witness = Witness(self.model, Classifier, plain).watch(self.optimizer)

    def train(self, begin: int = 0, end: int = STEPS) -> Run:
        for x, y in list(loader())[begin:end]:
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(x), y).backward()
            self.optimizer.step()
        return self


@pytest.mark.parametrize("policy", [safestep.Watch(), safestep.Cap(1e6)], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_inside_training_is_bit_for_bit_what_it_is_without_a_guard(name: str, policy: safestep.Policy) -> None:
    bare, guarded = (Run(name, p).train() for p in (None, policy))
    assert_same_weights(guarded.model, bare.model)
    assert guarded.guard is not None
    assert {str(report.status) for report in guarded.guard.history} <= {"watched", "inside", "still"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_step_goes_beyond_the_target_and_every_step_is_counted(name: str) -> None:
    run = Run(name, safestep.Cap(TARGET), audited=True).train()
    assert_kept(run.guard, run.audit, run.witness, TARGET, (1, 2, STEPS - 1))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_run_goes_on_bit_for_bit_with_caps_acting(name: str) -> None:
    whole, begun = (Run(name, safestep.Cap(TARGET)).train(end=end) for end in (STEPS, STEPS // 2))
    resumed = Run(name, safestep.Cap(TARGET))
    for part in ("model", "optimizer", "guard"):
        getattr(resumed, part).load_state_dict(getattr(begun, part).state_dict())
    resumed.train(STEPS // 2)
    assert_same_weights(resumed.model, whole.model)
    assert resumed.guard is not None
    assert whole.guard is not None
    assert [r.row() for r in resumed.guard.history] == [r.row() for r in list(whole.guard.history)[STEPS // 2 :]]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_same_bits_of_optimizer_state_inside(name: str) -> None:
    states = [Run(name, policy).train().optimizer.state_dict() for policy in (None, safestep.Cap(1e6))]
    ours, theirs = (torch.utils._pytree.tree_leaves(state) for state in states)
    for one, other in zip(ours, theirs, strict=True):
        same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        assert same or (isinstance(one, float) and math.isnan(one))
