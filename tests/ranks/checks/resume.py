"""Contract 7 on several ranks: stopped, saved, loaded into new objects and resumed equals the run that was not."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import distributed
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from world import KINDS, LONG, Run, adam, alike, raised, said

from safestep import Cap, CurvatureRadius, Pin, SoftmaxRadius

GUARDS: dict[str, dict[str, Any]] = {
    "exact": {"radius": SoftmaxRadius(method="exact"), "policy": Cap(lambda step: 0.02 * (1 + step))},
    "tiered": {"radius": SoftmaxRadius(), "policy": Cap(0.05)},
    "curvature": {"radius": CurvatureRadius(), "policy": Cap(0.01)},
    "pin": {"radius": SoftmaxRadius(method="probe"), "policy": Pin(0.02)},
}
if not LONG:
    GUARDS = {name: GUARDS[name] for name in ("exact", "tiered")}
BEFORE, AFTER = 4, 4
PLACE = Path(os.environ["CHECKS_PLACE"])


def parts(run: Run) -> dict[str, Any]:
    weights, moments = get_state_dict(run.model, run.optimizer)
    return {"model": weights, "optimizer": moments, "guard": run.guard.state_dict()}


def loud(kind: str, name: str) -> Any:
    return said(kind if name in {"exact", "curvature"} else "")


def check_distributed_checkpoints() -> None:
    for kind in KINDS:
        for name, options in GUARDS.items():
            with loud(kind, name):
                whole = Run(kind, adam, **options).steps(BEFORE)
            folder = PLACE / f"{distributed.get_world_size()}-{kind}-{name}".replace(" ", "-")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own, of its own storage
                dcp.save(parts(whole), checkpoint_id=folder)
                resumed = Run(kind, adam, warmed=True, **options)
                saved = parts(resumed)
                dcp.load(saved, checkpoint_id=folder)
            set_state_dict(
                resumed.model, resumed.optimizer, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"]
            )
            resumed.guard.load_state_dict(saved["guard"])
            resumed.index = BEFORE
            whole.steps(AFTER)
            resumed.steps(AFTER)
            ours, theirs = resumed.pieces(), whole.pieces()
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs), (kind, name)
            assert list(resumed.guard.history) == list(whole.guard.history)[BEFORE:], (kind, name)
            assert resumed.guard.state_dict() == whole.guard.state_dict(), (kind, name)


def check_a_state_that_rank_0_saved() -> None:
    """As of a DistributedDataParallel model: one file, read by all."""
    for name, options in GUARDS.items():
        whole = Run("data parallel", adam, **options).steps(BEFORE - 1)
        whole.guard.wind_down(AFTER + 1)  # saved within it
        whole.step()
        path = PLACE / f"{distributed.get_world_size()}-{name}.pt"
        if distributed.get_rank() == 0:
            state = {
                "model": whole.model.state_dict(),
                "optimizer": whole.optimizer.state_dict(),
                "guard": whole.guard.state_dict(),
            }
            torch.save(state, path)
        distributed.barrier()
        saved = torch.load(path, weights_only=True)
        resumed = Run("data parallel", adam, warmed=True, **options)
        resumed.model.load_state_dict(saved["model"])
        resumed.optimizer.load_state_dict(saved["optimizer"])
        resumed.guard.load_state_dict(saved["guard"])
        resumed.index = BEFORE
        whole.steps(AFTER)
        resumed.steps(AFTER)
        ours, theirs = resumed.pieces(), whole.pieces()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
        assert resumed.guard.history["ratio"] == whole.guard.history["ratio"][BEFORE:], name
        alike(resumed.guard.history["scale"])
        alike(targets := resumed.guard.history["target"])
        assert targets == whole.guard.history["target"][BEFORE:], name
        assert targets[-1] < targets[0], name


def check_one_rank_that_was_not_resumed_is_told() -> None:
    run, fresh = Run("sharded").steps(2), Run("one rank")
    if distributed.get_rank() == 0:
        run.guard.load_state_dict(fresh.guard.state_dict())
    assert "is at another place" in raised(run.step)
