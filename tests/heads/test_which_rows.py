"""The rows that count, and inputs that are no longer what the forward saw."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from heads.one_step import EXACT, METHODS, PROBE, Net, batch
from safestep import CurvatureRadius, MeasurementError, SafestepWarning, SoftmaxRadius, Status, Watch, attach
from zoo.truth import Truth


@METHODS
def test_samples_outside_the_clip_of_ppo_count_on_request(radius):
    """They have no gradient, and are those that move farthest."""
    torch.manual_seed(1)
    model, (x, y) = nn.Linear(5, 4), batch(64)
    with torch.no_grad():
        old = model(x).log_softmax(-1).gather(1, y[:, None]).squeeze(1) - torch.linspace(-1, 1, 64)
    x[-1] *= 50  # outside the clip, and moves most

    def loss(out):
        quotient = (out.log_softmax(-1).gather(1, y[:, None]).squeeze(1) - old).exp()
        kept = torch.minimum(quotient, quotient.clamp(0.8, 1.2))
        return -kept[:-1].sum() / 64 - kept[-1].detach()

    found = {}
    for rows in ("trained", "all"):
        twin = nn.Linear(5, 4)
        twin.load_state_dict(model.state_dict())
        optimizer = torch.optim.SGD(twin.parameters(), lr=2.0)
        options = {"method": radius.method, "rows": rows}
        guard = attach(twin, optimizer, radius=SoftmaxRadius(**options), policy=Watch(), logits=lambda out: out)
        truth = Truth(twin)
        loss(twin(x)).backward()
        optimizer.step()
        found[rows] = guard.last.ratio
    assert found["all"] == pytest.approx(truth.ratio(twin, x), rel=1e-4 if radius is EXACT else 0.03)
    assert found["trained"] < found["all"]


@pytest.mark.parametrize("radius", [EXACT, PROBE, CurvatureRadius()], ids=["exact", "probe", "curvature"])
def test_an_input_that_numpy_refills_before_the_step_is_found_out(radius):
    torch.manual_seed(1)
    model, (x, y) = Net(lambda h, a: a, 4), batch()
    buffer = x.numpy().copy()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    attach(model, optimizer, radius=radius)
    F.cross_entropy(model(torch.from_numpy(buffer)), y).backward()
    buffer[:] = 7.0
    with pytest.raises(MeasurementError, match="overwritten"):
        optimizer.step()


def test_what_fails_in_a_hook_of_ours_is_the_steps_trouble():
    """Jagged nested tensors have no norm along a dimension: not the user's backward."""
    torch.manual_seed(1)
    model = nn.Linear(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    guard = attach(model, optimizer, policy=Watch())
    x = torch.nested.nested_tensor([torch.randn(2, 5), torch.randn(3, 5)], layout=torch.jagged)
    model(x).values().square().sum().backward()
    with pytest.warns(SafestepWarning):
        optimizer.step()
    assert guard.last.status is Status.UNMEASURED
    assert math.isnan(guard.last.ratio)
