"""What attach() refuses, and what it warns of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

import safestep
from safestep import AttachError, Cap, Pin, SafestepWarning, SoftmaxRadius, Watch
from safestep.logs import Sink


def parts():
    model = nn.Linear(4, 3)
    return model, SGD(model.parameters(), lr=0.1)


def attaches(model, optimizer):
    """Attach, and detach again."""
    safestep.attach(model, optimizer).detach()
    return True


# -- the pair ---------------------------------------------------------------------------------------------------------


def test_a_second_guard_on_one_optimizer():
    model, optimizer = parts()
    guard = safestep.attach(model, optimizer)
    with pytest.raises(AttachError, match=r"SGD has a guard already; call its detach\(\) first"):
        safestep.attach(model, optimizer)
    guard.detach()
    assert attaches(model, optimizer)


def test_a_second_guard_on_one_of_several_optimizers():
    model = nn.Linear(4, 3)
    first, second = SGD([model.weight], lr=0.1), SGD([model.bias], lr=0.1)
    safestep.attach(model, first)
    with pytest.raises(AttachError, match="has a guard already"):
        safestep.attach(model, [second, first])
    with pytest.raises(AttachError, match=r"give both optimizers to one guard, attach\(model, \[a, b\]\)"):
        safestep.attach(model, second)


def test_an_optimizer_of_another_model():
    model, _ = parts()
    _, optimizer = parts()
    with pytest.raises(AttachError, match="none of the optimizer's 2 parameters belongs to the model"):
        safestep.attach(model, optimizer)


def test_an_optimizer_of_more_than_the_model():
    model, _ = parts()
    other = nn.Linear(2, 2)
    with pytest.warns(SafestepWarning, match="2 of the optimizer's 4 parameters are not the model's"):
        safestep.attach(model, SGD([*model.parameters(), *other.parameters()], lr=0.1))


@pytest.mark.parametrize("model", [None, lambda x: x, nn.Linear, "model", [nn.Linear(4, 3)]])
def test_a_model_that_is_none(model):
    with pytest.raises(AttachError, match=r"expected a torch\.nn\.Module as model"):
        safestep.attach(model, parts()[1])


@pytest.mark.parametrize("optimizer", [None, SGD, "adam", 0.1, {"lr": 0.1}])
def test_an_optimizer_that_is_none(optimizer):
    with pytest.raises(AttachError, match=r"expected a torch\.optim\.Optimizer"):
        safestep.attach(parts()[0], optimizer)


def test_arguments_the_wrong_way_round():
    model, optimizer = parts()
    with pytest.raises(AttachError, match="expected"):
        safestep.attach(optimizer, model)


def test_no_optimizer_and_the_same_twice():
    model, optimizer = parts()
    with pytest.raises(AttachError, match="at least one optimizer"):
        safestep.attach(model, [])
    with pytest.raises(AttachError, match="the same optimizer was given twice"):
        safestep.attach(model, [optimizer, optimizer])


def test_an_optimizer_that_never_was_initialised():
    class Lookahead(Optimizer):
        def __init__(self, parameters):
            self.param_groups = [{"params": list(parameters), "lr": 0.1}]

    model, _ = parts()
    with pytest.raises(AttachError, match=r"never called Optimizer\.__init__"):
        safestep.attach(model, Lookahead(model.parameters()))


# -- wrappers ---------------------------------------------------------------------------------------------------------


class Wrapper:
    """As Accelerate's: not an optimizer with hooks, one in .optimizer."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        self.optimizer.step()


class Delegating(Wrapper):
    """As Lightning's: it imitates the class of what it wraps, and names its attributes as its own."""

    def __init__(self, optimizer):
        super().__init__(optimizer)
        self.__class__ = type("Delegating", (self.__class__, type(optimizer)), {})

    def __getattr__(self, name):
        return getattr(self.optimizer, name)


def test_a_wrapper_that_imitates_its_optimizer_is_seen_through():
    model, optimizer = parts()
    wrapper = Delegating(optimizer)
    guard = safestep.attach(model, wrapper)
    torch.nn.functional.cross_entropy(model(torch.randn(4, 4)), torch.zeros(4, dtype=torch.long)).backward()
    wrapper.step()
    assert len(guard.history) == 1


def capped(model, optimizer, step):
    guard = safestep.attach(model, optimizer)
    nn.functional.cross_entropy(model(torch.randn(5, 4)), torch.tensor([0, 1, 2, 0, 1])).backward()
    step()
    return guard.last.applied_ratio


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_wrapper_is_looked_through(depth):
    model = nn.Linear(4, 3)
    wrapper = SGD(model.parameters(), lr=1e4)
    for _ in range(depth):
        wrapper = Wrapper(wrapper)
    assert capped(model, wrapper, wrapper.step) == pytest.approx(1.0)


def test_a_wrapped_optimizer_is_guarded_once():
    model, optimizer = parts()
    safestep.attach(model, Wrapper(optimizer))
    with pytest.raises(AttachError, match="has a guard already"):
        safestep.attach(model, optimizer)


def test_a_wrapper_of_nothing():
    model, _ = parts()
    with pytest.raises(AttachError, match=r"wrapper with one in \.optimizer"):
        safestep.attach(model, Wrapper(None))


def test_deepspeed_is_refused_by_name():
    model, optimizer = parts()
    engine = type("DeepSpeedOptimizerWrapper", (Wrapper,), {"__module__": "deepspeed.runtime.engine"})
    with pytest.raises(AttachError, match="DeepSpeedOptimizerWrapper of DeepSpeed steps inside its engine"):
        safestep.attach(model, engine(optimizer))
    with pytest.raises(AttachError, match="DeepSpeed"):
        safestep.attach(model, Wrapper(engine(optimizer)))


# -- what cannot be promised ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_of_reduced_precision(dtype):
    model = nn.Linear(4, 3).to(dtype)
    with pytest.warns(SafestepWarning, match=rf"{dtype}.*keep the parameters in float32"):
        safestep.attach(model, SGD(model.parameters(), lr=0.1))


COPIERS = pytest.mark.parametrize("name", ["AdamWScheduleFree", "Lookahead", "Prodigy", "DAdaptAdam", "FP16_Optimizer"])


@COPIERS
def test_a_wrapper_with_a_second_copy_of_the_weights(name):
    """What such a wrapper does after the inner step happens outside the hooks."""
    model, optimizer = parts()
    with pytest.warns(SafestepWarning, match=f"{name} keeps a second copy of the weights"):
        safestep.attach(model, Wrapper(type(name, (Wrapper,), {})(optimizer)))


@COPIERS
def test_an_optimizer_with_a_second_copy_of_the_weights(name):
    model, _ = parts()
    kind = type(name, (SGD,), {})
    with pytest.warns(SafestepWarning, match=f"{name} keeps a second copy of the weights"):
        safestep.attach(model, kind(model.parameters(), lr=0.1))


def test_the_warning_points_at_the_line_that_attaches():
    model = nn.Linear(4, 3).bfloat16()
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.warns(SafestepWarning) as caught:
        safestep.attach(model, optimizer)
    assert caught[0].filename == __file__


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"policy": Cap}, "policy="),
        ({"policy": "cap"}, "policy="),
        ({"policy": 1.0}, "policy="),
        ({"policy": SoftmaxRadius()}, "policy="),
        ({"radius": SoftmaxRadius}, "radius="),
        ({"radius": "exact"}, "radius="),
        ({"radius": Cap(1.0)}, "radius="),
        ({"on_nonfinite": "raise"}, "on_nonfinite='raise': expected 'undo' or 'skip'"),
        ({"history": -1}, "history=-1"),
        ({"history": 1.5}, "history=1.5"),
        ({"history": True}, "history=True"),
        ({"logits": "logits"}, "logits='logits'"),
        ({"log": 3}, "log=3"),
        ({"log": ""}, "log='': expected the name of a file"),
        ({"log": ["."]}, "log='.': expected the name of a file"),
        ({"log": str(Path(__file__).parent)}, "is a directory; expected the name of a file in it"),
        ({"diagnostics": [3]}, "diagnostics"),
    ],
    ids=str,
)
def test_a_bad_option(options, text):
    model, optimizer = parts()
    hooks = len(model._forward_hooks), len(optimizer._optimizer_step_pre_hooks)
    with pytest.raises(ValueError, match=text):
        safestep.attach(model, optimizer, **options)
    assert (len(model._forward_hooks), len(optimizer._optimizer_step_pre_hooks)) == hooks
    assert attaches(model, optimizer)  # nothing was left behind


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), "1", None, True, 1j])
@pytest.mark.parametrize("policy", [Cap, Pin])
def test_a_bad_target(policy, target):
    with pytest.raises(ValueError, match="expected a positive number"):
        policy(target)


def test_a_pin_without_an_end_and_a_watch_of_nothing():
    with pytest.raises(ValueError, match="finite target"):
        Pin(float("inf"))
    with pytest.raises(ValueError, match="expected a policy"):
        Watch(1.0)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "fast"},
        {"head": "linear"},
        {"mode": "test"},
        {"over": 0.0},
        {"over": 1.1},
        {"over": "median"},
        {"sample": 256},
    ],
    ids=str,
)
def test_a_bad_radius(options):
    ((name, _),) = options.items()
    with pytest.raises(ValueError, match=f"{name}=.*expected"):
        SoftmaxRadius(**options)


def test_an_unwritable_log(tmp_path):
    model, optimizer = parts()
    (tmp_path / "notes").touch()
    with pytest.raises(OSError, match="notes"):
        safestep.attach(model, optimizer, log=tmp_path / "notes" / "log.jsonl")
    assert attaches(model, optimizer)


def test_every_attach_error_is_a_value_error_and_safesteps():
    assert issubclass(AttachError, ValueError)
    assert issubclass(AttachError, safestep.SafestepError)


def test_the_documented_line_attaches_any_optimizer():
    model = nn.Linear(4, 3)
    optimizer = Adam(model.parameters(), lr=1e4)
    assert capped(model, optimizer, optimizer.step) == pytest.approx(1.0)


# -- what people give where an optimizer belongs ----------------------------------------------------------------------


def given():
    model, optimizer = parts()
    holder = lambda name, inside, kind: type(kind, (), {name: inside})()  # noqa: E731
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    return model, {
        "None": (None, r"saw None: make the optimizer first"),
        "swapped": (nn.Linear(4, 3), r"attach\(model, optimizer\), in this order"),
        "configured": ({"optimizer": optimizer, "lr_scheduler": scheduler}, r'configured\["optimizer"\]'),
        "two lists": (([optimizer], [scheduler]), "a flat list"),
        "fastai": (holder("opt", optimizer, "OptimWrapper"), r"attach\(model, optimizer\.opt\)"),
        "schedule-free": (holder("base", optimizer, "ScheduleFreeWrapper"), "AdamWScheduleFree.*Watch"),
        "wrapped": (holder("base", optimizer, "Wrapped"), r"optimizer\.base"),
    }


@pytest.mark.parametrize("name", given()[1])
def test_what_is_no_optimizer_is_told_its_remedy(name):
    model, cases = given()
    optimizer, remedy = cases[name]
    with pytest.raises(AttachError, match=remedy):
        safestep.attach(model, optimizer)


def test_an_optimizer_first_is_told_the_order():
    model, optimizer = parts()
    with pytest.raises(AttachError, match=r"attach\(model, optimizer\), in this order"):
        safestep.attach(optimizer, model)


def test_lazy_layers_are_to_run_first():
    model = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(AttachError, match="run one forward"):
        safestep.attach(model, SGD(model.parameters(), lr=0.1))
    model(torch.zeros(1, 4))
    assert attaches(model, SGD(model.parameters(), lr=0.1))


@pytest.mark.filterwarnings("ignore:the gradient at the logits")
@pytest.mark.parametrize("method", ["tiered", "probe", "exact"])
def test_one_logit_is_no_softmax_head(method):
    model = nn.Linear(4, 1)
    optimizer = SGD(model.parameters(), lr=0.1)
    safestep.attach(model, optimizer, radius=SoftmaxRadius(method=method))
    nn.functional.mse_loss(model(torch.randn(5, 4)), torch.randn(5, 1)).backward()
    with pytest.raises(safestep.SafestepError, match="sigmoid"):
        optimizer.step()


@pytest.mark.parametrize("name", ["MADGRAD", "Ranger", "Ranger21", "DoG", "LDoG"])
def test_other_second_copies_are_named(name):
    model, _ = parts()
    optimizer = type(name, (SGD,), {})(model.parameters(), lr=0.1)
    with pytest.warns(SafestepWarning, match=f"{name} keeps a second copy of the weights"):
        safestep.attach(model, optimizer)


# -- a failed attach leaves nothing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"history": -1}, {"log": "notes/x.jsonl"}, {"max_forwards": 0}], ids=str)
def test_an_attach_that_fails_leaves_no_hook_and_no_log(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").touch()
    closed, model, optimizer = [], *parts()
    sink = type(
        "Ours",
        (Sink,),
        {"__call__": lambda *_: None, "open": lambda _: closed.append(1), "close": lambda _: closed.pop()},
    )()
    logs = [sink, *([options["log"]] if "log" in options else [])]
    with pytest.raises((ValueError, OSError)):
        safestep.attach(model, optimizer, **{**options, "log": logs})
    assert not closed
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert attaches(model, optimizer)


def test_hooks_that_fail_half_way_are_taken_back(monkeypatch):
    model, optimizer = parts()
    monkeypatch.setattr(optimizer, "register_step_post_hook", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        safestep.attach(model, optimizer)
    assert not model._forward_hooks
    assert not optimizer._optimizer_step_pre_hooks


class Almost:
    """Has every method of a radius and a policy, and is neither."""

    def measure(self, proposal, state): ...

    def scale(self, ratio, length, target, state): ...


@pytest.mark.parametrize(("name", "kind"), [("radius", "Radius"), ("policy", "Policy")])
@pytest.mark.parametrize(
    "given", [Almost(), 1.0, "Cap", Cap, SoftmaxRadius], ids=["almost", "number", "text", "policy", "radius"]
)
def test_what_is_not_derived_from_a_radius_or_policy_is_refused(name, kind, given):
    model, optimizer = parts()
    with pytest.raises(AttachError, match=rf"{name}=.*: expected a safestep\.{kind}"):
        safestep.attach(model, optimizer, **{name: given})
    assert attaches(model, optimizer)


@pytest.mark.parametrize(("name", "given"), [("radius", SoftmaxRadius), ("policy", Pin)])
def test_a_class_that_was_not_called_is_told_so(name, given):
    with pytest.raises(AttachError, match=rf"a class is none yet: {name}={given.__name__}\(\.\.\.\)"):
        safestep.attach(*parts(), **{name: given})
