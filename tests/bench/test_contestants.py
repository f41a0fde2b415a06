"""Who takes part, and that each does the work it is timed for."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from safestep.bench import contestants
from safestep.bench.cases import cases
from safestep.bench.contestants import AGAIN, CLIP, CURVATURE, JVP, PLAIN, Contestant, Entrant, entries
from safestep.radius.softmax import Method

CPU = torch.device("cpu")
QUICK = cases(quick=True)


def trained(entry, case, steps=3):
    contestant = Contestant(entry, case, CPU)
    torch.manual_seed(5)
    contestant.train([case.draw() for _ in range(steps)])
    return contestant


def weights(contestant):
    return torch.cat([parameter.detach().flatten() for parameter in contestant.model.parameters()])


def test_every_method_takes_part_in_both_situations():
    methods = {entry.method for entry in entries()}
    assert methods == {PLAIN, AGAIN, CLIP, JVP, CURVATURE, *get_args(Method)}
    for method in get_args(Method):
        assert [entry.situation for entry in entries() if entry.method == method] == ["inside", "capped"]
    assert entries()[0] == Entrant(PLAIN, "inside")


@pytest.mark.parametrize("name", ["mlp", "gpt", "resnet"])
def test_a_guard_inside_trains_as_the_plain_step_does(name):
    plain, again = trained(Entrant(PLAIN, "inside"), QUICK[name]), trained(Entrant(AGAIN, "inside"), QUICK[name])
    assert torch.equal(weights(plain), weights(again))
    for method in get_args(Method):
        guarded = trained(Entrant(method, "inside"), QUICK[name])
        assert torch.equal(weights(guarded), weights(plain)), method
        assert len(guarded.guard.history) == 3
        assert [report.status for report in guarded.guard.history[1:]] == ["inside"] * 2


@pytest.mark.parametrize("name", ["mlp", "gpt", "resnet"])
def test_the_jvp_by_hand_caps_as_the_exact_method_does(name):
    by_hand, exact = (
        trained(Entrant(JVP, "capped"), QUICK[name], 1),
        trained(Entrant("exact", "capped"), QUICK[name], 1),
    )
    free = trained(Entrant(PLAIN, "capped"), QUICK[name], 1)
    assert exact.guard.history[0].status == "capped"
    torch.testing.assert_close(weights(by_hand), weights(exact), rtol=1e-4, atol=1e-5)
    assert (weights(free) - weights(exact)).abs().max() > 0.01
    statistics = [dict(contestant.model.named_buffers()) for contestant in (by_hand, exact, free)]
    for key, value in statistics[2].items():
        assert torch.equal(statistics[0][key], value)
        assert torch.equal(statistics[1][key], value)


def test_clipping_clips(monkeypatch):
    monkeypatch.setattr(contestants, "_LARGEST_NORM", 0.1)
    case = QUICK["mlp"]
    clipped, plain = trained(Entrant(CLIP, "inside"), case), trained(Entrant(PLAIN, "inside"), case)
    norms = [
        torch.cat([p.grad.flatten() for p in contestant.model.parameters()]).norm() for contestant in (clipped, plain)
    ]
    assert norms[0] <= 0.1 < norms[1]


def test_reduced_precision_reaches_the_model():
    contestant = Contestant(Entrant(JVP, "inside"), QUICK["gpt2-small"], CPU)
    seen = []
    contestant.model.head.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    contestant.train([QUICK["gpt2-small"].draw()])
    assert seen == [torch.bfloat16] * 2  # the training forward, and the one by hand


def test_contestants_share_nothing():
    entry = Entrant("exact", "capped")
    first, second = trained(entry, QUICK["mlp"]), Contestant(entry, QUICK["mlp"], CPU)
    assert len(second.guard.history) == 0
    assert torch.equal(weights(second), weights(Contestant(Entrant(PLAIN, "inside"), QUICK["mlp"], CPU)))
    assert not torch.equal(weights(first), weights(second))
