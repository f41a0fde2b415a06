"""A small network, its losses, and r of a step by a dense Jacobian and a dense Hessian in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from safestep import (
    CurvatureRadius,
    Watch,
    attach,
)

IGNORED = torch.tensor([0, 1, -100, 2, 3, -100])


def half_mse(z, y):
    return (z - y).square().sum() / (2 * z.shape[:-1].numel())


def labels(kind):
    generator = torch.Generator().manual_seed(3)
    if kind == "ignored":
        return IGNORED
    if kind == "classes":
        return torch.randint(0, 4, (6,), generator=generator)
    if kind == "flags":
        return torch.randint(0, 2, (6, 4), generator=generator).double()
    return torch.randn(6, 4, dtype=torch.float64, generator=generator)


LOSSES = {
    "cross-entropy": (CurvatureRadius(), F.cross_entropy, "classes"),
    "cross-entropy-sum": (
        CurvatureRadius(reduction="sum"),
        lambda z, y: F.cross_entropy(z, y, reduction="sum"),
        "classes",
    ),
    "ignored-labels": (CurvatureRadius(), F.cross_entropy, "ignored"),
    "smoothed-labels": (CurvatureRadius(), lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1), "classes"),
    "soft-labels": (CurvatureRadius(), lambda z, y: F.cross_entropy(z, y.softmax(-1)), "reals"),
    "scaled": (CurvatureRadius(scale=3.0), lambda z, y: 3 * F.cross_entropy(z, y), "classes"),
    "bce": (CurvatureRadius("bce"), F.binary_cross_entropy_with_logits, "flags"),
    "half_mse": (CurvatureRadius("half_mse"), half_mse, "reals"),
    "mse": (CurvatureRadius("mse"), F.mse_loss, "reals"),
    "mse-sum": (CurvatureRadius("mse", reduction="sum"), lambda z, y: F.mse_loss(z, y, reduction="sum"), "reals"),
}
LOSS = pytest.mark.parametrize("name", LOSSES)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4)).double()


def inputs(seed=1):
    return torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense_ratio(model, start, p, x, loss):
    """r by a dense Jacobian of the logits and a dense Hessian of the loss at them."""

    def logits(*values):
        return torch.func.functional_call(model, dict(zip(start, values, strict=True)), (x,))

    jacobians = torch.autograd.functional.jacobian(logits, tuple(start.values()))
    a = sum(j.flatten(2) @ p[name].flatten() for j, name in zip(jacobians, start, strict=True))
    z = logits(*start.values()).detach().requires_grad_()
    slope = (torch.autograd.grad(loss(z), z)[0] * a).sum()
    bend = a.flatten() @ torch.autograd.functional.hessian(loss, z.detach()).reshape(a.numel(), -1) @ a.flatten()
    return (bend / (-2 * slope)).item()


def parameters(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def stepped(model, radius, act, policy=None, lr=0.3, **options):
    """One SGD step under a guard; returns its report, theta_0 and what was applied, by name."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, **options)
    start = parameters(model)
    with attach(model, optimizer, radius=radius, policy=policy or Watch()) as guard:
        act(optimizer)
        optimizer.step()
    return guard.last, start, {name: p - start[name] for name, p in parameters(model).items()}
