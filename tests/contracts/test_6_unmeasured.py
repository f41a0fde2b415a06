"""Contract 6, never silently unsafe: a step that cannot be measured is an error, or under Watch a status."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import safestep
from safestep import (
    Cap,
    MeasurementError,
    Pin,
    PoisonedOptimizerError,
    Radius,
    SafestepWarning,
    SoftmaxRadius,
    Status,
    Watch,
)
from zoo import ALL, METHODS, ZOO, Case, Scene, Training, said, twin_ratio
from zoo.asserts import PRECISION, assert_identical, assert_untouched


class Unreadable(nn.Module):
    """Returns its logits where nobody looks for them."""

    def __init__(self):
        super().__init__()
        self.body = ZOO["mlp"].build()

    def forward(self, x):
        logits = self.body(x)
        return lambda: logits


def step_without_forward(training):
    for p in training.model.parameters():
        p.grad = torch.ones_like(p)
    training.optimizers[0].step()


def step_past_the_model(training):
    batch = training.case.batch(0, training.dtype)
    F.cross_entropy(training.model.forward(*batch.args), batch.labels).backward()
    training.optimizers[0].step()


def step_after_overwriting_the_input(training):
    batch = training.case.batch(0, training.dtype)
    F.cross_entropy(training.model(*batch.args), batch.labels).backward()
    batch.args[0].mul_(3)
    training.optimizers[0].step()


def step_on_an_empty_batch(training):
    training.model(torch.zeros(0, 4, dtype=training.dtype)).sum().backward()
    for p in training.model.parameters():
        p.grad = torch.ones_like(p)
    training.optimizers[0].step()


def step_inside_a_transform(training):
    """The gradients come from torch.func, where no hook on the logits is called."""
    batch = training.case.batch(0, training.dtype)
    parameters = dict(training.model.named_parameters())

    def loss(tensors):
        return F.cross_entropy(torch.func.functional_call(training.model, tensors, batch.args), batch.labels)

    for name, gradient in torch.func.grad(loss)({n: p.detach() for n, p in parameters.items()}).items():
        parameters[name].grad = gradient
    training.optimizers[0].step()


def plain_step(training):
    training.step()


class Failing(Radius):
    """A radius that breaks."""

    def __init__(self, error):
        self.error = error

    def measure(self, proposal, state):
        raise self.error


def bad_target(step):
    raise ArithmeticError("the schedule broke")


UNREADABLE = Case("unreadable", Unreadable, ZOO["mlp"].batch, lambda output: output())
ONE_OUTPUT = Case("one-output", lambda: nn.Linear(4, 1), ZOO["mlp"].batch, objective=lambda z, _: z.square().mean())
TROUBLES = {
    "no-forward": (ZOO["mlp"], step_without_forward, {}, MeasurementError, "no forward to measure"),
    "model.forward": (ZOO["mlp"], step_past_the_model, {}, MeasurementError, "not model.forward"),
    "input-overwritten": (ZOO["mlp"], step_after_overwriting_the_input, {}, MeasurementError, "overwritten in place"),
    "empty-batch": (ZOO["mlp"], step_on_an_empty_batch, {}, MeasurementError, "no samples"),
    "torch.func": (ZOO["mlp"], step_inside_a_transform, {}, MeasurementError, "torch.func"),
    "no-logits": (
        UNREADABLE,
        plain_step,
        {},
        MeasurementError,
        r"the model's output, a function.*logits=function",
    ),
    "one-output": (ONE_OUTPUT, plain_step, {}, ValueError, "head='sigmoid'"),
    "radius-breaks": (
        ZOO["mlp"],
        plain_step,
        {"radius": Failing(ZeroDivisionError("boom"))},
        ZeroDivisionError,
        "boom",
    ),
    "target-breaks": (ZOO["mlp"], plain_step, {"target": bad_target}, ArithmeticError, "the schedule broke"),
    "target-negative": (
        ZOO["mlp"],
        plain_step,
        {"target": lambda step: -1.0},
        ValueError,
        "expected a positive number",
    ),
    "target-nan": (ZOO["mlp"], plain_step, {"target": lambda step: math.nan}, ValueError, "expected a positive number"),
}
each_trouble = pytest.mark.parametrize(("case", "act", "options", "error", "text"), TROUBLES.values(), ids=TROUBLES)
ignore_other_warnings = pytest.mark.filterwarnings("ignore:the gradient at the logits::")


@ignore_other_warnings
@each_trouble
@METHODS
@pytest.mark.parametrize("policy", [Cap, Pin])
def test_a_step_that_cannot_be_measured_is_undone_and_raises(policy, method, case, act, options, error, text):
    training = Training(case, ALL["SGD-momentum"])
    radius = options.get("radius", SoftmaxRadius(method=method))
    guard = training.attach(policy=policy(options.get("target", 1.0)), radius=radius)
    start = training.parameters()
    with pytest.raises(error, match=text):
        act(training)
    assert_identical(training.parameters(), start)
    assert guard.last is None
    assert not guard.history


@ignore_other_warnings
@each_trouble
@METHODS
def test_watched_it_stands_is_reported_and_said_once(method, case, act, options, error, text):
    plain = Training(case, ALL["SGD-momentum"])
    training = Training(case, ALL["SGD-momentum"])
    policy = Watch(Cap(options["target"])) if "target" in options else Watch()
    guard = training.attach(policy=policy, radius=options.get("radius", SoftmaxRadius(method=method)))
    for _ in range(3):
        act(plain)
    with pytest.warns(SafestepWarning, match=text) as caught:
        act(training)
    assert len([w for w in caught if "could not be measured" in str(w.message)]) == 1
    act(training)
    act(training)
    assert_untouched(training.everything(), plain.everything())
    assert [report.status for report in guard.history] == [Status.UNMEASURED] * 3
    assert all(math.isnan(report.ratio) and report.scale == 1.0 and report.message for report in guard.history)


@pytest.mark.parametrize("trouble", ["no-forward", "model.forward", "input-overwritten", "torch.func"])
def test_after_a_step_that_could_not_be_measured_training_goes_on(trouble):
    case, act, _, error, _ = TROUBLES[trouble]
    training = Training(case, ALL["SGD"])
    guard = training.attach()
    with pytest.raises(error):
        act(training)
    training.steps(2)
    assert [report.status for report in guard.history] == [Status.INSIDE] * 2


def test_an_interrupt_while_measuring_leaves_the_start():
    training = Training(ZOO["mlp"], ALL["SGD"])
    training.attach(radius=Failing(KeyboardInterrupt()))
    start = training.parameters()
    with pytest.raises(KeyboardInterrupt):
        training.step()
    assert_identical(training.parameters(), start)


@METHODS
def test_logits_are_found_where_the_user_says(method):
    training = Training(UNREADABLE, ALL["SGD"], big=True)
    guard = training.attach(logits=lambda output: output(), method=method)
    scene, start = Scene.of(training), training.parameters()
    training.step()
    applied = {name: p - start[name] for name, p in training.parameters().items()}
    assert guard.last.status is Status.CAPPED
    assert twin_ratio(training, scene, applied) == pytest.approx(1.0, rel=PRECISION[method])


# -- around the measurement -------------------------------------------------------------------------------------------


def test_a_probe_or_log_that_fails_is_said_once_and_ends_nothing():
    def broken(*args):
        raise OSError("disk full")

    training = Training(ZOO["mlp"], ALL["SGD"])
    guard = training.attach(diagnostics=[broken], log=broken)
    with pytest.warns(SafestepWarning, match="disk full") as caught:
        training.steps(3)
    assert len(caught) == 2
    assert len(guard.history) == 3


def test_every_error_and_warning_is_safesteps_own():
    assert issubclass(MeasurementError, safestep.SafestepError)
    assert issubclass(PoisonedOptimizerError, safestep.SafestepError)
    with pytest.raises(ValueError, match="head="):
        SoftmaxRadius(head="sigmoids")


def test_said_helper_can_fail():
    with pytest.raises(pytest.fail.Exception), said("never said"):
        pass
