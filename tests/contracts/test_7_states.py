"""Contract 7, the state itself: the same keys whatever was learnt, plain data, and what does not fit is told."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.nn.functional import cross_entropy

import safestep
from safestep import Cap, CurvatureRadius, Pin, Radius, SecantCurvature, SoftmaxRadius, Throttle, Tightest
from safestep.guard.checkpoint import Saved
from safestep.records.reading import Reading
from zoo import said
from zoo.asserts import assert_identical
from zoo.checkpoints import Journey, loaded, saved
from zoo.loop import Loop, network

ALONE = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.mark.parametrize("radius", [SoftmaxRadius(), SecantCurvature(), CurvatureRadius()])
def test_the_keys_are_those_of_a_new_guard_and_the_values_plain(radius):
    fresh = Journey(radius=radius).guard.state_dict()
    learnt = Journey(radius=radius).steps(3).guard.state_dict()
    assert list(fresh) == list(learnt)
    assert all(isinstance(value, (int, str)) for value in learnt.values())
    assert {key: type(value) for key, value in fresh.items()} == {key: type(value) for key, value in learnt.items()}
    assert json.loads(json.dumps(learnt)) == learnt
    assert len(fresh["memory"]) < 4096


@ALONE
def test_a_guard_is_saved_and_loaded_in_place_by_torch_itself(tmp_path):
    """`torch.distributed.checkpoint` takes anything that has the two methods."""
    guard = Journey().steps(3).guard
    dcp.save({"guard": guard}, checkpoint_id=tmp_path, no_dist=True)
    other = Journey().guard
    dcp.load({"guard": other}, checkpoint_id=tmp_path, no_dist=True)
    assert other.state_dict() == guard.state_dict()


def test_torch_drops_what_is_added_to_the_state_of_an_optimizer():
    """Why the guard has a state of its own: distributed checkpointing keeps only what it knows of an optimizer."""
    journey = Journey().steps(1)
    journey.optimizer.register_state_dict_post_hook(lambda _, state: {**state, "guard": 1})
    assert "guard" in journey.optimizer.state_dict()
    assert set(get_optimizer_state_dict(journey.model, journey.optimizer)) == {"state", "param_groups"}


def test_the_step_that_torch_takes_to_learn_what_an_optimizer_keeps_is_no_step():
    journey = Journey()
    before = {key: value.clone() for key, value in journey.model.state_dict().items()}
    get_optimizer_state_dict(journey.model, journey.optimizer)  # of an optimizer that has not stepped yet
    assert journey.optimizer.state
    assert journey.reports == []
    assert_identical(dict(journey.model.state_dict()), before)


# -- counts -----------------------------------------------------------------------------------------------------------


def test_the_count_of_held_steps_is_resumed():
    def uphill():
        return Loop(policy=Throttle(), optimizer=partial(torch.optim.SGD, maximize=True))

    state = uphill().steps(12).guard.state_dict()
    assert state["held_in_a_row"] == 12
    again = uphill()
    again.guard.load_state_dict(state)
    again.steps(7)
    with said("20 steps in a row were held"):
        again.step()


# -- the version before -----------------------------------------------------------------------------------------------


def version_2(guard):
    """What a guard saved before version 3."""
    kept = Saved.of(guard.state_dict(), guard.radius, guard.policy)
    return {
        "version": 2,
        "step": kept.step,
        "undone_in_a_row": kept.undone,
        "radius": {"name": type(guard.radius).__name__, "state": kept.radius},
        "policy": {"name": type(guard.policy).__name__, "state": kept.policy},
    }


@pytest.mark.parametrize(
    "options",
    [
        {"radius": SoftmaxRadius()},
        {"policy": Throttle(order=2)},
        {"radius": Tightest({SoftmaxRadius(): 0.5, CurvatureRadius(): 0.1})},
    ],
    ids=["softmax", "throttle", "tightest"],
)
def test_a_state_of_version_2_is_read(options):
    """What it does not hold, how often the model was looked at, is learnt anew."""

    def everything(journey):
        return {**journey.everything(), "guard": version_2(journey.guard)}

    whole = Journey(**options).steps(4)
    state = loaded(saved(everything(whole)))
    wanted = everything(whole.steps(3))
    assert_identical(everything(Journey(seed=1, **options).load(saved(state)).steps(3)), wanted)


# -- states that do not fit -------------------------------------------------------------------------------------------


def refused(state, **options):
    journey = Journey(**options).steps(2)
    before = journey.guard.state_dict()
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the callers look at the text
        journey.guard.load_state_dict(state)
    assert journey.guard.state_dict() == before
    return str(error.value)


def memory(change):
    state = Journey().steps(3).guard.state_dict()
    return {**state, "memory": change(state["memory"])}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2 // 4 * 4],
        lambda text: text[:-3],
        lambda text: "",
        lambda text: "nothing of the kind",
        lambda text: text.encode(),
        lambda text: text[:400] + text[404:],
        lambda text: Journey().guard.state_dict()["policy"],
    ],
    ids=["half", "torn", "empty", "foreign", "bytes", "gap", "another text"],
)
def test_a_damaged_memory_is_told(change):
    assert "the checkpoint is cut short or damaged; load an earlier one" in refused(memory(change))


def test_a_memory_that_is_a_file_of_something_else_is_told():
    state = memory(lambda text: base64.b64encode(saved({"model": 1})).decode())
    assert "what the guard remembered cannot be read ('radius')" in refused(state)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"not the state of a guard: version missing from keys []"),
        ([1, 2], "not the state of a guard: version missing from a list"),
        (OrderedDict(weight=torch.ones(1)), "not the state of a guard: version missing from keys ['weight']"),
        ({"version": 3, "step": 1}, "undone_in_a_row, held_in_a_row, radius, policy, memory missing"),
        ({"version": torch.tensor(3)}, "not the state of a guard"),
        ({"version": 1}, "state of version 1: this safestep reads versions 2 and 3"),
    ],
)
def test_what_is_no_state_is_told(state, message):
    assert message in refused(state)


@pytest.mark.parametrize("key", ["step", "undone_in_a_row", "held_in_a_row"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "3", None])
def test_counts_are_whole_numbers(key, value):
    assert f"{key} = {value!r} in the state of a guard" in refused({**Journey().guard.state_dict(), key: value})


def test_another_radius_is_told_by_name():
    state = Journey(radius=Tightest({SoftmaxRadius(): 1.0, CurvatureRadius(): 0.5})).guard.state_dict()
    message = refused(state, radius=Tightest({SoftmaxRadius(): 1.0}))
    assert "radius Tightest of SoftmaxRadius, CurvatureRadius, this guard has Tightest of SoftmaxRadius:" in message


def test_other_settings_of_the_same_kind_are_no_other_guard():
    """A target is often lowered after a crash."""
    Journey(policy=Cap(0.5)).guard.load_state_dict(Journey(policy=Cap(1.0)).guard.state_dict())


@dataclass(frozen=True)
class Remembers(Radius):
    """A radius of the user's that remembers what is no plain data."""

    what: object

    def measure(self, proposal, state):
        return Reading(proposal.step.index, 0.5, "user"), {"what": self.what}


def test_what_could_not_be_loaded_again_is_told_when_it_is_saved():
    with pytest.raises(TypeError, match=r"remembers .*Pin.*expected plain data"):
        Journey(radius=Remembers(Pin(1.0))).steps(1).guard.state_dict()
    plain = Journey(radius=Remembers({"a": [1.0, torch.ones(2)]})).steps(1).guard
    Journey(radius=Remembers(0)).guard.load_state_dict(plain.state_dict())


def test_tensors_come_back_as_they_were():
    """Secant curvature remembers gradients: their bits, their dtype, and none of the memory they came from."""
    model = network().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = safestep.attach(model, optimizer, radius=SecantCurvature(), policy=Throttle())
    cross_entropy(model(torch.randn(8, 4, dtype=torch.float64)), torch.randint(3, (8,))).backward()
    optimizer.step()
    kept = Saved.of(guard.state_dict(), guard.radius, guard.policy).radius
    for gradient, parameter in zip(kept["gradients"], model.parameters(), strict=True):
        assert_identical(gradient, parameter.grad)
        assert gradient.data_ptr() != parameter.grad.data_ptr()
