"""Contract 4: r(c p) = |c| r(p), unmoved by a common shift and by permuting classes; zero spread is a status."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from safestep import Cap, MeasurementError, Pin, SoftmaxRadius, Status, Watch
from safestep.formulas.softmax_ratio import spread
from zoo import METHODS, RECIPES, ZOO, Case, Scene, Training, examples, said, twin_ratio, twin_sensitivity

SCALES = st.builds(lambda sign, power: sign * 10.0**power, st.sampled_from([-1.0, 1.0]), st.floats(-15, 15))
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-12}


class Shift(Optimizer):
    """A fake optimizer: adds ``c d`` to each parameter, whatever the gradient."""

    def __init__(self, parameters, directions, c):
        super().__init__(parameters, {})
        self.directions, self.c = directions, c

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter, direction in zip(group["params"], self.directions, strict=True):
                parameter.add_(direction * self.c)


def directions_for(model, seed=5):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=g).to(p.dtype) for name, p in model.named_parameters()}


def shifted(training, c, directions=None, policy=None, **radius):
    """Guard one step that adds c d, and return its report."""
    directions = directions or directions_for(training.model)
    names = [name for name, _ in training.model.named_parameters() if name in directions]
    parameters = dict(training.model.named_parameters())
    training.optimizers = [Shift([parameters[n] for n in names], [directions[n] for n in names], c)]
    guard = training.attach(policy=policy or Watch(), radius=SoftmaxRadius(**{"method": "exact"} | radius))
    training.step()
    return guard.last


# -- scale ------------------------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@given(c=SCALES)
@example(c=1e-15)
@example(c=1e15)
def test_spread_is_homogeneous(c, head, dtype):
    tangent = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)
    torch.testing.assert_close(
        spread(c * tangent, head=head) / abs(c), spread(tangent, head=head), rtol=ROUNDING[dtype], atol=0
    )


class Adapted(nn.Module):
    """A model with an adapter that starts at exactly zero, where theta + c d is rounded once and relative to c d."""

    def __init__(self):
        super().__init__()
        self.body, self.adapter = nn.Sequential(nn.Linear(4, 6), nn.GELU()), nn.Linear(6, 3)
        nn.init.zeros_(self.adapter.weight)
        nn.init.zeros_(self.adapter.bias)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        hidden = self.body(x)
        return self.head(hidden) + self.adapter(hidden)


ADAPTED = Case("adapted", Adapted, ZOO["mlp"].batch)


def adapter_step(c, dtype, **options):
    training = Training(ADAPTED, RECIPES["SGD"], dtype=dtype)
    directions = {n: d for n, d in directions_for(training.model).items() if n.startswith("adapter")}
    return shifted(training, c, directions, **options)


@DTYPES
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
@given(c=SCALES)
@example(c=1e-15)
@example(c=-1e15)
def test_r_is_homogeneous_to_the_last_digits(c, head, dtype):
    one = adapter_step(1.0, dtype, head=head)
    report = adapter_step(c, dtype, head=head)
    assert report.ratio == pytest.approx(abs(c) * one.ratio, rel=ROUNDING[dtype])
    assert report.radius == pytest.approx(one.radius, rel=ROUNDING[dtype])
    assert report.step_length == pytest.approx(abs(c) * one.step_length, rel=ROUNDING[dtype])


@pytest.mark.parametrize("c", [1e-30, 1e-25, 1e-20, 1e20, 1e25, 1e30])
def test_r_neither_underflows_nor_overflows_in_float32(c):
    """The sum of squares of p, and J p itself, leave float32's range here."""
    one, report = adapter_step(1.0, torch.float32), adapter_step(c, torch.float32)
    assert report.ratio == pytest.approx(c * one.ratio, rel=ROUNDING[torch.float32])
    assert report.step_length == pytest.approx(c * one.step_length, rel=ROUNDING[torch.float32])


@DTYPES
@pytest.mark.parametrize("policy", [Cap(1.0), Pin(1.0)], ids=str)
@given(c=SCALES)
@example(c=1e-15)
@example(c=1e15)
def test_the_applied_step_does_not_depend_on_the_scale_of_the_proposal(c, policy, dtype):
    """Pinned or capped, the parameters end up where they would have from any other proposal along the same line."""
    report = adapter_step(c, dtype, policy=policy)
    if isinstance(policy, Pin) or report.ratio > 1.0:
        assert report.scale == pytest.approx(1 / report.ratio, rel=1e-12)
        assert report.applied_ratio == pytest.approx(1.0, rel=1e-12)
        assert report.applied_length == pytest.approx(report.radius, rel=1e-12)
    else:
        assert report.scale == 1.0


@DTYPES
@pytest.mark.parametrize("c", [1e-6, 0.02, 0.7, 3.0, 50.0, 1e4])
@pytest.mark.parametrize("method", ["probe", "tiered"])
def test_an_estimated_r_is_homogeneous_to_a_few_percent(method, c, dtype):
    one, report = (adapter_step(scale, dtype, method=method) for scale in (1.0, c))
    assert report.ratio == pytest.approx(c * one.ratio, rel=0.05)


@DTYPES
@pytest.mark.parametrize("name", ["mlp", "cnn", "tied-language-model", "encoder-layer", "lstm", "custom-function"])
@examples(15)
@given(c=SCALES)
@example(c=1e-15)
@example(c=1e15)
def test_r_of_whole_models_is_homogeneous_up_to_the_rounding_of_the_parameters(name, c, dtype):
    """theta + c d is rounded to the parameters' dtype: r may differ from |c| r(d) by what that moves, and no more."""
    case = ZOO[name]
    training = Training(case, RECIPES["SGD"], dtype=dtype)
    scene, start, directions = Scene.of(training), training.parameters(), directions_for(training.model)
    with said(case.untaped if training_moves(start, directions, c) else ""):
        report = shifted(training, c, directions)
    eps = torch.finfo(dtype).eps
    errors = {n: eps * (start[n].double().abs() + abs(c) * directions[n].double().abs()) for n in start}
    allowed = twin_sensitivity(training, scene, errors)
    wanted = abs(c) * twin_ratio(training, scene, directions)
    if report is None:  # every element rounded to no move at all: not a step
        assert wanted <= allowed
        return
    realised = {n: p.double() - start[n].double() for n, p in training.parameters().items()}
    precision = max(ROUNDING[dtype], 1e-8 if case.difference else 0.0)  # differences in float64: see contract 2
    assert abs(report.ratio - wanted) <= allowed + precision * wanted
    assert report.ratio == pytest.approx(twin_ratio(training, scene, realised), rel=precision, abs=1e-300)


def training_moves(start, directions, c):
    return any((start[name] + directions[name] * c != start[name]).any() for name in start)


# -- shift and permutation --------------------------------------------------------------------------------------------


@DTYPES
@given(shift=st.floats(-100, 100), data=st.data())
def test_spread_ignores_a_common_shift_and_the_order_of_classes(shift, data, dtype):
    tangent = torch.randn(4, 5, generator=torch.Generator().manual_seed(2)).to(dtype)
    order = data.draw(st.permutations(range(5)))
    assert torch.equal(spread(tangent[:, list(order)]), spread(tangent))
    allowed = 4 * torch.finfo(dtype).eps * (abs(shift) + tangent.abs().max().item())
    torch.testing.assert_close(spread(tangent + shift), spread(tangent), rtol=0, atol=allowed)


@DTYPES
@given(shift=st.floats(-100, 100))
def test_r_ignores_a_common_shift_of_the_logits(shift, dtype):
    def step(shift):
        training = Training(ADAPTED, RECIPES["SGD"], dtype=dtype)
        directions = directions_for(training.model)
        directions["adapter.bias"] = directions["adapter.bias"] + shift
        return shifted(training, 1.0, directions)

    allowed = 8 * torch.finfo(dtype).eps * (abs(shift) + 30.0) / math.pi
    assert step(shift).ratio == pytest.approx(step(0.0).ratio, rel=0, abs=allowed)


@DTYPES
@given(order=st.permutations(range(3)))
def test_r_ignores_the_order_of_classes(order, dtype):
    order = torch.tensor(order)

    def step(permuted):
        training = Training(ZOO["mlp"], RECIPES["SGD"], dtype=dtype)
        directions = directions_for(training.model)
        if permuted:
            head = training.model[-1]
            with torch.no_grad():
                head.weight.copy_(head.weight[order])
                head.bias.copy_(head.bias[order])
            directions |= {name: directions[name][order] for name in ("2.weight", "2.bias")}
        return shifted(training, 1.0, directions)

    assert step(permuted=True).ratio == pytest.approx(step(permuted=False).ratio, rel=ROUNDING[dtype])


@DTYPES
@pytest.mark.parametrize("temperature", [0.1, 2.0, 50.0])
def test_a_temperature_divides_r(temperature, dtype):
    def step(t):
        case = Case("warm", ZOO["mlp"].build, ZOO["mlp"].batch)
        training = Training(case, RECIPES["SGD"], dtype=dtype)
        training.model.append(Divide(t).to(dtype))
        return shifted(training, 1.0).ratio

    assert step(temperature) == pytest.approx(step(1.0) / temperature, rel=ROUNDING[dtype])


class Divide(nn.Module):
    def __init__(self, temperature):
        super().__init__()
        self.temperature = temperature

    def forward(self, z):
        return z / self.temperature


# -- zero spread ------------------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("method", ["exact", "probe", "tiered"])
@pytest.mark.parametrize("policy", [Cap(1.0), Cap(1e-9), Pin(1.0), Pin(0.01), Watch(), Watch(Pin(1.0))], ids=str)
@pytest.mark.parametrize("c", [1e-15, 1.0, 1e15])
def test_zero_spread_is_a_status(policy, c, method, dtype):
    """A step along the common shift moves no logit against another: r is 0, nothing limits it, and it stands."""
    training = Training(ADAPTED, RECIPES["SGD"], dtype=dtype)
    report = shifted(training, c, {"adapter.bias": torch.ones(3, dtype=dtype)}, policy=policy, method=method)
    assert report.ratio == 0.0
    assert report.applied_ratio == 0.0
    assert report.radius == math.inf
    assert report.scale == report.would_scale == 1.0
    assert report.status is (Status.UNBOUNDED if policy.writes else Status.WATCHED)
    assert torch.equal(training.model.adapter.bias, torch.full((3,), c, dtype=dtype))


@DTYPES
def test_the_smallest_spread_is_not_zero(dtype):
    """No magic number: however small, a spread that is there gives r > 0 and a finite radius."""
    training = Training(ADAPTED, RECIPES["SGD"], dtype=dtype)
    tiny = torch.tensor([0.0, 0.0, 1e-30], dtype=dtype)
    report = shifted(training, 1.0, {"adapter.bias": tiny}, policy=Cap(1.0))
    assert report.status is Status.INSIDE
    assert report.ratio == pytest.approx(1e-30 / math.pi, rel=1e-6)
    assert report.radius == pytest.approx(math.pi, rel=1e-6)


# -- one output -------------------------------------------------------------------------------------------------------


def one_output(policy, objective=F.binary_cross_entropy_with_logits, **radius):
    def batch(index, dtype):
        whole = ZOO["mlp"].batch(index, dtype)
        return type(whole)(whole.args, (whole.labels > 0).to(dtype)[:, None])

    case = Case("one", lambda: nn.Linear(4, 1), batch, objective=objective)
    training = Training(case, RECIPES["SGD"])
    return training, training.attach(policy=policy, radius=SoftmaxRadius(**radius))


@pytest.mark.filterwarnings("ignore::safestep.SafestepWarning")  # that the loss is no softmax loss either
@METHODS
@pytest.mark.parametrize("policy", [Cap(1.0), Pin(1.0)], ids=str)
def test_one_output_under_a_softmax_head_is_an_error_unless_it_is_seen_to_be_a_sigmoid(policy, method):
    training, guard = one_output(policy, F.mse_loss, method=method)
    start = training.parameters()
    with pytest.raises((ValueError, MeasurementError), match=r"one output[\s\S]*CurvatureRadius\('mse'\)"):
        training.step()
    assert all(torch.equal(p, start[name]) for name, p in training.parameters().items())
    assert guard.last is None
    with pytest.raises(ValueError, match="sigmoid"):
        spread(torch.zeros(5, 1))
    found, told = (one_output(policy, method=method, head=head) for head in ("softmax", "sigmoid"))
    for seen in (found, told):
        seen[0].step()
    assert found[1].last.ratio == told[1].last.ratio > 0


def test_one_output_under_a_sigmoid_head_is_not():
    training, guard = one_output(Cap(1.0), head="sigmoid")
    training.step()
    assert guard.last.ratio > 0
