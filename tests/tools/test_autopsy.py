"""The post-mortem: planted spikes are told apart, its numbers are those of the step, nothing of the user's changes."""

from __future__ import annotations

import copy
import math
import runpy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jvp
from torch.nn import functional as F

import safestep
from safestep import MeasurementError, SoftmaxRadius, Watch
from safestep.formulas.softmax_ratio import spread
from safestep.lab.models import CharGPT, cnn
from safestep.tools.autopsy import Autopsy, Cause, Scene, autopsy
from safestep.tools.autopsy.layers import layers_of
from safestep.tools.autopsy.outcome_of_step import Instead

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "post_mortem.py"))
CAUSES = {"rate": Cause.LENGTH, "batch": Cause.BATCH, "layer": Cause.LAYER, "none": Cause.NONE}


def loss(model, batch):
    return F.cross_entropy(model(batch[0]).flatten(0, -2), batch[1].flatten())


@cache
def checkpoint(kind, seed):
    return EXAMPLE["train"](kind, seed)


def planted(kind, seed=0):
    return EXAMPLE["setup"](copy.deepcopy(checkpoint(kind, seed)))


def small(lr=1.0, dtype=torch.float32, model=None, **options) -> Scene:
    torch.manual_seed(3)
    model = model or nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3))
    model = model.to(dtype)
    batch = torch.randn(12, 4, dtype=dtype), torch.randint(3, (12,))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return Scene(**{"model": model, "optimizer": optimizer, "batch": batch, "loss": loss, **options})


def after_the_step(scene: Scene, **options) -> tuple[safestep.StepReport, float]:
    """What a guard says of the step, really taken, and the loss behind it."""
    scene = replace(scene, model=(model := copy.deepcopy(scene.model)), optimizer=_like(scene, model))
    with safestep.attach(model, scene.optimizer, policy=Watch(), **options) as guard:
        guard.load_state_dict(guard.state_dict())  # it joins a run that had none
        scene.loss(model, scene.batch).backward()
        if scene.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        scene.optimizer.step()
    with torch.no_grad():
        return guard.last, float(scene.loss(model, scene.batch))


def _like(scene: Scene, model: nn.Module) -> torch.optim.Optimizer:
    """The same optimizer for a copy of the model."""
    (own,), names = scene.optimizers, {p: name for name, p in scene.model.named_parameters()}
    copies = dict(model.named_parameters())
    groups = [{"params": [copies[names[p]] for p in group["params"]]} for group in own.param_groups]
    optimizer = type(own)(groups, lr=0.1)
    optimizer.load_state_dict(copy.deepcopy(own.state_dict()))
    return optimizer


# -- the causes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_zeros(monkeypatch):
    """Leave the exact radius out, which takes most of the time and has no say in the cause."""
    monkeypatch.setattr("safestep.tools.autopsy.measures.ExactRadius", lambda: lambda *_: {})


@pytest.mark.parametrize("kind", CAUSES)
@pytest.mark.parametrize("seed", range(2))
def test_planted_spikes_are_told_apart_with_an_ordinary_batch_and_without(kind, seed, no_zeros):
    scene = planted(kind, seed)
    alone = autopsy(replace(scene, ordinary=()))
    assert alone.cause is CAUSES[kind] is autopsy(scene).cause
    assert (alone.ratio > 1) == (kind != "none")
    told = str(alone)
    if kind == "batch":
        assert "without samples 3, 17, 40 of 64" in told
        assert {sample.index for sample in alone.samples[:3]} == {3, 17, 40}
    if kind == "layer":
        assert "without the part of layer 2." in told
    if kind == "rate":
        assert "No ordinary batch was given" in told


def test_a_batch_that_is_wrong_as_a_whole_needs_an_ordinary_one_to_be_told(no_zeros):
    scene = planted("none")
    wrong = replace(scene, batch=(scene.batch[0] * 160, scene.batch[1]))
    assert autopsy(wrong).cause is Cause.BATCH
    assert autopsy(replace(wrong, ordinary=())).cause is Cause.LENGTH


def test_a_layer_whose_second_moments_were_lost_is_named(no_zeros):
    scene = planted("none")
    scene.optimizer.state[scene.model[2].weight]["exp_avg_sq"].mul_(1e-10)
    found = autopsy(scene)
    assert found.cause is Cause.LAYER
    assert max(found.layers, key=lambda layer: layer.alone).name == "2"


def test_a_layer_with_large_weights_is_not_taken_for_the_cause(no_zeros):
    """r falls with any layer's weights: that it does when they are made smaller tells nothing of the cause."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 3))
    with torch.no_grad():
        model[4].weight.mul_(8)
    assert autopsy(small(lr=100.0, model=model)).cause is Cause.LENGTH


def test_uphill_with_and_without_a_suspect_tells_nothing():
    assert not Instead(Cause.LAYER, "", math.inf).explains(math.inf)
    assert Instead(Cause.LAYER, "", 3.0).explains(math.inf)
    assert not Instead(Cause.BATCH, "", math.nan).explains(9.0)


# -- its numbers are those of the step --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rate", "none"])
def test_the_step_is_the_one_that_would_be_taken(kind):
    scene = planted(kind)
    found, (report, end) = autopsy(scene), after_the_step(scene, radius=SoftmaxRadius(method="exact"))
    assert found.ratio == found.ratios["largest"] == pytest.approx(report.ratio, rel=1e-5)
    assert found.step_length == pytest.approx(report.step_length, rel=1e-6)
    at = {point.t: point.loss for point in found.curve}
    assert at[0.0] == pytest.approx(loss(scene.model, scene.batch).item(), rel=1e-6)
    assert at[1.0] == pytest.approx(end, rel=1e-4)
    mean, _ = after_the_step(scene, radius=SoftmaxRadius(method="exact", over="mean"))
    assert found.ratios["mean"] == pytest.approx(mean.ratio, rel=1e-5)
    curvature, _ = after_the_step(scene, radius=safestep.CurvatureRadius())
    assert found.ratios["curvature"] == pytest.approx(curvature.ratio, rel=1e-5)
    assert found.ratios["exact"] <= found.ratios["largest"]
    assert not found.notes


def test_layers_and_samples_are_those_of_a_slow_twin():
    scene = small(dtype=torch.float64)
    found, model = autopsy(scene), scene.model
    loss(model, scene.batch).backward()
    p = {name: -q.grad for name, q in model.named_parameters()}

    def ratios(moved):
        at = {name: q.detach() for name, q in model.named_parameters()}
        step = {name: value * float(name.split(".")[0] in moved) for name, value in p.items()}
        _, change = jvp(lambda q: functional_call(model, q, (scene.batch[0],)), (at,), (step,))
        return spread(change) / math.pi

    whole = ratios({"0", "2"})
    assert [sample.index for sample in found.samples] == whole.argsort(descending=True).tolist()
    assert [sample.ratio for sample in found.samples] == pytest.approx(whole.sort(descending=True).values.tolist())
    first, second = found.layers
    assert (first.name, second.name) == ("0", "2")
    assert first.alone == pytest.approx(float(ratios({"0"}).max())) == second.without
    assert second.alone == pytest.approx(float(ratios({"2"}).max())) == first.without
    for q in model.parameters():
        q.grad = None


@settings(max_examples=3, deadline=None)
@given(st.floats(-6, 6))
def test_r_of_everything_grows_with_the_rate(power):
    one, other = autopsy(small(dtype=torch.float64)), autopsy(small(lr=2.0**power, dtype=torch.float64))
    for a, b in zip(numbers(one), numbers(other), strict=True):
        assert b == pytest.approx(2.0**power * a, rel=1e-9)


def numbers(found: Autopsy) -> list[float]:
    layers = [value for layer in found.layers for value in (layer.alone, layer.without, layer.length)]
    return [found.ratio, *found.ratios.values(), *layers, *(one.ratio for one in found.samples)]


def test_one_layer_has_all_and_the_rest_none():
    found = autopsy(small(model=nn.Linear(4, 3)))
    (layer,) = found.layers
    assert layer.alone == found.ratio
    assert layer.without == 0.0
    assert layer.name == "Linear"
    assert not any(one.cause is Cause.LAYER for one in found.instead)


def test_clipping_belongs_to_the_step(no_zeros):
    scene = small(lr=1000.0)
    clipped = replace(scene, clip=lambda: nn.utils.clip_grad_norm_(scene.model.parameters(), 0.01))
    report, _ = after_the_step(clipped, radius=SoftmaxRadius(method="exact"))
    assert autopsy(clipped).ratio == pytest.approx(report.ratio, rel=1e-4)
    assert autopsy(scene).ratio > 2 * report.ratio


def test_a_token_is_named_and_padding_is_none(no_zeros):
    torch.manual_seed(0)
    model, text = CharGPT(12, context=8, width=16), torch.randint(12, (6, 8))
    labels = text.roll(-1, 1)
    labels[:, 5:] = -100
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with torch.no_grad():
        model.embedding.weight[11] *= 50
    text[text == 11] = 0
    text[2, 3] = 11
    found = autopsy(Scene(model=model, optimizer=optimizer, batch=(text, labels), loss=loss))
    assert found.samples[0].ratio == pytest.approx(found.ratio, rel=1e-5)
    assert all(sample.place[0] < 5 for sample in found.samples)
    assert len(found.samples) == 6
    assert "at position" in str(found) or found.cause is Cause.NONE


def test_a_squared_error_goes_by_curvature():
    scene = small(lr=50.0, loss=lambda model, batch: F.mse_loss(model(batch[0]), F.one_hot(batch[1], 3).float()))
    found, (report, _) = autopsy(scene), after_the_step(scene, radius=safestep.CurvatureRadius("mse"))
    assert found.ratio == found.ratios["curvature"] == pytest.approx(report.ratio, rel=1e-4)
    assert list(found.ratios) == ["curvature"]
    assert found.notes[0].startswith("r is not by SoftmaxRadius: ")
    assert found.cause is Cause.LENGTH
    assert len(found.samples) == 12


def test_of_any_loss_the_other_batches_go_by_their_own_curvature():
    torch.manual_seed(0)
    model, x, y = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3)), torch.randn(12, 4), torch.randn(12, 3)
    wrong = x.clone()
    wrong[5] *= 1000
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scene = Scene(
        model=model,
        optimizer=optimizer,
        batch=(wrong, y),
        loss=lambda model, batch: F.mse_loss(model(batch[0]), batch[1]),
        ordinary=[(x, y)],
    )
    found, ordinary = autopsy(scene), autopsy(replace(scene, batch=(x, y), ordinary=()))
    assert found.cause is Cause.BATCH
    (on_it,) = (one for one in found.instead if one.words == "on an ordinary batch")
    assert on_it.ratio == pytest.approx(ordinary.ratio, rel=1e-5)
    assert "without sample 5 of 12" in str(found)


def test_many_layers_are_taken_together():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)) for _ in range(40)))
    assert list(layers_of(model, model.parameters())) == [str(place) for place in range(40)]


# -- nothing changes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["layer", "batch"])
def test_nothing_of_the_users_changes(kind, no_zeros):
    torch.manual_seed(1)
    model = nn.Sequential(cnn(width=4), nn.Dropout(0.1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batch = torch.randn(16, 64), torch.randint(10, (16,))
    for _ in range(2):
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    if kind == "layer":
        with torch.no_grad():
            model[0][4].weight.mul_(100)
    guard = safestep.attach(model, optimizer)
    scene = Scene(model=model, optimizer=optimizer, batch=batch, loss=loss, ordinary=[batch])

    def everything():
        grads = [q.grad for q in model.parameters()]
        return copy.deepcopy([model.state_dict(), optimizer.state_dict(), grads, torch.get_rng_state(), batch])

    before, grads = everything(), [id(q.grad) for q in model.parameters()]
    first = autopsy(scene)
    torch.testing.assert_close(everything(), before, rtol=0, atol=0, equal_nan=True)
    assert [id(q.grad) for q in model.parameters()] == grads
    assert len(guard.history) == 0
    assert repr(autopsy(scene)) == repr(first)


# -- what cannot be examined ------------------------------------------------------------------------------------------


def test_the_step_of_an_averaged_optimizer_is_taken_from_what_it_trains(no_zeros):
    scene = small(100.0)
    averaged = safestep.Averaged(scene.optimizer)
    plain = autopsy(scene).ratio
    averaged_scene = replace(scene, optimizer=averaged)
    assert autopsy(averaged_scene).ratio == plain
    scene.loss(scene.model, scene.batch).backward()
    averaged.step()
    averaged.eval()
    with pytest.raises(MeasurementError, match=r"holds the averaged weights.*call train\(\)"):
        autopsy(averaged_scene)
    with pytest.raises(MeasurementError, match="holds the averaged weights"):
        safestep.suggest_lr(scene.model, averaged, lambda: scene.loss(scene.model, scene.batch).backward())


def test_an_optimizer_without_its_state_is_refused():
    scene = small()
    adam = torch.optim.Adam(scene.model.parameters(), lr=0.1)
    with pytest.raises(MeasurementError, match=r"Adam has no state.*load_state_dict.*Scene\(first=True\)"):
        autopsy(replace(scene, optimizer=adam))
    assert autopsy(replace(scene, optimizer=adam, first=True)).ratio > 0
    assert not adam.state


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"loss": lambda model, batch: model(batch[0]).sum() * math.nan},
            r"the loss at the checkpoint is nan: take an earlier",
        ),
        ({"loss": lambda model, batch: model(batch[0])}, r"returned a tensor of shape \(12, 3\): expected the scalar"),
        ({"loss": lambda model, batch: 3.0}, r"returned 3\.0: expected the scalar loss"),
        ({"lr": 0.0}, "the step moves nothing: expected the learning rate"),
        ({"lr": math.inf}, "the step is not finite, though the gradients are"),
    ],
)
def test_a_step_that_is_none_is_refused(change, said):
    with pytest.raises(MeasurementError, match=said):
        autopsy(small(**change))


def test_gradients_that_are_not_finite_are_named():
    scene = small()
    scene.model[2].weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(MeasurementError, match=r"is not finite: the gradient of 2\.weight is not \(1 of 4 gradients\)"):
        autopsy(scene)


def test_a_search_is_refused():
    scene = small()
    with pytest.raises(MeasurementError, match="LBFGS searches its own step"):
        autopsy(replace(scene, optimizer=torch.optim.LBFGS(scene.model.parameters())))


def test_a_loss_that_keeps_its_own_batch_is_noted():
    scene = small()
    held = scene.batch
    found = autopsy(replace(scene, loss=lambda model, batch: loss(model, held)))
    assert any("12 samples instead of" in note for note in found.notes)
    assert not any("sample" in one.words for one in found.instead)


def test_the_parts_of_a_scene_are_checked():
    scene = small()
    with pytest.raises(TypeError, match="loss=3: expected a function"):
        replace(scene, loss=3)
    with pytest.raises(TypeError, match="clip=3: expected a function"):
        replace(scene, clip=3)
    with pytest.raises(safestep.AttachError):
        replace(scene, optimizer=torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0))
