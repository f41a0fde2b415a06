"""Every family of rules against reverse mode in float64, each parameter alone and all together."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tape.reference import assert_equal_tangents, values

ROWS = torch.tensor([[2, 0, 1], [1, 1, 4]])


def _running() -> tuple[Tensor, Tensor]:
    return torch.tensor([0.2, -0.1, 0.4], dtype=torch.float64), torch.tensor([1.2, 0.5, 0.8], dtype=torch.float64)


def _in_place(x: Tensor, function: object) -> Tensor:
    y = x * 2
    function(y)  # type: ignore[operator]
    return y


def _assigned(x: Tensor, y: Tensor) -> Tensor:
    out = torch.zeros(4, 3, dtype=x.dtype)
    out[1:3] = x
    out[:, 0] += y
    out[0].copy_(y[:3])
    return out * out


def _unchecked(x: Tensor, w: Tensor) -> Tensor:
    h = x @ w
    first, second = h.split(2, -1)
    return torch.cat([second.tanh(), first.transpose(0, 1).reshape(3, 2), first[:, ::2]], -1)


def _lstm(dtype: torch.dtype = torch.float64, **options: bool) -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(1)
    layer = nn.LSTM(3, 2, num_layers=2, **options).to(dtype)
    return layer, list(layer.parameters())


PRODUCTS = {
    "mm": (lambda a, b: a @ b, (3, 4), (4, 2)),
    "mm of one parameter with itself": (lambda a: a @ a, (3, 3)),
    "mm transposed": (lambda a, b: a.t() @ b.t(), (4, 3), (2, 4)),
    "addmm": (lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=-2), (2,), (3, 4), (4, 2)),
    "bmm": (torch.bmm, (2, 3, 4), (2, 4, 2)),
    "baddbmm": (lambda c, a, b: torch.baddbmm(c, a, b, beta=2, alpha=3), (2, 3, 2), (2, 3, 4), (2, 4, 2)),
    "matmul, expanded": (lambda a, b: a @ b, (2, 2, 3, 4), (4, 3)),
    "mv": (lambda a, b: a @ b, (3, 4), (4,)),
    "dot": (lambda a, b: torch.dot(a, b).reshape(1), (4,), (4,)),
    "outer": (torch.outer, (3,), (4,)),
    "einsum": (lambda a, b: torch.einsum("bij,bkj->bik", a, b), (2, 3, 4), (2, 2, 4)),
    "linear": (F.linear, (2, 3, 4), (2, 4), (2,)),
    "bilinear": (F.bilinear, (3, 2), (3, 4), (2, 2, 4)),
    "mul": (lambda a, b: a * b, (3, 4), (4,)),
    "mul by itself": (lambda a: a * a, (3, 4)),
    "div": (lambda a, b: a / b, (3, 4), (3, 1)),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, padding=1), (2, 2, 5), (3, 2, 3), (3,)),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), (2, 2, 5, 5), (3, 2, 3, 3), (3,)),
    "conv2d, groups, dilation": (lambda x, w: F.conv2d(x, w, dilation=2, groups=2), (2, 4, 5, 5), (4, 2, 2, 2)),
    "conv2d, channels last": (
        lambda x, w: F.conv2d(x.to(memory_format=torch.channels_last), w), (2, 2, 4, 4), (3, 2, 3, 3),
    ),
    "conv_transpose2d": (lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2), (1, 2, 3, 3), (2, 3, 2, 2), (3,)),
    "conv3d": (F.conv3d, (1, 2, 3, 3, 3), (2, 2, 2, 2, 2)),
}  # fmt: skip

POINTWISE = {
    name: (function, (3, 4))
    for name, function in {
        "gelu": F.gelu, "gelu tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "mish": F.mish,
        "relu": F.relu, "relu6": F.relu6, "leaky relu": lambda x: F.leaky_relu(x, 0.2), "elu": F.elu, "selu": F.selu,
        "celu": F.celu, "softplus": lambda x: F.softplus(x, 2.0, 1.0), "hardtanh": F.hardtanh, "glu": F.glu,
        "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "softsign": F.softsign, "tanh": torch.tanh,
        "threshold": lambda x: F.threshold(x, 0.1, 2.0), "logsigmoid": F.logsigmoid, "sigmoid": torch.sigmoid,
        "exp": torch.exp, "log": lambda x: x.square().log(), "sqrt": lambda x: x.square().add(1).sqrt(),
        "rsqrt": lambda x: x.square().add(1).rsqrt(), "pow": lambda x: x**3, "abs": torch.abs, "sin": torch.sin,
        "cos": torch.cos, "reciprocal": torch.reciprocal, "clamp": lambda x: x.clamp(-0.5, 0.5), "erf": torch.erf,
        "softmax": lambda x: x.softmax(-1), "log softmax": lambda x: x.log_softmax(0), "amax": lambda x: x.amax(1),
        "logsumexp": lambda x: x.logsumexp(1), "var": lambda x: x.var(1), "norm": lambda x: x.norm(dim=1),
        "max": lambda x: x.max(1).values, "sort": lambda x: x.sort(1).values, "topk": lambda x: x.topk(2).values,
        "dropout": lambda x: F.dropout(x, 0.4), "alpha dropout": lambda x: F.alpha_dropout(x, 0.4),
        "dropout of channels": lambda x: F.dropout2d(x.view(1, 3, 2, 2), 0.4),
        "native dropout": lambda x: torch.native_dropout(x, 0.4, True)[0], "cumsum": lambda x: x.cumsum(1),
        "fake quantisation": lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 0, -8, 7),
        "normalize": F.normalize, "maximum": lambda x: torch.maximum(x, x.flip(1)),
    }.items()
}  # fmt: skip

IN_PLACE = {
    name: (lambda x, function=function: _in_place(x, function), (3, 4))
    for name, function in {
        "relu_": torch.relu_, "tanh_": torch.tanh_, "sigmoid_": torch.sigmoid_, "exp_": torch.exp_,
        "silu_": lambda y: F.silu(y, inplace=True), "leaky_relu_": F.leaky_relu_,
        "elu_": F.elu_, "hardtanh_": F.hardtanh_, "mul_": lambda y: y.mul_(0.3),
        "div_": lambda y: y.div_(0.3), "add_": lambda y: y.add_(y.flip(0), alpha=2), "neg_": torch.neg_,
        "mul_ by itself": lambda y: y.mul_(y.flip(0)),
        "clamp_": lambda y: y.clamp_(-0.5), "pow_": lambda y: y.pow_(2), "erf_": torch.erf_,
        "masked_fill_": lambda y: y.masked_fill_(y < 0, 1), "half zeroed": lambda y: y[1:].zero_(),
        "dropout_": lambda y: F.dropout(y, 0.4, inplace=True),
        "a row filled": lambda y: y[0].fill_(2.0), "rows swapped": lambda y: y[:2].copy_(y.flip(0)[:2]),
        "put": lambda y: y.__setitem__((torch.tensor([0, 2]), torch.tensor([1, 1])), y[1, :2] * 3),
        "on a view": lambda y: y.view(-1)[2:7].relu_(), "transposed": torch.Tensor.t_,
        "sub_": lambda y: y.sub_(y.flip(1)),
    }.items()
}  # fmt: skip

LINEAR = {
    "add": (lambda x, y: x + y, (3, 4), (4,)),
    "add, two of one": (lambda x: x + x.t(), (3, 3)),
    "sub": (lambda x, y: torch.sub(x, y, alpha=2), (4,), (3, 4)),
    "rsub": (lambda x, y: torch.rsub(x, y, alpha=2), (3, 4), (4,)),
    "one minus": (lambda x: 1 - x, (3, 4)),
    "cat": (lambda x, y: torch.cat([x, y, torch.ones(1, 4, dtype=x.dtype)]), (2, 4), (3, 4)),
    "stack": (lambda x, y: torch.stack([x, y, x]), (2, 4), (2, 4)),
    "where": (lambda x, y: torch.where(x > 0, x, y), (3, 4), (4,)),
    "where, constant": (lambda x: torch.where(x > 0, x, 2.0), (3, 4)),
    "index": (lambda x: x[ROWS[0], :2], (3, 4)),
    "gather": (lambda x: x.gather(1, ROWS.clamp(max=3)), (2, 4)),
    "pad": (lambda x: F.pad(x, (1, 2), value=5.0), (3, 4)),
    "pad, reflected": (lambda x: F.pad(x, (1, 2), mode="reflect"), (3, 4)),
    "masked fill": (lambda x: x.masked_fill(x < 0, -torch.inf).exp(), (3, 4)),
    "expand": (lambda x, y: x.expand(3, 4) * y, (4,), (3, 4)),
    "views": (_unchecked, (3, 4), (4, 4)),
    "assigned": (_assigned, (2, 3), (4,)),
    "avg pool": (lambda x: F.avg_pool2d(x, 2), (1, 2, 4, 4)),
    "adaptive avg pool": (lambda x: F.adaptive_avg_pool2d(x, 3), (1, 2, 4, 4)),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (1, 2, 3, 3)),
    "unfold": (lambda x: F.unfold(x, 2), (1, 2, 3, 3)),
    "scatter add": (lambda x: torch.zeros(4, 4, dtype=x.dtype).scatter_add_(0, ROWS[:, :2], x), (2, 2)),
    "complex pairs": (lambda x: torch.view_as_real(torch.view_as_complex(x) * (1 + 2j)), (3, 2)),
}

LOOKUPS = {
    "embedding": (lambda w: F.embedding(ROWS, w), (5, 3)),
    "bag, sum": (lambda w: F.embedding_bag(ROWS, w, mode="sum"), (5, 3)),
    "bag, mean": (lambda w: F.embedding_bag(ROWS, w, mode="mean"), (5, 3)),
    "bag, max": (lambda w: F.embedding_bag(ROWS, w, mode="max"), (5, 3)),
    "bag, weighted": (lambda w, by: F.embedding_bag(ROWS, w, mode="sum", per_sample_weights=by), (5, 3), (2, 3)),
    "max pool": (lambda x: F.max_pool2d(x, 2), (1, 2, 4, 4)),
    "max pool 1d": (lambda x: F.max_pool1d(x, 2), (1, 2, 6)),
    "max pool 3d": (lambda x: F.max_pool3d(x, 2), (1, 2, 2, 4, 4)),
    "adaptive max pool": (lambda x: F.adaptive_max_pool2d(x, 3), (1, 2, 4, 4)),
    "cross entropy": (lambda x: F.cross_entropy(x, torch.tensor([0, 2]), reduction="none"), (2, 3)),
}

NORMS = {
    "layer norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b), (2, 3, 4), (4,), (4,)),
    "layer norm, two dimensions": (lambda x, w, b: F.layer_norm(x, (3, 4), w, b), (2, 3, 4), (3, 4), (3, 4)),
    "layer norm, plain": (lambda x: F.layer_norm(x, (4,)), (3, 4)),
    "group norm": (lambda x, w, b: F.group_norm(x, 2, w, b), (2, 4, 3, 2), (4,), (4,)),
    "group norm, plain": (lambda x: F.group_norm(x, 2), (2, 4, 3)),
    "instance norm": (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), (2, 3, 4), (3,), (3,)),
    "batch norm, training": (
        lambda x, w, b: F.batch_norm(x, *_running(), w, b, training=True), (4, 3, 2, 2), (3,), (3,),
    ),
    "batch norm, training, channels last": (
        lambda x, w, b: F.batch_norm(
            x.contiguous(memory_format=torch.channels_last), *_running(), w, b, training=True
        ), (4, 3, 2, 2), (3,), (3,),
    ),
    "batch norm, training, plain": (lambda x: F.batch_norm(x, None, None, training=True), (4, 3)),
    "batch norm, evaluation": (lambda x, w, b: F.batch_norm(x, *_running(), w, b), (4, 3, 2), (3,), (3,)),
    "batch norm, evaluation, plain": (lambda x: F.batch_norm(x, *_running()), (4, 3)),
    "rms norm": (lambda x, w: F.rms_norm(x, (4,), w), (3, 4), (4,)),
    "weight norm": (lambda v, g: torch._weight_norm(v, g, 0), (3, 4), (3, 1)),
    "weight norm, columns": (lambda v, g: torch._weight_norm(v, g, 1), (3, 4), (1, 4)),
}  # fmt: skip

HEADS, SHARED = (2, 4, 5, 8), (2, 2, 6, 8)
MASK = torch.ones(5, 6, dtype=torch.bool).tril(1)
ATTENTION = {
    "plain": (F.scaled_dot_product_attention, HEADS, HEADS, HEADS),
    "causal": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), HEADS, HEADS, HEADS),
    "masked": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=MASK), HEADS, (2, 4, 6, 8), (2, 4, 6, 8),
    ),
    "scaled": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3), HEADS, HEADS, HEADS),
    "shared keys": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True), HEADS, SHARED, SHARED),
    "biased": (
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m), HEADS, HEADS, HEADS, (2, 1, 5, 5),
    ),
    "transposed heads": (
        lambda x: F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in x.chunk(3, -1)), is_causal=True),
        (2, 5, 4, 24),
    ),
}  # fmt: skip

CASES = {
    f"{family}: {name}": case
    for family, cases in {
        "products": PRODUCTS, "pointwise": POINTWISE, "in place": IN_PLACE, "linear": LINEAR, "lookups": LOOKUPS,
        "norms": NORMS, "attention": ATTENTION,
    }.items()
    for name, case in cases.items()
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_tangents_are_those_of_reverse_mode(name):
    function, *shapes = CASES[name]
    count = len(shapes)
    for moving in chain([range(count)], ([i] for i in range(count) if count > 1)):
        assert_equal_tangents(function, values(shapes), list(moving))


@pytest.mark.parametrize("block", [1, 7, 64])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_in_small_blocks(name, block, monkeypatch):
    from safestep.tape import attention

    monkeypatch.setattr(attention, "_BLOCK", block)
    function, *shapes = ATTENTION[name]
    assert_equal_tangents(function, values(shapes))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_lstm_in_one_kernel_and_step_by_step(dtype, within, bias, bidirectional):
    layer, parameters = _lstm(dtype, bias=bias, bidirectional=bidirectional)
    x = torch.randn(5, 2, 3, dtype=dtype)

    def outputs(*_: Tensor) -> Tensor:
        y, (h, c) = layer(x)
        return torch.cat([y.flatten(), h.flatten(), c.flatten()])

    assert_equal_tangents(outputs, parameters, within=within)
    assert_equal_tangents(outputs, parameters, [1], within=within)


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_other_recurrent_layers(kind):
    layer = kind(3, 2, num_layers=2).double()
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    assert_equal_tangents(lambda *_: layer(x)[0], list(layer.parameters()))
