# ---
# jupyter:
#   {kernelspec: {display_name: Python 3, language: python, name: python3}}
# ---

# %%
# Installs what this notebook needs where it is missing (Colab); elsewhere it does nothing. safestep is not on the
# package index yet: it comes from the checkout this notebook lies in, or from the address in SAFESTEP_SOURCE
# (git+https://..., or file://... of a wheel).
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

if any(importlib.util.find_spec(module) is None for module in ("safestep", "matplotlib", "sklearn")):
    checkouts = [folder.as_uri() for folder in Path.cwd().parents if (folder / "src" / "safestep").is_dir()]
    source = os.environ.get("SAFESTEP_SOURCE") or next(iter(checkouts), None)
    if source is None:
        raise RuntimeError("no checkout of safestep around this notebook: set os.environ['SAFESTEP_SOURCE'], run again")
    wanted = f"safestep[tutorials] @ {source}"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", wanted], check=True)
# %% [markdown]
# # Two classes: how far, exactly
#
# **Tutorial 6 of 7: the exact radius of two classes, beside the bound.** ([SGD](sgd.ipynb), the first, has the bound
# and a guard that keeps it; [the divergence](divergence.ipynb) is the seventh. This one needs none of the others.)
#
# A classifier looks at a sample and gives each class a number, its **logit** $z_k$; the probabilities are
# $P_k = e^{z_k} / \sum_j e^{z_j}$, the **softmax**. A training step changes the logits, and safestep limits it by
# $\pi$ over the **spread** of that change, a bound that holds whatever the logits are. Holding always, it is often too
# careful. With two classes one can say *how* careful, with a pencil. You will
#
# 1. solve one equation, and have the exact radius,
# 2. watch Taylor polynomials get better up to there, beyond the bound, and worse after,
# 3. see what the bound gives away, and to which samples,
# 4. ask the same of batches of real data while a model learns: early nothing is given away, late a lot,
# 5. see the formula fail for three classes, and what to use then.
#
# Whatever the text claims of a number is checked by an `assert` in a cell beside it.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from safestep.formulas.softmax_ratio import radius_bound, two_class_radius
from safestep.lab.digits import load_split
from safestep.plots import partition_zeros
from safestep.zeros import nearest_zero

torch.set_num_threads(1)  # sums keep their order, so that every run repeats bit for bit
SEED = 7
VERMILION, BLUE, GREEN = "#D55E00", "#0072B2", "#009E73"

# %% [markdown]
# ## 1. One equation
#
# Two classes, the right one ahead by the **gap** $\delta$ of the logits. Only differences of logits matter to a
# softmax, so put the right class at 0, the wrong one at $-\delta$. Along a step, $t = 0$ is its start and $t = 1$ its
# end, and the wrong class gains $\Delta\, t$ on the right one: $\Delta$ is the spread. The cross-entropy of the sample
# is
#
# $$\ell(t) = \log F(t), \qquad F(t) = 1 + e^{\Delta t - \delta} .$$
#
# An optimizer knows $\ell$ at $t = 0$ only: value, slope, perhaps curvature, the first terms of a Taylor series. Such a
# series converges in the largest disc around 0, **in the plane of complex numbers**, in which $\log F$ has no bad
# point, and at no point outside. A logarithm is bad where its argument is 0. So solve
#
# $$1 + e^{\Delta t - \delta} = 0 \iff \Delta t - \delta = i\pi(2m+1) \iff
#   t = \frac{\delta + i\pi(2m+1)}{\Delta}, \qquad m = 0, \pm 1, \pm 2, \dots$$
#
# because $e^{i\pi} = -1$, and so at every full turn, $2\pi i$, from there. The nearest two have $m = 0$ and $m = -1$,
# and lie as far away as Pythagoras says:
#
# $$\boxed{\;\rho^* = \frac{\sqrt{\delta^2 + \pi^2}}{\Delta}\;} \qquad\text{and the bound is}\qquad
#   \rho = \frac{\pi}{\Delta} .$$
#
# Read the zero as a place. Its real part, $\delta/\Delta$, is **where the two classes tie**; its imaginary part is
# $\pi/\Delta$, the bound. The bound is what is left if nothing is known of the gap: it takes the tie to be here.

# %%
SPREAD = 1.0  # the step changes the gap by one
GAPS = (0.0, 3.0, 6.0)


def sample(gap: float, spread: float = SPREAD) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of the right and the wrong class, and how the step changes them."""
    return torch.tensor([0.0, -gap], dtype=torch.float64), torch.tensor([0.0, spread], dtype=torch.float64)


print(f"{'gap':>4} {'P(right)':>9} {'bound':>7} {'by hand':>8} {'searched':>9}   nearest zero")
for gap in GAPS:
    by_hand = math.sqrt(gap**2 + math.pi**2) / SPREAD
    found = nearest_zero(*sample(gap))  # knows nothing of the formula: it searches, and proves what it found
    sure = 1 / (1 + math.exp(-gap))
    row = f"{gap:4.1f} {sure:9.4f} {radius_bound(SPREAD):7.4f} {by_hand:8.4f} {found.radius:9.4f}"
    print(f"{row}   {complex(found.zero):.4f}")
    assert math.isclose(by_hand, found.radius, rel_tol=1e-10)
    assert math.isclose(by_hand, two_class_radius(gap, SPREAD), rel_tol=1e-12)  # the formula, in the library
    assert abs(complex(found.zero) - complex(gap, math.pi) / SPREAD) < 1e-9
    assert radius_bound(SPREAD) == math.pi / SPREAD <= by_hand

figure, axes = plt.subplots(1, 3, figsize=(12, 5.0), layout="constrained")
for ax, gap in zip(axes, GAPS, strict=True):
    partition_zeros(*sample(gap), reach=14.0 / math.hypot(gap, math.pi), ax=ax)
    ax.set_title(f"Gap {gap:.0f}: the tie is at {gap / SPREAD:.0f}", loc="left", fontweight="bold")

# %% [markdown]
# *What to look at.* The zeros are a ladder, its rungs $2\pi/\Delta$ apart. A larger gap moves the whole ladder to the
# right, to where the classes tie, and no zero up or down. The blue disc is the bound, the same in all three; the green
# circle reaches the nearest rungs, and grows.
#
# ## 2. Does the series know?
#
# Put it to the test: expand $\ell$ around 0 and see how far the polynomials are of use. With $\Delta = 1$ the slope of
# $\ell$ is $\sigma(t - \delta)$, the sigmoid, and $\sigma' = \sigma - \sigma^2$ gives its Taylor coefficients
# $c_0, c_1, \dots$ one from another:
#
# $$c_0 = \sigma(-\delta), \qquad (n+1)\, c_{n+1} = c_n - \sum_{k=0}^{n} c_k\, c_{n-k} .$$


# %%
def taylor(gap: float, degree: int) -> np.polynomial.Polynomial:
    """Return the Taylor polynomial of the loss around the start of the step."""
    c = [1 / (1 + math.exp(gap))]
    for n in range(degree - 1):
        c.append((c[n] - sum(c[k] * c[n - k] for k in range(n + 1))) / (n + 1))
    return np.polynomial.Polynomial([math.log1p(math.exp(-gap))] + [c[n] / (n + 1) for n in range(degree)])


def error(gap: float, degree: int, t: np.ndarray) -> np.ndarray:
    """Return how far the polynomial is from the loss."""
    return np.abs(taylor(gap, degree)(t) - np.logaddexp(0, t - gap))


DEGREES = (10, 20, 40, 80)
figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained", sharey=True)
for ax, gap in zip(axes, (0.0, 6.0), strict=True):
    exact = two_class_radius(gap, SPREAD)
    t = np.linspace(0.02, 1.35 * exact, 400)
    for degree, shade in zip(DEGREES, (0.35, 0.55, 0.75, 0.95), strict=True):
        ax.semilogy(t, np.maximum(error(gap, degree, t), 1e-13), color=plt.cm.Blues(shade), label=f"degree {degree}")
    ax.axvline(math.pi, color=BLUE, ls="--", lw=1.2, label="bound π")
    ax.axvline(exact, color=GREEN, lw=1.7, label=f"exact ρ* = {exact:.2f}")
    ax.set(xlabel="t", ylim=(1e-13, 1e3))
    ax.set_title(f"Gap {gap:.0f}: the polynomials cross at ρ*", loc="left", fontweight="bold")
    ax.legend(frameon=False, loc="lower right")

    inside, outside = ([error(gap, degree, np.array(far * exact)) for degree in DEGREES] for far in (0.9, 1.15))
    assert inside == sorted(inside, reverse=True)  # more terms are better
    assert outside == sorted(outside)  # more terms are worse
axes[0].set_ylabel("error of the polynomial, nats")
between = 0.9 * two_class_radius(6.0, SPREAD)
assert between > 1.9 * math.pi  # far beyond the bound, and the series converges there

# %% [markdown]
# *What to look at.* All polynomials cross near the green line: left of it each bluer one is better, right of it worse.
# With no gap that is the bound. With a gap of 6 it is twice as far out, and between the two lines the bound warns of
# a danger that is not there. (The floor at the bottom is the rounding of float64.)
#
# Mind what the green line is *not*: a wall of the loss. Nothing happens to $\ell$ there, nor does the loss have to
# rise. It is where knowing ever more about the start stops telling you anything about the end. And it is a circle: it
# is as near for a step *away* from the tie, $t < 0$, though on that side the loss only gets flatter.
#
# ## 3. What the bound gives away
#
# The **slack** is the exact radius over the bound. The spread cancels, only the gap is left:
#
# $$\frac{\rho^*}{\rho} = \sqrt{1 + (\delta/\pi)^2} .$$
#
# The gap is the log-odds, $\delta = \log\frac{P}{1-P}$, so the slack says how sure the model is:

# %%
slack = {}
for sure in (0.5, 0.7, 0.9, 0.99, 0.999, 0.9999):
    gap = math.log(sure / (1 - sure))
    slack[sure] = two_class_radius(gap, SPREAD) / radius_bound(SPREAD)
    print(f"P = {sure:<7} gap {gap:5.2f}   exact / bound = {slack[sure]:.3f}")
assert slack[0.5] == 1
assert slack[0.9] < 1.25  # at nine in ten a quarter is not given away yet
assert 3.0 < slack[0.9999] < 3.2

# %% [markdown]
# Up to $P = 0.9$ the bound gives away less than a quarter. It takes a model that is wrong once in ten thousand (or
# right once in ten thousand: the sign of $\delta$ does not matter) for a factor of three.
#
# ## 4. A batch, while a model learns
#
# A step is taken for a whole batch, and the first sample to leave its radius decides. Real data: handwritten threes
# and eights, all of them in each batch, and a linear model, whose logits do change in proportion to $t$. At each step
# we ask both questions of every sample, and keep the **step ratio**: one step over the radius, so that 1 is the limit,
#
# $$r = \max_i \frac{\Delta_i}{\pi} \quad\text{(by the bound)}, \qquad
#   r^* = \max_i \frac{\Delta_i}{\sqrt{\delta_i^2 + \pi^2}} \quad\text{(exactly)}, \qquad r^* \le r .$$

# %%
split = load_split(SEED)
pair = (split.train_y == 3) | (split.train_y == 8)
x, labels = split.train_x[pair].double(), (split.train_y[pair] == 8).long()
torch.manual_seed(SEED)
model = nn.Linear(64, 2, dtype=torch.float64)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

by_bound, by_zero = [], []
for _ in range(100):
    before = model(x)
    optimizer.zero_grad()
    nn.functional.cross_entropy(before, labels).backward()
    optimizer.step()
    before = before.detach()
    a = model(x).detach() - before  # linear: this is how the logits change along the step
    gaps, spreads = before[:, 0] - before[:, 1], (a[:, 0] - a[:, 1]).abs()
    exact = (gaps.square() + math.pi**2).sqrt() / spreads
    by_bound.append(float(spreads.max()) / math.pi)
    by_zero.append(1 / float(exact.min()))

searched = nearest_zero(before[:20], a[:20]).radius  # of the last step; the search again agrees with the formula
assert torch.allclose(searched, exact[:20], rtol=1e-9)
slacks = [r / exactly for r, exactly in zip(by_bound, by_zero, strict=True)]
print(f"{len(x)} samples, accuracy at the end {(before.argmax(1) == labels).double().mean():.3f}")
for step in (0, 3, 10, 30, 99):
    print(
        f"step {step:2}: r = {by_bound[step]:.4f} by the bound, {by_zero[step]:.4f} exactly; slack {slacks[step]:.2f}"
    )

assert min(slacks) >= 1
assert max(slacks[:4]) < 1.05
assert all(slack < 1.1 for slack, r in zip(slacks, by_bound, strict=True) if r > 0.5)  # wherever a step is long
assert [r > 1 for r in by_bound] == [r > 1 for r in by_zero]  # a cap would shorten the same steps
assert slacks[-1] > 2
assert by_bound[-1] < 0.02

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
delta = np.linspace(-10, 10, 300)
left.plot(delta, np.hypot(delta, math.pi) / math.pi, color=GREEN, lw=2, label="√(1 + (δ/π)²)")
left.plot(gaps, exact * spreads / math.pi, "o", ms=3, alpha=0.4, color=VERMILION, label="the samples, last step")
left.axhline(1, color=BLUE, ls="--", lw=1.2, label="the bound")
left.set(xlabel="gap δ, nats", ylabel="slack of a sample", ylim=(0.9, 3.4), xlim=(-10, 10))
left.set_title("A sample that is settled has slack", loc="left", fontweight="bold")
left.legend(frameon=False, loc="upper center")
right.semilogy(by_bound, color=BLUE, ls="--", lw=1.5, label="by the bound, r")
right.semilogy(by_zero, color=GREEN, lw=1.7, label="exactly, r*")
right.axhline(1, color="0.4", lw=1)
right.set(xlabel="step", ylabel="step ratio of the batch")
right.set_title("Long steps: the same. Short ones: slack", loc="left", fontweight="bold")
right.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.86))

# %% [markdown]
# *What to look at.* Left: each sample lies on the curve, most of them well up its sides, as the model has learnt the
# pair. Right: in the first steps the model is unsure of everything, and the two lines are one: the bound *is* the exact
# radius, and a cap at $r = 1$ would have shortened the few steps above the grey line by either measure. Later the model
# is sure, the bound is two or three times too careful, and it does not matter: the steps are a hundredth of it.
#
# That is the case for limiting steps by the bound: it costs a spread, no search, and is nearly exact where steps are
# long, at least here. It is one run of a small model, no law: a model that is sure of its samples *and* takes long
# steps would be shortened by the bound where the exact radius would let it go on.
#
# ## 5. Three classes
#
# With more classes it is tempting to take the two that lead and use the formula for them. That is **no bound at all**.
# Logits 2, 1, 0, and a step that moves the first two together and leaves the third behind:

# %%
z, a = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])
found = nearest_zero(z, a)
top_two = two_class_radius(gap=1.0, spread_of_direction=0.0)  # they do not move against each other
both = two_class_radius(gap=math.log(math.exp(2) + math.exp(1)), spread_of_direction=1.0)
print(f"top two alone: {top_two}")
print(f"bound π/Δ:     {radius_bound(1.0):.4f}")
print(f"exact:         {found.radius:.4f}, certain to {found.error:.0e}")
assert top_two == math.inf
assert math.isclose(found.radius, both, rel_tol=1e-6)  # two classes again: the leaders together, and the third
assert radius_bound(1.0) < found.radius < top_two

four = torch.tensor([0.0, 3.0, 3.0, 0.0]), torch.tensor([-1.2, -0.3, 0.5, 1.0])
figure, axes = plt.subplots(1, 2, figsize=(10, 6.2), layout="constrained")
partition_zeros(z, a, reach=3.0, ax=axes[0]).set_title("Three classes, one ladder", loc="left", fontweight="bold")
partition_zeros(*four, reach=3.0, ax=axes[1]).set_title("Four: the ladder is gone", loc="left", fontweight="bold")
assert nearest_zero(*four).radius > radius_bound(float(four[1].max() - four[1].min()))

# %% [markdown]
# *What to look at.* Left: classes that move alike count as one, so this is a ladder again, and the small third class
# has brought the zero from infinity to 3.90. Right: four classes that all move differently. No formula gives these
# zeros; `safestep.zeros.nearest_zero` searches for the nearest, and proves that it has overlooked none. The disc of the
# bound is free of zeros in both, as always.
#
# ## 6. What to keep
#
# * Two classes: $\rho^* = \sqrt{\delta^2 + \pi^2}/\Delta$. The zero has the tie as its real part, and the bound
#   $\pi/\Delta$ as its imaginary part.
# * Up to there Taylor polynomials describe the loss ever better, beyond it ever worse. It is no wall of the loss.
# * The bound gives away the factor $\sqrt{1 + (\delta/\pi)^2}$: nothing where the model is unsure.
# * More classes: the bound holds, the formula for the top two does not. `nearest_zero(z, a)` is exact, and
#   `diagnostics=[safestep.tools.diagnostics.ExactRadius()]` makes it a column of a run; see `docs/exact-radius.md`.
#
# Next: [the divergence](divergence.ipynb), which measures by how much a step changes the predictions, in nats.
#
# **Sources.** P. Sao, *Ghosts of Softmax: Complex Singularities That Limit Safe Step Sizes in Cross-Entropy*, arXiv
# 2603.13552 (2026), for the zeros as the limit and the binary formula; how zeros are searched for and certified is
# safestep's own.

# %%
if plt.get_backend().lower() != "agg":  # run as a plain script on a desktop, this opens the pictures
    plt.show()
