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
# # The step is not the gradient
#
# **Tutorial 2 of 7: SGD with momentum.** ([SGD](sgd.ipynb) is the first and explains where the formulas come from,
# [Adam](adam.ipynb) is the third, [drift](drift.ipynb) the fourth, [noisy descent](noisy_descent.ipynb) the fifth.)
#
# In the first tutorial the displacement of a step was $p = -\eta\,\nabla L$, and its step ratio
# $r = \max_x \Delta(J p)/\pi$ said how far that is: inside for $r < 1$, with $\Delta$ the spread (largest minus
# smallest) of the change $J p$ of a sample's logits. With momentum the gradient is only a part of the step, and in
# most steps the part that goes less far. You will
#
# 1. watch the momentum buffer build up, and see what it does to the length of a step,
# 2. measure, at every step of a run, the gradient's own share beside the whole step, and find steps where only one of
#    them is inside,
# 3. compare fixed and capped runs at rates from 0.05 to 2.0,
# 4. check what the cap does to the buffer, and what Nesterov's variant changes,
# 5. guard a model of your own, and see what is refused.
#
# Whatever the text claims of a number is checked by an `assert` in a cell beside it.

# %%
import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from torch import nn

import safestep
from safestep.experiments import find
from safestep.formulas.softmax_ratio import spread, step_ratio
from safestep.lab.digits import load_split, loaders
from safestep.lab.models import mlp
from safestep.lab.seeding import seed_everything
from safestep.plots import curves_of, overview

torch.set_num_threads(1)  # sums keep their order, so that every run repeats bit for bit
SEED = 7

# %% [markdown]
# ## 1. What momentum adds
#
# Momentum keeps a buffer $b$ of past gradients $g$, each new one added to what is left of the old ones:
#
# $$b_n = \mu\, b_{n-1} + g_n, \qquad p_n = -\eta\, b_n = -\eta\,(g_n + \mu\, g_{n-1} + \mu^2 g_{n-2} + \dots).$$
#
# If the gradients all pointed the same way, the buffer would grow to $1 + \mu + \mu^2 + \dots = 1/(1-\mu)$ of them:
# with $\mu = 0.9$ steps **ten times** as long as the learning rate says. If they point to and fro, it stays short.
# Which of the two happens changes from step to step, and no learning rate knows.
#
# What does that mean for $r$? The logit change of the whole step is the sum of two parts,
# $J p_n = -\eta\, J g_n - \eta\mu\, J b_{n-1}$, and a spread of a sum is at most the sum of the spreads:
#
# $$r(\text{whole step}) \;\le\; r(\text{gradient's share}) + r(\text{buffer's share}).$$
#
# Nothing more can be said in general. The two parts can add up, or cancel. The radius bounds the loss along the
# direction in which the parameters *really* move, so it is the whole step that has to be measured. The guard does
# just that: it takes the difference of the parameters before and after `optimizer.step()`, and asks no optimizer how
# it came about.
#
# ## 2. Data and model
#
# The digits of the first tutorial: 8 × 8 pixels, ten classes, a quarter for testing. Below is the mean image of each
# class.

# %%
split = load_split(SEED)
print("training images:", tuple(split.train_x.shape), " test images:", tuple(split.test_x.shape))
print("training images of each digit 0 … 9:", split.train_y.bincount().tolist())
seed_everything(SEED)
model = mlp()
print(model)
print("parameters:", sum(parameter.numel() for parameter in model.parameters()))

_, shown = plt.subplots(1, 10, figsize=(10, 1.5), layout="constrained")
for digit, axis in enumerate(shown):
    mean = split.train_x[split.train_y == digit].mean(dim=0)
    axis.imshow(mean.numpy().reshape(8, 8), cmap="gray_r")
    axis.set_title(digit)
    axis.axis("off")

# %% [markdown]
# ## 3. A training loop that looks at both
#
# The rate is 0.05, which plain SGD found far too small. The guard only watches here (`Watch()`), so this run is what
# it would be without it. Before each step the loop also asks how far two *imagined* steps would go: the gradient's
# share $-\eta g_n$ and the buffer's share $-\eta\mu b_{n-1}$.


# %%
def ratio_along(p: dict[str, torch.Tensor]) -> float:
    """Return r of any displacement of `model`, a tensor for each parameter name, on the batch `x`."""
    theta = {name: parameter.detach() for name, parameter in model.named_parameters()}
    _, change = torch.func.jvp(lambda at: torch.func.functional_call(model, at, (x,)), (theta,), (p,))
    return step_ratio(float(spread(change).max()))


def length(tensors) -> float:
    """Return the Euclidean length of all tensors together."""
    return math.hypot(*(float(tensor.norm()) for tensor in tensors))


LR, MU = 0.05, 0.9
seed_everything(SEED)
train_loader, test_loader = loaders(split)
model = mlp()
optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MU)
exact = safestep.SoftmaxRadius(method="exact")  # r of every step; by default a guard measures as little as it can
guard = safestep.attach(model, optimizer, radius=exact, policy=safestep.Watch())

buffer = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}  # our own copy of b
gradient_lengths, buffer_lengths, gradient_ratios, buffer_ratios = [], [], [], []
for _ in range(20):
    model.train()
    for x, labels in train_loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()

        gradient = {name: parameter.grad for name, parameter in model.named_parameters()}
        gradient_ratios.append(ratio_along({name: -LR * g for name, g in gradient.items()}))
        buffer_ratios.append(ratio_along({name: -LR * MU * b for name, b in buffer.items()}))
        buffer = {name: MU * buffer[name] + gradient[name] for name in buffer}
        gradient_lengths.append(length(gradient.values()))
        buffer_lengths.append(length(buffer.values()))

        optimizer.step()  # the guard measures the whole step, whatever it is made of
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(dim=1) == labels).sum()) for x, labels in test_loader)
accuracy = right / len(split.test_y)
whole_ratios = guard.history["ratio"]
print(f"test accuracy after 20 epochs: {accuracy:.3f}")

for name, parameter in model.named_parameters():  # our buffer is torch's
    assert torch.allclose(buffer[name], optimizer.state[parameter]["momentum_buffer"], rtol=1e-4, atol=1e-6)
for whole, of_gradient, of_buffer in zip(whole_ratios, gradient_ratios, buffer_ratios, strict=True):
    assert whole <= 1.001 * (of_gradient + of_buffer)  # the inequality of section 1

# %% [markdown]
# ### The buffer builds up
#
# The first twelve steps: the buffer grows against the gradient, but stays under the ceiling $(1 - \mu^n)/(1-\mu)$
# that it would reach if all gradients so far had been the same. Beside it, $r$ of both shares and of the whole.

# %%
print("step   ‖b‖/‖g‖   ceiling   r gradient   r buffer   r whole step")
for n in range(12):
    growth, ceiling = buffer_lengths[n] / gradient_lengths[n], (1 - MU ** (n + 1)) / (1 - MU)
    print(
        f"{n:4}   {growth:7.2f}   {ceiling:7.2f}   "
        f"{gradient_ratios[n]:10.5f}   {buffer_ratios[n]:8.5f}   {whole_ratios[n]:12.5f}"
    )
assert math.isclose(whole_ratios[0], gradient_ratios[0], rel_tol=1e-3)  # the first step has no past
assert buffer_lengths[11] > 3 * gradient_lengths[11]
assert all(buffer_lengths[n] < 1.001 * gradient_lengths[n] * (1 - MU ** (n + 1)) / (1 - MU) for n in range(12))
assert sum(b > g for g, b in zip(gradient_ratios, buffer_ratios, strict=True)) > len(gradient_ratios) / 2

# %% [markdown]
# ### One inside, the other out
#
# Now the whole run.

# %%
pairs = list(zip(gradient_ratios, whole_ratios, strict=True))
only_whole = [n for n, (of_gradient, whole) in enumerate(pairs) if of_gradient <= 1 < whole]
only_gradient = [n for n, (of_gradient, whole) in enumerate(pairs) if whole <= 1 < of_gradient]
factors = sorted(whole / of_gradient for of_gradient, whole in pairs)

outside = sum(r > 1 for r in whole_ratios)
print(f"{outside} of {len(pairs)} steps went past the radius; the largest r was {max(whole_ratios):.3f}.")
print(f"In {len(only_whole)} of them the gradient's share alone was inside (steps {only_whole}).")
print(f"In {len(only_gradient)} others the gradient's share alone would have been outside (steps {only_gradient}).")
median = factors[len(factors) // 2]
print(f"r of the step over r of the gradient's share: {factors[0]:.2f} … {factors[-1]:.2f}, median {median:.2f}.")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
left.plot(gradient_ratios, color="#E69F00", lw=1.2, label="gradient's share")
left.plot(whole_ratios, color="#0072B2", lw=1.2, label="whole step")
for name, steps, ratios, style in (
    ("only the whole step is out", only_whole, whole_ratios, {"marker": "o", "color": "#0072B2"}),
    ("only the gradient's share is out", only_gradient, gradient_ratios, {"marker": "s", "color": "#E69F00"}),
):
    left.plot(steps, [ratios[n] for n in steps], ls="none", ms=7, label=name, **style)
left.axhline(1, color="black", ls="--", lw=1)
left.set(yscale="log", xlabel="step", ylabel="step ratio r")
left.set_title("The gradient does not tell how far a step goes", loc="left", fontweight="bold")
left.legend(frameon=False)

right.plot([whole / of_gradient for of_gradient, whole in pairs], ".", color="#0072B2", ms=5)
right.axhline(1 / (1 - MU), color="black", ls="--", lw=1)
right.annotate("1/(1−μ): every gradient alike", (0, 9.5), va="top")
right.axhline(1, color="black", lw=1)
right.annotate("1: no momentum", (0, 0.95), va="top")
right.set(yscale="log", xlabel="step", ylabel="r of the step / r of the gradient's share")
right.set_title("No fixed factor makes up for it", loc="left", fontweight="bold")

assert only_whole
assert only_gradient
assert set(only_whole).isdisjoint(only_gradient)
assert factors[0] < 1 < median < 3

# %% [markdown]
# *What to look at.* Left: at first the whole step runs ahead of the gradient's share, later the two lines cross all
# the time. A rule that looked at the gradient's share alone would pass the steps with a blue dot and stop those with
# an orange square, and be wrong both times. Right: at first the gradients agree and the step goes several times as
# far as the gradient's share; later they disagree. The folklore factor $1/(1-\mu) = 10$ is far from the middle of the
# cloud (a median below 3), and under the solid line momentum even shortened the way.
#
# ## 4. Fixed and capped
#
# Six runs: rates 0.05, 0.5 and 2.0, each capped at $r = 1$ and left alone. The command line calls this
# `safestep run digits-momentum`. For more than one seed put more into `SEEDS`, for example `[0, 1, 2, 3, 4]`: the
# lines become medians, the bands are quartiles.

# %%
SEEDS = [7]

experiment = find("digits-momentum")
settings = experiment.settings()
records = [record for run in experiment.runs(settings, SEEDS) for record in experiment.execute(settings, run)]
curves = curves_of(records)

print("run            accuracy   largest r   last epoch: mean r   effective lr   radius ρ")
for curve in curves:
    last = {name: band.median[-1] for name, band in curve.columns.items()}
    print(
        f"{curve.label:12} {last['test_acc']:10.3f} {max(curve.columns['max_r'].median):11.4g} {last['mean_r']:20.3f} "
        f"{last['mean_lr']:14.3f} {last['mean_radius']:10.4f}{'   diverged' if curve.diverged else ''}"
    )

# %%
overview(curves, title="SGD with momentum 0.9 on digits")

# %% [markdown]
# *What to look at.*
#
# * **Training loss.** The fixed rates 0.5 and 2.0 diverge and leave the picture. Every capped run learns.
# * **Test accuracy.** The rate 0.05 that plain SGD found far too small is a good one here: that is the buffer at
#   work.
# * **Effective rate.** The two larger rates are taken down by the cap, to values within a factor of two. At 0.05 the
#   cap steps in only where a step is too long.
# * **Largest r.** Fixed 0.05 goes a little past the line and is none the worse for it: the radius is a bound, not a
#   cliff. At the same rate the capped run ends about as well.

# %%
by_label = {curve.label: curve for curve in curves}
peak = {label: max(curve.columns["max_r"].median) for label, curve in by_label.items()}
end = {label: curve.columns["test_acc"].median[-1] for label, curve in by_label.items()}
rate = {label: curve.columns["mean_lr"].median[-1] for label, curve in by_label.items()}

# What is guaranteed for any seeds.
assert all(peak[label] <= 1.001 for label in peak if label.startswith("capped"))
if SEEDS == [SEED]:  # what the text tells of this seed
    assert {curve.label for curve in curves if curve.diverged} == {"fixed 0.5", "fixed 2.0"}
    assert all(end[label] > 0.9 for label in end if label.startswith("capped"))
    assert 1 < peak["fixed 0.05"] < 2
    assert abs(end["capped 0.05"] - end["fixed 0.05"]) < 0.02
    assert 0.5 < rate["capped 0.5"] / rate["capped 2.0"] < 2  # the base rates differ by a factor of 4
    assert end["fixed 0.05"] == accuracy  # the loop of section 3 was this run
    assert math.isclose(peak["fixed 0.05"], max(whole_ratios), rel_tol=1e-3)

# %% [markdown]
# ## 5. What the cap does to the buffer: nothing
#
# The guard shortens the *displacement*. It writes neither the learning rate nor the optimizer's state, so the buffer
# remembers the gradients as they were, and the direction of every step stays the optimizer's. Capping a step is the
# same as having taken this one step at the rate $s\,\eta$.
#
# One batch, twice, from the same weights: once plainly, once capped hard.

# %%
x, labels = split.train_x[:128], split.train_y[:128]


def two_steps(policy: safestep.Policy, **options) -> tuple[list[safestep.StepReport], torch.Tensor, torch.Tensor]:
    """Take two steps on one batch; return their reports, the first displacement and the buffer after it."""
    seed_everything(SEED)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0, momentum=MU, **options)
    guard = safestep.attach(model, optimizer, radius=exact, policy=policy)
    before = nn.utils.parameters_to_vector(model.parameters()).detach()
    for n in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
        if n == 0:
            moved = nn.utils.parameters_to_vector(model.parameters()).detach() - before
            buffers = [optimizer.state[parameter]["momentum_buffer"].flatten() for parameter in model.parameters()]
            remembered = torch.cat(buffers).clone()
    return list(guard.history), moved, remembered


plain, plain_step, plain_buffer = two_steps(safestep.Watch())
capped, capped_step, capped_buffer = two_steps(safestep.Cap(0.01))
print("plain: ", plain[0])
print("capped:", capped[0])
assert torch.equal(plain_buffer, capped_buffer)  # to the last bit
assert torch.allclose(capped_step, capped[0].scale * plain_step, rtol=1e-2, atol=1e-7)  # shorter, the same direction

# %% [markdown]
# ### An aside on Nesterov
#
# `torch.optim.SGD(..., nesterov=True)` looks one step ahead: $p_n = -\eta\,(g_n + \mu\, b_n)$, with the new gradient
# in $b_n$ already. In the first step, where $b_0 = g_0$, that is $1 + \mu$ times the plain one, and so is its $r$.
# The guard needs no line for it, as it never looked at the formula.
# (`safestep run digits-momentum --set nesterov=true`.)

# %%
nesterov, _, _ = two_steps(safestep.Watch(), nesterov=True)
for n, name in enumerate(("first", "second")):
    of_plain, of_nesterov = plain[n].ratio, nesterov[n].ratio
    print(f"{name} step: r {of_plain:.5f} plain, {of_nesterov:.5f} Nesterov: {of_nesterov / of_plain:.4f} times as far")
assert math.isclose(nesterov[0].ratio, (1 + MU) * plain[0].ratio, rel_tol=1e-3)

# %% [markdown]
# ## 6. Your own model: which outputs count
#
# A guard is told neither the loss nor the labels. It looks at the gradient that backward brings to each output: rows of
# a softmax cross-entropy's sum to zero over the classes. So a network that paints a class onto each pixel needs no
# setting, though it returns a dict with a name of its own, and its classes are in dimension 1, not last.


# %%
class Painter(nn.Module):
    """From images `(batch, 1, 8, 8)` to logits `(batch, 3, 8, 8)` of three classes for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 3, 3, padding=1))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the logits under a name of our own."""
        return {"mask": self.layers(images)}


images = split.train_x[:64].reshape(-1, 1, 8, 8)
classes = torch.bucketize(images[:, 0], torch.tensor([0.2, 0.7]))  # background, grey or ink, for each pixel
brightness = torch.cat([images, images**2, 1 - images], dim=1)


def of_classes(mask: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of the painted classes."""
    return nn.functional.cross_entropy(mask, classes)


def of_brightness(mask: torch.Tensor) -> torch.Tensor:
    """Return the squared error of the same network as a regression."""
    return nn.functional.mse_loss(mask, brightness)


def paint_step(
    painter: Painter, optimizer: torch.optim.Optimizer, loss_of: Callable[[torch.Tensor], torch.Tensor]
) -> float:
    """Take one step; return the loss before it."""
    optimizer.zero_grad()
    loss = loss_of(painter(images)["mask"])
    loss.backward()
    optimizer.step()
    return loss.item()


seed_everything(SEED)
painter = Painter()
optimizer = torch.optim.SGD(painter.parameters(), lr=5.0, momentum=MU)

with safestep.attach(painter, optimizer, radius=exact) as guard:
    losses = [paint_step(painter, optimizer, of_classes) for _ in range(40)]
shortened = sum(report.scale < 1 for report in guard.history)
print("found:", *guard.heads)
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; {shortened} of {len(guard.history)} steps shortened")
print(guard.last)
assert losses[-1] < 0.5 * losses[0]
assert max(guard.history["applied_ratio"]) <= 1.001

# %% [markdown]
# Of a loss that is no softmax cross-entropy $r$ would say nothing, and a cap by it would be a guess. The guard refuses,
# takes the step back, and names what fits: here the curvature of the squared error.

# %%
try:
    with safestep.attach(painter, optimizer):
        paint_step(painter, optimizer, of_brightness)
except safestep.LossMismatchError as error:
    print(f"refused: {error}\n")
else:
    raise AssertionError("a guard must not guess")

with safestep.attach(painter, optimizer, radius=safestep.CurvatureRadius("mse"), policy=safestep.Cap(0.5)):
    losses = [paint_step(painter, optimizer, of_brightness) for _ in range(40)]
print(f"by its curvature: squared error {losses[0]:.3f} -> {losses[-1]:.3f}")
assert losses[-1] < 0.5 * losses[0]

# %% [markdown]
# (`with attach(...) as guard:` takes the guard off at the end of the block. Without `with` it stays as long as the
# optimizer.)
#
# ## 7. What to keep
#
# * The bound belongs to the step that is taken. The gradient's share can be inside when the step is not, and the
#   other way round.
# * `attach` measures the parameters' own movement, so momentum, dampening, Nesterov and weight decay are in it
#   without a setting.
# * Capping changes the length of a step, never its direction and never the optimizer's memory.
#
# Next: [Adam](adam.ipynb), whose step does not even point where the gradient points.
#
# **Sources.** P. Sao, *Ghosts of Softmax: Complex Singularities That Limit Safe Step Sizes in Cross-Entropy*, arXiv
# 2603.13552 (2026), and the tutorials of github.com/piyush314/ghosts-of-softmax, whose protocol the runs follow.

# %%
if plt.get_backend().lower() != "agg":  # run as a plain script on a desktop, this opens the pictures
    plt.show()
