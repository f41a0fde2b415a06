"""Twenty random schedules of faults; ``make faults`` plays five hundred. See docs/faults.md."""

from __future__ import annotations

import pytest

from faults.many import play, shrink
from faults.schedule import FAULTS, Schedule
from safestep import Status
from safestep.guard.controller import Controller, report_of
from safestep.guard.guard import Guard
from safestep.recording.optimizer_hooks import StepHooks

SEEDS = range(20)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_survives_its_faults(seed):
    outcome = play(Schedule.of(seed))
    assert not outcome.error, f"{outcome.error}\n{shrink(outcome.schedule)}"


def test_these_schedules_hold_every_fault():
    assert {plan.fault for seed in SEEDS for plan in Schedule.of(seed).plans} == {"", *FAULTS}


# -- a test that cannot fail tests nothing ----------------------------------------------------------------------------


def first_failure():
    """Return the first line of what the first schedule that fails has to say."""
    errors = (play(Schedule.of(seed)).error for seed in SEEDS)
    return next((error.splitlines()[0] for error in errors if error), "")


def test_a_guard_that_does_not_recover_from_an_error_is_found(monkeypatch):
    monkeypatch.setattr(StepHooks, "recover", lambda hooks: False)
    assert first_failure()


def test_a_guard_that_restores_nothing_is_found(monkeypatch):
    monkeypatch.setattr(Guard, "load_state_dict", lambda guard, state: None)
    assert "expected" in first_failure()


def test_a_guard_that_leaves_a_nan_in_place_is_found(monkeypatch):
    refuse = Controller._refuse

    def leave(self, step, reading, lrs, **options):
        if not self.policy.writes:
            return refuse(self, step, reading, lrs, **options)
        return report_of(step, reading, Status.UNDONE, 0.0, lrs)

    monkeypatch.setattr(Controller, "_refuse", leave)
    assert "nan" in first_failure()


def test_a_guard_that_freezes_the_run_is_found(monkeypatch):
    decide = Controller.decide

    def frozen(self, proposal, lrs, **options):
        report = decide(self, proposal, lrs, **options)
        if self.policy.writes:
            proposal.step.undo()
        return report

    monkeypatch.setattr(Controller, "decide", frozen)
    assert "not where the step" in first_failure() or "did not lower the loss" in first_failure()
