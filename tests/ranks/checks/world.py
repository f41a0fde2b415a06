"""The same small training on one rank and on several: data parallel, sharded, tensor parallel."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import functional as F

import safestep
from safestep import Cap, Guard, Ranks, SafestepError, SafestepWarning, SoftmaxRadius

FEATURES, CLASSES, ROWS = 8, 5, 16
PATIENT = Ranks(timeout=300.0)
"""Long enough for a rank that shares its core with others: nothing here waits that long, a rank that failed is gone."""
LONG = os.environ.get("SAFESTEP_RANKS") == "long"
"""`make ranks`; otherwise the quick form."""
EXACT = SoftmaxRadius(method="exact")


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, CLASSES))


class Tied(nn.Module):
    """Token logits through one table for input and output, in the root, around a block of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(12, 8)
        self.block = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 12, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        return self.head(x + self.block(x))


def mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (distributed.get_world_size(),))


def data_parallel(model: nn.Module) -> nn.Module:
    return nn.parallel.DistributedDataParallel(model)


def sharded(model: nn.Module) -> nn.Module:
    """Make a unit of every layer with parameters; of `Tied`, of its block."""
    layers = [model.block] if isinstance(model, Tied) else [m for m in model.children() if [*m.parameters()]]
    for layer in layers:
        fully_shard(layer, mesh=mesh())
    return fully_shard(model, mesh=mesh())


def tensor_parallel(model: nn.Module) -> nn.Module:
    return parallelize_module(model, mesh(), {"2": ColwiseParallel(), "4": RowwiseParallel()})


KINDS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "data parallel": data_parallel,
    "sharded": sharded,
    "tensor parallel": tensor_parallel,
}


def batch(index: int, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Return the global batch of a step."""
    generator = torch.Generator().manual_seed(index)
    return torch.randn(rows, FEATURES, generator=generator), torch.randint(0, CLASSES, (rows,), generator=generator)


def own_part(x: Tensor, kind: str) -> Tensor:
    """Return this rank's rows of a global batch; tensor-parallel ranks all see it whole."""
    if kind == "tensor parallel":
        return x
    return x.chunk(distributed.get_world_size())[distributed.get_rank()]


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.02)


def momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.2, momentum=0.9)


class Run:
    """A training, guarded or not, on this rank's part of each batch.

    Args:
        kind: a key of `KINDS`; "one rank" sees every batch whole.
        optimizer: from parameters to an optimizer.
        guarded: whether to attach a guard.
        warmed: whether to run backward before: DistributedDataParallel puts its gradients in another order after the
            first one, and on more than two ranks another order of sums is another last bit, guarded or not.
        options: of attach().
    """

    def __init__(
        self, kind: str, optimizer: Any = momentum, *, guarded: bool = True, warmed: bool = False, **options: Any
    ) -> None:
        self.kind = kind
        self.model = mlp() if kind == "one rank" else KINDS[kind](mlp())
        self.optimizer = optimizer(self.model.parameters())
        settings = {"radius": EXACT, "policy": Cap(0.1), "ranks": None if kind == "one rank" else PATIENT} | options
        for _ in range(2 if warmed else 0):
            cross_entropy(self.model, *(part[:4] for part in batch(0))).backward()
            self.optimizer.zero_grad()
        self.guard: Guard | None = safestep.attach(self.model, self.optimizer, **settings) if guarded else None
        self.index = 0

    def rows(self) -> tuple[Tensor, Tensor]:
        x, y = batch(self.index)
        return (x, y) if self.kind == "one rank" else (own_part(x, self.kind), own_part(y, self.kind))

    def step(self, loss: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None) -> None:
        self.optimizer.zero_grad()
        (loss or cross_entropy)(self.model, *self.rows()).backward()
        self.optimizer.step()
        self.index += 1

    def steps(self, count: int) -> Run:
        for _ in range(count):
            self.step()
        return self

    @torch.no_grad()
    def take_over(self, other: Run) -> None:
        """Put weights and optimizer where another run's are."""
        pairs = list(zip(self.model.parameters(), other.model.parameters(), strict=True))
        for mine, theirs in pairs:
            mine.copy_(whole(theirs))
            for key, value in other.optimizer.state.get(theirs, {}).items():
                self.optimizer.state[mine][key] = whole(value) if isinstance(value, Tensor) else value

    def weights(self) -> list[Tensor]:
        return [whole(p) for p in self.model.parameters()]

    def pieces(self) -> dict[str, Tensor]:
        """Return everything that training holds on this rank, by name."""
        held = {f"weight {i}": p for i, p in enumerate(self.model.parameters())}
        held |= {f"gradient {i}": p.grad for i, p in enumerate(self.model.parameters()) if p.grad is not None}
        for i, state in enumerate(self.optimizer.state.values()):
            held |= {f"{key} {i}": value for key, value in state.items() if isinstance(value, Tensor)}
        return {name: local(t).clone() for name, t in held.items()} | {"generator": torch.get_rng_state()}


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y)


def local(tensor: Tensor) -> Tensor:
    return tensor.detach().to_local() if isinstance(tensor, DTensor) else tensor.detach()


def whole(tensor: Tensor) -> Tensor:
    return (tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor.detach()).clone()


def everyone(value: Any) -> list[Any]:
    """Return what each rank has."""
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def here() -> bool:
    """Whether this is the odd rank: the last."""
    return distributed.get_rank() == distributed.get_world_size() - 1


def raised(act: Callable[[], Any]) -> str:
    """Return the text of safestep's error, and fail without one."""
    try:
        act()
    except SafestepError as error:
        return str(error)
    raise AssertionError("no error")


def alike(value: Any) -> None:
    """Assert that every rank has the same, bit for bit; a nan is one."""
    first, *others = map(repr, everyone(value))
    assert all(other == first for other in others), f"ranks differ: {first} and {others}"


@contextlib.contextmanager
def warned(*texts: str) -> Iterator[None]:
    """Assert that these warnings, and no others, come."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    said = (str(one.message) for one in caught if issubclass(one.category, SafestepWarning))
    ours = list(dict.fromkeys(said))  # an audit says for itself what its guard has said
    assert len(ours) == len(texts), ours
    assert all(text in one for text, one in zip(texts, ours, strict=True)), ours


DIFFERENCES = "r is measured by central differences"


def said(kind: str) -> contextlib.AbstractContextManager[None]:
    """Tensor-parallel models have no forward derivative; a guard that measures exactly says so."""
    return warned(DIFFERENCES) if kind == "tensor parallel" else warned()
