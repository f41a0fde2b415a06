"""Settings: read from texts by the type of their field, checked at construction, unknown keys named."""

from __future__ import annotations

import dataclasses

import pytest

from safestep.errors import UnknownNameError
from safestep.experiments import NAMES, find
from safestep.experiments.digits.digits_adam import AdamSettings
from safestep.experiments.digits.digits_momentum import MomentumSettings
from safestep.experiments.digits.digits_sgd import SGDSettings
from safestep.experiments.runner.settings import SettingError, assignment


def test_the_defaults_are_the_protocol():
    sgd, momentum, adam = SGDSettings(), MomentumSettings(), AdamSettings()
    assert (sgd.epochs, sgd.lrs, sgd.momentum) == (24, (0.05, 0.5, 5.0), 0.0)
    assert (momentum.epochs, momentum.lrs, momentum.momentum) == (20, (0.05, 0.5, 2.0), 0.9)
    assert (adam.epochs, adam.lrs, adam.betas) == (20, (0.001, 0.5, 2.0), (0.9, 0.999))
    for settings in (sgd, momentum, adam):
        assert (settings.target, settings.batch_size, settings.width, settings.device) == (1.0, 128, 128, "cpu")


def test_every_type_of_field_is_read():
    settings = SGDSettings.parse(
        ["epochs=5", "lrs = 0.1, 1e-3,", "momentum=.5", "nesterov=Yes", "device=cpu", "target=2", "weight_decay=1e-4"]
    )
    assert settings == SGDSettings(
        epochs=5, lrs=(0.1, 0.001), momentum=0.5, nesterov=True, device="cpu", target=2.0, weight_decay=1e-4
    )
    assert AdamSettings.parse(["betas=0.8,0.9"]).betas == (0.8, 0.9)


def test_the_last_of_two_assignments_counts():
    assert SGDSettings.parse(["epochs=5", "epochs=6"]).epochs == 6


def test_quick_is_a_smaller_setting_and_can_be_overridden():
    assert SGDSettings.parse(quick=True) == SGDSettings(epochs=3)
    assert SGDSettings.parse(["epochs=1"], quick=True) == SGDSettings(epochs=1)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epochs", "'epochs': expected key=value"),
        ("epochs=", "epochs=: expected a whole number"),
        ("epochs=2.5", "epochs=2.5: expected a whole number"),
        ("epochs=0", "epochs=0: expected at least 1"),
        ("batch_size=-4", "batch_size=-4: expected at least 1"),
        ("width=0", "width=0: expected at least 1"),
        ("target=0", "target=0.0: expected a positive number"),
        ("target=inf", "target=inf: expected a finite number"),
        ("target=one", "target=one: expected a finite number"),
        ("target=1e-310", "target=1e-310: expected a positive number from 1e-6 to 1e6"),
        ("target=1e308", "target=1e+308: expected a positive number from 1e-6 to 1e6"),
        ("epochs=1000001", "epochs=1000001: expected at least 1 and at most 1000000"),
        ("width=2000000000", "width=2000000000: expected at least 1 and at most 100000"),
        ("width=99999999999999999999", "expected at least 1 and at most 100000"),
        ("batch_size=99999999999999999999", "expected at least 1 and at most 1000000"),
        ("lrs=0.5,1e300", "lrs=0.5,1e+300: expected positive numbers from 1e-30 to 1e+30"),
        ("lrs=1e-300", "lrs=1e-300: expected positive numbers from 1e-30 to 1e+30"),
        ("weight_decay=1e308", "weight_decay=1e+308: expected at least 0 and at most 1e+30"),
        ("momentum=1e308", "momentum=1e+308: expected at least 0 and at most 1e+30"),
        ("dampening=-1e308", "dampening=-1e+308: expected a number between -1e+30 and 1e+30"),
        ("device=meta", "device=meta: expected a device that torch finds here"),
        ("lrs=", "lrs=: expected positive numbers"),
        ("lrs=0.1,-1", "lrs=0.1,-1.0: expected positive numbers"),
        ("lrs=0.1,nan", "lrs=0.1,nan: expected a finite number in each place"),
        ("lrs=0.1,0.10", "lrs=0.1,0.1: expected each rate once"),
        ("nesterov=maybe", "nesterov=maybe: expected true or false"),
        ("nesterov=true", "nesterov=true: expected false, or momentum above 0"),
        ("momentum=-0.1", "momentum=-0.1: expected at least 0"),
        ("weight_decay=-1", "weight_decay=-1.0: expected at least 0"),
        ("device=toaster", "device=toaster: expected a device that torch finds here"),
        ("device=cuda:77", "device=cuda:77: expected a device that torch finds here"),
    ],
)
def test_what_cannot_be_used_is_refused(assignment, message):
    with pytest.raises(SettingError) as error:
        SGDSettings.parse([assignment])
    assert message in str(error.value)


@pytest.mark.parametrize("betas", ["0.9", "0.9,0.99,0.999", "0.9,1"])
def test_betas_are_two_numbers_below_one(betas):
    with pytest.raises(SettingError, match=r"^betas=.*: expected"):
        AdamSettings.parse([f"betas={betas}"])


def test_construction_checks_types_too():
    for wrong in ({"epochs": "3"}, {"epochs": True}, {"lrs": [0.1]}, {"nesterov": 1}, {"device": 0}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            SGDSettings(**wrong)
    with pytest.raises(dataclasses.FrozenInstanceError):
        SGDSettings().epochs = 3


def test_an_unknown_key_names_the_nearest_and_all_that_apply():
    with pytest.raises(UnknownNameError) as error:
        SGDSettings.parse(["epoch=3"])
    assert "no setting 'epoch'" in str(error.value)
    assert "Did you mean epochs?" in str(error.value)
    assert all(field.name in str(error.value) for field in dataclasses.fields(SGDSettings))


@pytest.mark.parametrize("key", ["momentum", "nesterov", "dampening"])
def test_adam_has_no_settings_of_sgd(key):
    with pytest.raises(UnknownNameError, match=f"no setting '{key}'.*betas"):
        AdamSettings.parse([f"{key}=0"])


@pytest.mark.parametrize("name", NAMES)
def test_a_record_of_settings_reads_back(name):
    kind = find(name).settings
    record = kind().as_record()
    assert kind.parse([assignment(key, value) for key, value in record.items()]) == kind()


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("digits")])
def test_the_optimizer_takes_every_setting_meant_for_it(name):
    import torch

    settings = find(name).settings.parse(["weight_decay=0.25"])
    optimizer = settings.optimizer([torch.nn.Parameter(torch.zeros(1))], 0.125)
    assert type(optimizer).__name__ == ("Adam" if name == "digits-adam" else "SGD")
    group = optimizer.param_groups[0]
    own = {field.name for field in dataclasses.fields(settings)} & group.keys()
    assert {"weight_decay"} < own
    assert {key: group[key] for key in own} == {key: getattr(settings, key) for key in own}
    assert group["lr"] == 0.125
