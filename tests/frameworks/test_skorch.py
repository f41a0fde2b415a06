"""skorch: the guard is attached in a callback, where model and optimizer exist; every step calls a closure."""

from __future__ import annotations

from typing import Any

import pytest

skorch = pytest.importorskip("skorch", reason="skorch is not installed: make integrations")

import torch
from torch import nn

import safestep
from frameworks.task import STEPS, Classifier, plain, samples
from frameworks.witness import EXACT, Witness, assert_kept, assert_same_weights

TARGET = 0.3


class Guarded(skorch.callbacks.Callback):
    """Attaches a guard."""

    def __init__(self, policy: safestep.Policy | None) -> None:
        self.policy = policy

    def on_train_begin(self, net: Any, **_: Any) -> None:
        net.guard = net.audit = None
        if self.policy is not None:
            net.guard = safestep.attach(net.module_, net.optimizer_, policy=self.policy, radius=EXACT)
            net.audit = net.guard.audit(1.0)
        net.witness = Witness(net.module_, Classifier, plain).watch(net.optimizer_)


def trained(policy: safestep.Policy | None) -> Any:
    net = skorch.NeuralNetClassifier(
        Classifier,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=0.5,
        batch_size=8,
        max_epochs=1,
        train_split=None,
        verbose=0,
        callbacks=[Guarded(policy)],
    )
    x, y = samples().tensors
    return net.fit(x.numpy(), y.numpy())


@pytest.mark.parametrize("policy", [safestep.Watch(), safestep.Cap(1e6)], ids=str)
def test_inside_training_is_bit_for_bit_what_it_is_without_a_guard(policy: safestep.Policy) -> None:
    assert_same_weights(trained(policy).module_, trained(None).module_)


def test_no_step_goes_beyond_the_target_and_the_records_count_the_steps() -> None:
    net = trained(safestep.Cap(TARGET))
    assert_kept(net.guard, net.audit, net.witness, TARGET, (0, 1, 3))
    assert len(net.guard.history) == STEPS
