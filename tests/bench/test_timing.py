"""Paired timing: what is claimed of ratios holds on a machine whose speed is known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from safestep.bench.timing import Quartiles, paired, take_turns


class Machine:
    """A clock that only work moves on, at a speed that may change between rounds."""

    def __init__(self, speeds):
        self.time, self.speeds, self.speed, self.ran = 0.0, speeds, 1.0, []

    def prepare(self, number):
        self.speed = self.speeds[number]
        self.time += 1000.0  # untimed
        self.ran.append([])

    def work(self, name, seconds):
        def run():
            self.ran[-1].append(name)
            self.time += seconds / self.speed

        return run

    def compare(self, costs):
        turns = {name: self.work(name, seconds) for name, seconds in costs.items()}
        return list(take_turns(turns, len(self.speeds), self.prepare, clock=lambda: self.time))


def test_a_machine_that_slows_down_changes_no_ratio():
    rounds = Machine([1.0, 0.2, 0.2, 5.0, 1.0, 0.01]).compare({"plain": 2.0, "guarded": 3.0})
    ratios = paired(rounds, "guarded", "plain")
    assert (ratios.median, ratios.low, ratios.high, ratios.mean) == pytest.approx((1.5,) * 4)
    assert rounds[0] == pytest.approx({"plain": 2.0, "guarded": 3.0})
    assert rounds[5]["plain"] == pytest.approx(200.0)


def test_ratios_are_of_the_same_round_and_not_of_medians():
    rounds = [{"plain": p, "it": i} for p, i in ((1.0, 2.0), (10.0, 10.0), (2.0, 8.0))]
    ratios = paired(rounds, "it", "plain")
    assert (ratios.median, ratios.mean) == (2.0, pytest.approx(7 / 3))  # 8 / 2 = 4 is what the medians would give
    assert (ratios.low, ratios.high) == (1.5, 3.0)


def test_rare_long_steps_are_in_the_mean_and_not_in_the_median():
    rounds = [{"plain": 1.0, "skips": 1.0} for _ in range(15)] + [{"plain": 1.0, "skips": 2.6}]
    ratios = paired(rounds, "skips", "plain")
    assert (ratios.median, ratios.mean) == (1.0, pytest.approx(1.1))


def test_everyone_has_one_turn_a_round_and_the_order_changes():
    machine = Machine([1.0] * 30)
    names = ["a", "b", "c", "d"]
    rounds = machine.compare(dict.fromkeys(names, 1.0))
    assert all(sorted(ran) == names for ran in machine.ran)
    assert all(list(times) == names for times in rounds)
    followers = Counter((ran[i], ran[i + 1]) for ran in machine.ran for i in range(3))
    assert len(followers) == 12  # everyone came after everyone else
    again = Machine([1.0] * 30)
    again.compare(dict.fromkeys(names, 1.0))
    assert again.ran == machine.ran


def test_quartiles_are_those_of_numpy():
    values = [0.3, 9.0, 4.0, 4.5, 1.25, 8.0]
    found = Quartiles.of(values)
    assert (found.low, found.median, found.high) == pytest.approx(tuple(np.percentile(values, [25, 50, 75])))
    assert Quartiles.of([7.0]) == Quartiles(7.0, 7.0, 7.0, 7.0)


def test_no_round_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        paired([], "a", "b")
