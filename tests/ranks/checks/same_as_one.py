"""Several ranks against one on the same global batch: r, scale, weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from world import KINDS, LONG, PATIENT, Run, Tied, adam, alike, momentum, own_part, said, sharded, whole

import safestep
from safestep import Cap, CurvatureRadius, KLRadius, Pin, SecantCurvature, SoftmaxRadius, Tightest, default_limit

STEPS, SHADOWED = (200, 30) if LONG else (14, 5)


def apart(ours: list[float], theirs: list[float]) -> float:
    """Return the largest relative distance of two columns."""
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(ours, theirs, strict=True))


def compare(kind: str, optimizer: Any = momentum, *, steps: int = SHADOWED, **options: Any) -> Run:
    """Train on all ranks and on one, and compare.

    Rounding differs, and training magnifies it, guarded or not: the weights of a run of its own are held to 1e-4. r is
    held to 1e-5 by a shadow on one rank that takes over weights and optimizer at every step.
    """
    run, one, shadow = (Run(where, optimizer, **options) for where in (kind, "one rank", "one rank"))
    with said(kind):
        for index in range(steps):
            if index < SHADOWED:
                shadow.take_over(run)
                shadow.step()
            run.step()
            one.step()
    ours, theirs = run.guard.history, shadow.guard.history
    for column in ("ratio", "scale", "status", "step_length", "effective_lrs", "target", "age"):
        alike(ours[column])
    assert ours["status"][:SHADOWED] == theirs["status"]
    for column in ("ratio", "step_length"):
        assert apart(ours[column][:SHADOWED], theirs[column]) <= 1e-5, (kind, column)
    for a, b in zip(run.weights(), one.weights(), strict=True):
        assert torch.linalg.vector_norm(a - b) <= 1e-4 * torch.linalg.vector_norm(b)
    alike([weight.tolist() for weight in run.weights()])
    return run


def check_capped_momentum() -> None:
    for kind in KINDS:
        run = compare(kind, steps=STEPS, policy=Cap(0.04))
        assert {"capped", "inside"} <= set(map(str, run.guard.history["status"])), kind


def check_pinned_adam() -> None:
    for kind in KINDS:
        compare(kind, adam, policy=Pin(0.05), steps=10)


def check_capped_adam() -> None:
    for kind in KINDS:
        run = compare(kind, adam, policy=Cap(0.02))
        assert "capped" in set(map(str, run.guard.history["status"]))


def check_the_quadratic_model_is_of_the_mean_loss() -> None:
    for kind in KINDS:
        run = compare(kind, adam, radius=CurvatureRadius(), policy=Cap(0.01))
        assert "capped" in set(map(str, run.guard.history["status"]))


def check_the_divergence_is_the_mean_over_all_rows() -> None:
    for kind in KINDS:
        run = compare(kind, adam, radius=KLRadius(1e-5), policy=Cap(1.0))
        assert "capped" in set(map(str, run.guard.history["status"]))


def check_the_tightest_of_two() -> None:
    for kind in KINDS:
        run = compare(kind, radius=Tightest({SoftmaxRadius(method="exact"): 0.3, CurvatureRadius(): 0.2}))
        assert len({method.split(":")[0] for method in run.guard.history["method"]}) == 2


def check_a_radius_that_knows_nothing_of_ranks() -> None:
    compare("data parallel", radius=SecantCurvature(), policy=Cap(0.5))


def check_probes_agree_up_to_their_rounding() -> None:
    """A probe reads a change of 0.013 nats in float32: about 1e-5 of it is rounding, which training magnifies."""
    for kind in KINDS:
        run, shadow = (Run(where, radius=SoftmaxRadius(method="probe")) for where in (kind, "one rank"))
        for _ in range(SHADOWED):
            shadow.take_over(run)
            run.step()
            shadow.step()
        alike(run.guard.history["scale"])
        assert apart(run.guard.history["ratio"], shadow.guard.history["ratio"]) <= 1e-3
        assert set(run.guard.history["method"]) == {"probe/train"}


def check_a_sample_of_each_rank_tells_one_limit_for_all() -> None:
    """Of all rows it is the limit of one rank that sees every batch whole; of some the ranks agree to the last bit.

    On a rate that comes down, which the default limit follows.
    """
    for sample in (1000, 4):
        for kind in KINDS:
            radius = default_limit(sample=4) if sample == 4 else CurvatureRadius(sample=1000, fresh=0.5)
            options: Any = {"radius": radius, "policy": Cap(0.01)}
            run, shadow = (Run(where, adam, **options) for where in (kind, "one rank"))
            with said(kind):
                for _ in range(8):
                    shadow.take_over(run)
                    for one in (run, shadow):
                        one.step()
                        for group in one.optimizer.param_groups:
                            group["lr"] *= 0.7
            ours, theirs = run.guard.history, shadow.guard.history
            for column in ("ratio", "scale", "status", "target", "predicted_kl", "fresh_share"):
                alike(ours[column])
            assert ours["target"] == theirs["target"]
            assert (min(ours["target"]) < 0.006) == (sample == 4)
            alike([weight.tolist() for weight in run.weights()])
            assert "capped" in set(map(str, ours["status"])), kind
            if sample == 1000:  # who takes over the others' parameters does not know his last step
                each = (
                    [r * s**0.5 for r, s in zip(one["ratio"], one["fresh_share"], strict=True)]
                    for one in (ours, theirs)
                )
                assert apart(*each) <= 1e-2, kind


def check_ties_across_a_sharded_model() -> None:
    """The table is read at both ends of the root, around a unit that gathers on its own."""
    histories = []
    for model in (sharded(Tied()), Tied()):
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
        ranks = None if type(model) is Tied else PATIENT
        guard = safestep.attach(model, optimizer, radius=SoftmaxRadius(method="exact"), policy=Cap(0.3), ranks=ranks)
        for index in range(20):
            ids = torch.randint(0, 12, (8, 6), generator=torch.Generator().manual_seed(index))
            part = ids if ranks is None else own_part(ids, "sharded")
            optimizer.zero_grad()
            F.cross_entropy(model(part).flatten(0, 1), part.roll(1, 1).flatten()).backward()
            optimizer.step()
        histories.append((guard.history, [whole(p) for p in model.parameters()]))
    (ours, weights), (theirs, others) = histories
    assert set(ours["method"]) == {"forward-mode/train"}
    assert apart(ours["ratio"], theirs["ratio"]) <= 1e-5
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(weights, others, strict=True))


def check_micro_batches() -> None:
    """Two micro-batches on each rank, the first without synchronisation: r over all rows of all ranks."""

    def accumulate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        first, second = zip(x.chunk(2), y.chunk(2), strict=True)
        with model.no_sync() if hasattr(model, "no_sync") else torch.enable_grad():
            (F.cross_entropy(model(first[0]), first[1]) / 2).backward()
        return F.cross_entropy(model(second[0]), second[1]) / 2

    for kind in ("data parallel", "sharded"):
        run, shadow = Run(kind), Run("one rank")
        for _ in range(10):
            shadow.take_over(run)
            run.step(accumulate)
            shadow.step()
        alike(run.guard.history["scale"])
        assert apart(run.guard.history["ratio"], shadow.guard.history["ratio"]) <= 1e-5
