"""Whole models: training under a tape is bit for bit what it is without, and its J p is the plain route's."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from safestep.tape import Tape
from tape.reference import assert_equal_tangents, directions
from zoo import ZOO, Training, seed_everything
from zoo.asserts import assert_identical
from zoo.optimizers import ALL

PROBLEMS = {
    "checkpoint": "recomputes activations in backward",
    "checkpoint-reentrant": "recomputes activations in backward",
}
"""The models of the zoo that a tape refuses, and why. Everything else it covers."""


def _taped(training: Training) -> tuple[Tape, Tensor, list[Tensor]]:
    case, batch = training.case, training.case.batch(training.index, training.dtype)
    parameters = [p for p in training.model.parameters() if p.requires_grad]
    with Tape(parameters) as tape:
        output = training.model(*batch.args, **batch.kwargs)
    logits = case.read(output)
    tape.close(logits)
    return tape, logits, parameters


@pytest.mark.parametrize("name", ZOO)
def test_training_is_untouched(name):
    recipe = ALL["SGD" if ZOO[name].sparse else "Adam"]
    plain, under = (Training(ZOO[name], recipe) for _ in range(2))
    seed_everything(3)
    plain.steps(3)
    expected = plain.everything()
    seed_everything(3)
    for _ in range(3):
        with Tape(under.model.parameters()):
            for optimizer in under.optimizers:
                optimizer.zero_grad()
            batch = under.case.batch(under.index, under.dtype)
            output = under.model(*batch.args, **batch.kwargs)
        loss = under.case.loss(output, batch.labels)
        loss.backward()
        for optimizer in under.optimizers:
            optimizer.step()
        under.index += 1
    for part, value in expected.items():
        assert_identical(under.everything()[part], value, part)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", ZOO)
def test_tangents_of_the_zoo_are_the_plain_routes(name, dtype, within):
    training = Training(ZOO[name], ALL["SGD"], dtype=dtype)
    seed_everything(3)
    state = {key: value.clone() for key, value in training.model.state_dict().items()}
    tape, logits, parameters = _taped(training)
    if name in PROBLEMS:
        assert PROBLEMS[name] in tape.problem
        return
    start = {p: p.detach().clone() for p in parameters}
    along = dict(zip(parameters, directions(parameters), strict=True))
    ours = tape.tangent(start, along.__getitem__)
    plain = _forward_mode(training, state, along)
    if plain is None:
        plain, within = _difference(training, state, start, along), 1e-8 if dtype == torch.float64 else 1e-5
    counted = torch.isfinite(logits)
    ours, plain = ours.double()[counted], plain[counted]
    assert plain.abs().max() > 0
    assert (ours - plain).abs().max() <= within * plain.abs().max()


def _forward_mode(training: Training, state: dict[str, Tensor], along: dict[Tensor, Tensor]) -> Tensor | None:
    """Return J p by dual numbers in float64; None where torch has no forward derivative."""
    model, batch = _again(training, state)
    pairs = zip(model.named_parameters(), training.model.parameters(), strict=True)
    named = {name: (p, along.get(q)) for (name, p), q in pairs}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    seed_everything(3)
    try:
        with forward_ad.dual_level(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            duals = {n: p if d is None else forward_ad.make_dual(p.detach(), d.double()) for n, (p, d) in named.items()}
            output = torch.func.functional_call(model, duals | buffers, batch.args, batch.kwargs)
            tangent = forward_ad.unpack_dual(training.case.read(output)).tangent
    except (RuntimeError, NotImplementedError):
        return None
    return tangent


def _difference(
    training: Training, state: dict[str, Tensor], start: dict[Tensor, Tensor], along: dict[Tensor, Tensor]
) -> Tensor:
    """Return J p by central differences in float64, extrapolated once."""
    quotients = []
    for eps in (2e-4, 1e-4):
        sides = []
        for sign in (1, -1):
            model, batch = _again(training, state)
            with torch.no_grad():
                for p, q in zip(model.parameters(), training.model.parameters(), strict=True):
                    if q in start:
                        p.copy_(start[q].double() + sign * eps * along[q].double())
            seed_everything(3)
            sides.append(training.case.read(model(*batch.args, **batch.kwargs)).detach())
        quotients.append((sides[0] - sides[1]) / (2 * eps))
    return (4 * quotients[1] - quotients[0]) / 3


def _again(training: Training, state: dict[str, Tensor]):
    seed_everything(0)
    model = training.case.build().double()
    model.load_state_dict(state)
    batch = training.case.batch(training.index, torch.float64)
    return model, batch


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (part.view(b, t, self.heads, -1).transpose(1, 2) for part in self.mix(self.first(x)).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, c))
        return x + self.wide(self.second(x))


class _Language(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(7, 8), nn.Embedding(5, 8)
        self.blocks = nn.Sequential(*(_Block(8, 2, causal=True) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.table(ids) + self.places(torch.arange(ids.shape[1])))))


class _Vision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 2, 2), nn.Parameter(torch.randn(1, 1, 8))
        self.places = nn.Parameter(torch.randn(1, 5, 8))
        self.blocks = nn.Sequential(*(_Block(8, 2, causal=False) for _ in range(2)))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.places
        return self.head(self.blocks(tokens)[:, 0])


class _Residual(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm_one, self.norm_two = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.short = nn.Sequential()
        if stride > 1:
            self.short = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm_one(self.one(x)), inplace=True)
        y = self.norm_two(self.two(y))
        y += self.short(x)
        return F.relu(y, inplace=True)


def _resnet() -> nn.Module:
    stem = [nn.Conv2d(3, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    body = [_Residual(4, 4, 1), _Residual(4, 8, 2), _Residual(8, 8, 1)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(8, 4))


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, activation="gelu", batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 4))


LARGER = {
    "ResNet": (_resnet, lambda: torch.randn(3, 3, 8, 8, dtype=torch.float64)),
    "GPT": (_Language, lambda: torch.randint(7, (2, 5))),
    "ViT": (_Vision, lambda: torch.randn(2, 3, 4, 4, dtype=torch.float64)),
    "TransformerEncoder": (_encoder, lambda: torch.randn(2, 3, 8, dtype=torch.float64)),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LARGER)
def test_larger_models(name, training):
    build, batch = LARGER[name]
    torch.manual_seed(1)
    model, x = build().double().train(training), batch()
    state = {key: value.clone() for key, value in model.state_dict().items()}

    def forward(*_: Tensor) -> Tensor:
        with torch.no_grad():
            for key, buffer in model.named_buffers():
                buffer.copy_(state[key])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model(x)

    assert_equal_tangents(forward, list(model.parameters()))
