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
# # By how much did that step change the predictions?
#
# **Tutorial 7 of 7: the divergence of a step, and how well a parabola tells it.** ([SGD](sgd.ipynb), the first, limits
# steps by how far the logits move; [the exact radius of two classes](binary_radius.ipynb) is the sixth. This one needs
# neither.)
#
# A training step changes the logits of a classifier, and so its probabilities. Before anybody asks whether the change
# was good, one may ask how large it was, in a unit that means something. The usual answer is the **Kullback–Leibler
# divergence**, in nats. Computed after the step it is a fact; can it be told before? You will
#
# 1. compute the divergence of one step in two ways,
# 2. see that it starts as a parabola, whose opening is a variance,
# 3. derive how wrong the parabola can be at most, and which distribution is the worst,
# 4. hold 3000 random steps, and the worst ones, to that bound, in both directions of the divergence,
# 5. let a guard choose the length of real steps by the parabola, and check the divergence afterwards.
#
# Whatever the text claims of a number is checked by an `assert` in a cell beside it.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import safestep
from safestep.formulas.kl_divergence import softmax_divergence
from safestep.lab.digits import load_split
from safestep.lab.models import mlp
from safestep.lab.seeding import seed_everything

torch.set_num_threads(1)  # sums keep their order, so that every run repeats bit for bit
SEED = 7
VERMILION, BLUE, GREEN = "#D55E00", "#0072B2", "#009E73"

# %% [markdown]
# ## 1. Two ways to one number
#
# The logits $z$ give the probabilities $P = \mathrm{softmax}(z)$, $P_k = e^{z_k}/\sum_j e^{z_j}$. A step changes the
# logits by $a$, and we look at all of its way: at $\tau = 0$ nothing has happened, at $\tau = 1$ the step is done, and
# $P_\tau = \mathrm{softmax}(z + \tau a)$. The divergence **from before to after** is the mean, over what the model
# believed before, of the log of how much it believes less now:
#
# $$\mathrm{KL}(\tau) = \mathrm{KL}(P \,\|\, P_\tau) = \sum_k P_k \log\frac{P_k}{P_{\tau,k}} .$$
#
# It is 0 where no probability changed, and above 0 elsewhere. Now put in $\log P_{\tau,k} = z_k + \tau a_k - F(\tau)$,
# where $F(\tau) = \log\sum_k e^{z_k + \tau a_k}$. The $z_k$ cancel, and what is left is
#
# $$\mathrm{KL}(\tau) = F(\tau) - F(0) - \tau\, \mathbb{E}_P[a], \qquad \mathbb{E}_P[a] = \sum_k P_k a_k :$$
#
# how far $F$ has risen **above its own tangent**.

# %%
P = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
z, a = P.log(), torch.tensor([-1.0, 0.5, 1.5], dtype=torch.float64)


def kl(q: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Return the divergence of softmax(p) from softmax(q), by the definition."""
    log_q, log_p = q.log_softmax(-1), p.log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1)


by_definition = kl(z, z + a)
above_tangent = torch.logsumexp(z + a, 0) - torch.logsumexp(z, 0) - (P * a).sum()
print("before:", P.tolist())
print("after: ", [round(p, 3) for p in torch.softmax(z + a, 0).tolist()])
print(f"KL: {by_definition:.6f} nats by the definition, {above_tangent:.6f} above the tangent")
assert math.isclose(by_definition, above_tangent, rel_tol=1e-12)

# %% [markdown]
# ## 2. A parabola
#
# Anything that rises from its tangent starts as a parabola. Differentiate $F$ (each line is one application of the
# quotient rule; $\mathbb{E}_\tau$ is the mean with the probabilities $P_\tau$, and $\bar a = \mathbb{E}_\tau[a]$):
#
# $$F'(\tau) = \mathbb{E}_\tau[a], \qquad F''(\tau) = \mathbb{E}_\tau[(a - \bar a)^2] = \mathrm{Var}_\tau(a), \qquad
#   F'''(\tau) = \mathbb{E}_\tau[(a - \bar a)^3] .$$
#
# So $\mathrm{KL}(0) = 0$, $\mathrm{KL}'(0) = 0$, $\mathrm{KL}''(0) = \mathrm{Var}_P(a)$, and for short steps
#
# $$\boxed{\;\mathrm{KL}(\tau) \approx \tfrac12\, \tau^2\, \mathrm{Var}_P(a)\;}$$
#
# To know it one needs the probabilities *before* the step and the direction $a$. Twice the step, four times the
# divergence. The library has it as the `bend` of `softmax_divergence`; with `autograd` we can check all three
# derivatives.

# %%
mean = (P * a).sum()
variance, third = (P * (a - mean) ** 2).sum(), (P * (a - mean) ** 3).sum()
assert math.isclose(variance, softmax_divergence(z, a).bend, rel_tol=1e-12)

tau = torch.zeros((), dtype=torch.float64, requires_grad=True)
derivatives = [kl(z, z + tau * a)]
for _ in range(3):
    derivatives.append(torch.autograd.grad(derivatives[-1], tau, create_graph=True)[0])
print("KL and its derivatives at 0:", [round(value.item(), 6) for value in derivatives])
print(f"Var(a) = {variance:.6f}, third central moment = {third:.6f}")
for found, expected in zip(derivatives, (0.0, 0.0, variance, third), strict=True):
    assert abs(found.item() - expected) < 1e-12

# %% [markdown]
# ## 3. How wrong can it be?
#
# Taylor's theorem says what the parabola leaves out: one sixth of $\tau^3$ times a third derivative somewhere on the
# way. That is the third central moment of $a$ under *some* $P_\tau$. We do not know which; so how large can a third
# central moment be at all?
#
# The variable has values within an interval of length $\Delta = \max_k a_k - \min_k a_k$, the **spread**. Scale it to
# length 1. Keep the mean fixed for a moment. Then the third central moment is *linear* in the probabilities, and those
# are held by two equations (sum and mean). A linear function on such a set is largest at a corner, and at a corner no
# more than **two** probabilities are above 0. So the worst case has two values. Farther apart is worse: put them at 0
# and 1, with probabilities $1 - p$ and $p$:
#
# $$\mathbb{E}[(a - \bar a)^3] = p\,(1-p)\,(1-2p) .$$
#
# Write $u = p(1-p)$. Then $(1-2p)^2 = 1 - 4u$, and $u\sqrt{1-4u}$ is largest at $u = \tfrac16$, where it is
# $\tfrac16\cdot\tfrac1{\sqrt3}$. Back to the spread $\Delta$, and with the sixth of Taylor:
#
# $$\boxed{\;\Big|\,\mathrm{KL}(\tau) - \tfrac12\tau^2\,\mathrm{Var}_P(a)\Big| \;\le\;
#   \frac{|\tau|^3 \Delta^3}{36\sqrt3}\;}$$
#
# whatever $z$ and $a$ are, and however many classes there are.


# %%
def bound(tau: torch.Tensor | float, spread: torch.Tensor | float) -> torch.Tensor | float:
    """Return by how much the parabola can be wrong."""
    return abs(tau * spread) ** 3 / (36 * math.sqrt(3))


share = np.linspace(0, 1, 100_001)
moments = share * (1 - share) * (1 - 2 * share)
worst = (1 - 1 / math.sqrt(3)) / 2
print(f"largest third moment {moments.max():.6f} at p = {share[moments.argmax()]:.4f}")
print(f"by the formula       {1 / (6 * math.sqrt(3)):.6f} at p = {worst:.4f}")
assert math.isclose(moments.max(), 1 / (6 * math.sqrt(3)), rel_tol=1e-8)
assert abs(share[moments.argmax()] - worst) < 1e-4

taus = torch.linspace(-1.5, 1.5, 301, dtype=torch.float64)
along = kl(z, z + taus[:, None] * a)
model = taus**2 * variance / 2
spread = float(a.max() - a.min())
room = bound(taus, spread)
assert bool(((along - model).abs() <= room + 1e-15).all())

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
left.fill_between(taus, model - room, model + room, color=BLUE, alpha=0.15, lw=0, label="± |τ|³Δ³/(36√3)")
left.plot(taus, model, color=BLUE, ls="--", lw=1.7, label="parabola ½ τ² Var(a)")
left.plot(taus, along, color="black", lw=2, label="KL(before ‖ after)")
left.plot([0, 1], [0, 0], color="0.4", lw=3, marker="|", ms=9, label="the step")
left.set(xlabel="τ", ylabel="nats", ylim=(-0.15, 1.6), xlim=(-1.5, 1.5))
left.set_title("The step of section 1", loc="left", fontweight="bold")
left.legend(frameon=False, loc="upper center")
right.plot(share, moments, color="black", lw=2)
for at in (worst, 1 - worst):
    right.plot(at, at * (1 - at) * (1 - 2 * at), "o", color=VERMILION)
right.axhline(1 / (6 * math.sqrt(3)), color=VERMILION, ls="--", lw=1.2, label="±1/(6√3)")
right.axhline(-1 / (6 * math.sqrt(3)), color=VERMILION, ls="--", lw=1.2)
right.set(xlabel="p", ylabel="p (1 − p) (1 − 2p)", ylim=(-0.13, 0.15))
right.set_title("Two values: worst where p is 0.21 or 0.79", loc="left", fontweight="bold")
right.legend(frameon=False, loc="upper right")

# %% [markdown]
# *What to look at.* Left: the curve touches the parabola at 0 and leaves it to one side before and to the other side
# after, as something cubic does, always within the blue band. Right: a coin that is fair has no third moment, as it is
# symmetric, and one that always falls the same way has none either, as nothing varies. The worst is in between.
#
# ## 4. Random steps, the worst steps, and the other direction
#
# A bound may hold and yet be far too large. Two things to try: random steps of all sizes, and the worst case by
# construction, two classes with $P = (0.21, 0.79)$, ever shorter steps. In the worst case the quotient of error and
# bound must come near 1, or else there is a better constant.
#
# And the **other direction**, $\mathrm{KL}(P_\tau \,\|\, P)$, which takes the mean over what the model believes *after*
# the step? Put in logs as before and differentiate: its derivative is $\tau\,\mathrm{Var}_\tau(a)$. The parabola is the
# same! But the error is $\int_0^\tau u\,\big(\mathrm{Var}_u - \mathrm{Var}_0\big)\,du$, and the variance moves at most
# at the rate $\Delta^3/(6\sqrt3)$, so it is within
#
# $$\int_0^{|\tau|} u^2 \frac{\Delta^3}{6\sqrt3}\, du = \frac{|\tau|^3\Delta^3}{18\sqrt3} ,$$
#
# **twice** the bound of the first. Is that twice needed, or did we reckon badly?

# %%
generator = torch.Generator().manual_seed(SEED)
sizes, quotients = [], {"before ‖ after": [], "after ‖ before": []}
for classes in (2, 3, 10):
    logits = 2 * torch.randn(1000, classes, dtype=torch.float64, generator=generator)
    step = torch.randn(1000, classes, dtype=torch.float64, generator=generator)
    spreads = 10 ** (2.5 * torch.rand(1000, dtype=torch.float64, generator=generator) - 1.5)  # from 0.03 to 10
    step *= (spreads / (step.amax(1) - step.amin(1)))[:, None]
    parabola = softmax_divergence(logits, step).bend / 2
    sizes.append(spreads)
    quotients["before ‖ after"].append((kl(logits, logits + step) - parabola).abs() / bound(1.0, spreads))
    quotients["after ‖ before"].append((kl(logits + step, logits) - parabola).abs() / bound(1.0, spreads))
sizes = torch.cat(sizes)
quotients = {name: torch.cat(parts) for name, parts in quotients.items()}

coin = torch.tensor([worst, 1 - worst], dtype=torch.float64).log()
short = torch.logspace(-2, 1, 60, dtype=torch.float64)
steps = short[:, None] * torch.tensor([1.0, 0.0], dtype=torch.float64)
parabola = softmax_divergence(coin.expand(60, 2), steps).bend / 2
sharp = {
    "before ‖ after": (kl(coin, coin + steps) - parabola).abs() / bound(1.0, short),
    "after ‖ before": (kl(coin + steps, coin) - parabola).abs() / bound(1.0, short),
}
for (name, random), limit in zip(quotients.items(), (1, 2), strict=True):
    print(f"{name}: largest error / bound of 3000 random steps {random.max():.3f}, ", end="")
    print(f"of the worst case {sharp[name].max():.4f}, proven {limit}")
    assert random.max() <= limit * (1 + 1e-6)  # rounding
    assert 0.99 * limit < sharp[name].max() <= limit * (1 + 1e-6)

figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained", sharey=True)
for ax, (name, random), limit in zip(axes, quotients.items(), (1, 2), strict=True):
    ax.semilogx(sizes, random, "o", ms=2, alpha=0.25, color=BLUE, label="random steps")
    ax.semilogx(short, sharp[name], color=VERMILION, lw=2, label="P = (0.21, 0.79)")
    ax.axhline(limit, color="black", ls="--", lw=1.2, label=f"proven: {limit}")
    ax.axvline(math.pi, color=GREEN, lw=1.2, label="Δ = π, where r = 1")
    ax.set(xlabel="spread Δ of the step, nats", ylim=(0, 3.4))
    ax.set_title(f"KL({name})", loc="left", fontweight="bold")
    ax.legend(frameon=False, loc="upper right")
axes[0].set_ylabel("error of the parabola / (Δ³/(36√3))")

# %% [markdown]
# *What to look at.* No random point is above its dashed line, and the orange line meets it at the left end: both
# constants are **sharp**, the factor of two included. For long steps the bound is generous: it grows with the cube of
# the step, the error with the square at most. (Points above the orange line begin elsewhere and pass through the worst
# distribution on their way.)
#
# The green line is where the softmax radius ends: $r = \Delta/\pi = 1$. No variance is above $\Delta^2/4$, so the
# parabola is at most $\pi^2/8 \cdot r^2$ there, with an error of at most $\pi^3/(36\sqrt3)\cdot r^3$:

# %%
for r in (0.1, 0.3, 1.0):
    print(f"r = {r}: parabola at most {math.pi**2 / 8 * r**2:.4f} nats, wrong by at most {bound(1.0, math.pi * r):.4f}")
assert 1.23 < math.pi**2 / 8 < 1.24
assert 0.49 < bound(1.0, math.pi) < 0.50

# %% [markdown]
# A step with $r = 0.1$ changes no prediction by more than about a hundredth of a nat. The reverse is not so: a large
# spread on classes that nobody believes in has hardly any variance. $r$ asks for the worst that may happen to a sample,
# the divergence for what happens to the model's beliefs.
#
# ## 5. Real steps
#
# `KLRadius` measures $\tfrac12\,\mathrm{Var}_P(a)$, averaged over the batch, at each step of an optimizer, before the
# step stands. With `Pin(1.0)` each step is made just as long as a divergence of `max_kl` allows, and the learning
# rate drops out. We check it the plain way: all predictions before the step, all after, and the divergence by its
# definition. The network is not linear in its parameters, so this is more than the formulas above promise.

# %%
split = load_split(SEED)
x, labels = split.train_x[:512], split.train_y[:512]
measured, from_change = {}, {}
for wanted in (0.0001, 0.001, 0.01, 0.1):
    seed_everything(SEED)
    network = mlp()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    measured[wanted], from_change[wanted] = [], []
    radius = safestep.KLRadius(max_kl=wanted)
    with safestep.attach(network, optimizer, radius=radius, policy=safestep.Pin(1.0)):
        for _ in range(40):
            before = network(x)
            optimizer.zero_grad()
            nn.functional.cross_entropy(before, labels).backward()
            optimizer.step()
            with torch.no_grad():
                before, after = before.double(), network(x).double()
            measured[wanted].append(float(kl(before, after).mean()))
            # the parabola again, of the change that the logits did make
            from_change[wanted].append(float(softmax_divergence(before, after - before).bend.mean()) / 2)

print("wanted   median error   largest error; against the parabola of the change that came: median, largest")
for (wanted, taken), parabola in zip(measured.items(), from_change.values(), strict=True):
    off, softmax_off = (np.abs(np.array(taken) / np.array(told) - 1) for told in (wanted, parabola))
    print(f"{wanted:<8g} {np.median(off):12.1%} {off.max():15.1%}", end="")
    print(f"{np.median(softmax_off):49.1%} {softmax_off.max():8.1%}")
    assert np.median(off) < 0.2
    assert off.max() > 2 * softmax_off.max()  # where it is far off, the network is to blame, not the parabola
    assert softmax_off.max() < 0.3
    assert np.argmax(off) < 20
assert max(measured[0.0001]) < 2 * 0.0001

figure, ax = plt.subplots(figsize=(7, 4.4), layout="constrained")
for (wanted, taken), colour in zip(measured.items(), (BLUE, GREEN, "#CC79A7", VERMILION), strict=True):
    ax.semilogy(range(1, 41), taken, "o-", ms=3, lw=1, color=colour, label=f"wanted {wanted:g}")
    ax.axhline(wanted, color=colour, ls="--", lw=1)
ax.set(xlabel="step", ylabel="mean KL(before ‖ after), nats")
ax.set_title("Foretold (dashed) and measured", loc="left", fontweight="bold")
ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))

# %% [markdown]
# *What to look at.* Most steps change the predictions by what was asked, over three powers of ten. The misses come
# early, and the last column of the table says why: of the change that the logits *did* make, the parabola tells the
# divergence to about a fifth at worst. What it was not told is that the network bends, so that its logits do not change
# in proportion to the step. No bound above speaks of that. Shorter steps are the remedy: the shortest here, of 0.0001
# nats, are never far off.
#
# ## 6. What to keep
#
# * $\mathrm{KL}(P \,\|\, P_\tau)$ is how far the log of the partition function rises above its tangent.
# * To second order it is $\tfrac12\tau^2\,\mathrm{Var}_P(a)$, in both directions, told before the step.
# * With $\Delta$ the spread of $a$ the error is at most $|\tau|^3\Delta^3/(36\sqrt3)$ from before to after, twice that
#   from after to before. Both are sharp: two classes, $P = (0.21, 0.79)$, short steps.
# * That is about the softmax, the logits taken as linear along the step. The network's own bend comes on top.
# * `KLRadius(max_kl)` with `Cap(1.0)` or `Pin(1.0)` limits steps by it. `docs/policy-optimisation.md` has it against an
#   older policy, where it is mostly used.
#
# **Sources.** P. Sao, *Ghosts of Softmax: Complex Singularities That Limit Safe Step Sizes in Cross-Entropy*, arXiv
# 2603.13552 (2026), and its public tutorials (github.com/piyush314/ghosts-of-softmax), where the question is from; the
# derivations are written anew. S. Kullback and R. Leibler, *On Information and Sufficiency*, Annals of Mathematical
# Statistics 22 (1951). J. Schulman et al., *Trust Region Policy Optimization*, ICML 2015, for limiting steps by it.

# %%
if plt.get_backend().lower() != "agg":  # run as a plain script on a desktop, this opens the pictures
    plt.show()
