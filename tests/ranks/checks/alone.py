"""What one rank alone sees or does: all take the same decision, and nobody waits for ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from world import (
    CLASSES,
    FEATURES,
    KINDS,
    LONG,
    PATIENT,
    Run,
    adam,
    alike,
    cross_entropy,
    here,
    mlp,
    raised,
    said,
    warned,
)

import safestep
from safestep import (
    Cap,
    CurvatureRadius,
    HessianRadius,
    KLRadius,
    Radius,
    SoftmaxRadius,
    Tightest,
    Watch,
    default_limit,
)

DATA = ("data parallel", "sharded")
RADII = {
    "exact": SoftmaxRadius(method="exact"),
    "probe": SoftmaxRadius(method="probe"),
    "tiered": SoftmaxRadius(),
    "curvature": CurvatureRadius(),
    "kl": KLRadius(),
    "both": Tightest({SoftmaxRadius(method="exact"): 1.0, CurvatureRadius(): 0.75}),
}

SOME = RADII if LONG else {name: RADII[name] for name in ("tiered", "both")}


def same_weights(run: Run) -> None:
    alike([weight.tolist() for weight in run.weights()])


def with_nan(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(model, torch.where(torch.tensor(here()), torch.nan, x), y)


def spike(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(model, 30 * x if here() else x, y)


def empty(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    rows = len(x)
    if here():
        x, y = x[:0], y[:0]
    return F.cross_entropy(model(x), y, reduction="sum") / rows


def check_a_nan_on_one_rank_undoes_the_step_on_all() -> None:
    for kind in DATA:
        for name, radius in SOME.items():
            run = Run(kind, radius=radius).steps(2)
            before = run.weights()
            with warned("the optimizer's state is not finite"):
                run.step(with_nan)
            assert run.guard.last.status == "undone", (kind, name)
            assert all(torch.equal(a, b) for a, b in zip(run.weights(), before, strict=True))
            alike(run.guard.history["scale"])
            # the gradients of all ranks are averaged, so that momentum keeps the nan on all
            run.optimizer.state.clear()
            run.steps(2)
            assert run.guard.last.status != "undone", (kind, name)
            same_weights(run)


def check_a_nan_on_one_rank_is_skipped_on_all() -> None:
    for kind in DATA:
        run = Run(kind, adam, on_nonfinite="skip").steps(2)
        run.step(with_nan)
        assert run.guard.last.status == "skipped"
        run.steps(2)
        assert run.guard.last.status in {"inside", "capped"}
        same_weights(run)


def check_a_nan_in_one_piece_of_the_gradients() -> None:
    """Only one rank holds the piece with the nan: without agreement it alone would skip."""
    for policy in ("undo", "skip"):
        run = Run("sharded", on_nonfinite=policy).steps(2)
        cross_entropy(run.model, *run.rows()).backward()
        if here():
            next(p.grad for p in run.model.parameters() if p.to_local().numel()).to_local().fill_(torch.nan)
        with warned(*(["not finite"] if policy == "undo" else [])):
            run.optimizer.step()
        assert run.guard.last.status == ("undone" if policy == "undo" else "skipped")
        alike([str(status) for status in run.guard.history["status"]])


def check_a_poisoned_piece_is_an_error_on_all() -> None:
    run = Run("sharded", adam).steps(1)
    if here():
        next(s["exp_avg"] for s in run.optimizer.state.values() if s["exp_avg"].to_local().numel()).to_local().fill_(
            torch.nan
        )
    with warned("the optimizer's state is not finite" if here() else "the optimizer of another rank is not finite"):
        run.steps(2)
    assert "3 steps in a row were undone" in raised(run.step)


def check_an_empty_batch_on_one_rank() -> None:
    for kind in DATA:
        for name, radius in SOME.items():
            run = Run(kind, radius=radius, policy=Cap(0.01)).steps(1)
            run.step(empty)
            assert run.guard.last.status in {"capped", "throttled"}, (kind, name, run.guard.last)
            alike(run.guard.history["scale"])
            run.steps(1)
            same_weights(run)


def check_a_spike_on_one_rank_shortens_the_step_on_all() -> None:
    for kind in DATA:
        for name in ("exact", "probe", "tiered"):
            radius = SoftmaxRadius(method=name)
            run, quiet = Run(kind, radius=radius, policy=Cap(0.1)), Run(kind, radius=radius, policy=Cap(0.1))
            run.step(spike)
            quiet.step()
            assert run.guard.last.ratio > 2 * quiet.guard.last.ratio, (kind, name)
            alike(run.guard.history["scale"])
            assert run.guard.last.status == "capped"
            same_weights(run)


def check_a_spike_wakes_every_rank_that_skips() -> None:
    """Far inside most steps measure nothing; a batch with labels that one rank finds impossible ends that on all."""
    for kind in DATA:
        run = Run(kind, lambda p: torch.optim.SGD(p, lr=1e-3), radius=SoftmaxRadius(), policy=Cap(1.0)).steps(8)
        assert "skip/train" in run.guard.history["method"][-3:]
        run.step(lambda model, x, y: cross_entropy(model, 1000 * x if here() else x, y))
        assert "skip" not in run.guard.last.method, (kind, run.guard.last)
        alike(["skip" in method for method in run.guard.history["method"]])  # which rows tell, each sees for itself
        alike(run.guard.history["scale"])


@dataclass(frozen=True)
class Fails(Radius):
    """A radius that cannot measure on one rank."""

    def measure(self, proposal: Any, state: Any) -> Any:
        if here():
            raise safestep.MeasurementError("not here")
        return safestep.Reading(proposal.step.index, 0.5, "fails"), state


def check_an_error_on_one_rank_is_an_error_on_all() -> None:
    for radius in (Fails(), Tightest({Fails(): 1.0, CurvatureRadius(): 1.0})):
        run = Run("data parallel", radius=radius)
        before = run.weights()
        assert ("not here" if here() else "another rank could not measure") in raised(run.step)
        assert all(torch.equal(a, b) for a, b in zip(run.weights(), before, strict=True))


def check_watching_goes_on_after_an_error_on_one_rank() -> None:
    plain = Run("data parallel", guarded=False).steps(3)
    run = Run("data parallel", radius=Fails(), policy=Watch(Cap(0.1)))
    with warned("not here" if here() else "another rank could not"):
        run.steps(3)
    assert set(run.guard.history["status"]) == {"unmeasured"}
    assert all(torch.equal(a, b) for a, b in zip(run.weights(), plain.weights(), strict=True))


def check_different_targets_are_told() -> None:
    """Of a limit that is made of others in units of the first."""
    radii = {SoftmaxRadius(method="exact"): "0.1 to 0.2", CurvatureRadius(): "0.1 to 0.2"}
    for radius, told in {**radii, default_limit(sample=4): "0.045 to 0.09"}.items():
        run = Run("data parallel", radius=radius, policy=Cap(0.1 if here() else 0.2))
        assert f"aim at different targets ({told})" in raised(run.step), radius


def check_a_target_that_follows_on_one_rank_is_told() -> None:
    run = Run("data parallel", radius=default_limit(sample=4, follow_schedule=here()), policy=Cap(0.1)).steps(2)
    for group in run.optimizer.param_groups:
        group["lr"] *= 0.1
    assert "aim at different targets (" in raised(run.step)


def check_a_wind_down_on_one_rank_is_told() -> None:
    run = Run("data parallel", policy=Cap(0.1)).steps(2)
    if here():
        run.guard.wind_down(4)
    run.step()  # its first step has the whole target on every rank
    assert "aim at different targets (0.075 to 0.1)" in raised(run.step)


def check_models_of_their_own_are_told() -> None:
    """Ranks that train different models, though processes are joined."""
    torch.manual_seed(distributed.get_rank())
    model = nn.Linear(FEATURES, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    safestep.attach(model, optimizer, ranks=PATIENT)
    F.cross_entropy(model(torch.randn(4, FEATURES)), torch.zeros(4, dtype=torch.long)).backward()
    assert "do not train the same parameters" in raised(optimizer.step)


def check_a_guard_on_its_own() -> None:
    torch.manual_seed(distributed.get_rank())
    model = nn.Linear(FEATURES, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = safestep.attach(model, optimizer, ranks=None)
    for _ in range(1 + distributed.get_rank()):
        optimizer.zero_grad()
        F.cross_entropy(model(torch.randn(4, FEATURES)), torch.zeros(4, dtype=torch.long)).backward()
        optimizer.step()
    assert len(guard.history) == 1 + distributed.get_rank()


def check_a_warning_that_is_an_error_on_one_rank() -> None:
    """Whoever makes errors of warnings: no rank takes a step that another one takes back, and the next one works."""

    def squared(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(model(x), torch.zeros(len(x), CLASSES)) if here() else cross_entropy(model, x, y)

    for kind in DATA:
        for radius in (SoftmaxRadius(method="exact"), CurvatureRadius()):
            run = Run(kind, radius=radius)
            before, failed = run.weights(), False
            try:
                run.step(squared)
            except (safestep.SafestepError, safestep.SafestepWarning):
                failed = True
            assert failed
            assert all(torch.equal(a, b) for a, b in zip(run.weights(), before, strict=True))
            run.step()
            assert run.guard.last.status in {"inside", "capped"}


def check_an_input_that_was_overwritten_on_one_rank() -> None:
    for kind in DATA:
        for radius in (RADII["exact"], RADII["probe"], RADII["curvature"]):
            run = Run(kind, radius=radius).steps(1)
            x, y = run.rows()
            run.optimizer.zero_grad()
            cross_entropy(run.model, x, y).backward()
            if here():
                x.add_(1)
            assert ("was overwritten in place" if here() else "another rank") in raised(run.optimizer.step)
            run.steps(1)
            assert run.guard.last.status in {"inside", "capped"}


@dataclass(frozen=True)
class Differs(Radius):
    """A radius that reads something else on each rank, and knows nothing of the others."""

    def measure(self, proposal: Any, state: Any) -> Any:
        return safestep.Reading(proposal.step.index, 1.0 + distributed.get_rank(), "differs"), state


def check_an_audit_of_a_radius_that_knows_nothing_of_ranks() -> None:
    run = Run("data parallel", radius=Differs(), policy=Watch(Cap(1.0)))
    audit = run.guard.audit()
    run.steps(2)
    assert run.guard.history["ratio"] == [float(distributed.get_world_size())] * 2
    assert audit.worst == distributed.get_world_size()


def check_ranks_at_different_steps_are_told() -> None:
    """One rank was resumed from another checkpoint."""
    for radius in (SoftmaxRadius(method="exact"), CurvatureRadius(), SoftmaxRadius()):
        run, fresh = Run("data parallel", radius=radius).steps(2), Run("one rank", radius=radius)
        if here():
            run.guard.load_state_dict(fresh.guard.state_dict())
        assert "is at another place" in raised(run.step)
        safestep.distributed.ranks._groups.clear()


def check_a_scaler_that_skips_on_all_ranks() -> None:
    for kind in DATA:
        run = Run(kind, policy=Cap(0.1))
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        plain = Run(kind, policy=Cap(0.1))
        for index in range(4):
            overflow = index == 1
            run.optimizer.zero_grad()
            loss = cross_entropy(run.model, *run.rows())
            scaler.scale(loss * (torch.inf if overflow and here() else 1.0)).backward()
            scaler.step(run.optimizer)
            scaler.update()
            if not overflow:
                run.index += 1
                plain.step()
        assert [report.step for report in run.guard.history] == [0, 1, 2]
        assert all(
            torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(run.weights(), plain.weights(), strict=True)
        )


def check_a_second_derivative_by_the_closure() -> None:
    model = nn.parallel.DistributedDataParallel(mlp())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    run, now = Run("one rank", lambda p: torch.optim.SGD(p, lr=0.5), guarded=False), {}
    one = safestep.attach(
        run.model, run.optimizer, radius=HessianRadius(lambda: cross_entropy(run.model, *run.rows())), ranks=None
    )
    guard = safestep.attach(
        model, optimizer, radius=HessianRadius(lambda: cross_entropy(model, *now["rows"])), ranks=PATIENT
    )
    for _ in range(3):
        x, y = run.rows()
        ranks, rank = distributed.get_world_size(), distributed.get_rank()
        now["rows"] = x.chunk(ranks)[rank], y.chunk(ranks)[rank]
        optimizer.zero_grad()
        cross_entropy(model, *now["rows"]).backward()
        optimizer.step()
        run.step()
        assert abs(guard.last.ratio - one.last.ratio) <= 1e-5 * one.last.ratio
    alike(guard.history["scale"])


def check_radii_that_need_whole_parameters_say_so() -> None:
    for radius in (safestep.SecantCurvature(), HessianRadius(lambda: torch.zeros(()))):
        for kind in ("sharded", "tensor parallel"):
            assert "the parameters are DTensors" in raised(Run(kind, radius=radius).step)


def check_uneven_numbers_of_forwards() -> None:
    """One rank takes two micro-batches, the others one: they can only be measured together where sharded."""

    def step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(model, x, y)

    run = Run("data parallel", policy=Cap(0.05))
    for _ in range(2):
        run.optimizer.zero_grad()
        if here():
            with run.model.no_sync():
                cross_entropy(run.model, *run.rows()).backward()
        step(run.model, *run.rows()).backward()
        run.optimizer.step()
    alike(run.guard.history["scale"])
    same_weights(run)


def check_every_kind_says_what_it_has_to_say_once() -> None:
    for kind in KINDS:
        with said(kind):
            Run(kind).steps(6)
