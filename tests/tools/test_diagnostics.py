"""The probes of a guard: every column by hand, what is not finite, what is refused."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import safestep
from safestep import Cap, Watch
from safestep.policy import Throttle
from safestep.radius import CurvatureRadius, SecantCurvature
from safestep.tools import diagnostics
from safestep.tools.diagnostics import FIELDS, Finite, Geometry, Loss, Secant, Teacher, published
from safestep.tools.diagnostics.start import at_start

ETA, CHI, BETA, STEPS = 0.5, 1.5, 0.05, 6
A = np.array([[1.0, -2.0, 0.5], [0.3, 0.7, -1.1]])
X = 3.0 * np.random.default_rng(1).uniform(size=(20, 3))
W0 = np.random.default_rng(2).normal(size=(2, 3))
SCALED = {"throttled": Throttle(chi=CHI), "watched": Watch(Throttle(chi=CHI))}


def by_hand(law):
    """The published loop in NumPy: a linear student, half_mse, the secant law or none."""
    w, hessian, mean = W0.copy(), np.kron(np.eye(2), X.T @ X / len(X)), 0.0
    low, high = np.linalg.eigvalsh(hessian)[[0, -1]]
    before, rows = None, []
    for _ in range(STEPS):
        error = X @ (w - A).T
        gradient = error.T @ X / len(X)
        curvature = 0.0
        if before is not None:
            curvature = np.linalg.norm(gradient - before[1]) / np.linalg.norm(w - before[0])
        mean = (1 - BETA) * mean + BETA * curvature
        control = max(curvature, mean)
        would = min(1.0, CHI / (ETA * control)) if control > 0 else 1.0
        alpha = would if law == "throttled" else 1.0
        before, after = (w, gradient), w - alpha * ETA * gradient
        rows.append(
            {
                "loss": (error**2).sum() / (2 * len(X)),
                "rmse": np.sqrt((error**2).mean()),
                "theta_norm": np.linalg.norm(w),
                "grad_norm": np.linalg.norm(gradient),
                "raw_update_norm": np.linalg.norm(ETA * gradient),
                "actual_update_norm": np.linalg.norm(after - w),
                "update_cosine": 1.0,
                "curvature_proxy": curvature,
                "curvature_ema": mean,
                "alpha": alpha,
                "alpha_would": would,
                "curvature_for_control": control,
                "eta_eff": alpha * ETA,
                "forward_gain_spectral": np.linalg.svd(w)[1][0],
                "hessian_lambda_max": high,
                "hessian_lambda_min": low,
                "hessian_spectral_norm": high,
                "stability_margin_lambda_raw": ETA * high,
                "stability_margin_lambda_ctrl": alpha * ETA * high,
                "stability_margin_norm_raw": ETA * high,
                "stability_margin_norm_ctrl": alpha * ETA * high,
                "spectral_radius_raw": np.abs(np.linalg.eigvals(np.eye(6) - ETA * hessian)).max(),
                "spectral_radius_ctrl": np.abs(np.linalg.eigvals(np.eye(6) - alpha * ETA * hessian)).max(),
                "weight_error_fro": np.linalg.norm(w - A),
                "loss_is_finite": True,
                "grad_is_finite": True,
                "theta_is_finite_before": True,
                "theta_is_finite_after": True,
                "diverged": False,
            }
        )
        w = after
    return rows


def linear(dtype=torch.float64):
    model = nn.Linear(3, 2, bias=False, dtype=dtype)
    model.weight.data = torch.tensor(W0, dtype=dtype)
    return model


def instrumented(policy, radius=None, *, model=None, steps=STEPS, rate=ETA, diagnostics=None, spoil=lambda step: 1.0):
    """Train the linear student with every probe and return guard and reports."""
    model = model or linear()
    x, y = torch.tensor(X), torch.tensor(X @ A.T)
    batch = [x]

    def loss():
        return (model(batch[0]) - y).square().sum() / (2 * len(x))

    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    matrix = [model.weight] if isinstance(model, nn.Linear) else []
    given = {"square": 1.0, "weights": matrix, "reference": torch.tensor(A), "chi": CHI, "beta": BETA}
    diagnostics = published(loss, **given) if diagnostics is None else diagnostics(loss)
    with safestep.attach(
        model, optimizer, radius=radius or SecantCurvature(BETA), policy=policy, diagnostics=diagnostics
    ) as g:
        for step in range(steps):
            batch[0] = x * spoil(step)
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    return list(g.history)


@pytest.mark.parametrize("law", SCALED)
def test_every_published_field_is_right_in_every_step(law):
    reports, wanted = instrumented(SCALED[law]), by_hand(law)
    assert len(reports) == STEPS
    for report, row in zip(reports, wanted, strict=True):
        assert set(report.extras) == set(FIELDS) == set(row)
        for name in FIELDS:
            assert report.extras[name] == pytest.approx(row[name], rel=1e-9, abs=1e-12), (report.step, name)
    assert any(row["alpha"] < 1.0 for row in wanted) == (law == "throttled")


def test_flags_are_booleans_on_file(tmp_path):
    reports = instrumented(SCALED["watched"], steps=1)
    history = safestep.History()
    history.append(reports[0])
    row = json.loads(history.to_jsonl(tmp_path / "rows.jsonl").read_text())
    assert row["diverged"] is False
    assert row["loss_is_finite"] is True


def test_the_scale_of_a_watched_run_is_1_and_the_law_says_what_it_would():
    reports = instrumented(SCALED["watched"], CurvatureRadius("half_mse"))
    assert all(report.extras["alpha"] == 1.0 for report in reports)
    assert [r.extras["alpha_would"] for r in reports] == pytest.approx([row["alpha_would"] for row in by_hand("none")])
    assert all(report.would_scale < 1.0 for report in reports)


@pytest.mark.parametrize("policy", [Throttle(chi=0.1), Cap(0.01), Cap(0.2)], ids=str)
def test_the_raw_step_is_the_proposed_one_however_short_it_became(policy):
    for report in instrumented(policy, CurvatureRadius("half_mse"), diagnostics=lambda loss: [Geometry()]):
        assert report.scale < 1.0
        assert report.extras["raw_update_norm"] == pytest.approx(report.step_length, rel=1e-6)
        assert report.extras["actual_update_norm"] == pytest.approx(report.applied_length, rel=1e-6)
        assert report.extras["raw_update_norm"] == pytest.approx(ETA * report.extras["grad_norm"], rel=1e-9)
        assert report.extras["update_cosine"] == pytest.approx(1.0, abs=1e-9)


def test_a_step_that_was_held_has_no_direction():
    class Hold(Watch):
        writes = True

        def scale(self, ratio, length, target, state):
            return torch.zeros_like(ratio), state

    for report in instrumented(Hold(), diagnostics=lambda loss: [Geometry()], steps=2):
        assert report.extras["actual_update_norm"] == 0.0
        assert report.extras["raw_update_norm"] == pytest.approx(ETA * report.extras["grad_norm"])
        assert math.isnan(report.extras["update_cosine"])


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_what_is_not_finite_is_flagged_and_never_an_error(bad):
    spoil = lambda step: bad if step == 2 else 1.0  # noqa: E731
    reports = instrumented(SCALED["watched"], steps=3, spoil=spoil)
    assert [report.extras["diverged"] for report in reports] == [False, False, True]
    flags = {name: reports[-1].extras[name] for name in FIELDS if "finite" in name}
    assert flags == {
        "loss_is_finite": False,
        "grad_is_finite": False,
        "theta_is_finite_before": True,
        "theta_is_finite_after": False,
    }
    assert set(reports[-1].extras) == set(FIELDS)


def test_an_undone_step_leaves_finite_parameters_and_is_divergence_all_the_same():
    reports = instrumented(SCALED["throttled"], steps=2, spoil=lambda step: math.nan if step else 1.0)
    assert reports[-1].status is safestep.Status.UNDONE
    assert reports[-1].extras["theta_is_finite_after"] is True
    assert reports[-1].extras["diverged"] is True


def test_a_deep_linear_student_is_the_product_of_its_matrices():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False)).double()
    start = (model[1].weight @ model[0].weight).detach()
    matrices = [model[0].weight, model[1].weight]
    (report,) = instrumented(Watch(), model=model, steps=1, diagnostics=lambda _: [Teacher(matrices, torch.tensor(A))])
    assert report.extras["weight_error_fro"] == pytest.approx(float((start - torch.tensor(A)).norm()))
    assert report.extras["forward_gain_spectral"] == pytest.approx(float(torch.linalg.matrix_norm(start, 2)))


def test_a_student_that_is_not_linear_has_no_matrix():
    (report,) = instrumented(Watch(), steps=1, diagnostics=lambda _: [Teacher([], torch.tensor(A))])
    assert all(math.isnan(value) for value in report.extras.values())


def test_the_loss_is_evaluated_once_a_step_for_all_who_ask():
    asked = []
    model = linear()
    x, y = torch.tensor(X), torch.tensor(X @ A.T)

    def closure():
        asked.append(1)
        return (model(x) - y).square().mean()

    loss = Loss(closure, square=1.0)
    instrumented(Watch(), model=model, steps=3, diagnostics=lambda _: [loss, Finite(loss)])
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Loss(lambda: None, square=0.0), "square=0.0"),
        (lambda: Secant(chi=2.0), "limit of stability"),
        (lambda: Secant(beta=1.5), "in \\[0, 1\\]"),
        (lambda: Teacher([torch.zeros(2, 3)], torch.zeros(3, 2)), r"shape \(2, 3\), the teacher \(3, 2\)"),
    ],
)
def test_what_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_at_the_start_the_model_is_where_the_step_began():
    seen = []

    def look(step, forwards, report):
        (parameter,) = step.start
        now, gradient = parameter.detach().clone(), parameter.grad
        with at_start(step, forwards):
            seen.append((parameter.detach().clone(), step.start[parameter].clone(), parameter.grad))
            parameter.grad = torch.ones_like(parameter)
            torch.rand(3)
        assert torch.equal(parameter, now)
        assert parameter.grad is gradient
        return {}

    instrumented(Cap(0.01), CurvatureRadius("half_mse"), steps=2, diagnostics=lambda _: [look])
    for inside, start, gradient in seen:
        assert torch.equal(inside, start)
        assert gradient is None


def test_probes_need_torch_alone():
    """But for Lanczos, which says what it needs."""
    code = """
import sys, warnings
sys.modules |= dict.fromkeys(("numpy", "scipy", "matplotlib"))
warnings.simplefilter("ignore")
import torch, safestep
from safestep.tools.diagnostics import FIELDS, published
model = torch.nn.Linear(3, 2, bias=False)
loss = lambda: model(torch.eye(3)).square().sum() / 6
diagnostics = published(loss, square=1.0, weights=[model.weight], reference=torch.zeros(2, 3))
sgd = torch.optim.SGD(model.parameters(), lr=0.1)
radius = safestep.CurvatureRadius("half_mse")
guard = safestep.attach(model, sgd, policy=safestep.Throttle(), radius=radius, diagnostics=diagnostics)
loss().backward()
sgd.step()
print(set(guard.last.extras) == set(FIELDS))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("name", diagnostics.__all__)
def test_the_former_module_still_works_and_says_so(name):
    former = importlib.import_module("safestep.tools.probes")
    with pytest.warns(DeprecationWarning, match=f"import {name} from safestep.tools.diagnostics"):
        assert getattr(former, name) is getattr(diagnostics, name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = former.nothing
