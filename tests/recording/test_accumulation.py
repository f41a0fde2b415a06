"""Gradient accumulation: r is that of all micro-batches of a step, and no more of them are held than was said."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import random
import weakref

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from safestep import AttachError, CurvatureRadius, HessianRadius, SafestepWarning, SoftmaxRadius, Status, Watch, attach
from safestep.recording.subsample import rank
from zoo import said

EXACT = SoftmaxRadius(method="exact")
RADII = pytest.mark.parametrize("radius", [EXACT, CurvatureRadius()], ids=["softmax", "curvature"])
FEW = "a step of .* micro-batches: r is measured on .* of them"


def network(layers=1):
    torch.manual_seed(0)
    hidden = [nn.Linear(5, 5), nn.Tanh()] * (layers - 1)
    return nn.Sequential(*hidden, nn.Linear(5, 4)).double()


def samples(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    # sizes over two decades, so that the sample with the largest r is somewhere in particular
    x = torch.randn(count, 5, dtype=torch.float64, generator=generator)
    x *= 10 ** (2 * torch.rand(count, 1, dtype=torch.float64, generator=generator) - 1)
    return x, torch.randint(0, 4, (count,), generator=generator)


class Accumulating:
    """A guarded model that is only watched, and the true r of its last step, for a linear model."""

    def __init__(self, radius=EXACT, layers=1, lr=1.0, **options):
        self.model = network(layers)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr)
        self.guard = attach(self.model, self.optimizer, **{"radius": radius, "policy": Watch(), **options})

    def backward(self, x, y, weight=1.0):
        (weight * cross_entropy(self.model(x), y)).backward()

    def step(self):
        self.start = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self.guard.last

    def spread(self, x):
        p = {name: q.detach() - self.start[name] for name, q in self.model.named_parameters()}
        a = x @ p["0.weight"].T + p["0.bias"]
        return (a.amax(-1) - a.amin(-1)).max().item() / math.pi


def split(count, parts, draw):
    """Return slices of random sizes that cover ``count`` rows."""
    cuts = [0, *sorted(draw.sample(range(1, count), parts - 1)), count]
    return [slice(low, high) for low, high in itertools.pairwise(cuts)]


# -- all micro-batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("layers", [1, 2])
def test_micro_batches_of_any_number_and_size_are_the_whole_batch(seed, layers):
    draw = random.Random(seed)
    whole, parts = Accumulating(layers=layers), Accumulating(layers=layers)
    for index in range(4):
        x, y = samples(17, seed=10 * seed + index)
        whole.backward(x, y)
        for rows in split(17, draw.randint(1, 9), draw):
            parts.backward(x[rows], y[rows], weight=len(y[rows]) / 17)
        one, other = whole.step(), parts.step()
        assert other.ratio == pytest.approx(one.ratio, rel=1e-9)
        assert one.exact
        assert other.exact


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_quadratic_model_of_equal_micro_batches_is_that_of_the_mean_loss(reduction):
    radius, factor = CurvatureRadius(reduction=reduction), 1 if reduction == "mean" else 18
    whole, parts = (Accumulating(radius, layers=2, lr=0.1) for _ in range(2))
    for count in (1, 6, 3, 18, 2):
        x, y = samples(18, seed=count)
        whole.backward(x, y, weight=factor)
        for rows in torch.arange(18).chunk(count):
            parts.backward(x[rows], y[rows], weight=factor / count)
        one, other = whole.step(), parts.step()
        assert other.ratio == pytest.approx(one.ratio, rel=1e-9)
        assert other.exact


# -- and no more than was said ----------------------------------------------------------------------------------------


def alive(shape):
    """How many tensors of a shape there are."""
    return sum(issubclass(type(one), torch.Tensor) and one.shape == shape for one in gc.get_objects())


@RADII
@pytest.mark.parametrize("most", [1, 7])
def test_what_is_held_is_bounded(radius, most):
    """Inputs are counted by weak references, what is of the size of the logits among all objects that there are."""
    training, inputs = Accumulating(radius, max_forwards=most), []
    for index in range(30):
        x, y = samples(11, seed=index)
        inputs.append(weakref.ref(x))
        training.backward(x, y, weight=1 / 30)
        del x
        held = [i for i, ref in enumerate(inputs) if ref() is not None]
        assert held == sorted(sorted(range(index + 1), key=rank)[:most])
    # the gradient at the logits of each; the rows, 32 at most, that tell what the loss is
    assert alive((11, 4)) <= (most if radius is not EXACT else 0) + 2
    with said(FEW):
        training.step()
    assert alive((11, 4)) == alive((11, 5)) == 0
    assert not training.guard.last.exact
    assert training.guard.last.message == f"r of {most} of 30 micro-batches"


def test_of_more_the_largest_r_of_those_that_are_kept_is_told():
    training = Accumulating(max_forwards=5)
    batches = [samples(2, seed=index) for index in range(12)]
    for x, y in batches:
        training.backward(x, y, weight=1 / 12)
    with said(FEW):
        training.step()
    kept = sorted(range(12), key=rank)[:5]
    wanted = max(training.spread(batches[index][0]) for index in kept)
    assert training.guard.last.ratio == pytest.approx(wanted, rel=1e-9)
    assert wanted < max(training.spread(x) for x, _ in batches)  # the seeds are such that it makes a difference


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("most", [1, 3, 6])
def test_the_quadratic_model_is_scaled_up_to_the_loss_of_all(most, reduction):
    """Of equal micro-batches any part tells r of all: the ones left out must not pass for a smaller gradient."""
    radius = CurvatureRadius(reduction=reduction)
    whole, few = Accumulating(radius, lr=0.1), Accumulating(radius, lr=0.1, max_forwards=most)
    x, y = samples(6)
    for training in (whole, few):
        with said(FEW if training is few else ""):  # and no warning that the gradients do not fit the loss
            for _ in range(9):
                training.backward(x, y, weight=1 / 9 if reduction == "mean" else 6)
            training.step()
    assert few.guard.last.ratio == pytest.approx(whole.guard.last.ratio, rel=1e-9)
    assert (few.guard.last.exact, whole.guard.last.exact) == (False, True)


def test_the_quadratic_model_of_a_part_is_near_that_of_all():
    """256 micro-batches of one kind, 64 kept: r within the sampling error of a quarter of them."""
    ratios = []
    for most in (256, 64):
        training = Accumulating(CurvatureRadius(), lr=0.1, max_forwards=most)
        with said(FEW if most == 64 else ""):
            for index in range(256):
                generator = torch.Generator().manual_seed(index)
                x = torch.randn(4, 5, dtype=torch.float64, generator=generator)
                training.backward(x, torch.randint(0, 4, (4,), generator=generator), weight=1 / 256)
            ratios.append(training.step().ratio)
    assert ratios[1] == pytest.approx(ratios[0], rel=0.2)


def test_it_is_said_once_and_in_every_record():
    training = Accumulating(max_forwards=2)
    for index in range(3):
        for part in range(3):
            training.backward(*samples(2, seed=10 * index + part))
        with said(r"max_forwards=3\)" if index == 0 else ""):
            training.step()
    assert training.guard.history["message"] == ["r of 2 of 3 micro-batches"] * 3


def test_a_radius_that_asks_no_forward_says_nothing():
    batch = samples(6)
    closure = lambda: cross_entropy(training.model(batch[0]), batch[1])  # noqa: E731
    training = Accumulating(HessianRadius(closure), max_forwards=1)
    for rows in (slice(0, 3), slice(3, 6)):
        training.backward(batch[0][rows], batch[1][rows], weight=0.5)
    assert training.step().message == ""


def test_enough_is_enough():
    training = Accumulating(max_forwards=6)
    for index in range(6):
        training.backward(*samples(2, seed=index))
    assert training.step().exact
    assert training.guard.last.message == ""


# -- gradients that go again ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("before", [2, 9])
def test_micro_batches_whose_gradients_were_zeroed_do_not_count(before, to_none):
    training = Accumulating(max_forwards=4)
    for index in range(before):
        training.backward(*samples(2, seed=index))
    training.optimizer.zero_grad(set_to_none=to_none)
    batches = [samples(2, seed=100 + index) for index in range(4)]
    for x, y in batches:
        training.backward(x, y)
    training.step()
    assert training.guard.last.ratio == pytest.approx(max(training.spread(x) for x, _ in batches), rel=1e-9)
    assert training.guard.last.exact


def test_zeroing_between_forward_and_backward_keeps_the_forward():
    training, (x, y) = Accumulating(), samples(3)
    for index in range(3):
        training.backward(*samples(2, seed=50 + index))
    loss = cross_entropy(training.model(x), y)
    training.optimizer.zero_grad()
    loss.backward()
    training.step()
    assert training.guard.last.ratio == pytest.approx(training.spread(x), rel=1e-9)


def test_zeroing_before_the_step_leaves_a_step_that_moves_nothing():
    training = Accumulating(max_forwards=2)
    for index in range(5):
        training.backward(*samples(2, seed=index))
    training.optimizer.zero_grad()
    assert training.step().status is Status.STILL
    x, y = samples(3)
    training.backward(x, y)
    training.step()
    assert training.guard.last.ratio == pytest.approx(training.spread(x), rel=1e-9)
    assert (training.guard.last.step, training.guard.last.exact) == (1, True)


def test_a_micro_batch_whose_loss_is_dropped_is_neither_counted_nor_held():
    training = Accumulating(max_forwards=3)
    batches = [samples(2, seed=index) for index in range(6)]
    refs = []
    for index, (x, y) in enumerate(batches):
        fresh = x.clone()
        refs.append(weakref.ref(fresh))
        loss = cross_entropy(training.model(fresh), y)
        del fresh
        if index % 2:
            loss.backward()
        del loss
        assert [ref() is not None for ref in refs] == [i % 2 == 1 for i in range(index + 1)]
    training.step()
    assert training.guard.last.exact
    assert training.guard.last.ratio == pytest.approx(max(training.spread(x) for x, _ in batches[1::2]), rel=1e-9)


@RADII
def test_what_only_looked_goes_before_what_trained(radius):
    """Forwards whose gradients were handed to the caller (an attack) must not push out the forward that trained."""
    whole, few = Accumulating(radius, lr=0.1), Accumulating(radius, lr=0.1, max_forwards=2)
    x, y = samples(4)
    for training in (whole, few):
        training.backward(x, y)
        if training is few:
            for seed in range(5):
                other, labels = samples(2, seed=seed)
                loss = cross_entropy(training.model(0.01 * other), labels)
                torch.autograd.grad(loss, list(training.model.parameters()))
        with said(FEW if training is few else ""):
            training.step()
    assert few.guard.last.ratio == pytest.approx(whole.guard.last.ratio, rel=1e-9)


@pytest.mark.parametrize("bad", range(3))
@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_in_one_micro_batch_is_the_scalers_to_skip(bad, fused):
    """The step is skipped whole, and its micro-batches are no part of the next one."""
    training = Accumulating(max_forwards=3)
    training.guard.detach()
    training.optimizer = torch.optim.SGD(training.model.parameters(), lr=1.0, fused=fused)
    training.guard = attach(training.model, training.optimizer, radius=EXACT, policy=Watch(), max_forwards=3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for overflow in (True, False):
        batches = [samples(2, seed=index + 10 * overflow) for index in range(3)]
        for index, (x, y) in enumerate(batches):
            factor = math.inf if overflow and index == bad else 1 / 3
            scaler.scale(cross_entropy(training.model(x), y) * factor).backward()
        training.start = {name: p.detach().clone() for name, p in training.model.named_parameters()}
        scaler.step(training.optimizer)
        scaler.update()
        training.optimizer.zero_grad()
    *skipped, report = training.guard.history
    assert [still.status for still in skipped] == [Status.STILL] * fused  # unless fused, the scaler makes no call
    assert (report.step, report.exact) == (len(skipped), True)
    assert report.ratio == pytest.approx(max(training.spread(x) for x, _ in batches), rel=1e-9)


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_backward_that_raised_half_way_is_left_behind(before):
    training = Accumulating(max_forwards=3)
    for index in range(before):  # a step that is over: after one of several, not every forward looks at the gradients
        training.backward(*samples(2, seed=10 + index))
    if before:
        training.step()

    def fail(_):
        raise RuntimeError("boom")

    for index in range(3):
        x, y = samples(2, seed=index)
        logits = training.model(100 * x)  # were they counted, they would be the largest by far
        if index == 2:
            training.model[-1].weight.register_hook(fail)
        with contextlib.suppress(RuntimeError):
            cross_entropy(logits, y).backward()
    training.model[-1].weight._backward_hooks.clear()
    training.optimizer.zero_grad()
    x, y = samples(3)
    training.backward(x, y)
    training.step()
    assert training.guard.last.ratio == pytest.approx(training.spread(x), rel=1e-9)


# -- the setting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, "8", None])
def test_a_bound_that_is_no_whole_number_is_refused(bad):
    with pytest.raises(AttachError, match=r"max_forwards=.*: expected how many micro-batches .* at least 1"):
        Accumulating(max_forwards=bad)


def test_the_warning_tells_what_to_set():
    training = Accumulating(max_forwards=2)
    for index in range(5):
        training.backward(*samples(2, seed=index))
    with pytest.warns(SafestepWarning, match=r"5 micro-batches.*on 2 of them.*attach\(\.\.\., max_forwards=5\)"):
        training.step()
