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
# # How far may a step go?
#
# **Tutorial 1 of 7: the idea, with plain SGD.** ([Momentum](momentum.ipynb) is the second, [Adam](adam.ipynb) the
# third, [drift](drift.ipynb) the fourth, [noisy descent](noisy_descent.ipynb) the fifth,
# [the exact radius of two classes](binary_radius.ipynb) the sixth, [the divergence](divergence.ipynb) the seventh.)
#
# You know what a gradient is, and you have met the learning rate: too small and nothing happens, too large and
# training blows up, and which is which nobody tells you beforehand. This notebook shows a length that *can* be told
# beforehand. You will
#
# 1. see why a step of gradient descent can be too long even on a perfectly smooth loss,
# 2. get the formula for how long is too long, and evaluate it by hand once,
# 3. write a training loop that keeps its steps inside,
# 4. compare runs with a **fixed** learning rate, with a **cap** on the step, and with the step **pinned** to its
#    limit,
# 5. put the guard on a model of your own.
#
# Whatever the text claims of a number is checked by an `assert` in a cell beside it.

# %%
import math
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import safestep
from safestep.experiments import find
from safestep.lab.digits import load_split, loaders
from safestep.lab.models import mlp
from safestep.lab.seeding import seed_everything
from safestep.plots import curves_of, effective_lrs, overview, step_ratios

torch.set_num_threads(1)  # sums keep their order, so that every run repeats bit for bit
SEED = 7

# %% [markdown]
# ## 1. Why a step can be too long
#
# An optimizer knows the loss only *here*: its value, its slope, perhaps its curvature. All of these are derivatives
# at one point, the first terms of a Taylor series. A step is a bet that what they say still holds at the other end.
# So ask: how far from here does the Taylor series describe the loss at all?
#
# Take the smallest case. One sample, two classes, both equally likely at the moment. A step moves the logit of the
# wrong class by $t$ against that of the right one, and the cross-entropy becomes
#
# $$\ell(t) = \log(1 + e^{t}).$$
#
# This curve is as smooth as can be, for every real $t$. Its slope is the sigmoid $\sigma(t) = 1/(1+e^{-t})$, and
# because $\sigma' = \sigma - \sigma^2$, the Taylor coefficients $\sigma(t) = c_0 + c_1 t + c_2 t^2 + \dots$ follow
# one from another:
#
# $$(n+1)\, c_{n+1} = c_n - \sum_{k=0}^{n} c_k\, c_{n-k}, \qquad c_0 = \tfrac12 .$$
#
# If neighbouring terms shrink by a factor $1/R$ per power of $t$, the series converges up to $|t| = R$ and no
# farther. (Every second coefficient is 0, so compare two apart.)

# %%
DEGREE = 31
c = [0.5]
for n in range(DEGREE - 1):
    c.append((c[n] - sum(c[k] * c[n - k] for k in range(n + 1))) / (n + 1))
# Integrating the slope gives the coefficients of log(1 + e^t) itself.
taylor = [math.log(2)] + [c[n] / (n + 1) for n in range(DEGREE)]

for n in (1, 3, 9, 27):
    print(f"sqrt|c_{n} / c_{n + 2}| = {math.sqrt(abs(c[n] / c[n + 2])):.10f}")
print(f"π                = {math.pi:.10f}")
assert abs(math.sqrt(abs(c[27] / c[29])) - math.pi) < 1e-9

# %% [markdown]
# The series ends at $\pi$. Nothing happens to the curve there; why does the series care?
#
# A logarithm breaks down where its argument is zero. $F(t) = 1 + e^{t}$ is never zero for real $t$: it is a sum of
# positive numbers. But let $t$ be a complex number $x + iy$. Then $e^{t}$ is an arrow of length $e^{x}$ turned by the
# angle $y$, and at $x = 0$, $y = \pi$ it has length 1 and points backwards: $1 + e^{i\pi} = 0$. A Taylor series
# converges in the largest *disc* without such a point, and on the real line we only walk along the disc's diameter.
# The zero at $\pm i\pi$ is off the line, invisible, and still sets the limit. That is the "ghost" in the title of the
# paper this library follows.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")

t = np.linspace(-6, 6, 400)
left.plot(t, np.log1p(np.exp(t)), color="black", lw=3, label="log(1 + eᵗ)")
for degree, shade in ((2, 0.35), (6, 0.55), (14, 0.75), (30, 0.95)):
    left.plot(t, np.polynomial.Polynomial(taylor[: degree + 1])(t), color=plt.cm.Blues(shade), label=f"degree {degree}")
for border in (-math.pi, math.pi):
    left.axvline(border, color="tab:red", ls="--", lw=1)
    left.annotate("π" if border > 0 else "−π", (border, -0.85), (4, 0), textcoords="offset points", color="tab:red")
left.set(xlim=(-6, 6), ylim=(-1, 7), xlabel="t, change of the logit gap", ylabel="loss")
left.set_title("More terms help inside ±π, and hurt outside", loc="left", fontweight="bold")
left.legend(frameon=False, loc="upper center")

WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
x, y = np.meshgrid(np.linspace(-5, 5, 300), np.linspace(-5, 5, 300))
size = np.log10(np.abs(1 + np.exp(x + 1j * y)))
shown = right.contourf(x, y, np.clip(size, -1, 2), levels=np.linspace(-1, 2, 25), cmap="Greys_r")
figure.colorbar(shown, ax=right, ticks=[-1, 0, 1, 2], label="log₁₀ |F(t)|")
right.add_patch(plt.Circle((0, 0), math.pi, fill=False, color="tab:red", ls="--", lw=1.5))
right.axhline(0, color="tab:blue", lw=1.5)
right.plot([0, 0], [math.pi, -math.pi], "o", color="tab:red")
for zero, text in ((math.pi, "zero at iπ"), (-math.pi, "zero at −iπ")):
    right.annotate(text, (0, zero), (9, 7), textcoords="offset points", color="tab:red", bbox=WHITE)
right.annotate("the steps we can take", (-4.7, 0.25), color="tab:blue", bbox=WHITE)
right.set(xlabel="real part of t", ylabel="imaginary part of t", aspect="equal")
right.set_title("F(t) = 1 + eᵗ over the complex plane", loc="left", fontweight="bold")

inside, outside = 0.8 * math.pi, 1.2 * math.pi
errors = {
    at: [abs(np.polynomial.Polynomial(taylor[: d + 1])(at) - math.log1p(math.exp(at))) for d in (6, 14, 30)]
    for at in (inside, outside)
}
assert errors[inside][0] > errors[inside][1] > errors[inside][2]  # inside, more terms are better
assert errors[outside][0] < errors[outside][1] < errors[outside][2]  # outside, they are worse

# %% [markdown]
# *What to look at.* Left: each bluer line has more terms. Between the dashed lines they close in on the black curve;
# beyond them the best-informed polynomial is the farthest off. Right: the dark spots are the zeros; the dashed circle
# is the largest disc around 0 that contains none, and the blue line is where real steps live.
#
# ## 2. Many classes, many parameters
#
# Let $\theta$ be all parameters, $v$ a direction of length 1, $z(x)$ the logits of a sample $x$, and $J(x)$ their
# derivative in $\theta$. Going a length $t$ along $v$ moves the logits by about $t\,a$ with $a = J(x)\,v$. Up to a
# part that is linear in $t$, the cross-entropy of the sample is the logarithm of the partition function
#
# $$F(t) = \sum_k w_k\, e^{a_k t}, \qquad w_k = e^{z_k} > 0 .$$
#
# For complex $t = x + iy$ the terms are arrows at the angles $a_k y$. Arrows that all lie in one open half plane
# cannot add up to zero, and they do lie in one as long as the largest angle between two of them is below $\pi$:
#
# $$|y| \cdot \Delta_a(x) < \pi, \qquad \Delta_a(x) = \max_k a_k - \min_k a_k \quad\text{(the spread)}.$$
#
# So no zero is nearer than $\pi / \Delta_a$. The worst sample of the batch decides:
#
# $$\boxed{\;\rho = \frac{\pi}{\max_x \Delta_a(x)} \quad\text{(the radius)}, \qquad
#   r = \frac{\lVert p\rVert}{\rho} = \frac{1}{\pi}\,\max_x\, \Delta\big(J(x)\,p\big) \quad\text{(the step ratio)}\;}$$
#
# where $p$ is the **displacement**: what the whole step of the optimizer adds to the parameters. $r$ has no unit and
# needs no norm. In plain words: **a step with $r = 1$ changes, for the most sensitive sample of the batch, the
# log-odds between two classes by $\pi$**, that is the odds by a factor $e^\pi \approx 23$. Half of that is careful;
# many times that, in one step, is a leap.
#
# **What this promises, and what not.** For $r < 1$ the Taylor series taken at the start of the step still describes
# the loss at its end, logits taken as linear along the step. That is no promise that the loss falls. And $r > 1$ is
# no promise of disaster: $\pi/\Delta_a$ is a lower bound (for two classes whose logits differ by $\delta$ the exact
# distance is $\sqrt{\delta^2 + \pi^2}/\Delta_a$: a sample the model is sure of forgives more). Beyond 1 you are on
# your own, that is all. And it is the softmax that is bounded here: a network with singular activations (tanh, SiLU,
# the kink of ReLU) may leave its own Taylor series earlier; the exact GELU below has none.

# %%
print(f"r = 1 changes the odds of the most sensitive sample by a factor of about {math.exp(math.pi):.1f}")

# %% [markdown]
# ## 3. Data and model
#
# Handwritten digits of 8 × 8 pixels in ten classes, a quarter of them kept for testing, and a network with two hidden
# layers.

# %%
split = load_split(SEED)
print("training images:", tuple(split.train_x.shape))
print("test images:    ", tuple(split.test_x.shape))
print("pixels from", float(split.train_x.min()), "to", float(split.train_x.max()))
print("images of each digit 0 … 9, training:", split.train_y.bincount().tolist())
print("                            test:    ", split.test_y.bincount().tolist())

seed_everything(SEED)
model = mlp()
print(model)
print("parameters:", sum(parameter.numel() for parameter in model.parameters()))
assert len(split.train_x) + len(split.test_x) == 1797

_, shown = plt.subplots(1, 10, figsize=(10, 1.5), layout="constrained")
for axis, image, digit in zip(shown, split.train_x, split.train_y, strict=False):
    axis.imshow(image.numpy().reshape(8, 8), cmap="gray_r")
    axis.set_title(int(digit))
    axis.axis("off")

# %% [markdown]
# ## 4. The step ratio by hand
#
# One batch, one gradient, one step of SGD at rate 0.5. Its displacement is $p = -0.5\,\nabla L$. The derivative $J p$
# of *all* logits along $p$ costs about three forwards: `torch.func.jvp` carries it through the network beside the
# values ("forward-mode differentiation"). No Jacobian is ever built.

# %%
x, labels = split.train_x[:128], split.train_y[:128]
nn.functional.cross_entropy(model(x), labels).backward()

theta = {name: parameter.detach() for name, parameter in model.named_parameters()}
p = {name: -0.5 * parameter.grad for name, parameter in model.named_parameters()}
logits, Jp = torch.func.jvp(lambda at: torch.func.functional_call(model, at, (x,)), (theta,), (p,))

spread = Jp.amax(dim=1) - Jp.amin(dim=1)  # one number for each sample
by_hand = float(spread.max()) / math.pi
print(f"logits {tuple(logits.shape)}, J p {tuple(Jp.shape)}, spread {tuple(spread.shape)}")
print(f"by hand:   r = {by_hand:.6f}")

# %% [markdown]
# The library does the same for you. `safestep.attach` hangs a **guard** on the optimizer. When you call
# `optimizer.step()`, it
#
# 1. copies the parameters, lets the optimizer make its step, and takes the difference: that is $p$;
# 2. measures $r$ on the batch whose gradient was used;
# 3. asks a **policy** for a scale $s$ and puts the parameters at $\theta_\text{before} + s\,p$. For $s = 1$ it writes
#    nothing.
#
# The policies of this notebook: `Watch()` ($s = 1$, only measure), `Cap(1.0)` ($s = \min(1, 1/r)$: shorten what is
# too long) and `Pin(1.0)` ($s = 1/r$: make every step exactly as long as the radius, so that the learning rate drops
# out).
#
# We want to see $r$ of every step, so the guards of this notebook measure it exactly. Left to itself a guard estimates
# $r$, and mostly measures nothing while the steps are far inside: cheap enough to leave on.

# %%
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
exact = safestep.SoftmaxRadius(method="exact")
guard = safestep.attach(model, optimizer, radius=exact, policy=safestep.Watch())

optimizer.zero_grad()
nn.functional.cross_entropy(model(x), labels).backward()
optimizer.step()
print(guard.last)
assert math.isclose(guard.last.ratio, by_hand, rel_tol=1e-4)

# %% [markdown]
# The line reads: `r proposed -> r taken`, the scale $s$, the radius `ρ`, the length `‖p‖` of the step, and the
# learning rate in effect, $s\,\eta$. Here $s = 1$, as the policy only watches.
#
# ## 5. A guarded training loop
#
# Now a learning rate that is far too large, **5.0**, and a loop like the one you already have. One line is new.

# %%
seed_everything(SEED)
train_loader, test_loader = loaders(load_split(SEED))  # 11 batches of up to 128 images; test batches of 256
model = mlp()
optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
guard = safestep.attach(model, optimizer, radius=exact, policy=safestep.Cap(1.0))  # the one new line

for epoch in range(1, 25):
    model.train()
    for x, labels in train_loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()  # the guard sees which forward this gradient came from
        optimizer.step()  # the guard measures r here and shortens the step where r > 1
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(dim=1) == labels).sum()) for x, labels in test_loader)
    accuracy = right / len(test_loader.dataset)
    if epoch in {1, 2, 4, 8, 16, 24}:
        print(f"epoch {epoch:2}: last loss {loss.item():.3f}, test accuracy {accuracy:.3f}, {guard.last}")

assert all(report.applied_ratio <= 1.001 for report in guard.history)  # no step went past the radius
assert accuracy > 0.9

# %% [markdown]
# `guard.history` holds a report of every step; printed, it is a table of the latest ones. Two pictures come with it.

# %%
print(guard.history)
_, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.6), gridspec_kw={"left": 0.06, "right": 0.99, "top": 0.78, "bottom": 0.12}
)
step_ratios(guard.history, ax=left)
effective_lrs(guard.history, ax=right)

capped = sum(report.status is safestep.Status.CAPPED for report in guard.history)
print(f"\n{capped} of {len(guard.history)} steps were shortened.")
first = next(report.step for report in guard.history if report.ratio > 1)
print(f"The first that proposed more than the radius was step {first}; its r was {guard.history[first].ratio:.3f}.")
assert guard.history[0].effective_lr == 5.0
assert guard.history[0].radius > 10 * guard.history[-1].radius
assert max(guard.history["effective_lr"][-11:]) < 1.0  # in the last epoch

# %% [markdown]
# *What to look at.* Left: what SGD proposed at rate 5 and what was taken; the taken line never rises above the dashed
# target. Right: the rate in effect. In the first steps the logits are hardly sensitive to the parameters, the radius
# is wide and large steps are fine; as the network learns, the same step would move the logits ever more, and the
# guard takes the rate down. Nobody wrote that schedule.
#
# ## 6. Fixed, capped, pinned
#
# Seven runs from the same seed: rates 0.05, 0.5 and 5.0 left alone, the same three capped, and one pinned, which has
# no rate. They are the experiment that `safestep run digits-sgd` makes on the command line; each run is the loop
# above, with a record kept of each epoch.
#
# **Several seeds.** One seed is an anecdote. Put more into `SEEDS`, for example `[0, 1, 2, 3, 4]`, and run the rest
# again: lines become medians, with bands for the quartiles. (Or
# `safestep run digits-sgd --seeds 0,1,2,3,4 --jobs 2`.)

# %%
SEEDS = [7]

experiment = find("digits-sgd")
settings = experiment.settings()
records = [record for run in experiment.runs(settings, SEEDS) for record in experiment.execute(settings, run)]
curves = curves_of(records)
ends = {curve.label: {name: band.median[-1] for name, band in curve.columns.items()} for curve in curves}
peaks = {curve.label: max(curve.columns["max_r"].median) for curve in curves}

print(f"{'run':13} {'accuracy':>9} {'largest r':>10} {'effective lr':>13}  (after {settings.epochs} epochs)")
for curve in curves:
    end, note = ends[curve.label], "  diverged" if curve.diverged else ""
    print(f"{curve.label:13} {end['test_acc']:9.3f} {peaks[curve.label]:10.3g} {end['mean_lr']:13.3g}{note}")

# %%
overview(curves, title="SGD on digits: fixed, capped, pinned")

# %% [markdown]
# *What to look at.*
#
# * **Training loss** (top left). The fixed rate 5.0 leaves the picture at once: it diverges. The cap at the same rate
#   does not.
# * **Test accuracy** (top right). Fixed runs end anywhere between useless and good. The capped runs at 0.5 and 5.0
#   and the pinned run end together at the top.
# * **Effective rate** (bottom left). Base rates that differ tenfold are taken down to nearly the same value, and the
#   pinned run, which was told none, chooses it too. The cap at 0.05 has nothing to do and stays on the plain run.
# * **Largest r** (bottom right). Capped and pinned runs end at the line. Fixed 0.5 is past it in most epochs and
#   learns well all the same, here even down to the lowest training loss: $r > 1$ is a risk, not a verdict. Once the
#   risk comes true: in the epoch of its longest step, $r \approx 18$, the loss jumps up, and happens to come back.
#
# The next cell holds these sentences against the numbers. What is guaranteed is checked for any seeds; the rest is
# told of seed 7.

# %%
by_label = {curve.label: curve for curve in curves}
assert all(peak <= 1.001 for label, peak in peaks.items() if not label.startswith("fixed"))
if peaks["fixed 0.05"] <= 1:  # untouched inside: the same to the last bit
    assert by_label["capped 0.05"].columns == by_label["fixed 0.05"].columns

guarded = ["capped 0.5", "capped 5.0", "pin"]
accuracies, rates = ([ends[label][name] for label in guarded] for name in ("test_acc", "mean_lr"))
print(f"capped 0.5, capped 5.0 and pin: accuracy {min(accuracies):.3f} to {max(accuracies):.3f},", end=" ")
print(f"effective rate {min(rates):.3f} to {max(rates):.3f}")

if SEEDS == [SEED]:
    assert [curve.label for curve in curves if curve.diverged] == ["fixed 5.0"]
    assert peaks["fixed 0.05"] < 1
    assert min(accuracies) > 0.94
    assert max(rates) < 1.5 * min(rates)  # though the base rates differ by a factor of 10
    loss, largest = (by_label["fixed 0.5"].columns[name].median for name in ("train_loss", "max_r"))
    worst = largest.index(max(largest))
    assert sum(r > 1 for r in largest) > settings.epochs / 2
    assert loss[worst] > 2 * loss[worst - 1]
    assert loss[-1] == min(end["train_loss"] for end in ends.values())
    assert ends["fixed 0.5"]["test_acc"] > 0.9
    assert ends["capped 5.0"]["test_acc"] == accuracy  # section 5 was one of these runs

# %% [markdown]
# ## 7. Your own model and data
#
# Nothing above is special to digits. `attach` wants the module you call and the optimizer you step; the batches can
# be anything your model takes. Which outputs are **logits** is read off the gradient at them:
#
# | your model returns | you write |
# |---|---|
# | logits, alone or in a tuple, dict or object, classes last or in the second dimension | `attach(model, optimizer)` |
# | several heads | the same: $r$ is the largest over them |
# | a logit for each independent yes/no question | the same, see [Adam](adam.ipynb) |
# | anything that the guard cannot tell: it refuses | what the error names; see [momentum](momentum.ipynb) |
# | a loss alone, whose logits are never made | `attach(model, optimizer, forward=function)`: see `docs/heads.md` |
#
# Here is a model that takes two named inputs, computes its own loss and returns an object with `.logits`. Replace
# `batch` by yours.


# %%
@dataclass
class Output:
    """What the model below returns."""

    loss: torch.Tensor
    logits: torch.Tensor


class Tagger(nn.Module):
    """Gives each token of a text one of five tags; -100 marks tokens that have none, such as padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(1000, 32), nn.Linear(32, 5)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> Output:
        """Return the loss and the logits, shape `(texts, tokens, 5)`."""
        logits = self.head(self.embedding(input_ids))
        return Output(nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100), logits)


seed_everything(SEED)
batch = {"input_ids": torch.randint(0, 1000, (8, 20)), "labels": torch.randint(0, 5, (8, 20))}
batch["labels"][:, 15:] = -100  # the last five tokens of each text are padding: the guard leaves them out of r

tagger = Tagger()
optimizer = torch.optim.SGD(tagger.parameters(), lr=100.0)
guard = safestep.attach(tagger, optimizer)  # Cap(1.0) unless you say otherwise
losses = []
for _ in range(30):
    optimizer.zero_grad()
    output = tagger(**batch)
    output.loss.backward()
    optimizer.step()
    losses.append(output.loss.item())
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f};", guard.last)
assert losses[-1] < losses[0]

# %% [markdown]
# ## 8. What to keep
#
# * A step is too long when it moves the logits of some sample too far *against each other*:
#   $r = \max_x \Delta(Jp)/\pi$ against 1.
# * `safestep.attach(model, optimizer)` watches that in every step and shortens the step where needed. Inside, it
#   changes nothing.
# * `Cap` turns "which learning rate?" into "any that is not too small". `Pin` does without one.
# * Measuring every step exactly costs a good part of the step itself; the default method measures where a step may be
#   near the limit and little else (the README has the measured figures). `guard.audit()` tells what it missed on your
#   run. What you get is a bound and a record, not a better optimizer.
#
# Next: [momentum](momentum.ipynb), where the step is no longer the gradient, and [Adam](adam.ipynb), where it does
# not even point the same way. [Drift](drift.ipynb) limits steps by the curvature of the loss instead, and
# [noisy descent](noisy_descent.ipynb) asks what noise does to all of it.
# [The exact radius of two classes](binary_radius.ipynb) shows what the bound $\pi/\Delta_a$ gives away, and
# [the divergence](divergence.ipynb) how far a step moves the probabilities.
#
# **Sources.** P. Sao, *Ghosts of Softmax: Complex Singularities That Limit Safe Step Sizes in Cross-Entropy*, arXiv
# 2603.13552 (2026); the protocol of the runs follows the tutorials of github.com/piyush314/ghosts-of-softmax, where
# pin is called ρ-set.

# %%
if plt.get_backend().lower() != "agg":  # run as a plain script on a desktop, this opens the pictures
    plt.show()
