"""Models with something built in: adapters, parametrizations, quantisation, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from zoo import ZOO, Case
from zoo.batches import CLASSES
from zoo.models import mlp


def case(name: str, build: Callable[[], nn.Module], batch: Any = ZOO["mlp"].batch) -> Case:
    return Case(name, build, batch)


class Selective(nn.Module):
    """Products are kept, everything else is recomputed in backward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden, self.head = (
            nn.Linear(4, 6),
            nn.Sequential(nn.GELU(), nn.Linear(6, 6)),
            nn.Linear(6, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        def policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
            kept = op in {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}
            return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

        contexts = partial(create_selective_checkpoint_contexts, policy)
        return self.head(checkpoint(self.hidden, self.first(x), use_reentrant=False, context_fn=contexts))


class LoRA(nn.Module):
    """A frozen layer and a product of two thin ones beside it, as PEFT has it."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x.to(self.base.weight.dtype)).to(x.dtype) + 2.0 * self.up(self.down(self.dropout(x)))


def adapted(zeros: bool) -> nn.Sequential:
    model = nn.Sequential(LoRA(nn.Linear(4, 6)), nn.GELU(), LoRA(nn.Linear(6, CLASSES)))
    if zeros:
        for layer in (model[0], model[2]):
            nn.init.zeros_(layer.up.weight)
    return model


class LowRank(nn.Module):
    """The same as a parametrization of the weight."""

    def __init__(self, out: int, into: int, rank: int = 2) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(rank, into) * 0.3), nn.Parameter(torch.randn(out, rank) * 0.3)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.b @ self.a


def low_rank() -> nn.Sequential:
    model = mlp().requires_grad_(False)
    for layer in (model[0], model[2]):
        parametrize.register_parametrization(layer, "weight", LowRank(*layer.weight.shape))
    return model


def orthogonal(way: str) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map=way), nn.GELU(), nn.Linear(4, CLASSES)
    )


def pruned() -> nn.Sequential:
    model = mlp()
    prune.random_unstructured(model[0], "weight", amount=0.3)
    return model


class FakeQuantized(nn.Module):
    """Weights and activations pass through torch's fake quantisation, whose observers move in every forward."""

    def __init__(self) -> None:
        super().__init__()
        from torch.ao.quantization import default_fake_quant, default_weight_fake_quant

        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, CLASSES)
        self.weights, self.activations = default_weight_fake_quant(), default_fake_quant()

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(F.linear(x, self.weights(self.first.weight), self.first.bias))
        return self.head(self.activations(hidden))


def prepared_for_quantisation() -> nn.Module:
    from torch.ao.quantization import get_default_qat_qconfig, prepare_qat

    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, CLASSES)).train()
    model.qconfig = get_default_qat_qconfig("x86")
    return prepare_qat(model)


class Rounded(nn.Module):
    """A straight-through estimator by hand: x + (round(x) - x).detach()."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (torch.round(x * 4) / 4 - x).detach()


class Outer(nn.Module):
    """A wrapper of one's own, with the model in .module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


def shared() -> nn.Sequential:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.GELU(), layer, nn.BatchNorm1d(4), layer, nn.Linear(4, CLASSES))


class Complex(nn.Module):
    """A complex layer; the logits are real parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 6, dtype=torch.complex64), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.first(x.to(self.first.weight.dtype)).abs()))


ADAPTED = case("lora", partial(adapted, zeros=False))
