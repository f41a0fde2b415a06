"""The pole on the cart: its equations of motion, when episodes end, and that the generator decides all chance."""

from __future__ import annotations

import math

import pytest
import torch

from safestep.lab.cart_pole import CART, FORCES, GRAVITY, HALF_LENGTH, LONGEST, POLE, SECONDS, CartPoles

NOTHING = FORCES.index(0.0)


def poles(count=4, seed=0):
    return CartPoles(count, torch.Generator().manual_seed(seed))


def accelerations(state, force):
    """Solve the two equations of Lagrange for both accelerations, where the source has solved them by hand."""
    _, _, angle, turning = state
    sine, cosine = math.sin(angle), math.cos(angle)
    masses = torch.tensor(
        [[CART + POLE, POLE * HALF_LENGTH * cosine], [cosine, 4 / 3 * HALF_LENGTH]], dtype=torch.float64
    )
    forces = torch.tensor([force + POLE * HALF_LENGTH * turning**2 * sine, GRAVITY * sine], dtype=torch.float64)
    return torch.linalg.solve(masses, forces).tolist()


@pytest.mark.parametrize("action", range(len(FORCES)))
def test_it_moves_as_the_equations_of_motion_say(action):
    carts = poles(1)
    carts.state = torch.tensor([[0.3, -0.4, 0.1, 0.7]])
    before = carts.state[0].tolist()
    reached, fell, over = carts.step(torch.tensor([action]))
    drive, spin = accelerations(before, FORCES[action])
    expected = [before[0] + SECONDS * before[1], before[1] + SECONDS * drive,
                before[2] + SECONDS * before[3], before[3] + SECONDS * spin]  # fmt: skip
    assert reached[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert not (fell.any())
    assert not (over.any())


def test_a_pole_left_alone_falls_and_starts_again():
    carts = poles(64)
    ended = torch.zeros(64, dtype=torch.bool)
    for _ in range(LONGEST - 1):
        _, fell, over = carts.step(torch.full((64,), NOTHING))
        assert torch.equal(fell, over)  # none lasts
        assert bool((carts.age[over] == 0).all())
        assert bool((carts.state[over].abs() <= 0.05).all())
        ended |= over
    assert bool(ended.all())


def test_an_episode_ends_for_its_length_without_a_fall():
    carts = poles(2)
    carts.state = torch.zeros(2, 4)  # upright, at rest: it stays
    for step in range(LONGEST):
        _, fell, over = carts.step(torch.full((2,), NOTHING))
        assert not fell.any()
        assert bool(over.all()) == (step == LONGEST - 1)


def test_the_generator_is_the_only_chance():
    states = [poles(3, seed).state for seed in (1, 1, 2)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
