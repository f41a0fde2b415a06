"""The nearest zero against slow twins that share no code with it: digits, that it is the nearest, its error bound."""

from __future__ import annotations

import os

import pytest
import torch

from safestep.zeros import nearest_zero
from zeros.slow_twin import nearest_of_polynomial, pairs_by_force, refined

MANY, POLYNOMIALS = (10_000, 1000) if os.environ.get("SAFESTEP_LONG") else (150, 30)
EXACT = 1e-10


def random_sample(seed):
    """Some classes, from flat to peaked; changes that are even, in two clusters, or mostly of one class."""
    generator = torch.Generator().manual_seed(seed)

    def normal():
        return torch.randn(classes, generator=generator, dtype=torch.float64)

    classes = int(torch.randint(2, 21, (), generator=generator))
    z, a = normal() * [0.0, 1.0, 3.0, 10.0, 30.0][seed % 5], normal()
    if seed % 3 == 1:
        a = 0.05 * a + (normal() > 0)
    if seed % 3 == 2:
        a = 0.1 * a.pow(3)
        a[int(z.argmax())] += 5.0
    return z, a * 10.0 ** (seed % 7 - 3)


def test_the_digits_are_those_of_mpmath_and_no_zero_is_nearer():
    certified = 0
    for seed in range(MANY):
        z, a = random_sample(seed)
        found = nearest_zero(z, a)
        if found.reasons[0]:
            assert found.radius.isnan()
            continue
        certified += 1
        radius, zero, error = float(found.radius), complex(found.zero), float(found.error)
        assert error <= EXACT * radius, seed
        assert abs(refined(z.tolist(), a.tolist(), zero) - zero) <= error + 1e-15 * radius, seed
        assert pairs_by_force(z, a, radius * 0.999) == 0, seed
        assert pairs_by_force(z, a, radius * 1.001) >= 1, seed
    assert certified >= 0.999 * MANY


@pytest.mark.parametrize("spread", [0.0, 2.0, 10.0])
def test_whole_exponents_are_a_polynomial(spread):
    generator = torch.Generator().manual_seed(int(spread))
    for _ in range(POLYNOMIALS // 3):
        classes = int(torch.randint(2, 9, (), generator=generator))
        a = torch.randint(-4, 5, (classes,), generator=generator).double()
        z = spread * torch.randn(classes, generator=generator, dtype=torch.float64)
        if a.min() == a.max():
            continue
        found, expected = nearest_zero(z, a), nearest_of_polynomial(z.tolist(), a.tolist())
        assert found.reasons == ("",)
        assert abs(float(found.radius) - abs(expected)) <= max(1e-12 * abs(expected), float(found.error))
