"""Sharded models as people build them: every kind of unit, empty pieces, micro-batches, a replay that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard
from torch.nn import functional as F
from world import (
    CLASSES,
    FEATURES,
    PATIENT,
    Run,
    batch,
    cross_entropy,
    mesh,
    mlp,
    momentum,
    own_part,
    raised,
    sharded,
    warned,
)
from wrapped import RADII, mine, near, ratios, trainable

import safestep
from safestep import Cap, CurvatureRadius, SoftmaxRadius


def close(name: str) -> float:
    return 1e-3 if name in {"probe", "tiered"} else 1e-5


def one_row() -> nn.Sequential:
    """A single output over a frozen base: one rank holds all that moves, the others nothing of it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Linear(16, 1, bias=False))
    model[0].requires_grad_(False)
    return model


def check_a_rank_that_holds_nothing_of_what_moves() -> None:
    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(x)[:, 0], (y > 2).float())

    radii: dict[str, Any] = {m: SoftmaxRadius(method=m, head="sigmoid") for m in ("exact", "probe", "tiered")}
    for name, radius in (radii | {"curvature": CurvatureRadius("bce")}).items():
        found = ratios(sharded(one_row()), radius, loss=loss, **mine())
        near(found, ratios(one_row(), radius, loss=loss, ranks=None), close(name))


def check_micro_batches_that_are_not_synchronised() -> None:
    """Units keep the gradients to themselves until the last one; every one of them trains even so."""

    def accumulate(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        first, second = zip(x.chunk(2), y.chunk(2), strict=True)
        synchronise = getattr(model, "set_requires_gradient_sync", lambda _: None)
        synchronise(False)
        (cross_entropy(model, *first) / 2).backward()
        synchronise(True)
        return cross_entropy(model, *second) / 2

    for name, radius in RADII.items():
        run, shadow = Run("sharded", radius=radius), Run("one rank", radius=radius)
        for _ in range(4):
            shadow.take_over(run)
            run.step(accumulate)
            shadow.step()
        near(run.guard.history["ratio"], shadow.guard.history["ratio"], close(name))


class Encoder(nn.Sequential):
    def encode(self, x: Tensor) -> Tensor:
        return self.forward(x)


class Encoding(nn.Module):
    """Calls a method of its encoder, not the encoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = Encoder(nn.Linear(FEATURES, 16), nn.GELU()), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body.encode(x))


def check_methods_that_gather_like_a_forward() -> None:
    """Short steps: a replay at the present parameters would pass for the training forward."""

    def short(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1e-3)

    for name, radius in RADII.items():
        model = Encoding()
        for unit in (model.body, model.head, model):
            fully_shard(unit, mesh=mesh())
        register_fsdp_forward_method(model.body, "encode")
        before = dict(vars(model.body))
        found = ratios(model, radius, make=short, **mine())
        near(found, ratios(Encoding(), radius, make=short, ranks=None), close(name))
        assert vars(model.body).keys() == before.keys()
        assert vars(model.body)["encode"] is before["encode"]


class Once(nn.Module):
    """Runs in training; a replay finds it broken."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False

    def forward(self, x: Tensor) -> Tensor:
        if self.broken and not torch.is_grad_enabled():
            raise ValueError("not again")
        return x


def check_a_replay_that_fails_half_way() -> None:
    """Inside the root and after a unit: the step is taken back, and the next forward sees what was put back."""
    for place in (2, 5):
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 5)]
        layers.insert(place, once := Once())
        model = nn.Sequential(*layers)
        fully_shard(model[2 if place > 2 else 3], mesh=mesh())
        fully_shard(model, mesh=mesh())
        optimizer = momentum(model.parameters())
        safestep.attach(model, optimizer, radius=SoftmaxRadius(method="exact"), policy=Cap(0.05), ranks=PATIENT)
        x, y = (own_part(tensor, "sharded") for tensor in batch(0))
        loss = cross_entropy(model, x, y)
        loss.backward()
        once.broken = True
        assert "not again" in raised(optimizer.step)
        once.broken = False
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        assert cross_entropy(model, x, y).item() == loss.item()
        optimizer.zero_grad()
        cross_entropy(model, x, y).backward()
        optimizer.step()
        assert cross_entropy(model, x, y).item() < loss.item()


def units(**options: Any) -> Callable[[nn.Sequential], nn.Module]:
    def shard(model: nn.Sequential) -> nn.Module:
        for unit in (model[0], model[2], model[4], model):
            fully_shard(unit, mesh=mesh(), **options)
        return model

    return shard


def in_one(model: nn.Sequential) -> nn.Module:
    return fully_shard(model, mesh=mesh())


def grouped(model: nn.Sequential) -> nn.Module:
    fully_shard([model[0], model[2]], mesh=mesh())
    return fully_shard(model, mesh=mesh())


def with_copies(model: nn.Sequential) -> nn.Module:
    """Some parameters are left to each rank as they are."""
    fully_shard(model[2], mesh=mesh())
    return fully_shard(model, mesh=mesh(), ignored_params=set(model[0].parameters()))


def by_columns(model: nn.Sequential) -> nn.Module:
    ranks = distributed.get_world_size()
    return units(shard_placement_fn=lambda p: Shard(1) if p.ndim == 2 and p.shape[1] % ranks == 0 else Shard(0))(model)


def check_every_kind_of_unit() -> None:
    half = max(1, distributed.get_world_size() // 2)
    kept = [units(reshard_after_forward=kind) for kind in (False, True, *([half] if half > 1 else []))]
    for shard in (*kept, in_one, grouped, with_copies, by_columns):
        for name, radius in RADII.items():
            model, plain = mlp(), mlp()
            for one in (model, plain):
                one[0].requires_grad_(shard is not with_copies)
            found = ratios(shard(model), radius, make=trainable, **mine())
            near(found, ratios(plain, radius, make=trainable, ranks=None), close(name))


def check_groups_of_shards_that_train_the_same() -> None:
    """Two groups of ranks, each with the whole model in pieces and no mesh over both: a step is as long as it is."""
    if distributed.get_world_size() != 4:
        return
    grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "pieces"))
    model, plain = mlp(), mlp()
    for unit in (model[0], model[2], model[4], model):
        fully_shard(unit, mesh=grid["pieces"])
    lengths = []
    for one, ranks in ((model, PATIENT), (plain, None)):
        optimizer = momentum(one.parameters())
        guard = safestep.attach(one, optimizer, radius=SoftmaxRadius(method="exact"), ranks=ranks)
        cross_entropy(one, *batch(0)).backward()
        optimizer.step()
        lengths.append(guard.last.step_length)
    near(lengths[:1], lengths[1:], 1e-5)


def decay_that_lifts_a_piece() -> float:
    """Return a weight decay with which some rank's piece of the first step goes uphill, and the whole step does not."""
    ranks, model = distributed.get_world_size(), mlp()
    cross_entropy(model, *batch(0)).backward()
    pairs = [(p.detach().chunk(ranks), p.grad.chunk(ranks)) for p in model.parameters()]
    pieces = [[(p[rank], g[rank]) for p, g in pairs if rank < len(p)] for rank in range(ranks)]
    falls = [sum(float(g.square().sum()) for _, g in piece) for piece in pieces]
    lifts = [sum(-float((p * g).sum()) for p, g in piece) for piece in pieces]
    first = min(fall / lift for fall, lift in zip(falls, lifts, strict=True) if lift > 0.0)
    last = sum(falls) / sum(lifts) if sum(lifts) > 0.0 else 10 * first
    return (first + last) / 2


def check_a_piece_that_goes_uphill_alone_is_no_doubt() -> None:
    """By weight decay: g.p of the whole step says whether the loss has other parts, that of a piece does not."""
    decay = decay_that_lifts_a_piece()

    def decayed(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.01, weight_decay=decay)

    with warned():
        assert Run("sharded", decayed, radius=CurvatureRadius(), policy=Cap(1.0)).steps(1).guard.last.ratio < 1e6
