"""One table of logits, read along both dimensions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from heads.one_step import EXACT, METHODS, batch, step
from safestep import CurvatureRadius, Watch, attach
from zoo.truth import Truth


class Contrastive(nn.Module):
    """Two towers; the similarities of all pairs, and the same transposed, or worked out once more."""

    def __init__(self, turn):
        super().__init__()
        self.one, self.two, self.turn = nn.Linear(5, 8), nn.Linear(5, 8), turn

    def forward(self, x):
        one, two = F.normalize(self.one(x), dim=-1), F.normalize(self.two(x + 0.3 * x.sin()), dim=-1)
        z = 10.0 * one @ two.T
        return {"image": z, "text": 10.0 * two @ one.T if self.turn is None else self.turn(z)}


TURNS = {
    "T": lambda z: z.T,
    "transpose": lambda z: z.transpose(-1, 0),
    "permute": lambda z: z.permute(1, 0),
    "copied": lambda z: z.t().contiguous(),
}


def contrastive(turn, seed, radius):
    torch.manual_seed(seed)
    labels = torch.arange(7)
    loss = lambda out, y: F.cross_entropy(out["image"], labels) + F.cross_entropy(out["text"], labels)  # noqa: E731
    return step(Contrastive(turn), loss, read=lambda out: [out["image"], out["text"]], radius=radius, lr=0.01)


@METHODS
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("seed", range(3))
def test_both_sides_of_a_contrastive_loss_are_measured(turn, seed, radius):
    """The gradient at z holds what came through z.T: neither alone sums to zero there."""
    guard, truth = contrastive(TURNS[turn], seed, radius)
    assert guard.last.ratio == pytest.approx(truth, rel=0.02)
    assert {str(head) for head in guard.heads} == {"output.image (softmax)", "output.text (softmax)"}


LOSSES = {
    "few rows": lambda out: F.cross_entropy(out["image"][:3], torch.arange(3)) + F.cross_entropy(out["text"], LABELS),
    "weighted": lambda out: 3 * F.cross_entropy(out["image"], LABELS) + 0.1 * F.cross_entropy(out["text"], LABELS),
}
LABELS = torch.arange(7)


@pytest.mark.parametrize("loss", [*LOSSES, "one backward a side"])
def test_both_sides_are_measured_at_every_step(loss):
    """Also at steps that do not look at everything, and where a side trains few rows or has a backward of its own."""
    torch.manual_seed(0)
    model = Contrastive(TURNS["T"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = attach(model, optimizer, radius=EXACT, policy=Watch())
    rows = torch.arange(7) < 3 if loss == "few rows" else torch.ones(7, dtype=torch.bool)
    for seed in range(7):
        optimizer.zero_grad()
        x, _ = batch(seed=seed)
        sides = [Truth(model, lambda out: [out["image"]], rows), Truth(model, lambda out: [out["text"]])]
        out = model(x)
        if loss in LOSSES:
            LOSSES[loss](out).backward()
        else:
            F.cross_entropy(out["text"], LABELS).backward(retain_graph=True)
            F.cross_entropy(out["image"], LABELS).backward()
        optimizer.step()
        assert guard.last.ratio == pytest.approx(max(side.ratio(model, x) for side in sides), rel=1e-4)


@pytest.mark.parametrize("turn", TURNS)
def test_their_curvatures_add_up(turn):
    (turned, _), (apart, _) = (contrastive(how, 0, CurvatureRadius()) for how in (TURNS[turn], None))
    assert turned.last.ratio == pytest.approx(apart.last.ratio, rel=1e-5)


@METHODS
def test_a_side_that_the_loss_does_not_use_is_not_measured(radius):
    labels = torch.arange(7)
    torch.manual_seed(1)
    model = Contrastive(TURNS["T"])
    loss, read = lambda out, y: F.cross_entropy(out["text"], labels), lambda out: [out["text"]]
    guard, truth = step(model, loss, read=read, radius=radius)
    assert guard.last.ratio == pytest.approx(truth, rel=0.02)
    assert [str(head) for head in guard.heads] == ["output.text (softmax)"]
