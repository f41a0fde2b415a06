"""Contract 1 on several ranks: a guard whose scale is 1 leaves every rank bit for bit as it would be without it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from world import KINDS, LONG, PATIENT, Run, adam, cross_entropy, momentum, own_part, said

import safestep
from safestep import Cap, CurvatureRadius, SoftmaxRadius, Watch

RADII = {
    "exact": SoftmaxRadius(method="exact"),
    "probe": SoftmaxRadius(method="probe"),
    "tiered": SoftmaxRadius(),
    "curvature": CurvatureRadius(),
}
OPTIMIZERS: dict[str, Any] = {
    "momentum": momentum,
    "adam": adam,
    "foreach": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, foreach=True),
    "fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, fused=True),
}


def equal(run: Run, plain: Run) -> None:
    ours, theirs = run.pieces(), plain.pieces()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def check_far_inside() -> None:
    for kind in KINDS:
        for name, optimizer in OPTIMIZERS.items():
            if kind == "tensor parallel" and name in {"foreach", "fused"}:
                continue  # torch takes no plain parameters beside DTensors there
            plain = Run(kind, optimizer, guarded=False).steps(3)
            for method, radius in RADII.items():
                if method != "tiered" and not (name == "momentum" or (LONG and name == "adam")):
                    continue  # how an optimizer loops is nothing to how r is measured
                run = Run(kind, optimizer, radius=radius, policy=Cap(1e6))
                with said(kind if method in {"exact", "curvature"} else ""):
                    run.steps(3)
                equal(run, plain)
                assert set(run.guard.history["status"]) == {"inside"}, (kind, name, method)


def check_watching() -> None:
    for kind in KINDS:
        plain = Run(kind, guarded=False).steps(3)
        for method, radius in RADII.items():
            run = Run(kind, radius=radius, policy=Watch(Cap(1e-3)))
            with said(kind if method in {"exact", "curvature"} else ""):
                run.steps(3)
            equal(run, plain)
            assert max(run.guard.history["would_scale"]) < 1.0


def check_what_is_sharded_stays_sharded() -> None:
    run, plain = Run("sharded", policy=Cap(1e-3)).steps(2), Run("sharded", guarded=False).steps(2)
    for ours, theirs in zip(run.model.parameters(), plain.model.parameters(), strict=True):
        assert type(ours) is type(theirs)
        assert ours.placements == theirs.placements
    assert [type(m) for m in run.model.modules()] == [type(m) for m in plain.model.modules()]


class Noisy(nn.Module):
    """Dropout, and BatchNorm with the statistics of all ranks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def check_noise_and_statistics() -> None:
    """BatchNorm of each rank's rows: buffers are broadcast, dropout draws on each rank's generator."""
    for radius in RADII.values():
        found = []
        for guarded in (True, False):
            torch.manual_seed(1 + torch.distributed.get_rank())
            state = torch.get_rng_state()
            model = nn.parallel.DistributedDataParallel(Noisy())
            torch.set_rng_state(state)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            if guarded:
                guard = safestep.attach(model, optimizer, radius=radius, policy=Cap(1e6), ranks=PATIENT)
            for index in range(4):
                generator = torch.Generator().manual_seed(index)
                x, y = torch.randn(16, 8, generator=generator), torch.randint(0, 5, (16,), generator=generator)
                optimizer.zero_grad()
                cross_entropy(model, own_part(x, ""), own_part(y, "")).backward()
                optimizer.step()
            found.append([*model.state_dict().values(), torch.get_rng_state()])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
        assert len(guard.history) == 4
