"""What else people build of several ranks: mixed precision, hybrid and two-dimensional sharding, sharded logits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, loss_parallel, parallelize_module
from torch.nn import functional as F
from world import (
    DIFFERENCES,
    KINDS,
    PATIENT,
    Run,
    alike,
    batch,
    cross_entropy,
    mesh,
    mlp,
    momentum,
    own_part,
    raised,
    warned,
)

import safestep
from safestep import Cap, CurvatureRadius, SoftmaxRadius

RADII = {"exact": SoftmaxRadius(method="exact"), "probe": SoftmaxRadius(method="probe"), "curvature": CurvatureRadius()}


def ratios(
    model: nn.Module,
    radius: Any,
    *,
    split: int = 1,
    part: int = 0,
    make: Callable[[Any], torch.optim.Optimizer] = momentum,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] = cross_entropy,
    ranks: Any = PATIENT,
    steps: int = 4,
) -> list[float]:
    """Train on a part of each batch and return r of the steps."""
    optimizer = make(model.parameters())
    guard = safestep.attach(model, optimizer, radius=radius, policy=Cap(0.05), ranks=ranks)
    for index in range(steps):
        x, y = (tensor.chunk(split)[part] for tensor in batch(index))
        optimizer.zero_grad()
        loss(model, x, y).backward()
        optimizer.step()
    if ranks is not None:
        alike(guard.history["scale"])
    return guard.history["ratio"]


def near(ours: list[float], theirs: list[float], tolerance: float) -> None:
    assert all(abs(a - b) <= tolerance * b for a, b in zip(ours, theirs, strict=True)), (ours, theirs)


def mine() -> dict[str, int]:
    return {"split": distributed.get_world_size(), "part": distributed.get_rank()}


class Parcel(nn.Module):
    """Two heads in some parcel; takes its loss inside where it is given labels."""

    def __init__(self, pack: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.body, self.pack = mlp(), pack
        self.other = nn.Linear(8, 7)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        one, two = self.body(x), 10.0 * self.other(x)
        return self.pack(x.sum() if labels is None else _both(one, two, labels), one, two)


def _both(one: Tensor, two: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(one, y) + F.cross_entropy(two, y)


def _as_tuple(loss: Tensor, one: Tensor, two: Tensor) -> Any:
    return loss, one, two


def _as_dict(loss: Tensor, one: Tensor, two: Tensor) -> Any:
    return {"loss": loss, "logits": one, "aux": {"deep": two}}


def _read(out: Any) -> tuple[Tensor, ...]:
    return out if isinstance(out, tuple) else (out["loss"], out["logits"], out["aux"]["deep"])


def _inside(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return _read(model(x, labels=y))[0]


def _outside(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return _both(*_read(model(x))[1:], y)


def check_heads_in_a_parcel_with_the_loss_in_and_outside() -> None:
    for kind, pack in (("data parallel", _as_tuple), ("sharded", _as_dict)):
        for loss in (_inside, _outside):
            for name, radius in RADII.items():
                found = ratios(KINDS[kind](Parcel(pack)), radius, loss=loss, steps=3, **mine())
                alone = ratios(Parcel(pack), radius, loss=loss, ranks=None, steps=3)
                near(found, alone, 1e-3 if name == "probe" else 1e-5)


def check_units_that_compute_in_bfloat16() -> None:
    """r carries the rounding of the units, and no record calls it exact."""
    for name in ("exact", "probe"):
        model, policy = mlp(), MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.float32)
        for layer in [*model.children(), model]:
            if [*layer.parameters()]:
                fully_shard(layer, mesh=mesh(), mp_policy=policy)
        guarded = ratios(model, RADII[name], **mine())
        near(guarded, ratios(mlp(), RADII["exact"], ranks=None), 0.1)


def check_autocast_on_each_rank() -> None:
    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return F.cross_entropy(model(x), y)

    for name in ("exact", "probe"):
        found = ratios(nn.parallel.DistributedDataParallel(mlp()), RADII[name], loss=loss, **mine())
        near(found, ratios(mlp(), RADII["exact"], ranks=None), 0.1)


def check_copies_of_shards() -> None:
    """Hybrid sharding: two groups of ranks, each with the whole model in pieces."""
    if distributed.get_world_size() != 4:
        return
    grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "pieces"))
    for name, radius in RADII.items():
        model = mlp()
        for layer in [*model.children(), model]:
            if [*layer.parameters()]:
                fully_shard(layer, mesh=grid)
        near(ratios(model, radius, **mine()), ratios(mlp(), radius, ranks=None), 1e-3 if name == "probe" else 1e-5)


def check_shards_of_tensor_parallel_layers() -> None:
    """Two dimensions: pieces of pieces. What a unit gathers is still spread over the tensor-parallel ranks."""
    if distributed.get_world_size() != 4:
        return
    grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    for name, radius in RADII.items():
        model = parallelize_module(mlp(), grid["tensor"], {"2": ColwiseParallel(), "4": RowwiseParallel()})
        for layer in (model[2], model[4]):
            fully_shard(layer, mesh=grid["data"])
        for parameter in model[0].parameters():
            parameter.requires_grad_(False)  # plain, beside the others: nobody would average its gradient
        plain = mlp()
        plain[0].requires_grad_(False)
        said = contextlib.nullcontext() if name == "probe" else warned(DIFFERENCES)
        with said:
            found = ratios(model, radius, split=2, part=grid["data"].get_local_rank(), make=trainable)
        near(found, ratios(plain, radius, ranks=None, make=trainable), 1e-3 if name == "probe" else 1e-5)


def trainable(parameters: Any) -> torch.optim.Optimizer:
    return momentum([parameter for parameter in parameters if parameter.requires_grad])


def wide() -> nn.Sequential:
    """As many classes as four ranks can share."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))


def check_logits_that_stay_sharded() -> None:
    """Each rank holds some of the classes, and the loss is computed on them: logits are never gathered."""

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y)

    for name, radius in RADII.items():
        model = parallelize_module(wide(), mesh(), {"2": ColwiseParallel(use_local_output=False)})
        said = contextlib.nullcontext() if name == "probe" else warned(DIFFERENCES)
        with loss_parallel(), said:
            found = ratios(model, radius, loss=loss)
        near(found, ratios(wide(), radius, ranks=None), 1e-3 if name == "probe" else 1e-5)


def check_an_optimizer_that_shares_its_state() -> None:
    """ZeRO: each rank steps some parameters and hands them out, all inside one step."""

    def shared(parameters: Any) -> torch.optim.Optimizer:
        return ZeroRedundancyOptimizer(parameters, torch.optim.SGD, lr=0.2, momentum=0.9)

    model = nn.parallel.DistributedDataParallel(mlp())
    near(ratios(model, RADII["exact"], make=shared, **mine()), ratios(mlp(), RADII["exact"], ranks=None), 1e-5)


def check_a_data_parallel_model_that_looks_for_unused_parameters() -> None:
    for options in ({"find_unused_parameters": True}, {"static_graph": True}, {"gradient_as_bucket_view": True}):
        model = nn.parallel.DistributedDataParallel(mlp(), **options)
        near(ratios(model, RADII["exact"], **mine()), ratios(mlp(), RADII["exact"], ranks=None), 1e-5)


def check_a_compiled_data_parallel_model() -> None:
    model = torch.compile(nn.parallel.DistributedDataParallel(mlp()), backend="eager")
    near(ratios(model, RADII["probe"], **mine()), ratios(mlp(), RADII["probe"], ranks=None), 1e-3)


def check_an_evaluation_between_backward_and_step() -> None:
    """It leaves the root of a sharded model gathered; the step is that of the pieces even so."""
    run, plain = Run("sharded"), Run("sharded")
    for index in range(4):
        for one in (run, plain):
            one.optimizer.zero_grad()
            cross_entropy(one.model, *one.rows()).backward()
            if one is run:
                with torch.no_grad():
                    one.model(batch(100)[0])
            one.optimizer.step()
            one.index += 1
        if index == 0:  # what the root has gathered is of the old parameters from now on, with or without a guard
            assert run.guard.last.ratio == plain.guard.last.ratio > 0.0
    assert set(run.guard.history["method"]) == {"forward-mode/train"}


def check_a_suggested_rate_is_one_for_all_ranks() -> None:
    x, y = batch(0)
    one = Run("one rank", guarded=False)
    alone = safestep.suggest_lr(one.model, one.optimizer, lambda: cross_entropy(one.model, x, y).backward(), ranks=None)
    for kind in KINDS:
        run = Run(kind, guarded=False)
        rows = own_part(x, kind), own_part(y, kind)
        before = run.pieces()

        def closure(run: Run = run, rows: tuple[Tensor, Tensor] = rows) -> None:
            cross_entropy(run.model, *rows).backward()

        with warned(DIFFERENCES) if kind == "tensor parallel" else contextlib.nullcontext():
            found = safestep.suggest_lr(run.model, run.optimizer, closure)
        alike(found.lr)
        assert abs(found.lr - alone.lr) <= 1e-4 * alone.lr, (kind, found, alone)
        after = run.pieces()
        assert all(torch.equal(after[name], before[name]) for name in before)


def check_joining_uneven_batches_is_refused() -> None:
    model = nn.parallel.DistributedDataParallel(mlp())
    optimizer = momentum(model.parameters())
    safestep.attach(model, optimizer, ranks=PATIENT)
    with model.join(throw_on_early_termination=False):
        cross_entropy(model, *batch(0)).backward()
        assert "model.join()" in raised(optimizer.step)
