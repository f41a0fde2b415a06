"""The fresh share: what the next batch finds of the slope that a batch promises along its own step."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from safestep import Cap, CurvatureRadius, Pin, Status, Tightest, Watch, attach
from safestep.radius.fresh_slope import Along, FreshSlope

FRESH = CurvatureRadius("cross_entropy", fresh=0.5)
KEEP, LEAST, UNKNOWN = 0.9, 0.2, 0.5


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 5)).double()


def batches(count, rows=64):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(rows, 6, dtype=torch.float64, generator=generator)
        yield x, torch.randint(5, (rows,), generator=generator)


class ByHand:
    """The definition, from copies of everything: an independent twin of what the guard keeps."""

    def __init__(self, model):
        self.parameters = list(model.parameters())
        self.mean, self.last = UNKNOWN, None

    def before(self):
        self.gradients = [q.grad.clone() for q in self.parameters]
        self.start = [q.detach().clone() for q in self.parameters]
        if self.last is not None:
            q, slope, bend = self.last
            share = (dot(self.gradients, q) - bend) / slope
            self.mean = KEEP * self.mean + (1 - KEEP) * min(2.0, max(-1.0, share))

    @property
    def share(self):
        return min(1.0, max(LEAST, self.mean))

    def after(self, report):
        assert report.fresh_share == pytest.approx(self.share, rel=1e-6)
        q = [now.detach() - before for now, before in zip(self.parameters, self.start, strict=True)]
        slope = dot(self.gradients, q)
        by_this_batch = report.applied_ratio * report.fresh_share**0.5
        measured = report.scale > 0.0 and slope < 0.0 and not report.predicted
        self.last = (q, slope, -2 * slope * by_this_batch) if measured else None


def dot(ones, others):
    return sum(float((one * other).sum()) for one, other in zip(ones, others, strict=True))


def train(model, optimizers, radius, policy, *, count=16, between=lambda: None, hand=None, data=None):
    """Train, and return the guard; by hand, if somebody is given who takes notes."""
    guard = attach(model, optimizers, radius=radius, policy=policy)
    for x, y in data or batches(count):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        if hand:
            hand.before()
        between()
        for optimizer in optimizers:
            optimizer.step()
        if hand:
            hand.after(guard.last)
    return guard


@pytest.mark.parametrize("policy", [Cap(0.05), Pin(0.3), Watch()], ids=lambda policy: type(policy).__name__)
@pytest.mark.parametrize("sample", ["all", 16])
@pytest.mark.parametrize("clip", [math.inf, 1e-2])
def test_the_share_is_that_of_its_definition(policy, sample, clip):
    """Whatever scales the step, and the gradients."""
    model = network()
    hand = ByHand(model)
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.01)]

    def between():
        nn.utils.clip_grad_norm_(model.parameters(), clip)

    guard = train(model, optimizers, replace(FRESH, sample=sample), policy, hand=hand, between=between)
    shares = guard.history.columns()["fresh_share"]
    assert shares[0] == UNKNOWN
    assert len(set(shares)) > 4


@given(
    slope=st.floats(-1e3, -1e-3),
    bend=st.floats(0.0, 1e3),
    scale=st.floats(1e-2, 2.0),
    share=st.floats(0.2, 1.0),
)
def test_a_quadratic_loss_gives_back_its_share(slope, bend, scale, share):
    """To second order ``g'.q = nu g.q + q.Gq``, at any scale of the step."""
    known = FreshSlope(mean=share).remember(Along(slope, bend), 3)
    product = share * scale * slope + scale**2 * bend
    assert known.after(3, scale, product).share == pytest.approx(share, abs=1e-9 * (1 + bend / -slope))


@given(product=st.floats(-1e9, 1e9), mean=st.floats(-1.0, 2.0), bend=st.floats(0.0, 1e6))
def test_one_step_never_moves_the_share_by_more_than_its_tenth(product, mean, bend):
    """However far it was from the quadratic model."""
    known = FreshSlope(mean=mean).remember(Along(-1.0, bend), 3)
    assert abs(known.after(3, 1.0, product).mean - mean) <= 0.3 + 1e-9


def test_a_share_below_zero_counts_as_the_least():
    """The next batches found the way up."""
    assert FreshSlope(mean=-0.5).share == LEAST


def test_one_batch_again_and_again_has_no_noise():
    """With half squared errors and a linear model everything is exact: the share is 1, and r that of the batch."""
    torch.manual_seed(0)
    model = nn.Linear(6, 5).double()
    x, y = torch.randn(32, 6, dtype=torch.float64), torch.randn(32, 5, dtype=torch.float64)
    radius = CurvatureRadius("half_mse", fresh=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=radius, policy=Watch())
    for _ in range(8):
        optimizer.zero_grad()
        (model(x) - y).square().sum().div(2 * len(x)).backward()
        optimizer.step()
    expected = [1.0 - 0.5 * KEEP**step for step in range(8)]  # from one half towards 1
    assert guard.history.columns()["fresh_share"] == pytest.approx(expected, rel=1e-9)


def test_the_share_of_a_noisy_quadratic_is_that_of_its_closed_form():
    r"""Of ``n`` samples ``y ~ N(mu, 1)`` in ``d`` dimensions, at distance ``D``: ``D^2 / (D^2 + d / n)``."""
    torch.manual_seed(0)
    dimensions, rows, distance = 4000, 10, 15.0
    weight = nn.Parameter(torch.zeros(1, dimensions, dtype=torch.float64))
    model = nn.Module()
    model.weight = weight
    model.forward = lambda x: x @ model.weight
    target = torch.full((dimensions,), distance / math.sqrt(dimensions), dtype=torch.float64)
    optimizer = torch.optim.SGD([weight], lr=1e-4)
    guard = attach(model, optimizer, radius=CurvatureRadius("half_mse", fresh=1.0), policy=Watch())
    for _ in range(80):
        y = target + torch.randn(rows, dimensions, dtype=torch.float64)
        optimizer.zero_grad()
        (model(torch.ones(rows, 1, dtype=torch.float64)) - y).square().sum().div(2 * rows).backward()
        optimizer.step()
    shares = guard.history.columns()["fresh_share"][30:]
    expected = distance**2 / (distance**2 + dimensions / rows)
    assert sum(shares) / len(shares) == pytest.approx(expected, rel=0.03)


def test_the_ratio_lies_between_the_batchs_and_the_fresh_one():
    """``r = p.Gp / (-2 nu^fresh g.p)``: of the same run, watched, in three powers."""
    ratios = []
    for power in (0.0, 0.5, 1.0):
        model = network()
        radius = replace(FRESH, fresh=power)
        guard = train(model, [torch.optim.Adam(model.parameters(), lr=0.01)], radius, Watch())
        ratios.append(guard.history.columns()["ratio"])
    for batch, between, fresh in zip(*ratios, strict=True):
        assert between == pytest.approx(math.sqrt(batch * fresh), rel=1e-9)
    assert ratios[0] != ratios[2]


def test_an_audit_goes_by_the_share_that_the_step_had():
    model = network()
    radius = Tightest({FRESH: 0.1})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=radius, policy=Cap(1.0))
    audit = guard.audit(1.0)
    for x, y in batches(12):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert audit.worst == pytest.approx(1.0, rel=1e-6)
    assert audit.count >= 10


def test_several_optimizers_are_one():
    shares = []
    for several in (False, True):
        model = network()
        groups = [[*model[0].parameters()], [*model[2].parameters()]] if several else [[*model.parameters()]]
        guard = train(model, [torch.optim.Adam(group, lr=0.01) for group in groups], FRESH, Cap(0.05))
        shares.append(guard.history.columns()["fresh_share"])
    assert shares[1] == pytest.approx(shares[0], rel=1e-9)


def test_a_gradient_scaler_changes_nothing():
    """Also where a fused optimizer unscales inside its step, after the look back."""
    shares = []
    for scaled, fused, unscaled in ((0, 0, 0), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)):
        model = network().float()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=bool(fused))
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, enabled=bool(scaled))
        guard = attach(model, optimizer, radius=FRESH, policy=Cap(0.05))
        for x, y in batches(8):
            optimizer.zero_grad()
            scaler.scale(F.cross_entropy(model(x.float()), y)).backward()
            if unscaled:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        shares.append(guard.history.columns()["fresh_share"])
    assert len(set(shares[0])) > 3
    for others in shares[1:]:
        assert others == pytest.approx(shares[0], rel=1e-3)


def test_gradients_that_are_clipped_inside_the_step_tell_the_same():
    """By a hook that runs after safestep's: the slope is taken off the gradients that the step was made of."""
    shares = []
    for late in (False, True):
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        guard = attach(model, optimizer, radius=FRESH, policy=Cap(0.05))

        def clip(*_, model=model):
            nn.utils.clip_grad_norm_(model.parameters(), 1e-2)

        if late:
            optimizer.register_step_pre_hook(clip)
        for x, y in batches(12):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            if not late:
                clip()
            optimizer.step()
        shares.append(guard.history.columns()["fresh_share"])
    assert len(set(shares[0])) > 6
    assert shares[1] == pytest.approx(shares[0], rel=1e-9)


def test_a_step_that_is_tried_again_counts_once():
    shares = []
    for raises in (False, True):
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        guard = attach(model, optimizer, radius=FRESH, policy=Cap(0.05))
        refuse = []
        optimizer.register_step_pre_hook(lambda *_, refuse=refuse: refuse.pop())
        for x, y in batches(12):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            if raises:
                with pytest.raises(IndexError):
                    optimizer.step()
            refuse.append(None)
            optimizer.step()
        shares.append(guard.history.columns()["fresh_share"])
    assert len(set(shares[0])) > 6
    assert shares[1] == pytest.approx(shares[0], rel=1e-9)


def test_of_a_part_of_the_last_step_nothing_is_learned():
    """Two optimizers of which one rests, and parameters that were frozen since."""
    model = network()
    first, second = (torch.optim.SGD(part.parameters(), lr=0.05) for part in (model[0], model[2]))
    guard = attach(model, [first, second], radius=FRESH, policy=Watch())
    for step, (x, y) in enumerate(batches(8)):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        first.step()
        if step != 4:
            second.step()
    guard.detach()
    shares = guard.history.columns()["fresh_share"]
    assert [step for step in range(1, 8) if shares[step] == shares[step - 1]] == [
        4,
        5,
    ]  # its gradients were zeroed before it was decided
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    guard = attach(model, optimizer, radius=FRESH, policy=Watch())
    for step, (x, y) in enumerate(batches(8)):
        model[0].requires_grad_(step != 4)
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    shares = guard.history.columns()["fresh_share"]
    assert [step for step in range(1, 8) if shares[step] == shares[step - 1]] == [4, 5]


def test_where_the_last_step_is_not_known_any_more_nothing_is_learned():
    """After parameters were changed, and with a closure, whose gradients come too late."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    guard = attach(model, optimizer, radius=FRESH, policy=Watch())

    def closure(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    for step, (x, y) in enumerate(batches(8)):
        if step in (2, 3):
            with torch.no_grad():
                model[0].weight.mul_(1.0 if step == 2 else 1.5)  # as averaged weights that are swapped in and back
        if step == 5:
            optimizer.step(partial(closure, x, y))
            continue
        closure(x, y)
        optimizer.step()
    shares = guard.history.columns()["fresh_share"]
    assert [step for step in range(1, 8) if shares[step] == shares[step - 1]] == [3, 5]


def test_a_step_that_moves_nothing_is_no_step_to_look_back_at():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    guard = attach(model, optimizer, radius=FRESH, policy=Watch())
    for step, (x, y) in enumerate(batches(6)):
        optimizer.param_groups[0]["lr"] = 0.0 if step == 3 else 0.05
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    shares = guard.history.columns()["fresh_share"]
    assert guard.history[3].status is Status.STILL
    assert shares[4] == shares[2]  # what is known of step 2 went with it
    assert shares[5] != shares[4]


def test_a_run_that_was_resumed_is_the_one_that_was_not():
    """The coordinates of the last step are in the guard's state, and saving disturbs nothing."""
    data = list(batches(12))

    def made():
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        return model, optimizer, attach(model, optimizer, radius=FRESH, policy=Cap(0.1))

    def steps(model, optimizer, some):
        for x, y in some:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    model, optimizer, guard = made()
    steps(model, optimizer, data[:6])
    saved = copy.deepcopy((model.state_dict(), guard.state_dict()))
    steps(model, optimizer, data[6:])
    never, another, silent = made()
    steps(never, another, data)
    other, again, resumed = made()
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    steps(other, again, data[6:])
    assert list(resumed.history) == list(guard.history)[6:] == list(silent.history)[6:]
    for one, two, three in zip(*(m.parameters() for m in (model, never, other)), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


@pytest.mark.parametrize("fresh", [-0.1, 1.1, math.nan])
def test_a_power_beyond_its_range_is_refused(fresh):
    with pytest.raises(ValueError, match="expected a number from 0"):
        CurvatureRadius(fresh=fresh)
