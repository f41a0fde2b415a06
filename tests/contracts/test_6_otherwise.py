"""Contract 6, never silently unsafe: what is measured another way, or is no boundary, is said once."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

from safestep import LossMismatchError, MeasurementError, SafestepWarning, Status, Watch
from zoo import ALL, METHODS, ZOO, Case, Recipe, Scene, Training, applied_ratio, twin_ratio
from zoo.asserts import PRECISION, assert_identical
from zoo.models import Squared


@pytest.mark.parametrize("case", [case for case in ZOO.values() if case.untaped], ids=str)
def test_another_way_than_the_training_pass_is_said_once(case):
    training = Training(case, ALL["SGD"])
    guard = training.attach(method="exact")
    with pytest.warns(SafestepWarning) as caught:
        training.steps(3)
    (warning,) = [str(one.message) for one in caught if issubclass(one.category, SafestepWarning)]
    assert re.search(case.untaped, warning)
    way = "difference" if case.difference else "forward-mode"
    assert all(report.method == f"{way}/train" for report in guard.history)
    assert all(report.exact is not case.difference for report in guard.history)


REGRESSIONS = pytest.mark.parametrize(
    "loss",
    [lambda z, y: z.square().mean(), lambda z, y: F.mse_loss(z, torch.ones_like(z)), lambda z, y: z.abs().sum()],
    ids=["square", "mse", "absolute"],
)


@METHODS
@REGRESSIONS
def test_a_regression_has_no_r_and_is_refused(loss, method):
    training = Training(Case("regression", ZOO["mlp"].build, ZOO["mlp"].batch, objective=loss), ALL["SGD"])
    training.attach(method=method)
    start = training.parameters()
    with pytest.raises(
        LossMismatchError, match=r"(?s)no softmax cross-entropy.*\nexpected: .*\nto do: .*CurvatureRadius\('mse'\)"
    ):
        training.step()
    assert_identical(training.parameters(), start)


@METHODS
@REGRESSIONS
def test_a_regression_that_is_watched_is_told_once_that_it_has_no_r(loss, method):
    training = Training(Case("regression", ZOO["mlp"].build, ZOO["mlp"].batch, objective=loss), ALL["SGD"])
    guard = training.attach(policy=Watch(), method=method)
    with pytest.warns(SafestepWarning, match="no softmax cross-entropy") as caught:
        training.steps(3)
    assert len(caught) == 1
    assert {report.status for report in guard.history} == {Status.UNMEASURED}


@pytest.mark.parametrize(
    "loss",
    [
        F.cross_entropy,
        lambda z, y: F.cross_entropy(z, y, label_smoothing=0.2),
        lambda z, y: F.cross_entropy(z, y, reduction="sum"),
        lambda z, y: F.cross_entropy(z, y, weight=torch.tensor([0.1, 1.0, 5.0])),
        lambda z, y: F.cross_entropy(z, F.one_hot(y, 3).float() * 0.8 + 0.2 / 3),
        lambda z, y: F.nll_loss(z.log_softmax(-1), y),
        lambda z, y: F.kl_div(z.log_softmax(-1), torch.full_like(z, 1 / 3), reduction="batchmean"),
    ],
    ids=["plain", "smoothed", "sum", "weighted", "soft-labels", "nll", "kl"],
)
def test_every_softmax_loss_is_taken_as_one(loss):
    training = Training(Case("softmax", ZOO["mlp"].build, ZOO["mlp"].batch, objective=loss), ALL["SGD"])
    guard = training.attach(method="tiered")
    training.steps(2)  # a warning would be an error
    assert len(guard.history) == 2


class Detached(nn.Module):
    """Half of the logits come through .detach(): differentiation does not see what a step does to them."""

    def __init__(self):
        super().__init__()
        self.body, self.gate = ZOO["mlp"].build(), nn.Linear(4, 3)

    def forward(self, x):
        return self.body(x) + self.gate(x).detach()


@METHODS
def test_parameters_hidden_from_differentiation_are_measured_all_the_same(method):
    """Weight decay moves the hidden half, backward does not know of it: J p must."""
    decay = Recipe("decay", SGD, 0.1, 0.1, {"weight_decay": 1000.0})
    training = Training(Case("detached", Detached, ZOO["mlp"].batch), decay, dtype=torch.float64)
    guard, start = training.attach(policy=Watch(), method=method), training.parameters()
    training.step()
    (x,) = training.case.batch(0, torch.float64).args
    with torch.no_grad():

        def logits(t):
            for name, p in training.model.named_parameters():
                p.copy_(start[name] + t * proposal[name])
            return training.model(x)

        proposal = {name: p - start[name] for name, p in training.parameters().items()}
        slope = (logits(1e-7) - logits(-1e-7)) / 2e-7
    precision = {"exact": 1e-5, "tiered": 0.2}[method]  # a hundred times the parameters is no straight way
    assert guard.last.ratio == pytest.approx((slope.amax(1) - slope.amin(1)).max().item() / math.pi, rel=precision)


# -- forwards that are other functions when they run again ------------------------------------------------------------


class OwnGenerator(nn.Module):
    """Draws from a generator of its own, which nobody else can know of."""

    def __init__(self):
        super().__init__()
        self.body, self.chance = ZOO["mlp"].build(), torch.Generator().manual_seed(3)

    def forward(self, x):
        return self.body(x * torch.rand(x.shape, generator=self.chance).mul(20).to(x.dtype))


class Counting(nn.Module):
    """What it computes depends on how often it was called."""

    def __init__(self):
        super().__init__()
        self.body, self.calls = ZOO["mlp"].build(), 0

    def forward(self, x):
        self.calls += 1
        return self.body(x) * (100.0 if self.calls % 2 else 1.0)


class OverwritesItsInput(nn.Module):
    """Changes its input in place."""

    def __init__(self):
        super().__init__()
        self.body = ZOO["mlp"].build()

    def forward(self, x):
        return self.body(x.mul_(0.1))


class NoiseByDtype(nn.Module):
    """Noise that is other numbers in another dtype, before a layer without a forward derivative."""

    def __init__(self):
        super().__init__()
        self.first, self.square, self.last = nn.Linear(4, 6), Squared(), nn.Linear(6, 3)

    def forward(self, x):
        hidden = self.first(x)
        return self.last(self.square(hidden * torch.randn_like(hidden)))


@METHODS
@pytest.mark.parametrize("build", [OwnGenerator, Counting])
def test_a_forward_that_changes_its_module_is_measured_from_where_it_was(build, method):
    """In micro-batches, since a single forward is differentiated as it ran; the twins move on as the model did."""
    training = Training(Case(build.__name__, build, ZOO["mlp"].batch), ALL["SGD"], dtype=torch.float64)
    ahead, behind = (copy.deepcopy(training.model) for _ in range(2))
    guard, start = training.attach(policy=Watch(), method=method), training.parameters()
    batch = training.case.batch(0, training.dtype)
    parts = list(zip(batch.args[0].chunk(3), batch.labels.chunk(3), strict=True))
    for x, y in parts:
        F.cross_entropy(training.model(x), y).backward()
    training.optimizers[0].step()
    with torch.no_grad():
        for twin, part in ((ahead, 1e-4), (behind, -1e-4)):
            for name, p in twin.named_parameters():
                p.add_(training.parameters()[name] - start[name], alpha=part)
        tangents = [(ahead(x) - behind(x)) / 2e-4 for x, _ in parts]
    largest = max((tangent.amax(-1) - tangent.amin(-1)).max().item() for tangent in tangents)
    assert guard.last.ratio == pytest.approx(largest / math.pi, rel=PRECISION[method])


def test_a_forward_that_changes_its_module_is_differentiated_as_it_ran():
    training = Training(Case("counting", Counting, ZOO["mlp"].batch), ALL["SGD"])
    guard = training.attach(policy=Watch(), method="exact")
    body = Training(Case("body", ZOO["mlp"].build, ZOO["mlp"].batch), ALL["SGD"])
    scene, start = Scene.of(body), body.parameters()
    training.step()  # the first call: a hundred times the body
    p = {name: q - start[name] for name, q in training.model.body.named_parameters()}
    assert guard.last.ratio == pytest.approx(100 * twin_ratio(body, scene, p), rel=1e-4)
    assert guard.last.exact


@METHODS
def test_a_forward_that_overwrites_its_input_is_measured_on_what_it_was_given_or_refused(method):
    training = Training(Case("overwrites", OverwritesItsInput, ZOO["mlp"].batch), ALL["SGD"], big=True)
    guard = training.attach(method=method)
    try:
        ratio = applied_ratio(training, training.step)
    except MeasurementError:
        assert guard.last is None
    else:
        assert guard.last.status is Status.CAPPED
        assert ratio == pytest.approx(1.0, rel=PRECISION[method])


@pytest.mark.parametrize("seed", range(5))
def test_noise_that_depends_on_the_dtype_is_replayed_as_it_was(seed):
    """A difference in float64 would draw other noise than the float32 forward did."""
    training = Training(Case("noise", NoiseByDtype, ZOO["mlp"].batch), ALL["SGD"], seed=seed, big=True)
    guard = training.attach(method="exact")

    def act():
        batch = training.case.batch(0, torch.float32)
        F.cross_entropy(training.model(*batch.args), batch.labels).backward()
        (0 * training.model(torch.zeros(1, 4))).sum().backward()  # a second forward: neither is taped, both run again
        training.optimizers[0].step()

    with pytest.warns(SafestepWarning, match="Squared"):
        ratio = applied_ratio(training, act, dtype=torch.float32)
    assert guard.last.status is Status.CAPPED
    assert ratio == pytest.approx(1.0, rel=1e-2)  # a difference in float32 is good to a few thousandths
