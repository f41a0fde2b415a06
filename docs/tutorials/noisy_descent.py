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
# # From full gradients to SGD
#
# **Tutorial 5 of 7: what noise does to gradient descent, and what a schedule can do about it.** ([SGD](sgd.ipynb) is
# the first, [momentum](momentum.ipynb) the second, [Adam](adam.ipynb) the third, [drift](drift.ipynb) the fourth. This
# one needs none of them, only that you know what a gradient is.)
#
# Stochastic gradient descent follows gradients that are wrong, each a little, each in another direction. On a bowl it
# can be told exactly what comes of that, before the first step is taken. You will
#
# 1. walk down a bowl with the full gradient, by hand and with `torch.optim`,
# 2. put noise on the gradient, and see 20 000 runs settle into a cloud that does not shrink any more,
# 3. derive the law of that cloud in two lines, and hold the 20 000 runs against it,
# 4. see that the rate sets a floor below which the loss does not get,
# 5. lower the rate too fast, and stop before the bottom,
# 6. lower it as slowly as it has to be,
# 7. take larger batches instead, drawn from real samples,
# 8. do it with a function, an optimizer and a step rule of your own; and learn when the law does not hold.
#
# Whatever the text claims of a number is checked by an `assert` in a cell beside it.

# %%
import itertools
import math
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR

from safestep import Throttle
from safestep.descent import (
    PLANE,
    Batches,
    Bowls,
    DescentError,
    Function,
    Gaussian,
    Rosenbrock,
    Rule,
    distance,
    exact_law,
    simulate,
    stationary_law,
)
from safestep.plots import (
    Floor,
    LossBand,
    loss_over_steps,
    noise_floor,
    schedule_curves,
    trace_contours,
    traces_side_by_side,
)
from safestep.schedules import Constant, Exponential, Inverse, PiecewiseConstant, Polynomial, Staircase

plt.switch_backend(plt.get_backend())  # loaded now, so that pictures made outside pyplot are shown, too
torch.set_num_threads(1)
RUNS = 20_000
RATE = 0.1  # the base learning rate η of all sections but the fourth
VERMILION, BLUE, GREEN, PINK, GREY = "#D55E00", "#0072B2", "#009E73", "#CC79A7", "0.55"


def titled(ax: plt.Axes, title: str, x: str = "step", y: str | None = None) -> None:
    """Write a title and name the axes."""
    ax.set_title(title, loc="left", fontweight="bold")
    ax.set(xlabel=x, ylabel=y)


# %% [markdown]
# ## 1. Down the bowl with the full gradient
#
# The function has two variables,
#
# $$f(x_1, x_2) = x_1^2 + 2 x_2^2, \qquad \nabla f = (2 x_1,\; 4 x_2),$$
#
# and its minimum, 0, at the origin. A **step** of gradient descent goes against the gradient, by $\eta$ times it. We
# start at $(-5, -2)$ and take twenty steps at $\eta = 0.1$. By hand:

# %%
x1, x2 = -5.0, -2.0
for _ in range(20):
    x1, x2 = x1 - RATE * 2 * x1, x2 - RATE * 4 * x2
print(f"by hand:     epoch 20, x1: {x1:f}, x2: {x2:f}")

x = torch.nn.Parameter(torch.tensor([-5.0, -2.0], dtype=torch.float64))
optimizer = SGD([x], lr=RATE)
for _ in range(20):
    optimizer.zero_grad()
    (x[0] ** 2 + 2 * x[1] ** 2).backward()
    optimizer.step()
print(f"torch.optim: epoch 20, x1: {x[0].item():f}, x2: {x[1].item():f}")

quiet = simulate(PLANE, partial(SGD, lr=RATE), steps=20)
print(f"simulate:    {quiet.last_point()}")

assert quiet.last_point() == "epoch 20, x1: -0.057646, x2: -0.000073"
assert math.isclose(x1, -5 * 0.8**20, rel_tol=1e-12)
assert math.isclose(x2, -2 * 0.6**20, rel_tol=1e-12)
assert torch.equal(quiet.last[0], x.detach())  # the same numbers, to the last bit
assert abs(quiet.last[0, 0].item() - x1) < 1e-12

# %% [markdown]
# Three times the same. `simulate` is what we use from here on: it runs a real `torch.optim` optimizer on a function
# (`PLANE` is ours), keeps the whole **trace**, start included, and can do thousands of runs at once.
#
# Look at one coordinate. A step takes $x_1$ to $x_1 - 0.1 \cdot 2 x_1 = 0.8\, x_1$: **the distance is multiplied by
# $1 - \eta h$**, where $h$ is the **curvature**, the second derivative, here 2 along $x_1$ and 4 along $x_2$. Twenty
# steps multiply by $0.8^{20}$ and $0.6^{20}$. That is why the steep direction is done first.

# %%
trace_contours(PLANE.value, {"full gradient": quiet.trace()}, minimum=PLANE.minimum)
assert quiet.trace().shape == (21, 2)  # steps + 1 points
assert 1 - RATE * 2 == 0.8
assert 1 - RATE * 4 == 0.6

# %% [markdown]
# *What to look at.* The points lie ever closer together: the step shrinks by itself because the gradient does. The path
# bends, as $x_2$ is done before $x_1$.
#
# ## 2. Now the gradients are wrong
#
# On a large data set nobody computes the full gradient. A few samples give an *estimate*: right on average, off by
# chance each time. So put noise on it. Each component of each gradient gets a number drawn from $N(0, 1)$, a bell
# curve of mean 0 and **standard deviation** $\sigma = 1$, and everything else stays as it was. Fifty steps, one run:

# %%
single = simulate(PLANE, noise=Gaussian(1.0), steps=50, seed=4)  # SGD with lr=0.1 is the default
print(single.last_point())
assert PLANE.gradient(single.trace()[0]).tolist() == [-10.0, -8.0]  # at the start, ten and eight times the noise
trace_contours(
    PLANE.value,
    {"noise on the gradient": single.trace(), "full gradient": quiet.trace()},
    minimum=PLANE.minimum,
)

# %% [markdown]
# *What to look at.* At first there is little difference, as the gradient is about ten times the noise. Near the bottom
# the gradient goes to zero, the noise does not, and the run strays about.
#
# One run shows one accident. To see what is no accident, do 20 000 of them, each with noise of its own (it takes a
# second or two), and look at where they are after 1, 5, 20 and 50 steps. A cloud of points is told by its **mean** and
# by its **variance**, the mean square of the distances from the mean, in each direction.

# %%
cloud = simulate(PLANE, noise=Gaussian(1.0), steps=50, runs=RUNS, traces=1000)
print(cloud)
print(f"{'step':>4} {'mean x1':>9} {'mean x2':>9} {'var x1':>8} {'var x2':>8} {'mean f':>8}")
for step in (1, 5, 20, 50):
    mean, variance = cloud.moments.mean[step], cloud.moments.variance[step]
    print(f"{step:4} {mean[0]:9.4f} {mean[1]:9.4f} {variance[0]:8.4f} {variance[1]:8.4f}", end=" ")
    print(f"{cloud.moments.loss[step]:8.4f}")

assert cloud.at.tolist() == list(range(51))  # statistics are here for every step
assert cloud.moments.mean[50].abs().max() < 0.01  # the mean has arrived
assert all(abs(cloud.moments.variance[50, i] / cloud.moments.variance[20, i] - 1) < 0.1 for i in (0, 1))

# %% [markdown]
# The mean walks to the minimum as if there were no noise. The variances do not go to zero: from step 20 to step 50 they
# hardly change. **A constant rate never settles.** It settles into a cloud.
#
# ## 3. The law, in two lines
#
# Can the cloud be foretold? Take one coordinate, of curvature $h$. With a fresh draw $\varepsilon$ of $N(0, 1)$ the
# step is
#
# $$x \;\leftarrow\; x - \eta\,(h x + \sigma \varepsilon) \;=\; (1 - \eta h)\, x \;-\; \eta \sigma\, \varepsilon .$$
#
# *The mean.* On average $\varepsilon$ is 0, so the mean $m$ moves as a run without noise does.
#
# *The variance.* Multiplying by $1 - \eta h$ multiplies every distance from the mean by it, and so the variance by its
# **square**. The new noise has the variance $\eta^2\sigma^2$. It knows nothing of where $x$ is, and variances of things
# that know nothing of each other **add**:
#
# $$\boxed{\; m_k = (1 - \eta_k h)\, m_{k-1}, \qquad v_k = (1 - \eta_k h)^2\, v_{k-1} + \eta_k^2 \sigma^2 \;}$$
#
# That is all. ($\eta_k$, because each step may have its own rate; we will need it.) A sum of normal numbers is normal,
# so mean and variance say everything: after each step the cloud is a normal distribution with *exactly* these two.
# The mean of the loss follows, as the mean of $x^2$ is $m^2 + v$:
#
# $$\mathbb{E} f = \tfrac12 \sum_i h_i\, (m_i^2 + v_i).$$


# %%
def law(rates: list[float], h: float, start: float, variance_of_noise: float = 1.0) -> tuple[float, float]:
    """Return mean and variance of one coordinate after the steps."""
    m, v = start, 0.0
    for rate in rates:
        m, v = (1 - rate * h) * m, (1 - rate * h) ** 2 * v + rate**2 * variance_of_noise
    return m, v


by_hand = [law([RATE] * 50, h, start) for h, start in ((2.0, -5.0), (4.0, -2.0))]
exact = exact_law(PLANE, [RATE] * 50, noise=Gaussian(1.0))  # the same recursion, for any quadratic
off = distance(cloud)  # how far the 20 000 runs are from it
print("variances, by hand:    ", [round(v, 6) for _, v in by_hand])
print("variances, exact_law:  ", [round(v, 6) for v in exact.variance[50].tolist()])
print("variances, 20 000 runs:", [round(v, 6) for v in cloud.moments.variance[50].tolist()])
print(f"mean loss: {exact.loss[50]:.6f} by the law, {cloud.moments.loss[50]:.6f} in the runs")
print(f"largest distance after 50 steps: {off.worst[50]:.1f} standard errors; at any step {off.worst.max():.1f}")

for i, (m, v) in enumerate(by_hand):
    assert math.isclose(m, exact.mean[50, i].item(), rel_tol=1e-9)
    assert math.isclose(v, exact.variance[50, i].item(), rel_tol=1e-9)
assert off.worst[50] < 4  # of five numbers: two means, two variances, the mean loss

# %% [markdown]
# A mean over 20 000 runs is itself a little off by chance. How far it is usually off is its **standard error**, here
# $\sqrt{v/20000}$ for a mean. Within 4 of them is as near as a simulation can be expected to come: a true law is missed
# by more about once in 16 000 looks at one number.

# %%
TURN = torch.linspace(0, 2 * math.pi, 200)
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained", sharex=True, sharey=True)
for ax, step in zip(axes, (1, 5, 20, 50), strict=True):
    points = cloud.traces[:, step]
    mean, deviation = exact.mean[step], exact.variance[step].sqrt()
    ax.plot(points[:, 0], points[:, 1], ".", ms=2, color=BLUE, alpha=0.4)
    ax.plot(mean[0] + 2 * deviation[0] * TURN.cos(), mean[1] + 2 * deviation[1] * TURN.sin(), color=VERMILION, lw=2)
    ax.plot(0, 0, "+", color="black", ms=12, mew=2)
    inside = float((((points - mean) / deviation).square().sum(-1) < 4).double().mean())
    titled(ax, f"Step {step}: {inside:.1%} inside", "x₁", "x₂" if step == 1 else None)
    assert abs(inside - (1 - math.exp(-2))) < 4 * math.sqrt(0.865 * 0.135 / 1000)

# %% [markdown]
# *What to look at.* A thousand of the runs, the minimum (cross), and in orange the law: the ellipse of two standard
# deviations, in which a normal distribution has $1 - e^{-2} \approx 86.5\,\%$ of its points. The cloud begins as a
# point, grows, moves in, and from step 20 on it stands still, though every run in it keeps moving.
#
# **How large does it stay?** Where nothing changes any more, $v_k = v_{k-1} = v$:
#
# $$v = (1 - \eta h)^2 v + \eta^2\sigma^2
#   \quad\Longrightarrow\quad v\,\big(2\eta h - \eta^2 h^2\big) = \eta^2\sigma^2
#   \quad\Longrightarrow\quad \boxed{\; v_\infty = \frac{\eta\,\sigma^2}{h\,(2 - \eta h)} \;}$$
#
# and with it the mean loss comes to rest at the **floor**
#
# $$\mathbb{E} f_\infty = \sum_i \tfrac12 h_i v_i = \frac{\eta\sigma^2}{2} \sum_i \frac{1}{2 - \eta h_i} .$$
#
# For a small rate this is proportional to $\eta$. And it needs $\eta h < 2$: beyond that the formula turns negative,
# which is its way of saying that nothing comes to rest.

# %%
settled = stationary_law(PLANE, RATE, Gaussian(1.0))
print("variances at rest:", settled.variance.tolist(), f"floor {settled.loss:.6f}")

for v, h in zip(settled.variance.tolist(), (2.0, 4.0), strict=True):
    assert math.isclose(v, RATE / (h * (2 - RATE * h)))
assert math.isclose(settled.loss.item(), RATE / 2 * (1 / 1.8 + 1 / 1.6))
assert round(settled.loss.item(), 3) == 0.059
assert torch.allclose(exact.variance[50], settled.variance, rtol=1e-6)

# %% [markdown]
# ## 4. A smaller rate: a lower floor, later
#
# So halve the rate? The floor comes down by half, and the mean takes twice as long to arrive. The table is the law;
# the crosses in the picture are simulations of 2000 runs.

# %%
RATES = (0.4, 0.2, 0.1, 0.05, 0.025)
floors, arrivals, measured = {}, {}, {}
print(f"{'rate':>6} {'floor':>8} {'floor/rate':>11} {'steps to 1.1 × floor':>22}")
for rate in RATES:
    floors[rate] = stationary_law(PLANE, rate, Gaussian(1.0)).loss.item()
    losses = exact_law(PLANE, [rate] * 200, noise=Gaussian(1.0)).loss
    arrivals[rate] = int((losses <= 1.1 * floors[rate]).nonzero()[0])
    measured[rate] = simulate(PLANE, partial(SGD, lr=rate), noise=Gaussian(1.0), steps=200, runs=2000)
    print(f"{rate:6} {floors[rate]:8.4f} {floors[rate] / rate:11.3f} {arrivals[rate]:22}")

assert all(distance(ensemble).worst[-1] < 4 for ensemble in measured.values())
assert [arrivals[rate] for rate in RATES] == [5, 8, 19, 44, 97]
assert 2 < floors[0.05] / floors[0.025] < 2.1  # proportional where the rate is small
assert floors[0.4] / floors[0.2] > 4  # and worse than that near the limit 2/h = 0.5

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
shades = dict(zip((0.4, 0.1, 0.025), (VERMILION, BLUE, GREEN), strict=True))
for rate, colour in shades.items():
    left.semilogy(exact_law(PLANE, [rate] * 200, noise=Gaussian(1.0)).loss, color=colour, label=f"η = {rate}")
    left.axhline(floors[rate], color=colour, lw=1, ls="--")
left.legend(frameon=False)
titled(left, "Fast to a high floor, slowly to a low one", "step", "E f, log scale")
fine = np.geomspace(0.02, 0.45, 200)
right.loglog(fine, [stationary_law(PLANE, rate, Gaussian(1.0)).loss for rate in fine], color="black", label="the law")
right.loglog(fine, fine / 2, color=GREY, ls=":", label="η/2")
right.loglog(
    RATES, [run.moments.loss[-1] for run in measured.values()], "x", color=BLUE, ms=9, mew=2, label="2000 runs"
)
right.set_xticks(RATES, [str(rate) for rate in RATES])
right.minorticks_off()
right.legend(frameon=False)
titled(right, "The floor over the rate", "η, log scale", "E f at rest, log scale")

# %% [markdown]
# *What to look at.* Left: every curve falls, then lies flat on its floor (dashed). At step 10 the largest rate is
# already at rest, at step 200 the smallest is fifty times below it. Right: for small rates the floor is the
# straight line $\eta/2$ ($\sigma = 1$, two variables); towards $\eta = 2/h = 0.5$ it goes up without bound.
#
# No constant rate is good all the way. Large first and small later would be: that is a **schedule**.

# %%
assert exact_law(PLANE, [0.4] * 10, noise=Gaussian(1.0)).loss[10] < 1.02 * floors[0.4]
assert 45 < floors[0.4] / measured[0.025].moments.loss[-1] < 55

# %% [markdown]
# ## 5. Too fast: the exponential rate stops too early
#
# Multiply the rate by the same factor at every step, $\eta_t = 0.1\, e^{-0.1 t}$, and give it a thousand steps. The
# noise dies out soon. And then:

# %%
FADING = Exponential(0.1)
faded = simulate(PLANE, schedule=FADING, noise=Gaussian(1.0), steps=1000, runs=RUNS)
after_50 = exact_law(PLANE, RATE * FADING(torch.arange(2, 52)), noise=Gaussian(1.0))
final = distance(faded).law
print(faded)
print(f"by the law: mean of x1 {after_50.mean[50, 0]:.3f} after 50 steps, {final.mean[-1, 0]:.3f} after 1000 steps")
print(f"mean f {final.loss[-1]:.3f}; the constant rate was at {settled.loss:.3f} after 50 steps")

assert round(final.mean[-1, 0].item(), 3) == -0.826
assert abs(faded.moments.mean[-1, 0].item() + 0.826) < 0.005
assert distance(faded).worst[-1] < 4
assert round(after_50.mean[50, 0].item(), 3) == -0.835
assert abs(final.mean[-1, 0] - after_50.mean[50, 0]) < 0.01
assert final.loss[-1] > 10 * settled.loss
assert final.variance[-1].max() < 0.25 * settled.variance.max()

# %% [markdown]
# The mean stalls at $x_1 = -0.826$, and the last 950 of the 1000 steps moved it by less than 0.01. More steps would not
# help either. The law says why: the mean is multiplied by $1 - \eta_t h$ at every step, and for small rates
#
# $$m_n = m_0 \prod_{t} (1 - \eta_t h) \;\approx\; m_0\, \exp\!\Big(-h \sum_t \eta_t\Big).$$
#
# So **the sum of the rates is how far you can get**, and that of an exponential is finite: a geometric series. All the
# infinitely many steps together have it in them to shrink the distance by a certain factor, and no more. Schedules know
# their sums:

# %%
reach = RATE * FADING.sum(first=2)
product = math.prod(1 - RATE * FADING(t) * 2 for t in range(2, 1002))
print(f"sum of all rates {reach:.4f}; exp(-h sum) = {math.exp(-2 * reach):.4f}, the product itself {product:.4f}")
assert round(reach, 2) == 0.86
assert math.isclose(-5 * product, final.mean[-1, 0].item(), rel_tol=1e-9)
assert math.isclose(math.exp(-2 * reach), product, rel_tol=0.1)

for first in (0, 1, 2):
    rates = RATE * FADING(torch.arange(first, first + 1000))
    print(f"first step at t = {first}: x1 stalls at {exact_law(PLANE, rates, at=[1000]).mean[0, 0]:.3f}")
assert round(exact_law(PLANE, RATE * FADING(torch.arange(1, 1001)), at=[1000]).mean[0, 0].item(), 3) == -0.676

# %% [markdown]
# **Which $t$ has the first step?** torch's schedulers count from 0. The published runs of this experiment count from 1
# and raise the counter *before* they use it, so that their first step has $t = 2$; `simulate(first=2)` is the default
# for that reason, and `first=0` is torch. Usually it does not matter. Here one off makes $-0.676$ of $-0.826$, a handy
# test of somebody's code.
#
# ## 6. As slowly as it has to be
#
# The rate must go down, or the noise stays; and its sum must be infinite, or the mean stalls. Is there anything
# between? Powers of $t$:
#
# | schedule | factor of the base rate | here |
# |---|---|---|
# | inverse | $1/(1 + \beta t)$ | $\beta = 0.1$ |
# | polynomial | $(1 + \beta t)^{-\alpha}$ | $\beta = 0.1$, $\alpha = ½$ and $¾$ |
# | exponential | $e^{-\lambda t}$ | $\lambda = 0.1$ |
# | piecewise constant | a factor less at chosen steps | ÷10 every 20 steps; or by hand |
#
# H. Robbins and S. Monro asked in 1951 for two sums:
#
# $$\sum_t \eta_t = \infty \quad\text{(you can get anywhere)}, \qquad
#   \sum_t \eta_t^2 < \infty \quad\text{(all the noise you will ever take in is finite)}.$$
#
# The second because each step adds $\eta_t^2\sigma^2$ to the variance. A power $t^{-\alpha}$ has both for
# $\frac12 < \alpha \le 1$.

# %%
SCHEDULES = {
    "constant": Constant(),
    "inverse": Inverse(0.1),
    "polynomial, α = ½": Polynomial(0.1),
    "polynomial, α = ¾": Polynomial(0.1, alpha=0.75),
    "exponential": Exponential(0.1),
    "÷10 every 20 steps": Staircase(20),
    "÷10 at 20, at 200": PiecewiseConstant(at=(20, 200), factors=(1, 0.1, 0.01)),
}
LENGTHS = (50, 1000, 10_000)
expected = {}
print(f"{'':20} {'Σ η':>6} {'Σ η²':>7} {'both as asked':>14}   E f after", *(f"{n:>8}" for n in LENGTHS))
for name, schedule in SCHEDULES.items():
    rates = RATE * schedule(torch.arange(2, 2 + LENGTHS[-1]))
    expected[name] = exact_law(PLANE, rates, noise=Gaussian(1.0), at=LENGTHS)
    sums = RATE * schedule.sum(first=2), RATE**2 * schedule.sum(power=2, first=2)
    print(
        f"{name:20} {sums[0]:6.2f} {sums[1]:7.3f} {'yes' if schedule.robbins_monro else 'no':>14}", end="            "
    )
    print(*(f"{loss:8.5f}" for loss in expected[name].loss))

best = [min(SCHEDULES, key=lambda name, i=i: expected[name].loss[i].item()) for i in range(3)]
print("lowest:", dict(zip(LENGTHS, best, strict=True)))
assert [name for name, schedule in SCHEDULES.items() if schedule.robbins_monro] == ["inverse", "polynomial, α = ¾"]
assert best == ["÷10 at 20, at 200", "÷10 at 20, at 200", "inverse"]
assert expected["inverse"].mean[0, 0] < -0.15  # after 50 steps the inverse is still on its way

# %% [markdown]
# Read the table by columns.
#
# * **After 50 steps** the inverse has lowered its rate too early, and its mean is still at $-0.15$. The slower powers
#   are lower, and lowest is the schedule set by hand: stay at 0.1 until the mean has arrived, then divide.
# * **After 1000 steps** the inverse has caught up. The staircase has stalled like the exponential: dividing by 10 for
#   ever is an exponential in stairs.
# * **After 10 000** the inverse is far ahead, and the one set by hand sits on the floor of its last rate.
#
# There is no best schedule, there is one for a number of steps. What Robbins and Monro's sums tell apart is who gets
# there *in the end*, whatever the number.
#
# (On this bowl $\alpha = ½$ gets there in the end, too, though its squares have an infinite sum: the pull to the
# minimum also shrinks old noise, and $\eta_t \to 0$ with $\sum\eta_t = \infty$ is enough. The variance follows the
# rate, $v_t \approx \eta_t\sigma^2/(2h)$, and so its loss falls only as $t^{-1/2}$. The sums are what a proof for far
# more general functions needs.)

# %%
half, late = expected["polynomial, α = ½"], RATE * Polynomial(0.1)(10_001)
print(f"α = ½: variance of x1 after 10 000 steps {half.variance[2, 0]:.6f}, rate / (2 h) = {late / 4:.6f}")
assert math.isclose(half.variance[2, 0].item(), late / 4, rel_tol=0.01)
assert 3 < half.loss[1] / half.loss[2] < 3.4  # ten times the steps, √10 less
assert expected["÷10 every 20 steps"].mean[2, 0] < -0.05
assert math.isclose(
    expected["÷10 at 20, at 200"].loss[2].item(), stationary_law(PLANE, 0.001, Gaussian(1.0)).loss.item(), rel_tol=0.01
)

# %%
schedule_curves({name: SCHEDULES[name] for name in list(SCHEDULES)[:6]}, 200, first=2)

# %% [markdown]
# *What to look at.* The constant stays, the three powers part slowly. The exponential and the staircase run down
# together.

# %%
SHOWN = ("constant", "inverse", "polynomial, α = ½", "exponential")
traces = {
    name: simulate(PLANE, schedule=SCHEDULES[name], noise=Gaussian(1.0), steps=200, runs=12, traces=12).traces
    for name in SHOWN
}
traces_side_by_side(PLANE.value, traces, minimum=PLANE.minimum)

# %% [markdown]
# *What to look at.* Twelve runs each, with the same draws of noise in all four. Under the constant rate they end
# scattered around the minimum; under the exponential one all stop on the way. The other two come in and calm down, the
# inverse the most.

# %%
ensembles = {
    name: simulate(PLANE, schedule=SCHEDULES[name], noise=Gaussian(1.0), steps=200, runs=5000, records=201)
    for name in SHOWN
}
bands = []
for name, ensemble in ensembles.items():
    low, high = ensemble.moments.loss_quantiles[:, 0], ensemble.moments.loss_quantiles[:, -1]  # 5 % and 95 %
    compared = distance(ensemble)
    columns = (ensemble.at, ensemble.moments.loss, low, high, compared.law.loss)
    bands.append(LossBand(name, *(column.tolist() for column in columns)))
    assert compared.worst[-1] < 4
loss_over_steps(bands)

inverse, polynomial = (dict(zip(SHOWN, bands, strict=True))[name].law for name in ("inverse", "polynomial, α = ½"))
assert polynomial[20] < inverse[20]
assert polynomial[-1] > inverse[-1]

# %% [markdown]
# *What to look at.* 5000 runs of each; nine out of ten are inside the band. The dashed law lies on the mean of the
# runs. The constant lies flat on its floor, the exponential flat far above it. The two powers go on falling: the
# polynomial is ahead at first, the inverse has overtaken it before step 200.
#
# To train a network with the same schedule, hand it to torch's `LambdaLR`. It counts from 0; `.shifted(2)` makes it
# count as above:

# %%
x = torch.nn.Parameter(torch.tensor([-5.0, -2.0], dtype=torch.float64))
optimizer = SGD([x], lr=RATE)
scheduler = LambdaLR(optimizer, Inverse(0.1).shifted(2))
for _ in range(50):
    optimizer.zero_grad()
    (x[0] ** 2 + 2 * x[1] ** 2).backward()
    optimizer.step()
    scheduler.step()
assert torch.equal(x.detach(), simulate(PLANE, schedule=Inverse(0.1), steps=50).last[0])

# %% [markdown]
# ## 7. Or a larger batch
#
# Where does the noise come from? In training, $f$ is a mean over $n$ samples, and a step looks at a **batch** of $b$ of
# them. The mean of $b$ independent gradients has a variance $b$ times smaller:
#
# $$\sigma^2 \;\to\; \frac{\sigma^2}{b}, \qquad\text{so the floor comes down by } b .$$
#
# A rate $b$ times smaller brings it down by about as much (section 4). Which is better? Count the *gradients of
# samples*, which are what you pay for:

# %%
print(f"{'rate':>8} {'batch':>6} {'steps':>6} {'gradients':>10} {'mean x1':>9} {'E f':>9}")
price = {}
for rate, batch, steps in ((0.1, 1, 50), (0.1, 4, 50), (0.025, 1, 200), (0.1, 16, 50), (0.00625, 1, 800)):
    end = exact_law(PLANE, [rate] * steps, noise=Gaussian(1.0, batch=batch), at=[steps])
    price[rate, batch] = end.loss[0].item()
    print(f"{rate:8} {batch:6} {steps:6} {batch * steps:10} {end.mean[0, 0]:9.5f} {end.loss[0]:9.5f}")

assert math.isclose(price[0.1, 1] / price[0.1, 4], 4, rel_tol=1e-4)
assert math.isclose(price[0.1, 1] / price[0.1, 16], 16, rel_tol=1e-4)
assert 0.85 < price[0.025, 1] / price[0.1, 4] < 1
assert 0.85 < price[0.00625, 1] / price[0.1, 16] < 1

# %% [markdown]
# For the same number of gradients both end nearly alike; the small rate is even a little lower. **What the larger batch
# buys is steps**: 50 instead of 200, 50 instead of 800. If your machine does 16 gradients at once in the time of one,
# that is 16 times faster; if it does not, you gain nothing.

# %%
GRID, BATCHES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6), (1, 4, 16)


def floor_of(rate: float, batch: int) -> float:
    """Return the floor by the law."""
    return stationary_law(PLANE, rate, Gaussian(1.0, batch=batch)).loss.item()


measured_floors = []
for batch in BATCHES:
    ends = [
        simulate(PLANE, partial(SGD, lr=rate), noise=Gaussian(1.0, batch=batch), start=(0, 0), steps=200, runs=2000)
        for rate in GRID
    ]
    seen = [end.moments.loss[-1].item() if not end.lost else math.inf for end in ends]
    errors = [(end.moments.loss_variance[-1].item() / end.runs) ** 0.5 if not end.lost else math.nan for end in ends]
    measured_floors.append(Floor(batch, GRID, seen, errors, [floor_of(rate, batch) for rate in GRID]))
noise_floor(measured_floors, law=floor_of)

assert [floor.measured[-1] for floor in measured_floors] == [math.inf] * 3  # beyond 2/h no batch is large enough
for floor in measured_floors:
    for seen, error, law in zip(floor.measured[:-1], floor.errors[:-1], floor.law[:-1], strict=True):
        assert abs(seen - law) < 4 * error
assert all(math.isclose(floor_of(rate, 1), 4 * floor_of(rate, 4)) for rate in GRID[:-1])

# %% [markdown]
# *What to look at.* Three times the same curve, each a quarter of the one above. Going left by a factor and going down
# to the next curve are two ways to one floor. Towards $\eta = 0.5$ all go up, and beyond there is none: a batch makes
# the noise smaller, not the step stable.
#
# ### Real batches
#
# So far the noise was drawn from a bell curve. Now take 64 real samples. Each is a bowl of the same shape with its
# bottom somewhere else, $f$ is their mean, and the gradient of a single sample is off by noise of variance 1 on each
# component. A batch of 8 can be drawn in three ways:
#
# * **with replacement**: 8 times any of the 64. Variance $1/8$, the law as it was.
# * **distinct**: 8 different ones. They cannot all be the same, so it is a little less: times $(n-b)/(n-1) = 56/63$.
# * **epochs**, as every data loader does it: shuffle all 64, deal them out in 8 batches, shuffle again. Each batch is
#   then like a distinct one; but together the 8 batches of an epoch are *all samples*, and what one has too much of,
#   the others lack.

# %%
bowls = Bowls.scattered(64, (2.0, 4.0), start=(-5.0, -2.0), seed=3)
lowest = bowls.value(torch.tensor([bowls.minimum], dtype=torch.float64)).item()
drawn = {}
for draw in ("replacement", "distinct", "epochs"):
    drawn[draw] = simulate(bowls, noise=Batches(8, draw), steps=80, runs=2500, records=81)
    start, middle, end = (distance(drawn[draw]).law.loss[step].item() - lowest for step in (72, 76, 80))
    print(f"{draw:12} E f above the minimum after 9, 9½ and 10 epochs: {start:.4f}, {middle:.4f}, {end:.4f}")
    assert distance(drawn[draw]).worst[-1] < 4

replacement, distinct, dealt = (distance(drawn[draw]).law.loss[-1].item() - lowest for draw in drawn)
assert math.isclose(replacement, price[0.1, 1] / 8, rel_tol=1e-3)  # as the Gaussian noise of section 3, over 8
assert math.isclose(distinct / replacement, 56 / 63, rel_tol=1e-6)
assert dealt < 0.4 * replacement

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for (draw, ensemble), colour in zip(drawn.items(), (VERMILION, BLUE, GREEN), strict=True):
    left.semilogy(ensemble.at, ensemble.moments.loss - lowest, color=colour, lw=3, alpha=0.5, label=draw)
    left.semilogy(ensemble.at, distance(ensemble).law.loss - lowest, color="black", lw=1, ls="--")
left.set_xlim(30, 80)
left.set_ylim(2e-3, 2e-2)
left.set_xticks(range(32, 81, 8))
left.legend(frameon=False, loc="upper right")
titled(
    left, "Shuffling makes the noise cancel within an epoch", "step (an epoch is 8)", "E f above the minimum, log scale"
)

HALVINGS = (0.1, 0.05, 0.025)
ends = {}
for (draw, _), colour in zip(drawn.items(), (VERMILION, BLUE, GREEN), strict=True):
    ends[draw] = []
    for rate in HALVINGS:
        steps = 8 * round(4 / rate)
        ends[draw].append(exact_law(bowls, [rate] * steps, noise=Batches(8, draw), at=[steps]).loss[0].item() - lowest)
    right.loglog(HALVINGS, ends[draw], "o-", color=colour, label=draw)
right.set_xticks(HALVINGS, [str(rate) for rate in HALVINGS])
right.minorticks_off()
right.legend(frameon=False)
titled(right, "Floor at the end of an epoch", "η, log scale", "E f above the minimum, log scale")
for draw, values in ends.items():
    print(
        f"{draw:12} each halving of the rate divides by",
        [round(a / b, 1) for a, b in itertools.pairwise(values)],
    )
assert 1.9 < ends["replacement"][1] / ends["replacement"][2] < 2.2
assert 6 < ends["epochs"][0] / ends["epochs"][1] < ends["epochs"][1] / ends["epochs"][2] < 8

# %% [markdown]
# *What to look at.* Left: coloured the runs, dashed the law. Within an epoch the green loss rises and falls again, and
# is lowest where an epoch ends. Right: there a halved rate divides the floor of independent draws by 2, and that of
# shuffled ones by 6 to 8. So shuffle, and look at the model at the end of epochs. (On these bowls the cancelling is
# perfect, as the noise of a sample does not depend on where you are. In a network it is only partial.)
#
# ## 8. Yours
#
# ### Your function
#
# Write it in torch operations of `x1` and `x2`; its gradient is found by automatic differentiation. Here is a
# **saddle**: down along $x_1$ to the origin, and from there down to either side. Start exactly on the ridge, $x_2 = 0$.

# %%
saddle = Function.of_coordinates(lambda x1, x2: x1**2 - x2**2 + x2**4 / 4, start=(-2.0, 0.0))
stuck = simulate(saddle, partial(SGD, lr=0.05), steps=200)
freed = simulate(saddle, partial(SGD, lr=0.05), noise=Gaussian(0.1), steps=200, runs=1000, traces=40)
print("full gradient:", stuck.last_point())
print(f"with noise: f = {freed.moments.loss[-1]:.4f} on average,", end=" ")
print(f"{(freed.last[:, 1] > 0).double().mean():.1%} of the runs went up, the others down")

assert stuck.last[0].abs().max() < 1e-6
assert (freed.last[:, 1].abs() > 1).all()  # every single run got away
assert freed.moments.loss[-1] < -0.99
assert 0.4 < (freed.last[:, 1] > 0).double().mean() < 0.6
trace_contours(
    saddle.value, {"noise of 0.1": freed.traces, "full gradient": stuck.traces}, frame=((-2.3, 1.0), (-2, 2))
)

# %% [markdown]
# *What to look at.* The full gradient walks along the ridge into the saddle, where it is zero, and stays. The noise
# tips every run off the ridge to one side or the other. Noise is not only a nuisance.
#
# ### Your optimizer
#
# Anything in `torch.optim` that treats every number by itself. Rosenbrock's function is a valley bent like a banana:
# plain SGD can take only small steps, as the walls are steep, and then creeps along the bottom. Adam divides each
# component by its usual size:

# %%
valley = Rosenbrock()
creeping = simulate(valley, partial(SGD, lr=0.001), noise=Gaussian(1.0), steps=2000, runs=200, traces=1)
adaptive = simulate(valley, partial(Adam, lr=0.03), noise=Gaussian(1.0), steps=2000, runs=200, traces=1)
for name, ensemble in (("SGD", creeping), ("Adam", adaptive)):
    print(f"{name:5} mean f after 2000 steps: {ensemble.moments.loss[-1]:.4f}; {ensemble.lost} of 200 runs diverged")
trace_contours(
    valley.value,
    {"SGD, η = 0.001": creeping.trace(), "Adam, η = 0.03": adaptive.trace()},
    minimum=valley.minimum,
    frame=((-2, 2), (-1, 3)),
)
assert creeping.lost == adaptive.lost == 0
assert adaptive.moments.loss[-1] < 0.05 < 0.1 < creeping.moments.loss[-1]

# %% [markdown]
# *What to look at.* Both are in the valley at once. After 2000 steps SGD is still on its way to the minimum, Adam has
# arrived and strays about there: Adam has a floor, too. (An optimizer that would mix the runs of an ensemble, such as
# LBFGS, is refused, and the error says why.)
#
# ### Your guard
#
# At $\eta = 0.6$ the steep direction has $\eta h = 2.4$, above 2: each step lands farther out than it began. `simulate`
# takes the policies of this library, and applies them to each run by itself (what they do: [drift](drift.ipynb)).

# %%
wild = simulate(PLANE, partial(SGD, lr=0.6), noise=Gaussian(1.0), steps=50, runs=2000)
guarded = simulate(PLANE, partial(SGD, lr=0.6), noise=Gaussian(1.0), steps=50, runs=2000, policy=Throttle(chi=1.0))
print("no guard:", wild, "", "throttled:", guarded, sep="\n")

assert wild.lost == 2000
assert stationary_law(PLANE, 0.6, Gaussian(1.0)).loss == math.inf
assert guarded.lost == 0
assert guarded.shortened > 0.99
assert abs(guarded.moments.loss[-1] - 0.35) < 0.03
assert round(settled.loss.item(), 3) == 0.059

# %% [markdown]
# All runs diverge without it, none with it. But compare the mean loss, 0.35, with the 0.059 of section 3: a guard keeps
# a step inside, it does not take the noise out. For that it needs a schedule, like everybody.
#
# ### Your rule
#
# A step is a function: from where you are, the gradient, the rate and whatever you remembered, to where you go and
# whatever you want to remember. An old idea to try: keep the rate constant, let the run stray about, and *report the
# mean of where it has been* (B. Polyak and D. Ruppert). The rule moves a hidden point, and its answer is the mean so
# far:


# %%
def averaged(x, gradient, rate, memory):
    """Step a hidden point, and go to the mean of all places where it has been."""
    hidden, total, count = memory or (x, torch.zeros_like(x), 0)
    hidden = hidden - rate * gradient(hidden)
    memory = (hidden, total + hidden, count + 1)
    return memory[1] / memory[2], memory


means = simulate(PLANE, Rule(averaged, lr=RATE), noise=Gaussian(1.0), steps=1000, runs=2000)
at_1000 = {name: expected[name].loss[1].item() for name in ("constant", "inverse")}
print(f"E f after 1000 steps: constant rate {at_1000['constant']:.5f}, inverse {at_1000['inverse']:.5f},", end=" ")
print(f"constant rate, averaged {means.moments.loss[-1]:.5f}")
assert means.moments.loss[-1] < at_1000["constant"] / 50
assert means.moments.loss[-1] < 1.5 * at_1000["inverse"]

# %% [markdown]
# More than fifty times below the floor, with no schedule at all: strays to all sides cancel in the mean.
#
# ## 9. When the law does not hold
#
# * **No bowl.** The two lines need a gradient that is a straight line in $x$. On Rosenbrock or the saddle there is only
#   the simulation. Close to a minimum every smooth function is nearly a bowl, and there the law is nearly right.
# * **Another optimizer.** Momentum, Adam, a rule of your own, a guard: the law is that of plain SGD. `distance` refuses
#   instead of comparing apples with pears.
# * **Noise that depends on where you are.** In a regression, the farther off, the noisier. `exact_law` still knows the
#   mean and variance of that (`LeastSquares`), though the cloud is no longer normal.
# * **Noise of rare, huge errors.** If it has no variance there is no $\sigma^2$, and none of this applies.
# * **$\eta h \ge 2$.** Nothing comes to rest.
# * **In the end is not soon.** Robbins and Monro promise a limit, no speed. An inverse schedule whose $\beta$ is too
#   large for its base rate has both sums as asked, and goes nowhere: its mean falls as $t^{-h\eta_0/\beta}$ only.

# %%
try:
    distance(adaptive)
except DescentError as error:
    print("refused:", error)
else:
    raise AssertionError("a law of Adam?")

hasty = exact_law(PLANE, RATE * Inverse(1.0)(torch.arange(2, 10_002)), noise=Gaussian(1.0), at=[1000, 10_000])
print(f"inverse with β = 1: mean of x1 {hasty.mean[0, 0]:.2f} after 1000 steps, {hasty.mean[1, 0]:.2f} after 10 000")
assert Inverse(1.0).robbins_monro
assert hasty.mean[1, 0] < -0.9
assert math.isclose(hasty.mean[1, 0] / hasty.mean[0, 0], 10**-0.2, rel_tol=0.01)  # hη₀/β = 2 · 0.1 / 1

# %% [markdown]
# ## 10. What to keep
#
# * Per coordinate of curvature $h$: $m \leftarrow (1-\eta h)\,m$ and $v \leftarrow (1-\eta h)^2 v + \eta^2\sigma^2$.
# * A constant rate settles into a cloud of variance $\eta\sigma^2/(h(2-\eta h))$; the loss has a floor proportional to
#   the rate.
# * $\sum\eta_t$ is how far the mean gets. An exponential has a finite one, and stalls.
# * $\sum\eta_t^2$ is the noise taken in. Powers $t^{-\alpha}$, $½ < \alpha \le 1$, have both as asked. Which schedule
#   is best depends on the number of steps.
# * A batch of $b$ divides the floor by $b$, for $b$ times the gradients: it saves steps, not gradients. Shuffled epochs
#   do better than independent draws.
# * `simulate`, `exact_law`, `distance`: try it on what you have. From the command line: `safestep simulate`. All that
#   the simulator takes and refuses is in `docs/noisy-descent.md`.
#
# **Sources.** A. Zhang, Z. Lipton, M. Li, A. Smola, *Dive into Deep Learning* (d2l.ai), optimization chapter,
# "Stochastic Gradient Descent": the plane, the start, the noise and the schedules. H. Robbins and S. Monro, *A
# Stochastic Approximation Method*, Annals of Mathematical Statistics 22 (1951). B. Polyak and A. Juditsky,
# *Acceleration of Stochastic Approximation by Averaging*, SIAM J. Control and Optimization 30 (1992).

# %%
if plt.get_backend().lower() != "agg":  # run as a plain script on a desktop, this opens the pictures
    plt.show()
