"""What people wrap around a model: checkpointing, adapters, parametrizations, averages, and how loops use gradients."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loops.models import (
    ADAPTED,
    Complex,
    FakeQuantized,
    Outer,
    Rounded,
    Selective,
    adapted,
    case,
    low_rank,
    orthogonal,
    prepared_for_quantisation,
    pruned,
    shared,
)
from loops.row import Loop, Row, plain
from zoo import ALL, ZOO, Recipe, Scene, set_generators, twin_curvature, twin_ratio
from zoo.batches import CLASSES
from zoo.training import generators

# -- checkpointing ----------------------------------------------------------------------------------------------------


def offloaded(loop: Loop) -> None:
    with torch.autograd.graph.save_on_cpu():
        plain(loop)


# -- torch.func -------------------------------------------------------------------------------------------------------


def functional(loop: Loop) -> None:
    model = loop.model
    loop.called = lambda *args: torch.func.functional_call(model, dict(model.named_parameters()), args)


def by_func_grad(loop: Loop) -> None:
    """The loop has torch.func differentiate and sets the gradients itself."""
    args, labels = loop.batch()
    parameters = dict(loop.model.named_parameters())

    def loss(tensors: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(loop.model, tensors, args), labels)

    for name, gradient in torch.func.grad(loss)({name: p.detach() for name, p in parameters.items()}).items():
        parameters[name].grad = gradient
    for optimizer in loop.optimizers:
        optimizer.step()


def by_autograd_grad(loop: Loop) -> None:
    """The loop asks autograd for the gradients and sets them itself."""
    parameters = list(loop.model.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loop.loss(), parameters), strict=True):
        parameter.grad = gradient
    for optimizer in loop.optimizers:
        optimizer.step()


# -- wrappers ---------------------------------------------------------------------------------------------------------


def wrapped(loop: Loop) -> None:
    loop.called = Outer(loop.model)


def data_parallel(loop: Loop) -> None:
    loop.called = loop.attached = nn.DataParallel(loop.model)


def averaged(loop: Loop) -> None:
    loop.more["average"] = torch.optim.swa_utils.AveragedModel(
        loop.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )


def average(loop: Loop) -> None:
    plain(loop)
    loop.more["average"].update_parameters(loop.model)


def traced(loop: Loop) -> None:
    loop.called = loop.attached = torch.fx.symbolic_trace(loop.model)


def scripted(loop: Loop) -> None:
    loop.called = loop.attached = torch.jit.script(loop.model)


def backward_hooks(loop: Loop) -> None:
    loop.model.register_full_backward_hook(lambda *_: None)
    loop.model.register_full_backward_pre_hook(lambda *_: None)
    for p in loop.model.parameters():
        p.register_hook(lambda g: g * 0.5)
        p.register_post_accumulate_grad_hook(lambda q: None)


# -- how loops use gradients ------------------------------------------------------------------------------------------


def clipped(loop: Loop) -> None:
    loop.zero_grad()
    loop.loss().backward()
    nn.utils.clip_grad_norm_(loop.model.parameters(), 0.1)
    for optimizer in loop.optimizers:
        optimizer.step()


def accumulated(loop: Loop) -> None:
    loop.zero_grad()
    args, labels = loop.batch()
    for x, y in zip(args[0].chunk(2), labels.chunk(2), strict=True):
        (F.cross_entropy(loop.called(x), y, reduction="sum") / len(labels)).backward()
    for optimizer in loop.optimizers:
        optimizer.step()


def penalised(loop: Loop) -> None:
    """A penalty on the gradient in the inputs: backward through backward."""
    loop.zero_grad()
    args, labels = loop.batch()
    x = args[0].clone().requires_grad_()
    loss = F.cross_entropy(loop.called(x), labels)
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    (loss + gradient.square().sum()).backward()
    for optimizer in loop.optimizers:
        optimizer.step()


@torch.no_grad()
def _shift(loop: Loop, sign: float) -> None:
    for p, e in loop.more["away"]:
        p.add_(e, alpha=sign)


def sharpness_aware(loop: Loop) -> None:
    """SAM: the gradient is that of a place a little uphill, the step starts from where it was."""
    loop.zero_grad()
    loop.loss().backward()
    kept = [p.detach().clone() for p in loop.model.parameters()]
    with torch.no_grad():
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in loop.model.parameters()))
        for p in loop.model.parameters():
            p.add_(p.grad, alpha=0.05 / norm)
    loop.zero_grad()
    loop.loss().backward()
    with torch.no_grad():
        for p, origin in zip(loop.model.parameters(), kept, strict=True):
            p.copy_(origin)
    for optimizer in loop.optimizers:
        optimizer.step()


def complex_truth(loop: Loop, scene: Scene, moved: dict[str, Tensor], method: str) -> float:
    """Return r by a central difference in complex128."""
    before, model = generators(), loop.case.build()
    model.first.to(torch.complex128)
    model.head.to(torch.float64)
    x, labels = scene.batch.args[0].double(), scene.batch.labels

    def logits(t: float) -> Tensor:
        wide = {n: v.to(torch.complex128 if v.is_complex() else torch.float64) for n, v in scene.state.items()}
        model.load_state_dict({n: v + t * moved[n].to(v.dtype) for n, v in wide.items()})
        with torch.no_grad():
            return model(x)

    z, a = logits(0.0), (logits(1e-5) - logits(-1e-5)) / 2e-5
    set_generators(before)
    if method != "curvature":
        return ((a.amax(-1) - a.amin(-1)).max() / math.pi).item()
    weights = torch.softmax(z, -1)
    bend = (weights * a.square()).sum(-1) - (weights * a).sum(-1).square()
    slope = ((weights - F.one_hot(labels, z.shape[-1])) * a).sum(-1)
    return (bend.mean() / (-2 * slope.mean())).item()


def in_float32(loop: Loop, scene: Scene, moved: dict[str, Tensor], method: str) -> float:
    """Return r by the dense twin in float32: torch quantises by channels in no other type."""
    twin = twin_curvature if method == "curvature" else twin_ratio
    return twin(loop, scene, moved, dtype=torch.float32)


def closure_step(loop: Loop) -> None:
    def closure() -> Tensor:
        loop.zero_grad()
        loss = loop.loss()
        loss.backward()
        return loss

    for optimizer in loop.optimizers:
        optimizer.step(closure)


STAIRCASE = dict.fromkeys(("probe", "tiered"), "a short look sees the staircase, not what backward follows")
GENTLER = Recipe("SGD", torch.optim.SGD, 0.1, 10.0)
"""At larger rates all values leave the observed range in the first step, and have no gradient."""

ROWS = (
    Row("checkpointing, non-reentrant", case=ZOO["checkpoint"]),
    Row("checkpointing, reentrant", case=ZOO["checkpoint-reentrant"]),
    Row("checkpointing, selective", case=case("selective", Selective)),
    Row("`save_on_cpu`", step=offloaded),
    Row("`torch.func.functional_call` as the forward", functional),
    Row("gradients by `torch.autograd.grad`, set by the loop", step=by_autograd_grad),
    Row(
        "gradients by `torch.func.grad`, set by the loop",
        step=by_func_grad,
        refused={"": "inside a torch.func transform"},
    ),
    Row("LoRA adapters on a frozen base", case=ADAPTED),
    Row("LoRA adapters that start at zero", case=case("lora-zero", partial(adapted, zeros=True))),
    Row("LoRA as a parametrization", case=case("low-rank", low_rank)),
    Row("weight norm", case=ZOO["weight-norm"]),
    Row("spectral norm", case=ZOO["spectral-norm"]),
    Row("orthogonal, matrix exponential", case=case("orthogonal", orthogonal("matrix_exp"))),
    Row("orthogonal, Cayley map", case=case("cayley", orthogonal("cayley"))),
    Row("orthogonal, Householder", case=case("householder", orthogonal("householder"))),
    Row("pruning masks", case=case("pruned", pruned)),
    Row("fake quantisation, moving observers", case=case("fake-quantised", FakeQuantized)),
    Row(
        "`prepare_qat`",
        case=case("prepared", prepared_for_quantisation),
        truth=in_float32,
        recipe=GENTLER,
        off=STAIRCASE,
        counted=2,  # in the third step all values lie outside the observed range, and none has a gradient
    ),
    Row(
        "straight-through rounding by hand",
        case=case("rounded", lambda: nn.Sequential(nn.Linear(4, 6), Rounded(), nn.Linear(6, CLASSES))),
        off=STAIRCASE,
    ),
    Row("a wrapper of one's own, the model attached", wrapped),
    Row("`nn.DataParallel`", data_parallel),
    Row("EMA by `AveragedModel`, made before `attach`", averaged, step=average),
    Row("EMA by `AveragedModel`, made after `attach`", attached=averaged, step=average),
    Row("`torch.fx` graph module", traced),
    Row("`torch.jit.script`", scripted, refused={"": "scripted and traced modules call no hooks"}),
    Row("backward hooks on model and parameters", backward_hooks),
    Row("gradient clipping", step=clipped),
    Row("gradient accumulation", step=accumulated),
    Row("gradient penalty", step=penalised, off={"curvature": "its g·p is that of the loss with the penalty"}),
    Row(
        "SAM by hand",
        step=sharpness_aware,
        off={"curvature": "its g·p is that of the gradient a little uphill"},
        note="measured by another forward, at the place where the step starts: said once",
    ),
    Row("weight tying", case=ZOO["tied-language-model"]),
    Row("a module under several names", case=case("shared", shared)),
    Row("complex parameters", case=case("complex", Complex), truth=complex_truth),
    Row("LBFGS", step=closure_step, recipe=ALL["LBFGS"], fixed=True, note="watched, not scaled"),
)
