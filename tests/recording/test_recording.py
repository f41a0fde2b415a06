"""What counts as the forward of a step, in loops that are not the textbook's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.utils.checkpoint import checkpoint

from safestep import Cap, MeasurementError, SafestepWarning, SoftmaxRadius, Status, Watch, attach


def linear(classes=4):
    torch.manual_seed(0)
    return nn.Linear(5, classes)


def data(seed=1, size=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 5, generator=generator), torch.randint(0, 4, (size,), generator=generator)


def guarded(model, *, layer=None, **options):
    """Attach a guard that watches, and return a function that gives the true r of the last step on a batch."""
    layer = model if layer is None else layer
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    guard = attach(model, optimizer, **{"policy": Watch(), "radius": SoftmaxRadius(method="exact"), **options})
    start = layer.weight.detach().clone(), layer.bias.detach().clone()

    def truth(x):
        a = x @ (layer.weight - start[0]).T + (layer.bias - start[1])
        return ((a.amax(-1) - a.amin(-1)).max() / torch.pi).item()

    return optimizer, guard, truth


class Scaling(nn.Module):
    """Changes its input in one of the ways that models do."""

    def __init__(self, how):
        super().__init__()
        self.layer, self.how = linear(), how

    def forward(self, batch):
        if self.how == "in place":
            return self.layer(batch.mul_(10))
        if self.how == "pop":
            return self.layer(10 * batch.pop("x"))
        return self.layer(10 * batch["x"])


@pytest.mark.parametrize("how", ["in place", "pop", "keep"])
def test_a_forward_may_consume_its_input(how):
    model, (x, y) = Scaling(how), data()
    optimizer, guard, truth = guarded(model, layer=model.layer)
    batch = x.clone() if how == "in place" else {"x": x}
    cross_entropy(model(batch), y).backward()
    optimizer.step()
    assert guard.last.ratio == pytest.approx(truth(10 * x), rel=1e-5)
    assert guard.last.exact
    if how == "in place":
        assert torch.equal(batch, x * 10)  # the forward's own doing, once
    else:
        assert batch == ({} if how == "pop" else {"x": x})


def test_a_batch_container_may_be_used_again():
    model = Scaling("keep")
    optimizer, guard, truth = guarded(model, layer=model.layer)
    (x, y), batch = data(), {}
    batch["x"] = x
    cross_entropy(model(batch), y).backward()
    batch["x"] = torch.zeros_like(x)
    optimizer.step()
    assert guard.last.ratio == pytest.approx(truth(10 * x), rel=1e-5)


def test_an_input_overwritten_before_the_step_is_an_error():
    model, (x, y) = linear(), data()
    before = model.weight.detach().clone()
    optimizer, _, _ = guarded(model, policy=Cap(1.0))
    loss = cross_entropy(model(x), y)
    loss.backward()
    x.zero_()
    with pytest.raises(MeasurementError, match="overwritten in place"):
        optimizer.step()
    assert torch.equal(model.weight, before)


def test_pre_hooks_run_once_per_forward():
    model, (x, y) = linear(), data()
    model.register_forward_pre_hook(lambda module, args: (3 * args[0],))
    optimizer, guard, truth = guarded(model)
    cross_entropy(model(x), y).backward()
    optimizer.step()
    assert guard.last.ratio == pytest.approx(truth(3 * x), rel=1e-5)


class Recursive(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = linear()

    def forward(self, x, deep=True):
        return 5 * self(x, deep=False) if deep else self.layer(x)


def test_of_a_model_that_calls_itself_the_outer_call_counts():
    model, (x, y) = Recursive(), data()
    optimizer, guard, truth = guarded(model, layer=model.layer)
    cross_entropy(model(x), y).backward()
    optimizer.step()
    assert guard.last.ratio == pytest.approx(5 * truth(x), rel=1e-5)


def test_a_forward_that_raises_leaves_the_next_ones_recorded():
    model, (x, y) = linear(), data()
    optimizer, guard, truth = guarded(model)
    with pytest.raises(RuntimeError):
        model(x[:, :2])
    cross_entropy(model(x), y).backward()
    optimizer.step()
    assert guard.last.ratio == pytest.approx(truth(x), rel=1e-5)


def test_gradients_gathered_by_hand_count_all_their_forwards():
    model = linear()
    optimizer, guard, truth = guarded(model)
    batches, total = [data(1), data(2)], [torch.zeros_like(p) for p in model.parameters()]
    batches[0][0].mul_(100)
    for x, y in batches:
        gradients = torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
        total = [a + b for a, b in zip(total, gradients, strict=True)]
    for parameter, gradient in zip(model.parameters(), total, strict=True):
        parameter.grad = gradient
    optimizer.step()
    assert guard.last.ratio == pytest.approx(truth(batches[0][0]), rel=1e-5)


def test_a_checkpoint_around_the_whole_model():
    model, (x, y) = linear(), data()
    optimizer, guard, truth = guarded(model)
    cross_entropy(checkpoint(model, x.requires_grad_(), use_reentrant=False), y).backward()
    with pytest.warns(SafestepWarning, match="recomputes activations"):
        optimizer.step()
    assert guard.last.ratio == pytest.approx(truth(x), rel=1e-5)


def test_a_confident_sigmoid_sample_still_counts():
    """In float32 sigma(z) - 1 is exactly zero from z = 17 on, while the step may move z a long way."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 20.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    guard = attach(model, optimizer, policy=Watch(), radius=SoftmaxRadius(method="exact", head="sigmoid"))
    x = torch.tensor([[1.0], [-0.001]])
    binary_cross_entropy_with_logits(model(x), torch.ones(2, 1)).backward()
    with torch.no_grad():
        model.weight.grad.fill_(-25.0)
    optimizer.step()
    assert guard.last.ratio == pytest.approx(25 / torch.pi, rel=1e-5)


def test_frozen_infinities_in_the_optimizer_do_not_matter():
    model, (x, y) = linear(), data()
    mask = nn.Parameter(torch.tensor([0.0, -torch.inf]), requires_grad=False)
    model.register_parameter("mask", mask)
    optimizer = torch.optim.SGD(model.parameters(), lr=100.0)
    guard = attach(model, optimizer)
    cross_entropy(model(x), y).backward()
    optimizer.step()
    assert guard.last.status is Status.CAPPED


def test_an_optimizer_without_a_rate_is_reported_as_nan():
    model, (x, y) = linear(), data()
    optimizer, guard, _ = guarded(model)
    cross_entropy(model(x), y).backward()

    class OwnRate(torch.optim.SGD):
        def step(self, closure=None):
            self.param_groups[0]["lr"] = 0.1
            super().step(closure)
            self.param_groups[0]["lr"] = None

    optimizer = OwnRate(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=SoftmaxRadius(), policy=Watch())
    cross_entropy(model(x), y).backward()
    optimizer.step()
    assert guard.last.status is Status.WATCHED


def test_a_step_of_some_optimizers_is_judged_before_the_model_is_used():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4))
    first, second = (torch.optim.SGD(layer.parameters(), lr=50.0) for layer in model)
    guard = attach(model, [first, second], radius=SoftmaxRadius())
    x, y = data()
    cross_entropy(model(x), y).backward()
    first.step()
    assert guard.last is None
    model(x)
    assert guard.last.status is Status.CAPPED
    cross_entropy(model(x), y).backward()
    second.step()
    guard.detach()
    assert guard.last.step == 1
    assert guard.last.applied_ratio == pytest.approx(1.0)


def test_an_optimizer_inside_another_counts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4))
    inner = torch.optim.SGD(model[0].parameters(), lr=50.0)

    class Outer(torch.optim.SGD):
        def step(self, closure=None):
            inner.step()
            return super().step(closure)

    outer = Outer(model[1].parameters(), lr=50.0)
    start = [p.detach().clone() for p in model.parameters()]
    guard = attach(model, [inner, outer])
    x, y = data()
    cross_entropy(model(x), y).backward()
    outer.step()
    moved = [p.detach() - s for p, s in zip(model.parameters(), start, strict=True)]
    assert len(guard.history) == 1
    assert guard.last.applied_length == pytest.approx(torch.cat([m.flatten() for m in moved]).norm().item(), rel=1e-4)


def test_a_parameter_used_behind_the_models_back_is_refused():
    class Alias(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = linear()
            self.weights = [self.layer.weight]

        def forward(self, x):
            return x @ self.weights[0].T

    model, (x, y) = Alias(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=1000.0)
    before = model.layer.weight.detach().clone()
    attach(model, optimizer)
    cross_entropy(model(x), y).backward()
    with pytest.raises(MeasurementError, match="from a list or a closure"):
        optimizer.step()
    assert torch.equal(model.layer.weight, before)


def test_a_logits_function_that_fails_does_not_fail_the_forward():
    model, (x, y) = linear(), data()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    attach(model, optimizer, logits=lambda output: output["nothing"], policy=Watch())
    cross_entropy(model(x), y).backward()
    with pytest.warns(SafestepWarning, match="logits= failed on the model's output, a Tensor"):
        optimizer.step()


def test_a_users_warning_is_shown_once_as_python_would():
    import warnings

    class Talkative(nn.Linear):
        def forward(self, x):
            warnings.warn("as I said", UserWarning, stacklevel=1)
            return super().forward(x)

    model, (x, y) = Talkative(5, 4), data()
    optimizer, _, _ = guarded(model)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(5):
            cross_entropy(model(x), y).backward()
            optimizer.step()
    assert len(shown) == 1
