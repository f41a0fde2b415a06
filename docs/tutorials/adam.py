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
# # When the optimizer turns the step
#
# **Tutorial 3 of 7: Adam.** ([SGD](sgd.ipynb) is the first and explains where the formulas come from,
# [momentum](momentum.ipynb) is the second, [drift](drift.ipynb) the fourth, [noisy descent](noisy_descent.ipynb) the
# fifth.)
#
# Adam divides each coordinate of the gradient by its own recent size. So its step points elsewhere than the gradient,
# its length has little to do with the gradient's, and "0.001" means something else than it does for SGD. The step
# ratio $r = \max_x \Delta(Jp)/\pi$ asks only what the displacement $p$ does to the logits ($\Delta$: the spread,
# largest minus smallest change of a sample's logits; $r < 1$ is inside the radius), and is the same yardstick for all
# of them. You will
#
# 1. train with Adam, look on with `Watch(Cap(1.0))`, and learn to read `guard.history`,
# 2. see why neither the rate nor the norm of a step tells how far it goes,
# 3. compare fixed and capped runs at 0.001, 0.5 and 2.0,
# 4. survive a learning rate that is a thousand times too large for ten steps,
# 5. replace the learning rate by a schedule for $r$,
# 6. guard a model with independent yes/no outputs.
#
# Whatever the text claims of a number is checked by an `assert` in a cell beside it.

# %%
import copy
import math
import tempfile
from dataclasses import asdict

import matplotlib.pyplot as plt
import torch
from torch import nn

import safestep
from safestep.experiments import find
from safestep.lab.digits import load_split, loaders
from safestep.lab.models import mlp
from safestep.lab.seeding import seed_everything
from safestep.lab.training import train
from safestep.plots import curves_of, overview, step_ratios, training_loss

torch.set_num_threads(1)  # sums keep their order, so that every run repeats bit for bit
SEED = 7
EPOCHS = 12  # the published runs take 20: `safestep run digits-adam`

# %% [markdown]
# ## 1. Adam's step
#
# Adam keeps two running means of the gradient $g$, of its value and of its square, and corrects both for their start
# at zero:
#
# $$m_n = \beta_1 m_{n-1} + (1-\beta_1)\, g_n, \qquad v_n = \beta_2 v_{n-1} + (1-\beta_2)\, g_n^2,$$
#
# $$p_n = -\eta\, \frac{\hat m_n}{\sqrt{\hat v_n} + \epsilon}, \qquad
#   \hat m_n = \frac{m_n}{1-\beta_1^n}, \quad \hat v_n = \frac{v_n}{1-\beta_2^n} .$$
#
# In the first step $\hat m_1 = g$ and $\hat v_1 = g^2$, so that $p_1 = -\eta\,\mathrm{sign}(g)$: every one of the $N$
# parameters that has a gradient moves by $\eta$, however small that gradient is, and
# $\lVert p_1\rVert \approx \eta\sqrt N$.
#
# ## 2. Data, model, and a run that is only watched
#
# The digits and the network of the other two tutorials, and Adam at its usual rate 0.001, which suits this task.
# `Watch(Cap(1.0))` changes nothing, and reports for each step the scale that `Cap(1.0)` *would* have chosen: the way
# to try a guard on a job that already works.

# %%
split = load_split(SEED)
print("training images:", tuple(split.train_x.shape), " test images:", tuple(split.test_x.shape))
print("training images of each digit 0 … 9:", split.train_y.bincount().tolist())

seed_everything(SEED)
train_loader, test_loader = loaders(split)
model = mlp()
print(model)
N = sum(parameter.numel() for parameter in model.parameters())
print(f"parameters: N = {N}")

fresh = copy.deepcopy(model)  # the untrained network, for section 3
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
exact = safestep.SoftmaxRadius(method="exact")  # r of every step; by default a guard measures as little as it can
guard = safestep.attach(model, optimizer, radius=exact, policy=safestep.Watch(safestep.Cap(1.0)))

for _ in range(EPOCHS):
    model.train()
    for x, labels in train_loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()  # r is measured here; nothing is written
    model.eval()
    with torch.no_grad():
        guesses = torch.cat([model(x).argmax(dim=1) for x, _ in test_loader])
guard.detach()  # takes the guard off; its history stays
trained = copy.deepcopy(model)

wrong = (guesses != split.test_y).nonzero().flatten()
accuracy = 1 - len(wrong) / len(split.test_y)
print(f"test accuracy after {EPOCHS} epochs: {accuracy:.3f}")
first = guard.history[0].step_length
print(f"length of the first step: {first:.4f}; η √N = {0.001 * math.sqrt(N):.4f}")

_, shown = plt.subplots(1, 10, figsize=(10, 1.7), layout="constrained")
for axis, index in zip(shown, wrong.tolist(), strict=False):
    axis.imshow(split.test_x[index].numpy().reshape(8, 8), cmap="gray_r")
    axis.set_title(f"{guesses[index]} for {split.test_y[index]}", fontsize=9)
for axis in shown:
    axis.axis("off")

assert accuracy > 0.9
assert 0.95 < first / (0.001 * math.sqrt(N)) < 1  # weights of pixels blank in the whole batch stay

# %% [markdown]
# The pictures are test images that this network gets wrong: "its answer for the truth".
#
# ### Reading the history
#
# `guard.history` behaves like a list of reports, and like a table of columns. It goes to a file with `to_jsonl`,
# `to_csv`, or with pandas installed to a frame, `to_pandas`. It keeps the last 10 000 steps; for a complete record on
# disk, `attach(..., log="steps.jsonl")`.

# %%
history = guard.history
print("the last report:  ", history[-1])
print("the columns:      ", ", ".join(history.columns()))
print("a column, step 0…4:", [round(r, 4) for r in history["ratio"][:5]])
print("the longest step: ", max(history, key=lambda report: report.ratio))
with tempfile.TemporaryDirectory() as folder:
    lines = history.to_csv(Path(folder) / "steps.csv").read_text().splitlines()
print("as a file:        ", len(lines) - 1, "lines, the first:", lines[1][:60], "…")

shortened = sum(scale < 1 for scale in history["would_scale"])
print(f"\nCap(1.0) would have shortened {shortened} of {len(history)} steps.")
print(f"Of the steps as they were, {sum(r > 0.2 for r in history['ratio'])} were longer than a target of 0.2.")
assert shortened == 0
assert 10 * history[0].ratio < max(history["ratio"]) < 0.5
axes = step_ratios(history)

# %% [markdown]
# *What to look at.* $r$ climbs by a factor of ten and more while the rate stays at 0.001: the network becomes more
# sensitive as it learns. The run stays below half the radius, so a cap at 1 would have left it alone to the last bit.
# (For a cap that *would* act, read `would_scale` up to the first step it shortens; after that the run would have been
# another one.)
#
# ## 3. Neither the rate nor the norm tells
#
# One batch, one first step of several optimizers at customary rates, and a step in a random direction, made by
# putting noise where the gradient was. Once from the untrained network, once from the trained one. There is no line
# here for any optimizer: the guard reads the movement off the parameters.

# %%
OPTIMIZERS = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.001),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.001),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.001),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.01),
    "random": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
}
x, labels = split.train_x[:128], split.train_y[:128]
first_steps = {}
for state, weights in (("untrained", fresh), ("trained", trained)):
    print(f"{state + ' network:':>18} {'rate':>5} {'‖p‖':>8} {'radius ρ':>11} {'r':>10} {'rate for r = 1':>16}")
    for name, make in OPTIMIZERS.items():
        torch.manual_seed(SEED)
        model = copy.deepcopy(weights)
        optimizer = make(model.parameters())
        with safestep.attach(model, optimizer, radius=exact, policy=safestep.Watch()) as guard:
            nn.functional.cross_entropy(model(x), labels).backward()
            if name == "random":
                for parameter in model.parameters():
                    parameter.grad = torch.randn_like(parameter)
            optimizer.step()
        report = first_steps[state, name] = guard.last
        print(
            f"{name:>17} {report.lrs[0]:6.3f} {report.step_length:8.4f} {report.radius:11.4f} {report.ratio:10.5f}"
            f" {report.lrs[0] / report.ratio:16.5f}"
        )

sgd, adam, rmsprop, noise = (first_steps["untrained", name] for name in ("SGD", "Adam", "RMSprop", "random"))
assert adam.step_length > 10 * sgd.step_length  # Adam moves the parameters far more …
assert adam.radius > 2 * sgd.radius  # … in a direction that bears more …
assert adam.ratio > 4 * sgd.ratio  # … but not that much more
assert rmsprop.lrs == adam.lrs
assert math.isclose(rmsprop.ratio, 10 * adam.ratio, rel_tol=0.02)  # no correction for the start: √(1 - 0.99) = 1/10
assert noise.step_length > 5 * rmsprop.step_length
assert noise.ratio < rmsprop.ratio
assert sgd.radius == min(first_steps["untrained", name].radius for name in OPTIMIZERS)
assert all(first_steps["untrained", name].radius > 8 * first_steps["trained", name].radius for name in OPTIMIZERS)
assert first_steps["trained", "Adam"].ratio > 2 * max(history["ratio"])

# %% [markdown]
# *What to look at.*
#
# * **‖p‖ against r.** Adam's step is over ten times longer than SGD's, but points where the radius is wider, so its
#   $r$ is larger by less. The longest step of all, the random one, is a moderate one in $r$: most directions hardly
#   touch the logits, and of those in the table the gradient's touches them most. A limit on the norm would get this
#   the wrong way round.
# * **Rate against r.** RMSprop and Adam have the same rate here and steps that differ tenfold.
# * **Training.** In the trained network every radius is smaller by a factor of eight and more. The last column, the
#   rate at which $r = 1$, moves with it: that is what a learning rate schedule has to guess. And a *new* Adam at the
#   old rate, put onto the trained weights, starts with a step more than twice as far as any of the run above: a
#   resumed job that lost its optimizer state.
#
# ## 4. Rates 0.001, 0.5 and 2.0
#
# The experiment `safestep run digits-adam`: each rate capped and left alone. For more than one seed put more into
# `SEEDS`, for example `[0, 1, 2, 3, 4]`: the lines become medians, the bands are quartiles.

# %%
SEEDS = [7]

experiment = find("digits-adam")
settings = experiment.settings(epochs=EPOCHS)
records = [record for run in experiment.runs(settings, SEEDS) for record in experiment.execute(settings, run)]
curves = curves_of(records)

print("run            accuracy   largest r   last epoch: mean r   effective lr   radius ρ")
for curve in curves:
    last = {name: band.median[-1] for name, band in curve.columns.items()}
    print(
        f"{curve.label:12} {last['test_acc']:10.3f} {max(curve.columns['max_r'].median):11.4g} {last['mean_r']:20.3f} "
        f"{last['mean_lr']:14.4f} {last['mean_radius']:10.4f}{'   diverged' if curve.diverged else ''}"
    )

# %%
overview(curves, title="Adam on digits")

# %% [markdown]
# *What to look at.*
#
# * **Training loss and accuracy.** Fixed 0.5 and 2.0 diverge. Capped, both are at least as good as the customary
#   0.001.
# * **The capped lines at 0.5 and 2.0** lie on each other: Adam's step is proportional to its rate, and a step that is
#   cut to $r = 1$ anyway forgets how long it was proposed. From 0.5 upwards the rate hardly matters any more.
# * **Capped and fixed 0.001** are the same run.

# %%
by_label = {curve.label: curve for curve in curves}
end = {label: curve.columns["test_acc"].median[-1] for label, curve in by_label.items()}
rate = {label: curve.columns["mean_lr"].median[-1] for label, curve in by_label.items()}
peak = {label: max(curve.columns["max_r"].median) for label, curve in by_label.items()}
# What is guaranteed for any seeds.
assert all(peak[label] <= 1.001 for label in peak if label.startswith("capped"))
if peak["fixed 0.001"] <= 1:  # the same to the last bit
    assert by_label["capped 0.001"].columns == by_label["fixed 0.001"].columns
if SEEDS == [SEED]:  # what the text tells of this seed
    assert peak["fixed 0.001"] < 1
    assert {curve.label for curve in curves if curve.diverged} == {"fixed 0.5", "fixed 2.0"}
    assert min(end["capped 0.5"], end["capped 2.0"]) >= end["capped 0.001"]
    assert math.isclose(rate["capped 0.5"], rate["capped 2.0"], rel_tol=0.1)
    assert math.isclose(end["fixed 0.001"], accuracy)  # the run of section 2 again

# %% [markdown]
# ## 5. A spike in the learning rate
#
# A scheduler with a wrong unit, a resumed job that lost its warm-up: for the ten steps 50 to 59 the rate is a
# thousand times too large. The same loop twice, with `Watch()` and with `Cap(1.0)`.


# %%
def spiked_run(policy: safestep.Policy) -> tuple[list[float], float, float, safestep.History]:
    """Return the loss of every step, the final test accuracy, the mean of √v and the history."""
    seed_everything(SEED)
    train_loader, test_loader = loaders(split)
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    guard = safestep.attach(model, optimizer, radius=exact, policy=policy)
    losses = []
    for _ in range(EPOCHS):
        model.train()
        for x, labels in train_loader:
            for group in optimizer.param_groups:
                group["lr"] = 1.0 if 50 <= len(losses) < 60 else 0.001
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            right = sum(int((model(x).argmax(dim=1) == labels).sum()) for x, labels in test_loader)
    memory = torch.cat([optimizer.state[parameter]["exp_avg_sq"].flatten() for parameter in model.parameters()])
    return losses, right / len(split.test_y), float(memory.sqrt().mean()), guard.history


plain_losses, plain_accuracy, plain_memory, plain_history = spiked_run(safestep.Watch())
capped_losses, capped_accuracy, capped_memory, capped_history = spiked_run(safestep.Cap(1.0))
for name, losses, end, memory, lengths in (
    ("plain", plain_losses, plain_accuracy, plain_memory, plain_history["applied_length"]),
    ("capped", capped_losses, capped_accuracy, capped_memory, capped_history["applied_length"]),
):
    print(f"{name:6}: largest loss {max(losses):8.3g}, final accuracy {end:.3f},", end=" ")
    print(f"mean √v {memory:.2g}, length of the last step {lengths[-1]:.2g}")
print("plain, steps 49 to 52: r =", ", ".join(f"{r:.3g}" for r in plain_history["ratio"][49:53]))
changed = [report.step for report in capped_history if report.scale < 1]
print("steps that the cap shortened:", changed)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), gridspec_kw={"left": 0.06, "top": 0.78, "bottom": 0.12})
left.axvspan(50, 60, color="#d8dee4")
left.plot(plain_losses, color="#D55E00", lw=2.5, label="plain")
left.plot(capped_losses, color="#0072B2", lw=1.5, label="capped at r = 1")
left.set(yscale="log", xlabel="step", ylabel="loss of the batch")
left.set_title("Ten steps at a thousandfold rate (grey)", loc="left", fontweight="bold")
left.legend(frameon=False)
step_ratios(capped_history, ax=right)

assert plain_losses[:51] == capped_losses[:51]  # the same run until the spike
assert plain_accuracy < 0.5 < 0.9 < capped_accuracy
assert plain_memory > 100 * capped_memory
assert 3 * plain_history[-1].applied_length < capped_history[-1].applied_length
assert max(capped_losses[50:]) < max(capped_losses[:50])
assert set(range(50, 60)) <= set(changed)
assert max(capped_history["applied_ratio"]) <= 1.001

# %% [markdown]
# *What to look at.* Left: both runs are one until the spike. The plain one is thrown out by orders of magnitude and
# does not find back: wild steps make wild gradients, and Adam's $v$ remembers them for about $1/(1-\beta_2) = 1000$
# steps, so that afterwards its steps are too *short* to repair anything (see $\sqrt v$ and the length of the last
# step above). The capped run goes on learning. Right: what was proposed and what was taken.
#
# The cap does not repair the rate. It says that something is wrong (`status` and `scale` in the history), and keeps
# the model usable until you look.
#
# ## 6. A schedule for r instead of the learning rate
#
# A target is a number or a function of the step, counted from 0. With `Pin` that is a schedule without a learning
# rate, in units that mean the same for every model: start at the radius, end at a fiftieth of it, along a cosine.
# (With `Cap` it is an upper limit that changes: `Cap(lambda step: min(1.0, (step + 1) / 20))` is a warm-up.)

# %%
STEPS = EPOCHS * len(train_loader)
targets = {
    "constant": 1.0,
    "cooled": lambda step: 0.02 + 0.98 * (1 + math.cos(math.pi * step / STEPS)) / 2,
}

lines, last_steps, spans = [], {}, {}
for label, target in targets.items():
    seed_everything(SEED)
    train_loader, test_loader = loaders(split)
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1.0)  # drops out: Pin sets the length of each step
    guard = safestep.attach(model, optimizer, radius=exact, policy=safestep.Pin(target))
    for epoch in train(model, optimizer, guard, train_loader, test_loader, EPOCHS):  # the loop of section 2, recorded
        lines.append({"kind": "epoch", "label": label, "policy": "pin", "base_lr": None, "seed": SEED, **asdict(epoch)})
    last_steps[label] = guard.last

for label in targets:
    own = [line for line in lines if line["label"] == label]
    last_five = [line["test_acc"] for line in own[-5:]]
    spans[label] = max(last_five) - min(last_five)
    print(
        f"{label}: last loss {own[-1]['train_loss']:.4f}, accuracy in the last five epochs "
        f"{min(last_five):.3f} … {max(last_five):.3f}, last step: r {last_steps[label].applied_ratio:.3f}, "
        f"rate {last_steps[label].effective_lr:.2g}"
    )
constant, cooled = ([line for line in lines if line["label"] == label] for label in targets)
assert cooled[-1]["train_loss"] < constant[-1]["train_loss"]
assert spans["cooled"] < spans["constant"]
assert all(math.isclose(report.applied_ratio, report.target, rel_tol=1e-3) for report in last_steps.values())
axes = training_loss(curves_of(lines))

# %% [markdown]
# *What to look at.* Both start alike, as both take steps of about one radius. Cooled down, the run ends with the
# lower loss, and its accuracy moves less from epoch to epoch. Neither was told a learning rate; the last column says
# which one they arrived at.
#
# ## 7. Your own model: independent yes/no outputs
#
# A network with one sigmoid per output is not a softmax over them: each output is a two-class problem of its own,
# with logits $(0, z)$, so the spread is $\max_k |a_k|$. With labels 0 and 1 the guard reads that off the gradient, and
# says so in `guard.heads`. Soft labels, or weights of the samples' own, leave another gradient: then say it with
# `radius=SoftmaxRadius(head="sigmoid")`.

# %%
seed_everything(SEED)
tagger = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 4))
optimizer = torch.optim.AdamW(tagger.parameters(), lr=0.3)


def tags(digit: torch.Tensor) -> torch.Tensor:
    """Answer four questions about each digit: even? above 4? a multiple of 3? a seven?"""
    return torch.stack([digit % 2 == 0, digit > 4, digit % 3 == 0, digit == 7], dim=1)


def tag_step() -> float:
    """Take one step on all training images and return the loss before it."""
    optimizer.zero_grad()
    loss = nn.functional.binary_cross_entropy_with_logits(tagger(split.train_x), tags(split.train_y).float())
    loss.backward()
    optimizer.step()
    return loss.item()


guard = safestep.attach(tagger, optimizer)
losses = [tag_step() for _ in range(60)]
with torch.no_grad():
    right = ((tagger(split.test_x) > 0) == tags(split.test_y)).float().mean(dim=0)
print("found:", *guard.heads)
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
print("right answers to each question on the test images:", [round(share, 3) for share in right.tolist()])
print(guard.last)
assert losses[-1] < 0.5 * losses[0]
assert max(guard.history["applied_ratio"]) <= 1.001

# %% [markdown]
# Other outputs are in the table of the [first tutorial](sgd.ipynb), and a loss that has no $r$ is in the
# [second](momentum.ipynb).
#
# ## 8. What to keep
#
# * $r$ compares steps that rates and norms do not: of different optimizers, and early and late in training.
# * `Watch(Cap(1.0))` first: it tells what a cap would have done, and changes nothing.
# * A capped Adam does not care whether the rate is 0.5 or 2.0, nor for a spike of ten steps.
# * Targets may follow a schedule; with `Pin` that replaces the learning rate and its schedule.
#
# Next: [drift](drift.ipynb), where the data change and the curvature of the loss says how far is too far.
#
# **Sources.** P. Sao, *Ghosts of Softmax: Complex Singularities That Limit Safe Step Sizes in Cross-Entropy*, arXiv
# 2603.13552 (2026), and the tutorials of github.com/piyush314/ghosts-of-softmax, whose protocol the runs follow; the
# paper's spike experiment is the model for section 5.

# %%
if plt.get_backend().lower() != "agg":  # run as a plain script on a desktop, this opens the pictures
    plt.show()
