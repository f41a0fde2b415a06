"""Binary cross-entropy of one logit a sample is found by its gradient; whatever else one output may be is refused."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import safestep
from safestep import CurvatureRadius, LossMismatchError, SafestepWarning, SoftmaxRadius
from safestep.formulas.finding import Refused
from safestep.formulas.found_loss import found_loss
from safestep.heads.head import Evidence

bce = F.binary_cross_entropy_with_logits

FOUND = {
    "mean": bce,
    "sum": lambda z, y: bce(z, y, reduction="sum"),
    "positives weigh more": lambda z, y: bce(z, y, pos_weight=torch.tensor([3.0])),
    "squeezed by the loop": lambda z, y: bce(z.squeeze(-1), y.squeeze(-1)),
    "softplus": lambda z, y: F.softplus((1 - 2 * y) * z).mean(),
}
OTHERS = {
    "squared": F.mse_loss,
    "of reals": lambda z, y: F.mse_loss(z, torch.randn_like(z)),
    "of signs": lambda z, y: F.mse_loss(z, 2 * y - 1),
    "absolute": F.l1_loss,
    "Brier": lambda z, y: F.mse_loss(z.sigmoid(), y),
    "soft labels": lambda z, y: bce(z, torch.rand_like(z)),
    "smoothed labels": lambda z, y: bce(z, 0.9 * y + 0.05),
    "hinge": lambda z, y: F.relu(1 - z * (2 * y - 1)).mean(),
    "exponential": lambda z, y: (z * (1 - 2 * y)).exp().mean(),
    "Poisson": F.poisson_nll_loss,
    "focal": lambda z, y: (F.softplus((1 - 2 * y) * z) * torch.sigmoid((1 - 2 * y) * z) ** 2).mean(),
    "advantages": lambda z, y: (bce(z, y, reduction="none") * torch.randn_like(z)).mean(),
}


def network(*shape: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1), *([nn.Unflatten(0, shape)] if shape else []))


class Training:
    """SGD on batches of a threshold, under a guard."""

    def __init__(self, loss, radius=None, *, lr=1.0, shape=(), optimizer=torch.optim.SGD, autocast=None, model=None):
        self.model, self.loss, self.autocast = model or network(*shape), loss, autocast
        self.optimizer = optimizer(self.model.parameters(), lr=lr)
        self.guard = safestep.attach(self.model, self.optimizer, radius=radius)
        self.data = torch.Generator().manual_seed(0)

    def steps(self, count=1, rows=32):
        for _ in range(count):
            x = torch.randn(rows, 8, generator=self.data)
            on = torch.autocast("cpu", self.autocast) if self.autocast else contextlib.nullcontext()
            with on:
                z = self.model(x)
                y = (x[:, :1] > 0).float().reshape(z.shape)
                loss = self.loss(z, y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return self

    @property
    def ratios(self):
        return [report.ratio for report in self.guard.history]


@pytest.mark.parametrize("shape", [(), (8, 4), (32, 1)], ids=str)
@pytest.mark.parametrize("loss", FOUND)
def test_it_is_found_and_measured_as_if_it_had_been_named(loss, shape):
    if shape and loss == "squeezed by the loop":
        shape = ()
    found = Training(FOUND[loss], shape=shape).steps(5)
    assert "(sigmoid); loss found: bce" in repr(found.guard)
    soft, named = (Training(FOUND[loss], SoftmaxRadius(head=kind), shape=shape) for kind in ("softmax", "sigmoid"))
    assert soft.steps(5).ratios == pytest.approx(named.steps(5).ratios, rel=1e-6, nan_ok=True)
    if loss == "mean":
        found, named = (Training(bce, radius, shape=shape) for radius in (CurvatureRadius(), CurvatureRadius("bce")))
        assert found.steps(5).ratios == pytest.approx(named.steps(5).ratios, rel=1e-6, nan_ok=True)


def test_a_temperature_is_found_where_the_logits_are_wide_enough_to_show_it():
    assert "times 5 (sigmoid)" in repr(Training(lambda z, y: bce(5 * z, y)).steps(2).guard)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("loss", OTHERS)
def test_another_loss_is_refused_with_the_whole_cure(loss, autocast):
    training = Training(OTHERS[loss], autocast=autocast)
    before = [parameter.detach().clone() for parameter in training.model.parameters()]
    cure = (
        r"(?s)\nexpected: .*\nto do: .*safestep\.attach\(model, optimizer, radius=safestep\.CurvatureRadius\('mse'\)\)"
    )
    cure += r".* CurvatureRadius\('bce'\)"
    with pytest.raises(LossMismatchError, match=cure):
        training.steps()
    assert all(map(torch.equal, before, training.model.parameters()))


@pytest.mark.parametrize(
    ("last", "loss"),
    [
        (nn.Sequential(nn.Linear(16, 1), nn.Sigmoid()), F.binary_cross_entropy),
        (nn.Sequential(nn.Linear(16, 3), nn.Softmax(-1)), lambda p, y: F.nll_loss(p.log(), y.flatten().long())),
        (nn.Linear(16, 1), lambda z, y: F.mse_loss(z, 2 * y - 1)),
        (nn.Linear(16, 3), lambda z, y: F.mse_loss(z, z.detach() + torch.randn_like(z))),
    ],
)
def test_a_model_that_returns_probabilities_is_told_to_return_logits(last, loss):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), last)
    if isinstance(last, nn.Linear):
        nn.init.normal_(last.weight, std=5.0)  # far beyond 1, as probabilities never are
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    safestep.attach(model, optimizer)
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    loss(model(x), (x[:, :1] > 0).float()).backward()
    with pytest.raises(LossMismatchError) as raised:
        optimizer.step()
    assert ("let it return the logits before that" in str(raised.value)) is not isinstance(last, nn.Linear)


@pytest.mark.parametrize("targets", ["signs", "ones"])
def test_squared_errors_of_tiny_outputs_are_not_taken_for_it(targets):
    model = nn.Sequential(nn.Linear(8, 1))
    nn.init.normal_(model[0].weight, std=1e-3)
    nn.init.zeros_(model[0].bias)
    loss = lambda z, y: F.mse_loss(z, 2 * y - 1 if targets == "signs" else torch.ones_like(y))  # noqa: E731
    with pytest.raises(LossMismatchError, match="one output"):
        Training(loss, model=model).steps()


def test_the_cures_that_are_named_work():
    model, x = network(), torch.randn(32, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = safestep.attach(model, optimizer, radius=safestep.CurvatureRadius("mse"))
    F.mse_loss(model(x), torch.randn(32, 1)).backward()
    optimizer.step()
    assert guard.last.ratio > 0
    assert Training(lambda z, y: bce(z, 0.9 * y + 0.05), CurvatureRadius("bce")).steps().guard.last.ratio > 0
    named = SoftmaxRadius(head="sigmoid")
    assert Training(lambda z, y: bce(z, 0.9 * y + 0.05), named).steps().guard.last.ratio > 0


def test_batches_that_tell_too_little_change_nothing_that_is_known():
    training = Training(bce)
    for rows in (32, 1, 3, 1, 2, 32, 1, 1):  # the 1st, 2nd, 4th and 8th step look at the gradient
        training.steps(rows=rows)
    assert "(sigmoid); loss found: bce, mean" in repr(training.guard)
    with pytest.raises(LossMismatchError, match="too few"):
        Training(bce).steps(rows=2)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16], ids=str)
def test_it_stays_found_until_the_labels_are_sure(autocast):
    training = Training(bce, lr=0.1, optimizer=torch.optim.Adam, autocast=autocast).steps(130)
    assert "(sigmoid); loss found: bce" in repr(training.guard)


@pytest.mark.parametrize("outputs", [1, 4])
def test_labels_so_sure_that_rounding_tells_are_no_other_loss(outputs):
    z = torch.linspace(8.0, 14.0, 64).reshape(-1, outputs).requires_grad_()
    bce(z, torch.ones_like(z)).backward()
    head = Evidence.of(z.detach(), z.grad, (-1,), 0.0).head((), 1.0)
    assert head is None or head.kind == "sigmoid" or not head.settled
    found = found_loss(z.detach(), z.grad)
    assert not found.final if isinstance(found, Refused) else found.loss == "bce"


def test_classes_beside_a_last_dimension_of_one_are_a_softmax():
    model, y = nn.Conv1d(3, 5, 1), torch.arange(16)[:, None] % 5
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = safestep.attach(model, optimizer)
    F.cross_entropy(model(torch.randn(16, 3, 1)), y).backward()
    optimizer.step()
    assert "(softmax, classes in dimension 1)" in repr(guard)


def test_beside_a_softmax_it_is_said_that_it_is_not_seen():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.classes, self.flag = nn.Linear(8, 4), nn.Linear(8, 1)

        def forward(self, x):
            return self.classes(x), self.flag(x)

    torch.manual_seed(0)
    model, x, y = Two(), torch.randn(32, 8), torch.arange(32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    safestep.attach(model, optimizer, radius=CurvatureRadius("cross_entropy"))
    classes, flag = model(x)
    (F.cross_entropy(classes, y % 4) + bce(flag, (y % 2).float()[:, None])).backward()
    with pytest.warns(SafestepWarning) as said:
        optimizer.step()
    (one,) = (str(one.message) for one in said if "r does not see it" in str(one.message))
    assert "For all of the loss: HessianRadius(closure)" in one
