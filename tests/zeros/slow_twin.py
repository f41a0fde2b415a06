"""The zeros by other means, slowly: mpmath's digits, a winding number by brute force, and roots of polynomials."""

from __future__ import annotations

import cmath
import math

import mpmath
import numpy as np

POINTS = 4000


def refined(z, a, start):
    """The zero near a place, by mpmath's secant method with 40 digits."""
    with mpmath.workdps(40):
        pairs = [(mpmath.mpf(weight), mpmath.mpf(change)) for weight, change in zip(z, a, strict=True)]
        top = max(weight + change * start.real for weight, change in pairs)
        root = mpmath.findroot(
            lambda t: mpmath.fsum(mpmath.exp(weight - top + change * t) for weight, change in pairs),
            (mpmath.mpc(start), mpmath.mpc(start) * (1 + mpmath.mpf(10) ** -9)),
            tol=1e-50,
            maxsteps=100,
            verify=False,
        )
        return complex(root)


def pairs_by_force(z, a, radius):
    """How often the argument of F goes round on the upper half of a circle, from ever more points of it."""
    for points in (POINTS, 8 * POINTS, 64 * POINTS):
        t = radius * np.exp(1j * np.linspace(0, math.pi, points))
        logs = np.asarray(z) + t[:, None] * np.asarray(a)
        values = np.exp(logs - logs.real.max(-1, keepdims=True)).sum(-1)
        turns = np.angle(values[1:] / values[:-1])
        if np.abs(turns).max() < 2.0:
            return round(turns.sum() / math.tau)
    raise AssertionError("too few points to tell")


def nearest_of_polynomial(z, a):
    """The nearest zero for whole numbers a: with x = exp(t), F is a polynomial, and t the principal logarithm."""
    coefficients = [mpmath.mpf(0)] * (int(max(a)) - int(min(a)) + 1)
    with mpmath.workdps(60):
        for weight, change in zip(z, a, strict=True):
            coefficients[int(max(a)) - int(change)] += mpmath.exp(mpmath.mpf(weight))
        roots = mpmath.polyroots(coefficients, maxsteps=2000, extraprec=400)
        return min((cmath.log(complex(root)) for root in roots if root), key=abs)
