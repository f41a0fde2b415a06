"""What a tape takes down, what it refuses, and that nobody notices it."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from safestep.errors import MeasurementError, TapeError
from safestep.tape import Tape
from safestep.tape import tape as tape_file
from safestep.tape.ledger import Ledger
from tape.reference import assert_equal_tangents, directions, values


class Names(TorchDispatchMode):
    """Lists the operations that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def record(function, *parameters: Tensor, constants=()) -> tuple[Tape, Tensor]:
    with Tape(parameters, constants) as tape:
        output = function(*parameters)
    tape.close(output)
    return tape, output


def tangent(tape: Tape, *parameters: Tensor) -> Tensor:
    along = dict(zip(parameters, directions(parameters), strict=True))
    return tape.tangent({p: p.detach().clone() for p in parameters}, along.__getitem__)


def test_the_readme_says_what_happens():
    page = Path(tape_file.__file__).with_name("README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    step = "with torch.no_grad():\n    model.weight.add_(0.5)\n    model.bias.sub_(0.25)\n"
    scope: dict[str, Tensor] = {}
    exec(code.replace("# ... loss.backward(), optimizer.step() write over the parameters ...\n", step), scope)
    assert (scope["dz"] - (0.5 * scope["x"].sum(1, keepdim=True) - 0.25)).abs().max() < 1e-6


# -- what autograd cannot see and the tape does


def test_detach_hides_nothing():
    (w,) = values([(3,)])
    tape, _ = record(lambda w: w.detach().exp() * 1.0, w)
    assert torch.equal(tangent(tape, w), w.detach().exp() * directions([w])[0])


def test_no_grad_blocks_are_part_of_the_function():
    (w,) = values([(3,)])

    def scaled(w):
        with torch.no_grad():
            size = w.norm()
        return w / size

    tape, _ = record(scaled, w)
    expected = torch.func.jvp(lambda w: w / w.norm(), (w.detach(),), tuple(directions([w])))[1]
    assert (tangent(tape, w) - expected).abs().max() < 1e-14


def test_values_destroyed_within_the_forward_are_saved_first():
    """Power iterations write each vector over its predecessor, out= and all."""
    (w,) = values([(3, 3)])

    def iterated(w):
        u = torch.ones(3, dtype=w.dtype)
        with torch.no_grad():
            for _ in range(3):
                u = F.normalize(w @ u, dim=0, out=u)
        return u.clone()

    tape, _ = record(iterated, w)

    def plain(w):
        u = torch.ones(3, dtype=w.dtype)
        for _ in range(3):
            u = F.normalize(w @ u, dim=0)
        return u

    expected = torch.func.jvp(plain, (w.detach(),), tuple(directions([w])))[1]
    assert (tangent(tape, w) - expected).abs().max() < 1e-13


# -- parameters in odd places


def test_tied_parameters_and_a_parameter_used_twice():
    assert_equal_tangents(lambda w: F.embedding(torch.tensor([1, 0]), w).tanh() @ w.t() @ w, values([(4, 3)]))


def test_parameters_that_share_a_storage_with_one_that_stays():
    flat = values([(10,)])[0].detach()
    first, frozen, last = flat[:4].view(2, 2), flat[4:6], flat[6:]
    first, last = nn.Parameter(first), nn.Parameter(last)
    assert_equal_tangents(lambda a, b: (a @ frozen).outer(b), [first, last])
    assert_equal_tangents(lambda a, b: (a @ frozen).outer(b), [first, last], [1])


def test_a_parameter_in_another_memory_layout():
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    weight = values([(3, 2, 2, 2)])[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert_equal_tangents(lambda w: F.conv2d(x, w), [weight])
    transposed = values([(3, 4)])[0].detach().t().requires_grad_()
    assert_equal_tangents(lambda w: w.tanh() @ w.t(), [transposed])


def test_a_parameter_that_has_not_moved_counts_as_it_is():
    a, b = values([(3, 3), (3, 3)])
    tape, _ = record(torch.mm, a, b)
    (da, _) = directions([a, b])
    assert torch.equal(tape.tangent({a: a.detach().clone()}, {a: da}.__getitem__), da @ b.detach())
    assert not tape.tangent({}, {}.__getitem__).any()


def test_the_logits_may_be_a_parameter_or_a_view_of_one():
    (w,) = values([(3, 2)])
    tape, _ = record(lambda w: w.t(), w)
    (dw,) = directions([w])
    moved = tangent(tape, w)
    assert torch.equal(moved, dw.t())


def test_the_direction_is_asked_once_and_only_read():
    w, b = values([(3, 3), (3,)])
    along = dict(zip((w, b), directions([w, b]), strict=True))
    copies = {q: d.clone() for q, d in along.items()}
    asked = []
    tape, _ = record(lambda w, b: F.relu(torch.relu_(F.linear(w, w, b)) + b) @ w, w, b)
    tape.tangent({q: q.detach().clone() for q in (w, b)}, lambda q: asked.append(q) or along[q])
    assert sorted(map(id, asked)) == sorted(map(id, (w, b)))
    assert all(torch.equal(along[q], copies[q]) for q in along)


def test_a_tangent_can_be_had_twice():
    w, b = values([(3, 3), (3,)])
    tape, _ = record(lambda w, b: torch.relu_(F.linear(w, w, b)).add_(b).softmax(-1), w, b)
    assert torch.equal(tangent(tape, w, b), tangent(tape, w, b))


# -- what it refuses


def test_a_value_overwritten_after_the_forward_is_an_error():
    (w,) = values([(3, 3)])
    x = torch.randn(2, 3, dtype=torch.float64)
    tape, _ = record(lambda w: x @ w, w)
    assert tangent(tape, w).any()
    x.add_(1)
    with pytest.raises(TapeError, match=r"shape .*\(2, 3\).* overwritten"):
        tangent(tape, w)
    assert issubclass(TapeError, MeasurementError)


def test_an_activation_overwritten_through_a_view_after_the_forward_is_an_error():
    (w,) = values([(3, 3)])
    seen = []

    def forward(w):
        hidden = torch.tanh(w)
        seen.append(hidden)
        return hidden * 2.0

    tape, _ = record(forward, w)
    seen[0].detach().view(-1)[0].zero_()
    with pytest.raises(TapeError, match="overwritten"):
        tangent(tape, w)


def test_what_only_leads_to_other_outputs_is_no_problem():
    (w,) = values([(3,)])
    kept = []
    tape, _ = record(lambda w: (kept.append(torch.normal(w, 1.0)), w * 2)[1], w)
    assert tape.problem == ""
    assert len(tape._ops) == 1


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (lambda w: torch.normal(w, 1.0), "normal.*draws random numbers"),
        (lambda w: w * torch.tensor(w.detach().numpy() * 2), ""),
        (lambda w: torch.native_layer_norm(w[None], (3,), None, None, 1e-5)[1], "a result of aten.native_layer_norm"),
        (lambda w: (torch._foreach_mul_([w * 1.0], 2.0), w * 1.0)[1], ""),
        (lambda w: torch._foreach_add([w, w], 2.0)[1], ""),
        (lambda w: [y := w * 1.0, torch._foreach_mul_([y], 2.0)][0], "_foreach_mul_"),
        (lambda w: checkpoint(torch.tanh, w, use_reentrant=False), "checkpointing"),
        (lambda w: checkpoint(torch.tanh, w, use_reentrant=True) * 2, "checkpointing"),
        (lambda w: w + (torch.round(w) - w).detach(), "round.*staircase"),
        (lambda w: torch.ones(3), "do not follow from the parameters"),
    ],
)  # fmt: skip
def test_problems_are_named(forward, said):
    (w,) = values([(3,)])
    tape, _ = record(forward, w)
    if not said:
        assert tape.problem == ""
        return
    with pytest.raises(TapeError, match=said):
        tangent(tape, w)
    assert len(tape._ops) == 0


def test_other_peoples_operations_are_a_problem():
    @torch.library.custom_op("safestep_tests::doubled", mutates_args=())
    def doubled(x: Tensor) -> Tensor:
        return x * 2

    (w,) = values([(3,)])
    tape, _ = record(lambda w: doubled(w) * 1.0, w)
    assert "safestep_tests.doubled.default" in tape.problem


class _Outside(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(x.detach().numpy() ** 2)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_values_made_outside_of_torch_are_a_problem():
    (w,) = values([(3,)])
    for after in (lambda y: y * 2, lambda y: y):
        tape, _ = record(lambda w, after=after: after(_Outside.apply(w)), w)
        assert tape.problem


def test_a_cast_that_autocast_remembers_from_an_earlier_forward_is_a_problem():
    layer, x = nn.Linear(3, 3), torch.randn(2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(x)
        tape, _ = record(lambda *_: layer(x), *layer.parameters())
    assert "the tape cannot see" in tape.problem


def test_trainable_inputs_are_constants_when_they_are_called_so():
    (w,) = values([(3,)])
    leaf = torch.randn(3, dtype=torch.float64, requires_grad=True)
    tape, _ = record(lambda w: (leaf * 2).tanh() * w, w)
    assert tape.problem == ""
    given = leaf * 2
    assert record(lambda w: given * w, w)[0].problem
    tape, _ = record(lambda w: given.tanh() * w, w, constants=[given])
    assert torch.equal(tangent(tape, w), given.detach().tanh() * directions([w])[0])


def test_a_torch_without_a_forward_derivative_is_an_error():
    (w,) = values([(2, 3, 4)])
    tape, _ = record(lambda w: torch._ctc_loss(w.log_softmax(-1), torch.ones(3, 1).long(), [2] * 3, [1] * 3)[0], w)
    with pytest.raises(TapeError, match="cannot be differentiated"):
        tangent(tape, w)


def test_a_tape_that_is_never_left_gives_up(monkeypatch):
    monkeypatch.setattr(tape_file, "MAX_OPERATIONS", 5)
    (w,) = values([(3,)])
    tape, _ = record(lambda w: sum((w * i for i in range(9)), w), w)
    assert "never left" in tape.problem


def test_an_error_in_the_tape_never_reaches_the_user(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("sorry")

    monkeypatch.setattr(Ledger, "slots", broken)
    (w,) = values([(3,)])
    tape, out = record(lambda w: w * 2, w)
    assert torch.equal(out, w * 2)
    assert "sorry" in tape.problem


def test_an_open_tape_says_so():
    (w,) = values([(3,)])
    with pytest.raises(TapeError, match="close"):
        Tape([w]).tangent({}, {}.__getitem__)


# -- nobody notices


def test_memory_goes_with_the_tape():
    (w,) = values([(3,)])
    seen = []

    def forward(w):
        hidden = w.tanh()
        seen.append(weakref.ref(hidden.untyped_storage()))
        return hidden.softmax(0)

    gc.disable()
    try:
        tape, out = record(forward, w)
        out.register_hook(lambda gradient, tape=tape: None)  # as a guard holds it
        gone = weakref.ref(tape)
        del tape, out
        assert gone() is None, "a tape that hangs on its own logits must not keep itself alive"
    finally:
        gc.enable()


def test_what_does_not_lead_to_the_logits_is_dropped_and_addresses_are_not_confused():
    (w,) = values([(100,)])

    def forward(w):
        for _ in range(20):
            w.exp()  # freed at once: its address is free for the next
        return torch.ones(100, dtype=w.dtype) * 3 + w * 0

    tape, _ = record(forward, w)
    assert len(tape._ops) == 2
    assert not tangent(tape, w).any()


def test_torchs_compiler_is_not_imported():
    code = (
        "import sys, torch\nfrom safestep.tape import Tape\nw = torch.ones(3, requires_grad=True)\n"
        "with Tape([w]) as tape: z = w * 2\ntape.close(z)\nprint(tape.tangent({w: w.detach()}, lambda q: q.detach()))\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "2., 2., 2." in done.stdout


def test_a_compiled_region_runs_compiled_and_is_a_problem():
    model = nn.Sequential(nn.Linear(3, 3), torch.compile(nn.Tanh(), backend="aot_eager"), nn.Linear(3, 2))
    x = torch.randn(2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's compiler looks at .grad of what is no leaf
        expected = model(x)
        tape, out = record(lambda *_: model(x), *model.parameters())
    assert torch.equal(out, expected)
    if not tape.problem:  # a torch that runs it eagerly under a mode
        along = dict(zip(model.parameters(), directions(list(model.parameters())), strict=True))
        start = {p: p.detach().clone() for p in model.parameters()}
        assert tape.tangent(start, along.__getitem__).any()


def test_another_mode_still_sees_every_operation():
    (w,) = values([(3,)])
    with Names() as names:
        w.tanh() * 2
    with Names() as under, Tape([w]):
        w.tanh() * 2
    assert [name for name in under.seen if "detach" not in name] == ["aten.tanh.default", "aten.mul.Tensor"]
    assert set(under.seen) == set(names.seen)


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(48, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 4))


def _convolutions() -> nn.Module:
    first = [nn.Unflatten(1, (3, 4, 4)), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True)]
    return nn.Sequential(*first, nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(32, 4))


@pytest.mark.parametrize("build", [_perceptron, _convolutions])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_followed_roughly(dtype, build):
    torch.manual_seed(1)
    model = build()
    x, parameters = torch.randn(6, 48), list(model.parameters())
    with torch.autocast("cpu", dtype=dtype):
        tape, out = record(lambda *_: model(x), *parameters)
        ours = tangent(tape, *parameters)
    plain, _ = record(lambda *_: model(x), *parameters)
    exact = tangent(plain, *parameters)
    assert ours.dtype == out.dtype
    assert (ours.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_attention_is_followed_through_its_fused_kernel():
    q, k, v = values([(2, 4, 5, 8)] * 3)
    with Names() as names:
        record(F.scaled_dot_product_attention, q, k, v)
    assert "aten._scaled_dot_product_flash_attention_for_cpu.default" in names.seen


def test_the_private_corner_where_versions_are_shared():
    """A tape sees writes after the forward only because this guard makes detach() share the version counter."""
    (w,) = values([(3,)])
    tape, out = record(lambda w: w.tanh(), w)
    (op,) = tape._ops
    value = op.values[0].value
    assert value.data_ptr() == out.data_ptr()
    assert value.grad_fn is None
    before = value._version
    out.detach().add_(1)
    assert value._version == before + 1
