"""Optimizers under which runs would act on each other are refused, and the reason is said."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest
import torch
from torch.optim import Optimizer

from safestep.descent import PLANE, DescentError, simulate


class Clipped(torch.optim.SGD):
    """SGD that clips the norm of the whole gradient, as a wrapper might."""

    def step(self, closure=None):
        for group in self.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
        return super().step(closure)


class Lars(Optimizer):
    """Scales every parameter's step by its norm."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(group["lr"] * parameter.norm() / parameter.grad.norm() * parameter.grad)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (torch.optim.LBFGS, "LBFGS cannot step an ensemble: it searches along one line"),
        (partial(torch.optim.Muon, lr=0.1), "orthogonalises"),
        (torch.optim.Adafactor, "means over rows and columns"),
        (torch.optim.SparseAdam, "sparse gradients"),
        (
            partial(Clipped, lr=0.1),
            "Clipped cannot step .* a run goes elsewhere beside other runs than alone",
        ),
        (Lars, "Lars cannot step an ensemble"),
        (lambda given: torch.optim.LBFGS(list(given)), "closure"),
        (partial(torch.optim.SGD, rate=0.1), "SGD cannot be made: TypeError"),
    ],
    ids=["LBFGS", "Muon", "Adafactor", "SparseAdam", "clipped", "LARS", "hidden", "options"],
)
@pytest.mark.parametrize("runs", [1, 5])
def test_refused(make, said, runs):
    with pytest.raises(DescentError, match=said):
        simulate(PLANE, make, runs=runs)


@pytest.mark.parametrize("options", [{"foreach": True}, {"foreach": False}, {"fused": True}, {"capturable": False}])
def test_implementations_of_one_optimizer_are_all_taken(options):
    simulate(PLANE, partial(torch.optim.Adam, **options), steps=2, runs=3)


def test_every_optimizer_of_torch_is_decided():
    """A class that torch newly exports is tried, and either steps an ensemble or is refused with a reason."""
    taken = set()
    for name in torch.optim.__all__:
        kind = getattr(torch.optim, name)
        if not isinstance(kind, type) or not issubclass(kind, Optimizer) or kind is Optimizer:
            continue
        with contextlib.suppress(DescentError):
            simulate(PLANE, kind, steps=1, runs=2)
            taken.add(name)
    assert {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad"} <= taken
    assert not taken & {"LBFGS", "Muon", "Adafactor", "SparseAdam"}
