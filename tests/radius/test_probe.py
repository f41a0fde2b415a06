"""r by a difference of the logits: within a few percent of exact, or measured another way."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from safestep import Cap, MeasurementError, Pin, SafestepWarning, SoftmaxRadius, Status, Watch
from zoo import ALL, ZOO, Batch, Case, Training, crossed, said
from zoo.loop import FEATURES, Loop, network

PERCENT = 0.05
"""The issue's demand: within 5 % where r is between 0.3 and 30."""
TARGETS = [0.3, 1.0, 3.0, 10.0, 29.0]
RECIPES = ["SGD", "SGD-nesterov-decay", "AdamW", "Muon", "RMSprop"]
EXACT = SoftmaxRadius(method="exact")
PROBE = SoftmaxRadius(method="probe")


def ratios(case, recipe, factor, *, steps=2, seed=0, dtype=torch.float32, **radius):
    """Return r of each step of a training whose rate is multiplied by a factor."""
    training = Training(case, recipe, seed=seed, dtype=dtype)
    for optimizer in training.optimizers:
        for group in optimizer.param_groups:
            group["lr"] *= factor
    guard = training.attach(policy=Watch(), radius=SoftmaxRadius(**radius))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SafestepWarning)
        training.steps(steps)
    return [report.ratio for report in guard.history], [report.method for report in guard.history]


@pytest.mark.parametrize(
    ("case", "recipe"), crossed([case for case in ZOO.values() if not case.sparse], RECIPES), ids=str
)
def test_a_probe_is_within_five_percent_from_the_first_step_on(case, recipe):
    """The rate is chosen for r of the first step; that of the second is what it is, and probed with a history."""
    ((unit, *_), _) = ratios(case, ALL[recipe], 1.0, steps=1, method="exact")
    looked_at = 0
    for target in TARGETS:
        (exact, _), (probed, ways) = (
            ratios(case, ALL[recipe], target / unit, method=method) for method in ("exact", "probe")
        )
        for truth, found, way in zip(exact, probed, ways, strict=True):
            if 0.3 <= truth <= 30.0 and way.startswith("probe"):
                assert found == pytest.approx(truth, rel=PERCENT)
                looked_at += 1
    assert looked_at >= len(TARGETS) - 1  # the least of them may be rounded to just below 0.3


@pytest.mark.parametrize("factor", [1e-9, 1e-6, 1e-3, 1e3, 1e6])
def test_far_from_the_target_it_is_still_the_slope(factor):
    """In float64 a short step is not lost in the parameters' rounding; a long one is probed near its start."""
    (exact, _), (probed, _) = (
        ratios(ZOO["mlp"], ALL["SGD"], factor, steps=1, dtype=torch.float64, method=method)
        for method in ("exact", "probe")
    )
    assert probed == pytest.approx(exact, rel=PERCENT)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("case", ["cnn", "checkpoint", "encoder-layer", "lstm"])
def test_the_mode_is_that_of_the_exact_method(case, mode):
    (exact, _), (probed, ways) = (
        ratios(ZOO[case], ALL["SGD"], 5.0, steps=3, mode=mode, method=method) for method in ("exact", "probe")
    )
    assert probed == pytest.approx(exact, rel=PERCENT)
    assert set(ways) == {f"probe/{mode}"}


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.8, 1.0])
def test_the_quantile_is_that_of_the_exact_method(quantile):
    (exact, _), (probed, ways) = (
        ratios(ZOO["mlp"], ALL["SGD"], 30.0, over=quantile, method=method) for method in ("exact", "probe")
    )
    assert probed == pytest.approx(exact, rel=PERCENT)
    assert all(("quantile" in way) is (quantile < 1.0) for way in ways)


def test_a_masked_class_has_no_part():
    (exact, _), (probed, ways) = (
        ratios(ZOO["masked-class"], ALL["SGD"], 30.0, steps=4, method=method) for method in ("exact", "probe")
    )
    assert probed == pytest.approx(exact, rel=PERCENT)
    assert set(ways) == {"probe/train"}


def test_a_sigmoid_head():
    def batch(index, dtype):
        whole = ZOO["mlp"].batch(index, dtype)
        return Batch(whole.args, F.one_hot(whole.labels, 3).to(dtype))

    case = Case("sigmoids", ZOO["mlp"].build, batch, objective=F.binary_cross_entropy_with_logits)
    (exact, _), (probed, _) = (
        ratios(case, ALL["SGD"], 300.0, head="sigmoid", method=method) for method in ("exact", "probe")
    )
    assert all(0.3 <= truth <= 30.0 for truth in exact)
    assert probed == pytest.approx(exact, rel=PERCENT)


class Micro(Loop):
    """Two micro-batches a step; the second ten times as large, and the largest of its samples perhaps ignored."""

    ignore = False

    def backward(self):
        self.optimizer.zero_grad()
        x, y = self.batch()
        for factor, inputs, labels in ((1.0, x[:20], y[:20]), (10.0, x[20:], y[20:])):
            if self.ignore and factor > 1.0:  # slices of fresh tensors
                inputs[3] *= 10
                labels[3] = -100
            F.cross_entropy(self.model(factor * inputs), labels).backward()


@pytest.mark.parametrize("ignore", [False, True])
def test_micro_batches_count_together_and_ignored_labels_do_not(ignore):
    loops = [Micro(network(), lr=0.05, policy=Watch(), radius=radius) for radius in (EXACT, PROBE)]
    for loop in loops:
        loop.ignore = ignore
        loop.steps(4)
    exact, probed = ([report.ratio for report in loop.reports] for loop in loops)
    assert all(0.3 <= truth <= 30.0 for truth in exact)
    assert probed == pytest.approx(exact, rel=PERCENT)


@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_any_leading_sample_dimensions(shape):
    found = []
    for radius in (EXACT, PROBE):
        loop = Loop(network(), lr=5.0, policy=Watch(), radius=radius)
        x, y = torch.randn(6, FEATURES, generator=torch.Generator().manual_seed(3)), torch.arange(6) % 3
        x, y = (x[0], y[0]) if shape == () else (x.reshape(*shape, FEATURES), y.reshape(shape))
        F.cross_entropy(loop.model(x).reshape(-1, 3), y.reshape(-1)).backward()
        loop.optimizer.step()
        found.append(loop.guard.last.ratio)
    assert found[1] == pytest.approx(found[0], rel=PERCENT)


class Complex(nn.Module):
    """A complex weight: half of the displacement is imaginary."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(FEATURES, 3, dtype=torch.complex64))

    def forward(self, x):
        return (x.to(torch.complex64) @ self.weight).abs()


def test_complex_parameters():
    """Against a difference in the parameters themselves."""
    torch.manual_seed(0)
    loop = Loop(Complex(), lr=2.0, radius=PROBE, policy=Watch())
    start = loop.model.weight.detach().clone()
    loop.step()
    loop.index -= 1
    p = (loop.model.weight.detach() - start).to(torch.complex128)
    x = loop.batch()[0].to(torch.complex128)
    ends = [(x @ (start + t * p)).abs() for t in (1e-6, -1e-6)]
    slope = (ends[0] - ends[1]) / 2e-6
    assert loop.guard.last.ratio == pytest.approx((slope.amax(1) - slope.amin(1)).max().item() / math.pi, rel=PERCENT)
    assert loop.guard.last.step_length == pytest.approx(p.norm().item(), rel=1e-5)


# -- what a difference cannot tell ------------------------------------------------------------------------------------


class OwnDice(nn.Module):
    """Draws from a generator that nobody can set back."""

    def __init__(self):
        super().__init__()
        self.body, self.dice = network(), torch.Generator().manual_seed(0)

    def forward(self, x):
        return self.body(x * torch.rand(x.shape[0], 1, generator=self.dice).add(0.5))


class Dice:
    """Somebody else's generator, out of every module's reach."""

    generator = torch.Generator().manual_seed(0)


class HiddenDice(OwnDice):
    def forward(self, x):
        return self.body(x * torch.rand(x.shape[0], 1, generator=Dice.generator).add(0.5))


@pytest.mark.parametrize("method", ["probe", "tiered"])
def test_a_model_that_no_replay_repeats_is_differentiated_and_that_is_said_once(method):
    loop = Loop(HiddenDice(), lr=1.0, policy=Watch(), radius=SoftmaxRadius(method=method))
    with pytest.warns(SafestepWarning, match="no replay repeats") as caught:
        loop.steps(10)
    assert len(caught) == 1
    assert not {"probe", "sample"} & set(loop.ways)
    assert not any(report.exact for report in loop.reports)


def test_a_generator_that_a_layer_owns_is_set_back_and_not_its_draws():
    """What the layer draws next is what it would have drawn, though the probe saw the draw of training."""
    plain, loop = Loop(OwnDice(), guarded=False), Loop(OwnDice(), policy=Watch(), radius=PROBE)
    plain.steps(3)
    loop.steps(3)
    assert all(torch.equal(a, b) for a, b in zip(loop.parameters(), plain.parameters(), strict=True))
    assert torch.equal(loop.model.dice.get_state(), plain.model.dice.get_state())


def test_logits_written_over_in_place_are_computed_again():
    """The kept logits are no longer those of the start: the probe runs that end of the difference too."""
    found = []
    for spoil in (False, True):
        loop = Loop(network(), lr=3.0, rows=6, policy=Watch(), radius=PROBE)
        for _ in range(3):
            x, y = loop.batch()
            loop.optimizer.zero_grad()
            logits = loop.model(x)
            F.cross_entropy(logits, y).backward()
            if spoil:
                with torch.no_grad():
                    logits.mul_(17.0)
            loop.optimizer.step()
            loop.index += 1
        found.append([report.ratio for report in loop.reports])
    assert found[1] == pytest.approx(found[0], rel=1e-3)


class Alias(nn.Module):
    """Uses a parameter from a plain list, where a functional call does not exchange it."""

    def __init__(self, share=1.0):
        super().__init__()
        self.layer, self.share = nn.Linear(FEATURES, 3), share
        self.weights = [self.layer.weight]

    def forward(self, x):
        return self.share * x @ self.weights[0].T + (1 - self.share) * self.layer(x)


@pytest.mark.parametrize("method", ["probe", "tiered"])
@pytest.mark.parametrize("lr", [1.0, 1000.0])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_parameter_hidden_from_functional_calls_never_gives_r_of_zero(share, lr, method):
    """Refused, or said and never called exact; x p^T is the truth, of which a replay sees its share at least."""
    loop = Loop(Alias(share), lr=lr, radius=SoftmaxRadius(method=method), policy=Cap(math.inf))
    for _ in range(4):
        start = loop.model.layer.weight.detach().clone(), loop.model.layer.bias.detach().clone()
        (x, _), before = loop.batch(), len(loop.reports)
        try:
            with said("no replay repeats" if share < 1.0 and not before else ""):
                loop.step()
        except MeasurementError:
            assert torch.equal(loop.model.layer.weight, start[0])
            assert len(loop.reports) == before
            return
        a = x @ (loop.model.layer.weight - start[0]).T + (1 - share) * (loop.model.layer.bias - start[1])
        truth = ((a.amax(1) - a.amin(1)).max() / torch.pi).item()
        assert loop.guard.last.known_ratio > 0.9 * (1 - share) * truth
        assert not loop.guard.last.exact


class Staircase(nn.Module):
    """Logits that change in steps: a short difference sees nothing, a long one a jump."""

    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x):
        z = self.body(x)
        return z + (torch.round(z) - z).detach()


def test_where_no_difference_tells_r_the_derivative_does():
    """A straight-through estimator: exact by differentiation, and not silently r = 0."""
    loop = Loop(Staircase(), lr=1e-6, radius=PROBE, policy=Pin(1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SafestepWarning)
        loop.step()
    assert loop.guard.last.ratio > 0
    assert loop.guard.last.status is Status.PINNED


@pytest.mark.parametrize("lr", [1e-12, 1e-9, 1e-6])
@pytest.mark.parametrize("method", ["probe", "tiered"])
def test_a_first_step_lost_in_the_rounding_of_the_logits_is_pinned_all_the_same(method, lr):
    """At its end nothing is to be seen: the probe goes beyond it, or the derivative tells. Biases start at zero."""
    model = network()
    with torch.no_grad():
        for p in model[-1].parameters():
            p.zero_()
    model[0].requires_grad_(False)
    loop = Loop(model, lr=lr, radius=SoftmaxRadius(method=method), policy=Pin(0.5))
    audit = loop.guard.audit()
    loop.step()
    assert loop.guard.last.status is Status.PINNED
    assert audit.worst == pytest.approx(1.0, rel=PERCENT)


def test_under_autocast_the_probe_is_longer_and_roughly_right():
    """bfloat16 rounds logits to 2^-8: a tenth of the change that is aimed at."""
    found = []
    for radius in (EXACT, PROBE):
        loop = Loop(network(), lr=3.0, policy=Watch(), radius=radius)
        x, y = loop.batch()
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(loop.model(x), y)
        loss.backward()
        loop.optimizer.step()
        found.append(loop.guard.last.ratio)
    assert found[1] == pytest.approx(found[0], rel=0.1)


class CastsInside(nn.Module):
    """Computes in a lower type and returns float32, as Accelerate has it."""

    def __init__(self, dtype):
        super().__init__()
        self.inner, self.dtype = network(), dtype

    def forward(self, x):
        with torch.autocast("cpu", self.dtype):
            z = self.inner(x)
        return z.float()


@pytest.mark.parametrize(("dtype", "within"), [(torch.bfloat16, 0.1), (torch.float16, 0.05)])
def test_a_cast_inside_the_model_is_found_out(dtype, within):
    """Logits in float32 that were computed in less: by the short look of float32, r would be that of the rounding."""
    exact, probed = (
        Loop(CastsInside(dtype), lr=3.0, policy=Watch(), radius=radius).steps(4) for radius in (EXACT, PROBE)
    )
    for one, other in zip(exact.reports, probed.reports, strict=True):
        assert other.ratio == pytest.approx(one.ratio, rel=within)
        assert not one.exact


@pytest.mark.parametrize("lr", [1e-5, 1e-2, 1e6])
def test_tangents_of_any_step_stay_in_the_range_of_float16(lr):
    loop = Loop(network(), lr=lr, policy=Watch(), radius=EXACT)
    x, y = loop.batch()
    with torch.autocast("cpu", torch.float16):
        loss = F.cross_entropy(loop.model(x), y)
    loss.backward()
    loop.optimizer.step()
    plain = Loop(network(), lr=lr, policy=Watch(), radius=EXACT).steps(1)
    assert loop.guard.last.ratio == pytest.approx(plain.guard.last.ratio, rel=0.01)


def test_a_probe_is_never_called_exact():
    loop = Loop(radius=PROBE).steps(5)
    assert not any(report.exact for report in loop.reports)
    assert [report.age for report in loop.reports] == [0] * 5
    assert {report.method for report in loop.reports} == {"probe/train"}
