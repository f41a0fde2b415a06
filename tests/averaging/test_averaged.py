"""Averaged: the recursion it promises, its limit of stability, and what it says of things it cannot do."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.nn import functional as F

from safestep import Averaged, AveragingError, SafestepWarning

SHARED = torch.zeros(1)
betas, powers = st.floats(0.05, 0.98), st.floats(0.0, 4.0)


def shares(power: float, steps: int) -> list[float]:
    weights = [k**power for k in range(1, steps + 1)]
    return [weights[k] / sum(weights[: k + 1]) for k in range(steps)]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def train(model: nn.Module, optimizer, steps: int, first: int = 0, rate=None) -> None:
    for step in range(first, first + steps):
        torch.manual_seed(step)
        inputs, labels = torch.randn(16, 5).double(), torch.randint(3, (16,))
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        if rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = rate[step]
        optimizer.step()


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


@given(betas, powers, st.integers(1, 12), st.floats(0.01, 0.5))
def test_it_is_the_recursion_of_its_docstring(beta, power, steps, rate):
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    averaged = Averaged(torch.optim.SGD([weight], lr=rate), beta=beta, power=power)
    x = z = y = weight.detach().clone()
    visited = []
    for c in shares(power, steps):
        weight.grad = weight.detach() ** 3
        averaged.step()
        q = -rate * y**3
        z = z + q / (1 - beta * (1 - c))
        x = (1 - c) * x + c * z
        y = beta * x + (1 - beta) * z
        visited.append(z)
        torch.testing.assert_close(weight.detach(), y, rtol=1e-9, atol=1e-9)
    averaged.eval()
    torch.testing.assert_close(weight.detach(), x, rtol=1e-8, atol=1e-8)
    mean = sum(k**power * z for k, z in enumerate(visited, 1)) / sum(k**power for k in range(1, steps + 1))
    torch.testing.assert_close(weight.detach(), mean, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["SGDScheduleFree", "AdamWScheduleFree"])
def test_it_is_schedule_free_of_its_authors_at_the_rate_of_z(name):
    schedulefree = pytest.importorskip("schedulefree")
    ours, theirs, steps, rate, beta, power = network(), network(), 25, 0.05, 0.9, 1.0
    if name == "SGDScheduleFree":
        inner = torch.optim.SGD(ours.parameters(), lr=rate, weight_decay=0.0)
        other = schedulefree.SGDScheduleFree(theirs.parameters(), lr=rate, momentum=beta, r=power)
    else:
        inner = torch.optim.AdamW(ours.parameters(), lr=rate, betas=(0.0, 0.999), weight_decay=0.0)
        other = schedulefree.AdamWScheduleFree(theirs.parameters(), lr=rate, betas=(beta, 0.999), r=power)
    averaged = Averaged(inner, beta=beta, power=power)
    other.train()
    train(ours, averaged, steps, rate=[rate * (1 - beta * (1 - c)) for c in shares(power, steps)])
    train(theirs, other, steps)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-9, atol=1e-11)
    averaged.eval()
    other.eval()
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("curved", "ends"), [(1.9, True), (2.1, False)])
def test_on_a_parabola_it_is_stable_where_gradient_descent_is(curved, ends):
    """Rate times curvature below 2, once c is small: the limit on y's own step stays what it is without averages."""
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    averaged = Averaged(torch.optim.SGD([weight], lr=0.5), power=0)
    for _ in range(3000):
        weight.grad = curved / 0.5 * weight.detach()
        averaged.step()
    assert (weight.abs().item() < 1e-2) == ends
    assert ends or not weight.abs().item() < 1e3


def test_a_look_at_the_average_changes_nothing():
    models = network(), network()
    ones = [Averaged(torch.optim.AdamW(model.parameters(), betas=(0.0, 0.9))) for model in models]
    for start in (0, 3):
        for model, averaged in zip(models, ones, strict=True):
            train(model, averaged, 3, start)
        before = weights(models[0])
        ones[0].eval()
        ones[0].eval()
        assert not all(map(torch.equal, before, weights(models[0])))
        ones[0].train()
        ones[0].train()
        assert all(map(torch.equal, before, weights(models[0])))
    assert all(map(torch.equal, weights(models[0]), weights(models[1])))


@pytest.mark.parametrize("shown", [False, True], ids=["at y", "at the average"])
def test_a_saved_run_goes_on_bit_for_bit(shown):
    whole = network()
    averaged = Averaged(torch.optim.AdamW(whole.parameters(), betas=(0.0, 0.999)))
    train(whole, averaged, 4)
    if shown:
        averaged.eval()
    saved = io.BytesIO()
    torch.save([whole.state_dict(), averaged.state_dict()], saved)
    averaged.train()
    train(whole, averaged, 4, 4)
    again = network(1)
    another = Averaged(torch.optim.AdamW(again.parameters(), betas=(0.0, 0.999)))
    model_state, state = torch.load(io.BytesIO(saved.getvalue()))
    again.load_state_dict(model_state)
    another.load_state_dict(state)
    another.train()
    train(again, another, 4, 4)
    assert all(map(torch.equal, weights(whole), weights(again)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_go_on_alike(copied):
    model = network()
    averaged = Averaged(torch.optim.AdamW(model.parameters(), betas=(0.0, 0.999)), beta=0.8)
    train(model, averaged, 3)
    twin, other = copied((model, averaged))
    train(model, averaged, 3, 3)
    train(twin, other, 3, 3)
    assert all(map(torch.equal, weights(model), weights(twin)))


def test_several_optimizers_are_averaged_as_one_and_saved_as_one():
    whole, parts = network(), network()
    together = Averaged(torch.optim.SGD(whole.parameters(), lr=0.3))
    halves = list(parts.parameters())
    apart = Averaged(torch.optim.SGD(halves[:1], lr=0.3), torch.optim.SGD(halves[1:], lr=0.3))
    train(whole, together, 5)
    train(parts, apart, 5)
    assert all(map(torch.equal, weights(whole), weights(parts)))
    state = apart.state_dict()
    apart.load_state_dict(state)
    with pytest.raises(AveragingError, match="state of 1 optimizers, saw 2"):
        together.load_state_dict(state)


def test_schedulers_closures_and_new_groups():
    model = network()
    averaged = Averaged(torch.optim.SGD(model[0].parameters(), lr=0.3))
    schedule = torch.optim.lr_scheduler.LinearLR(averaged, 0.5, total_iters=4)
    inputs, labels = torch.randn(16, 5).double(), torch.randint(3, (16,))

    def closure():
        averaged.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        return loss

    losses = []
    for step in range(30):
        if step == 3:
            averaged.add_param_group({"params": list(model[2].parameters())})
        losses.append(averaged.step(closure).item())
        schedule.step()
    assert averaged.param_groups[0]["lr"] == pytest.approx(0.3)
    assert [group["averaged_steps"] for group in averaged.param_groups] == [30, 27]
    assert losses[-1] < losses[0]
    assert str(averaged).startswith("Averaged(SGD (")


def test_a_copy_steps_itself_under_a_schedule_of_rates():
    model = network()
    averaged = Averaged(torch.optim.SGD(model.parameters(), lr=0.3))
    torch.optim.lr_scheduler.LinearLR(averaged)  # wraps the step of this one
    train(model, averaged, 2)
    twin, other = copy.deepcopy((model, averaged))
    before = weights(model)
    train(twin, other, 1, 2)
    assert all(map(torch.equal, weights(model), before))
    train(model, averaged, 1, 2)
    assert all(map(torch.equal, weights(model), weights(twin)))


def test_a_schedule_that_brings_momentum_is_warned_of_once():
    model = network()
    averaged = Averaged(torch.optim.AdamW(model.parameters(), betas=(0.0, 0.999)))
    torch.optim.lr_scheduler.OneCycleLR(averaged, 0.1, total_steps=10)
    with pytest.warns(SafestepWarning, match="cycle_momentum=False") as warned:
        train(model, averaged, 3)
    assert len([one for one in warned if issubclass(one.category, SafestepWarning)]) == 1


def test_a_saved_run_goes_on_with_its_own_beta_and_power():
    whole, again = network(), network(1)
    averaged = Averaged(torch.optim.SGD(whole.parameters(), lr=0.3), beta=0.6, power=1.0)
    train(whole, averaged, 4)
    another = Averaged(torch.optim.SGD(again.parameters(), lr=0.3))
    again.load_state_dict(whole.state_dict())
    another.load_state_dict(copy.deepcopy(averaged.state_dict()))
    train(whole, averaged, 4, 4)
    train(again, another, 4, 4)
    averaged.eval()
    another.eval()
    assert all(map(torch.equal, weights(whole), weights(again)))


@pytest.mark.parametrize("power", [0.0, 2.0])
def test_the_average_of_what_first_moves_late_is_of_its_own_steps(power):
    """Those before, where it was frozen at its beginning, do not count: at first the average is z itself."""
    early, late = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    averaged = Averaged(torch.optim.SGD([early, late], lr=0.1), power=power)
    visited, counted = [], []
    for k in range(1, 16):
        early.grad = early.detach().clone()
        late.grad = late.detach().clone() if k > 10 else None
        averaged.step()
        if k > 10:
            visited.append(averaged.state[late]["z"].clone())
            counted.append(k**power)
    averaged.eval()
    mean = sum(w * z for w, z in zip(counted, visited, strict=True)) / sum(counted)
    torch.testing.assert_close(late.detach(), mean, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("made", [torch.optim.SGD, lambda p, lr: torch.optim.AdamW(p, lr, betas=(0.0, 0.999))])
@pytest.mark.parametrize(("shown", "prepared"), [(False, False), (True, True), (True, False)])
def test_distributed_checkpoints_keep_the_averages_or_say_that_they_cannot(made, shown, prepared, tmp_path):
    def start(seed):
        model = network(seed)
        return model, Averaged(made(model.parameters(), lr=0.1))

    def states(model, averaged):
        return dict(zip(("model", "averaged"), get_state_dict(model, averaged), strict=True))

    whole, averaged = start(0)
    get_state_dict(whole, averaged)  # learns what is kept by a step of rate 0, which is none of training
    assert averaged.param_groups[0]["averaged_steps"] == 0
    train(whole, averaged, 4)
    if shown:
        averaged.eval()
    checkpoint.save(states(whole, averaged), checkpoint_id=tmp_path)
    averaged.train()
    train(whole, averaged, 4, 4)
    again, another = start(1)
    room = states(again, another)
    if prepared:
        another.eval()
        room = states(again, another)
    checkpoint.load(room, checkpoint_id=tmp_path)
    load = {"model_state_dict": room["model"], "optim_state_dict": room["averaged"]}
    if shown and not prepared:
        with pytest.raises(AveragingError, match=r"save after train\(\), or call eval\(\)"):
            set_state_dict(again, another, **load)
        return
    set_state_dict(again, another, **load)
    another.train()
    train(again, another, 4, 4)
    assert all(map(torch.equal, weights(whole), weights(again)))


@given(betas, st.floats(0.001, 1.0), st.floats(0.01, 4.0))
def test_at_a_fixed_share_it_is_stable_up_to_a_limit_of_at_least_two(beta, c, curved):
    """Of the matrix that takes (y, z) on, with ``a`` rate times curvature: below ``2 (2 - c) / (2 - s c)``, by Jury."""
    s = 1 / (1 - beta * (1 - c))
    limit = 2 * (2 - c) / (2 - s * c)
    matrix = torch.tensor([[1 - curved - c, c], [-curved * s, 1.0]], dtype=torch.float64)
    radius = torch.linalg.eigvals(matrix).abs().max().item()
    assert limit >= 2 * (1 - 1e-12)
    if abs(curved - limit) > 1e-6:
        assert (radius < 1) == (curved < limit)


@pytest.mark.parametrize(("power", "farther"), [(0.0, 5.5), (2.0, 7.75)])
def test_along_a_steady_slope_y_goes_farther_than_its_steps(power, farther):
    """There x is ``(power + 1) / (power + 2)`` of the way to z, whose steps are ``1 / (1 - beta)`` times as long."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    averaged = Averaged(torch.optim.SGD([weight], lr=1.0), power=power)
    for _ in range(5000):  # it nears the limit as 1 / k
        before = weight.item()
        weight.grad = -torch.ones_like(weight)
        averaged.step()
    assert weight.item() - before == pytest.approx(farther, rel=0.02)
    assert farther == pytest.approx((0.9 * (power + 1) / (power + 2) + 0.1) / 0.1)


def test_what_moves_nothing_at_first_leaves_the_optimizer_its_own_beginning():
    model = network()
    averaged = Averaged(torch.optim.AdamW(model.parameters(), betas=(0.0, 0.999)))
    inner = averaged.optimizer.step
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    averaged.optimizer.step = lambda: None  # as where a guard withholds the gradients of the first step
    averaged.step()
    averaged.optimizer.step = inner
    train(model, averaged, 2)  # AdamW takes a state that holds anything for one that it has filled


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        ([], {}, "saw nothing"),
        ([nn.Linear(1, 1)], {}, "saw Linear"),
        ([Averaged(torch.optim.SGD([torch.zeros(1)]))], {}, "saw Averaged, which averages already"),
        ([torch.optim.LBFGS([torch.zeros(1)])], {}, "LBFGS.step needs a closure"),
        ([torch.optim.SGD([SHARED]), torch.optim.SGD([SHARED])], {}, "saw 2 in SGD, SGD, of which 1 are different"),
        ([torch.optim.SGD([torch.zeros(1)])], {"beta": 1.0}, "beta=1.0: expected 0 < beta < 1"),
        ([torch.optim.SGD([torch.zeros(1)])], {"power": -1.0}, "power=-1.0: expected a number from 0 up"),
    ],
)
def test_what_it_cannot_average_is_refused(arguments, settings, said):
    with pytest.raises(AveragingError, match=said):
        Averaged(*arguments, **settings)


def test_steps_at_the_average_and_foreign_states_are_refused():
    model = network()
    averaged = Averaged(torch.optim.SGD(model.parameters(), lr=0.1))
    train(model, averaged, 1)
    averaged.eval()
    with pytest.raises(AveragingError, match=r"call train\(\)"):
        averaged.step()
    with pytest.raises(AveragingError, match="averaged_steps"):
        averaged.load_state_dict(torch.optim.SGD(network().parameters(), lr=0.1).state_dict())


@pytest.mark.parametrize(
    ("optimizer", "cure"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "momentum=0"),
        (torch.optim.AdamW, r"betas=\(0.0, 0.999\)"),
    ],
)
def test_a_second_momentum_is_warned_of(optimizer, cure):
    with pytest.warns(SafestepWarning, match=cure):
        Averaged(optimizer(network().parameters()))
