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
# # When the data drift, the learning rate goes bad
#
# **Tutorial 4 of 7: curvature, and the throttle.** ([SGD](sgd.ipynb) is the first, [momentum](momentum.ipynb) the
# second, [Adam](adam.ipynb) the third, [noisy descent](noisy_descent.ipynb) the fifth. This one needs nothing of them
# but the habit of hanging a guard on an optimizer.)
#
# A training run is stable. Then somebody turns up the gain of a sensor, the inputs get larger, and the same learning
# rate, in the same code, blows the model up. You will
#
# 1. train a model of which every curvature is known,
# 2. let the input gain drift, watch the loss explode, and predict by how much to three digits,
# 3. throttle the run with a published law in one line, and see the one step it cannot protect,
# 4. throttle it with the curvature of *this* batch, which protects that step too, and learn why the loss then falls at
#    every step and where the throttle comes to rest,
# 5. see what a law that moves gradually costs,
# 6. do it to a classifier, with momentum as well,
# 7. only look, without touching anything; and learn when all this fails.
#
# Whatever the text claims of a number is checked by an `assert` in a cell beside it.

# %%
import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import safestep
from safestep import CurvatureRadius, History, Policy, Radius, SecantCurvature, StepReport, Throttle, Watch
from safestep.formulas.quadratic_ratio import spectral_radius
from safestep.guard.diagnose import Diagnostic
from safestep.lab.affine_teacher import AffineTeacher
from safestep.lab.digits import load_split
from safestep.lab.drift import DriftRun
from safestep.lab.models import mlp
from safestep.lab.seeding import seed_everything
from safestep.lab.student import Student
from safestep.recording.forwards import Forwards
from safestep.recording.step import Step
from safestep.tools.diagnostics import Sharpness

plt.switch_backend(plt.get_backend())  # loaded now, so that pictures made outside pyplot are shown, too
torch.set_num_threads(1)  # sums keep their order, so that every run repeats bit for bit
SEED = 1
ETA = 0.5  # the learning rate of sections 1 to 5: it stays what it is

# %% [markdown]
# ## 1. A stable run
#
# The **teacher** answers $y = A x$ with a fixed matrix $A$; its inputs are uniform between 0 and 1. The **student** is
# one matrix $W$ of the same shape that starts at random. The loss is half the squared error,
#
# $$L(W) = \frac{1}{2N} \sum_{i=1}^{N} \lVert W x_i - y_i \rVert^2 .$$

# %%
teacher = AffineTeacher()
student = teacher.student(seed=SEED)
print(teacher)
print(student)
teacher.plot()

# %% [markdown]
# *What to look at.* Each answer against each input. A single input explains little of an answer; the orange line is
# the weight that the student has to find.
#
# The loss is a quadratic bowl. Each row of $W$ meets the same matrix of second derivatives, $M = X^\top X / N$, and so
# the whole Hessian has the eigenvalues $\lambda$ of $M$, wherever $W$ is. Along an eigenvector, call $e$ the distance
# to the bottom. The slope is $\lambda e$, and a step of gradient descent does
#
# $$e \;\leftarrow\; e - \eta \lambda e = (1 - \eta\lambda)\, e, \qquad\text{so its part of the loss,}\quad
#   \tfrac12 \lambda e^2, \quad\text{is multiplied by}\quad (1-\eta\lambda)^2 .$$
#
# That is below 1 as long as $\eta\lambda < 2$. The largest eigenvalue decides; call
#
# $$m = \eta\,\lambda_{\max}$$
#
# the **margin**. Below 1 a step stops short of the bottom; between 1 and 2 it overshoots, and still comes nearer; above
# 2 it lands higher than it started.


# %%
Phases = Sequence[tuple[AffineTeacher, int]]
Run = tuple[list[float], History]


def half_mse(outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Half the squared error: mean over samples, summed over outputs."""
    return (outputs - answers).square().sum() / (2 * len(outputs))


def train(
    student: Student,
    phases: Phases,
    policy: Policy,
    radius: Radius | None = None,
    diagnostics: Sequence[Diagnostic] = (),
) -> Run:
    """Train on all samples at rate ETA; return the loss before every step, and the guard's history.

    `phases` are pairs of a teacher and a number of steps. A run that blows up ends there.
    """
    optimizer = torch.optim.SGD(student.parameters(), lr=ETA)
    radius = radius or CurvatureRadius("half_mse")  # what the guard measures: see section 4
    losses = []
    with safestep.attach(student, optimizer, policy=policy, radius=radius, diagnostics=diagnostics) as guard:
        for teacher, steps in phases:
            inputs, answers = teacher.data()
            for _ in range(steps):
                optimizer.zero_grad()
                loss = half_mse(student(inputs), answers)
                losses.append(loss.item())
                if not math.isfinite(losses[-1]):
                    return losses, guard.history
                loss.backward()
                optimizer.step()
    return losses, guard.history


QUIET = [(teacher, 20)]
quiet, _ = train(student, QUIET, Watch())  # Watch() leaves every step alone
trained = {name: value.clone() for name, value in student.state_dict().items()}

print(f"margin ηλ_max = {ETA * teacher.lambda_max:.2f}")
print(f"loss {quiet[0]:.3f} -> {quiet[-1]:.4f} in {len(quiet)} steps")
print(f"factor of the last step {quiet[-1] / quiet[-2]:.4f}")
slow = [(1 - ETA * eigenvalue) ** 2 for eigenvalue in teacher.spectrum[:3]]
print("(1 - ηλ)² of the three small eigenvalues:", [round(factor, 4) for factor in slow])

assert round(ETA * teacher.lambda_max, 2) == 0.54
assert all(later < earlier for earlier, later in itertools.pairwise(quiet))
assert min(slow) < quiet[-1] / quiet[-2] < max(slow)  # the fast direction is done, the slow ones set the pace

# %% [markdown]
# A quiet run with a margin of 0.54: far inside. The loss falls at every step, in the end by the factor of the three
# slow directions.
#
# ## 2. The gain drifts
#
# Now every input grows by the **gain** $\gamma = 4$, while the answers stay what they were. (The new solution is then
# $A/\gamma$.) $M$ is made of products of two inputs, so
#
# $$M \leftarrow \gamma^2 M, \qquad \lambda \leftarrow 16\,\lambda, \qquad m = 0.54 \cdot 16 \approx 8.7 > 2 .$$
#
# Along the steepest eigenvector the loss should be multiplied by $(1-m)^2 \approx 58.6$ **at every step**. And the very
# first drifted step can be told as well: split the error $E = W - A/\gamma$ along the eigenvectors $q_k$ of $M$, and
# let every part grow or shrink by its own factor,
#
# $$L = \sum_k L_k, \quad L_k = \tfrac12 \lambda_k \lVert E q_k \rVert^2, \qquad
#   L_\text{after the step} = \sum_k (1-\eta\lambda_k)^2\, L_k .$$

# %%
GAIN = 4.0
drifted = teacher.drifted(gain=GAIN)
print(drifted, "\n")
margin = ETA * drifted.lambda_max
growth = (1 - margin) ** 2
print(f"margin {margin:.2f}, expected growth ×{growth:.1f} a step")

eigenvalues, vectors = torch.linalg.eigh(drifted.moments)
error = trained["0.weight"].double() - drifted.reference
parts = 0.5 * eigenvalues * (error @ vectors).square().sum(0)  # L_k
foreseen = float(((1 - ETA * eigenvalues) ** 2 * parts).sum())

blown, _ = train(student, [(drifted, 100)], Watch())
print("loss:", ", ".join(f"{loss:.4g}" for loss in blown[:6]), f"..., {blown[-1]} at step {len(blown) - 1}")
print(f"after one step: foreseen {foreseen:.2f}, seen {blown[1]:.2f}, that is ×{blown[1] / blown[0]:.1f}")
print(f"{float(parts[-1] / parts.sum()):.0%} of the loss lay in the steepest direction when the drift came")
print(f"growth of the next steps: {', '.join(f'×{b / a:.2f}' for a, b in itertools.pairwise(blown[1:5]))}")

assert math.isclose(drifted.lambda_max, GAIN**2 * teacher.lambda_max)
assert round(margin, 1) == 8.7
assert round(growth, 1) == 58.6
assert math.isclose(float(parts.sum()), blown[0], rel_tol=1e-4)
assert math.isclose(foreseen, blown[1], rel_tol=1e-4)
assert all(math.isclose(b / a, growth, rel_tol=1e-3) for a, b in itertools.pairwise(blown[1:10]))
assert blown[-1] == math.inf

# %% [markdown]
# The first drifted step multiplies the loss by about 56, a little less than 58.6, because a few percent of the loss
# lay in directions that are still stable. From the second step on, it is the steepest direction alone.

# %%
BLUE, ORANGE, GREEN, GREY = "tab:blue", "tab:orange", "tab:green", "0.55"


def titled(ax: plt.Axes, title: str, x: str = "step", y: str | None = None) -> None:
    """Write a title and name the axes."""
    ax.set_title(title, loc="left", fontweight="bold")
    ax.set(xlabel=x, ylabel=y)


def marked(ax: plt.Axes, at: int = 0) -> None:
    """Mark the first drifted step."""
    ax.axvline(at, color=GREY, lw=1, ls=":")


_, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
place = np.linspace(-1.9, 1.9, 200)
left.plot(place, place**2, color="black", lw=2)
for m, colour in ((0.54, BLUE), (1.5, GREEN), (2.2, ORANGE)):
    walk = np.array([1.0 * (1 - m) ** step for step in range(4)])
    left.plot(walk, walk**2, "o-", color=colour, label=f"margin {m}")
left.legend(frameon=False, loc="upper center")
titled(left, "Short, over, and out: three steps each", "distance e to the bottom", "loss along e")

steps = range(-len(quiet), 0)
right.semilogy([*steps, *range(12)], [*quiet, *blown[:12]], "o-", ms=3, color=ORANGE)
marked(right)
right.annotate("gain ×4", (0, right.get_ylim()[1] / 1e3), (-6, 0), textcoords="offset points", ha="right")
right.annotate(f"×{growth:.1f} a step", (4.5, blown[3]))
titled(right, "A stable run, until the gain drifts", "step since the drift", "loss, log scale")

# %% [markdown]
# *What to look at.* Left: from the same start, a margin of 0.54 walks down one side, 1.5 jumps from side to side and
# comes down, 2.2 climbs. Right: twenty quiet steps, and then a straight line on the log scale.
#
# ## 3. A throttle, in one line
#
# The cure is simple if you know $\lambda_{\max}$: multiply the step by an $\alpha$ so that $\alpha\,\eta\lambda_{\max}$
# is a chosen $\chi$ below 2. Nobody hands you $\lambda_{\max}$, though; but two gradients in a row contain it. When the
# parameters moved by $\theta_t - \theta_{t-1}$, the gradient moved by the Hessian times that:
#
# $$C_t = \frac{\lVert g_t - g_{t-1} \rVert}{\lVert \theta_t - \theta_{t-1} \rVert} \;\text{(secant curvature)}, \quad
#   \hat C_t = \max(C_t, \text{its running mean}), \quad
#   \alpha_t = \min\!\Big(1, \frac{\chi}{\eta\,\hat C_t}\Big).$$
#
# That is the published law of the **global throttle** (source below). In safestep the law is a policy, `Throttle`, and
# what it looks at is a radius, `SecantCurvature`. As published, we switch it on when the drift comes:


# %%
def after_drift(
    policy: Policy, radius: Radius | None = None, steps: int = 100, diagnostics: Sequence[Diagnostic] = ()
) -> Run:
    """Start from the trained student and train it on the drifted data."""
    student.load_state_dict(trained)
    return train(student, [(drifted, steps)], policy, radius, diagnostics)


secant, history = after_drift(Throttle(chi=1.5), SecantCurvature())  # the one line
alpha = history["scale"]
ideal = 1.5 / margin
print("loss: ", ", ".join(f"{loss:.4g}" for loss in secant[:7]))
print("alpha:", ", ".join(f"{value:.4f}" for value in alpha[:7]), f"   χ/(ηλ_max) = {ideal:.4f}")
print(f"first step: {history[0].message}")

assert alpha[0] == 1.0
assert secant[1] == blown[1]  # the first step is the one of the run that blew up
assert math.isclose(alpha[1], ideal, rel_tol=0.01)
assert max(secant) == secant[1] > 50 * secant[0]
assert secant[-1] < 1e-9

# %% [markdown]
# The run is saved: the loss ends near zero. But look at the beginning. **The first step is not protected**: a
# difference needs two gradients, and at the first step there is one. So $\alpha = 1$, the loss jumps by a factor of
# 56 exactly as it did without a throttle, and only the second step knows $C$ and takes $\alpha = \chi/(\eta\lambda)$.
# Here it is one bad step and then a good rest. In a network one such step may leave nothing to save.
#
# Could one leave the throttle on from the start, so that it has an earlier gradient when the drift comes? Try it, and
# let the gain go back to 1 after thirty steps:

# %%
THERE_AND_BACK = [(teacher, 20), (drifted, 30), (teacher, 40)]
there_and_back = {
    "secant": train(student.reset(), THERE_AND_BACK, Throttle(), SecantCurvature()),
    "curvature": train(student.reset(), THERE_AND_BACK, Throttle()),  # section 4
    "curvature, order 1": train(student.reset(), THERE_AND_BACK, Throttle(order=1)),  # section 5
}
losses, history = there_and_back["secant"]
alpha = history["scale"]
print(f"first drifted step: α = {alpha[20]:.4f}, wanted {ideal:.4f}")
print(f"40 steps after the gain went back: α = {alpha[-1]:.2f}, wanted 1")

assert alpha[20] < 0.1 * ideal
assert math.isclose(alpha[21], ideal, rel_tol=0.02)
assert max(alpha[50:]) < 0.7

# %% [markdown]
# Now it errs on the other side. The gradient has changed because the *data* have changed, the quotient takes that for
# curvature, and $\alpha$ falls more than ten times too low. The next difference is a good one. When the gain goes back,
# the same happens again, and this time it stays: the false value is so large that its share in the running mean holds
# the run back for nothing, forty steps later still. A difference of two gradients cannot tell a change of the data from
# a change of the parameters.
#
# ## 4. The curvature of this batch
#
# So ask the batch at hand, and no other. Let $p$ be the displacement that the optimizer proposes and $g$ the gradient.
# To second order the loss along the step is
#
# $$L(\alpha) = L + \alpha\; g\!\cdot\! p + \tfrac12 \alpha^2\; p^\top G p
#             = L + \alpha\,(g\!\cdot\! p)\,(1 - \alpha\, r), \qquad
#   \boxed{\;r = \frac{p^\top G p}{-2\; g\!\cdot\! p}\;}$$
#
# with the Gauss–Newton matrix $G$, which for our student *is* the Hessian. For a step downhill, $g\!\cdot\!p < 0$, the
# parabola is lowest at $\alpha = 1/(2r)$ and back at $L$ at $\alpha = 1/r$. So **$r$ is the step ratio of this
# radius**: at $r = 1$ the whole step gains nothing. For plain SGD, $p = -\eta g$, it is half a margin,
#
# $$2r = \eta\, \frac{g^\top G g}{g^\top g} \le \eta\lambda_{\max} .$$
#
# Neither $G$ nor a second gradient is needed. With $a = J p$, the change of the model's outputs along the step,
# $p^\top G p$ is the mean over samples of $\lVert a \rVert^2$, whatever the labels are, and $g\!\cdot\! p$ is the sum
# of $a$ times the gradient at the outputs, which `backward` has computed anyway. By hand:

# %%
student.load_state_dict(trained)
student.zero_grad()
inputs, answers = drifted.data()
outputs = student(inputs)
outputs.retain_grad()
half_mse(outputs, answers).backward()

theta = {name: parameter.detach() for name, parameter in student.named_parameters()}
p = {name: -ETA * parameter.grad for name, parameter in student.named_parameters()}
_, a = torch.func.jvp(lambda at: torch.func.functional_call(student, at, (inputs,)), (theta,), (p,))
bend = a.square().sum(dim=1).mean()  # p.Gp
slope = (outputs.grad * a).sum()  # g.p
r = float(bend / (-2 * slope))
print(f"by hand:   r = {r:.5f}, margin 2r = {2 * r:.4f}, ηλ_max = {margin:.4f}")

curvature, history = after_drift(Throttle(chi=1.5))  # CurvatureRadius is what a throttle takes by default
alpha = history["scale"]
print(f"the guard: r = {history[0].ratio:.5f}, α = {alpha[0]:.4f}")
print("loss: ", ", ".join(f"{loss:.4g}" for loss in curvature[:7]))
print("alpha:", ", ".join(f"{value:.4f}" for value in alpha[:7]))

assert math.isclose(history[0].ratio, r, rel_tol=1e-4)
assert 2 * r < margin
assert math.isclose(alpha[0], 1.5 / (2 * r), rel_tol=1e-4)
assert max(curvature) == curvature[0]

# %% [markdown]
# (`attach(model, optimizer, policy=Throttle())` alone takes `CurvatureRadius()`, which finds a softmax
# cross-entropy by its gradient; `train` says which loss it is here: `CurvatureRadius("half_mse")`.)
#
# The first drifted step is protected, and no step goes up. **Why can none go up?** The throttle takes
# $\alpha = \chi/(2r)$. Put that into the formula above:
#
# $$L(\alpha) - L = \frac{\chi}{2r}\,\Big(1 - \frac{\chi}{2}\Big)\; g\!\cdot\! p \;<\; 0
#   \qquad\text{for every } 0 < \chi < 2 ,$$
#
# as $g\!\cdot\! p = -\eta \lVert g\rVert^2$ is negative along the gradient. $\chi = 1$ goes to the bottom of the
# parabola, $\chi = 1.5$ half again as far, $\chi = 2$ to the other side at the same height. And where $2r < \chi$
# already, the step is left alone, and goes down for the same reason. The size of the drift is not in it:

# %%
for step in range(20):  # the formula against the run, while float32 can tell
    foreseen = alpha[step] * -ETA * history[step].step_length ** 2 / ETA**2 * (1 - alpha[step] * history[step].ratio)
    assert math.isclose(curvature[step + 1] - curvature[step], foreseen, rel_tol=2e-3)

FLOOR = 1e-9  # below it the loss of a float32 student is rounding
print("  γ     χ   first loss   peak/first   steps to 1e-4 of the first")
for gain, chi in [(4, 0.5), (4, 1.0), (4, 1.5), (4, 1.9), (2, 1.5), (16, 1.5), (64, 1.5)]:
    student.load_state_dict(trained)
    losses, _ = train(student, [(teacher.drifted(gain=float(gain)), 200)], Throttle(chi=chi))
    reached = next(step for step, loss in enumerate(losses) if loss < 1e-4 * losses[0])
    print(f"{gain:3} {chi:5.1f} {losses[0]:12.4g} {max(losses) / losses[0]:12.2f} {reached:8}")
    seen = [loss for loss in losses if loss > FLOOR * losses[0]]
    assert all(later < earlier for earlier, later in itertools.pairwise(seen))

# %% [markdown]
# So any $\chi$ below 2 is safe here; which is fast is another question. (Close to 2 every step goes far and gains
# little.)
#
# **Where does $\alpha$ settle?** Not at $\chi/(\eta\lambda_{\max})$. Look at the picture, and at the numbers below.

# %%
settled = 2 / (ETA * (drifted.lambda_max + drifted.lambda_min))
_, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for label, losses, colour in (
    ("no throttle", blown[:4], GREY),
    ("secant law", secant[:61], ORANGE),
    ("curvature of the batch", curvature[:61], BLUE),
):
    left.semilogy([*range(-len(quiet), 0), *range(len(losses))], [*quiet, *losses], color=colour, label=label)
left.legend(frameon=False)
marked(left)
titled(left, "One pays for the first step, one does not", "step since the drift", "loss, log scale")

right.plot(after_drift(Throttle(), SecantCurvature())[1]["scale"][:61], color=ORANGE, label="secant law")
right.plot(alpha[:61], color=BLUE, label="curvature of the batch")
for height, text in ((ideal, "χ/(ηλₘₐₓ)"), (settled, "2/(η(λₘₐₓ + λₘᵢₙ))")):
    right.axhline(height, color="black", lw=1, ls="--")
    right.annotate(text, (60, height), (0, 4), textcoords="offset points", ha="right")
right.set_ylim(0.1, 0.3)
right.annotate("from α = 1 at step 0", (2, 0.285), color=ORANGE)
right.legend(frameon=False, loc="lower right")
titled(right, "Both settle where both ends shrink alike", "step since the drift", "α")

steep = (1 - alpha[50] * margin) ** 2
flat = [(1 - alpha[50] * ETA * eigenvalue) ** 2 for eigenvalue in drifted.spectrum[:3]]
measured = (curvature[50] / curvature[40]) ** (1 / 10)
print(f"α of steps 40 to 59: {min(alpha[40:60]):.4f} to {max(alpha[40:60]):.4f}; 2/(η(λ_max + λ_min)) = {settled:.4f}")
print(f"applied margin: αηλ_max = {alpha[50] * margin:.3f}, along the gradient {2 * history[50].applied_ratio:.3f}")
print(f"the loss shrinks by {measured:.4f} a step, (1 - αηλ_max)² = {steep:.4f},")
print("and (1 - αηλ)² of the three small eigenvalues:", [round(factor, 4) for factor in flat])

assert all(math.isclose(value, settled, rel_tol=0.01) for value in alpha[40:60])
assert settled > 1.2 * ideal
assert [next(step for step, loss in enumerate(run) if loss < 1e-4) for run in (secant, curvature)] == [20, 26]
assert math.isclose(measured, steep, rel_tol=0.01)
assert min(flat) < measured < max(flat)
assert round(alpha[50] * margin, 2) == 1.86
assert math.isclose(2 * history[50].applied_ratio, 1.5)

# %% [markdown]
# *What to look at.* Left: the orange run climbs by one step before it comes down, the blue one does not. Once down,
# orange is even the faster one (20 steps to a loss of $10^{-4}$ against 26), as its $\alpha$ swings before it rests;
# being slow to see a change is not always a loss. Only, it has to live through its first step. Right: both rise from
# $\chi/(\eta\lambda_{\max})$ to the upper line.
#
# The reason is a see-saw. $r$ feels the curvature *along the gradient*, a mean of the eigenvalues that weights each by
# how much of $g$ lies in its direction.
#
# * If the steepest direction shrinks faster than the flattest one, the gradient turns towards the flat one, the
#   measured curvature falls, and $\alpha$ **rises**.
# * If it shrinks slower, the gradient turns towards the steep one, the measured curvature grows, and $\alpha$
#   **falls**.
#
# It rests where both shrink alike, one jumping from side to side and the other creeping:
#
# $$\alpha\eta\lambda_{\max} - 1 = 1 - \alpha\eta\lambda_{\min} \quad\Longrightarrow\quad
#   \alpha = \frac{2}{\eta\,(\lambda_{\max} + \lambda_{\min})}$$
#
# (within one percent here, as the three flat directions are nearly alike and the flattest is not alone yet). And
# $\alpha\eta$ is then the best constant learning rate that gradient descent could have on the drifted data. The
# margin $\alpha\eta\lambda_{\max}$ is above $\chi$ then (1.86 here), yet below 2. This is what happens for
# $\chi = 1.5$. At $\chi = 1$ the see-saw does not come to rest, $\alpha$ goes to and fro between two values; a $\chi$
# above $2\lambda_{\max}/(\lambda_{\max}+\lambda_{\min})$ stays at $\chi/(\eta\lambda_{\max})$, as the steep direction
# never shrinks faster than the flat one:

# %%
seesaw, high = (after_drift(Throttle(chi=chi))[1]["scale"] for chi in (1.0, 1.9))
best = min(
    np.linspace(0.05, 0.15, 1001), key=lambda rate: spectral_radius(rate, drifted.lambda_min, drifted.lambda_max)
)
assert math.isclose(best, settled * ETA, rel_tol=1e-3)  # of all rates, the worst direction shrinks the fastest
print("χ = 1.0:", [round(value, 3) for value in seesaw[20:26]])
print("χ = 1.9:", [round(value, 4) for value in high[60:64]], f"χ/(ηλ_max) = {1.9 / margin:.4f}")
assert all(2 * low < top for low, top in zip(seesaw[20:40:2], seesaw[21:40:2], strict=False))
assert 2 * drifted.lambda_max / (drifted.lambda_max + drifted.lambda_min) < 1.9
assert all(math.isclose(value, 1.9 / margin, rel_tol=0.005) for value in high[60:])

# %% [markdown]
# ## 5. A law that moves gradually, and what it costs
#
# `Throttle()` decides anew at every step; with mini-batches $r$ is noisy, and then so is $\alpha$. The law of
# **order 1** carries $\alpha$ along and moves it by a share of what is missing, $m = 2r$ being the margin of the raw
# step:
#
# $$\alpha \;\leftarrow\; \alpha + k\,(\chi - \alpha m) \quad\text{clipped to } [0, 1], \qquad k = 0.1,
#   \qquad \alpha = 0 \text{ at first.}$$
#
# Above we took it through the gain going to 4 and back. What did that cost?

# %%
instant, gradual = there_and_back["curvature"], there_and_back["curvature, order 1"]
scales = {label: history["scale"] for label, (_, history) in there_and_back.items()}
_, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for (label, (losses, history)), colour in zip(there_and_back.items(), (ORANGE, BLUE, GREEN), strict=True):
    left.semilogy(losses, color=colour, label=label)
    right.plot(history["scale"], color=colour, label=label)
for ax in (left, right):
    marked(ax, 20)
    marked(ax, 50)
left.legend(frameon=False, loc="lower left")
titled(left, "Gain ×4 from step 20 to step 49", y="loss, log scale")
titled(right, "How fast each α lets go, and grips", y="α")

at_once, slowly = scales["curvature"], scales["curvature, order 1"]
jump = gradual[0][21] / gradual[0][20]
print(f"order 0: α = {at_once[19]}, at the drift {at_once[20]:.3f}, and {at_once[50]} again")
print(f"order 1: α = {slowly[0]:.2f} at first, 1 from step {slowly.index(1.0)} on,", end=" ")
print(f"at the drift {', '.join(f'{value:.3f}' for value in slowly[20:24])}: the first of these")
print(f"         multiplies the loss by {jump:.2f}; at 1 again after {slowly[50:].index(1.0)} steps")

assert set(at_once[:20] + at_once[50:]) == {1.0}  # acts at once, lets go at once
assert instant[0][21] < instant[0][20]
assert math.isclose(slowly[0], 0.1 * 1.5)
assert slowly.index(1.0) == 7
assert slowly[20] * margin > 2
assert 2 < jump < 2.3
assert slowly[50:].index(1.0) == 6

# %% [markdown]
# *What to look at.* Blue grips at the first drifted step and lets go at the first quiet one. Green takes seven steps to
# open at the start, though nothing is wrong, lets one step of a margin above 2 pass when the drift comes (the loss
# doubles), and opens slowly again. Orange is the secant law of section 3, which
# has not let go by the end.
#
# There is a harder limit. For a constant margin the law brings $\alpha$ nearer to $\chi/m$ by the factor $1 - km$ a
# step, so **the law itself is stable only while $km < 2$**. With $\gamma = 8$, $km = 3.5$:

# %%
steeper = teacher.drifted(gain=8.0)
print(f"k m = {0.1 * ETA * steeper.lambda_max:.2f}")
lost, history = train(student.reset(), [(teacher, 20), (steeper, 60)], Throttle(order=1))
saved, _ = train(student.reset(), [(teacher, 20), (steeper, 60)], Throttle())
print("order 1: α   ", ", ".join(f"{value:.2f}" for value in history["scale"][20:26]))
print("         loss", ", ".join(f"{loss:.3g}" for loss in lost[20:26]))
print("order 0: loss", ", ".join(f"{loss:.3g}" for loss in saved[20:26]))

assert 0.1 * ETA * steeper.lambda_max > 2
assert lost[-1] > 1e9 * lost[20]  # it diverges
assert all(later < earlier for earlier, later in itertools.pairwise(saved[20:]))

# %% [markdown]
# It swings between 0 and $k\chi = 0.15$, and 0.15 is too much: the throttled run blows up, too. A gradual law is for
# gradual drifts. Order 0 has no such limit.
#
# ## 6. A classifier whose inputs drift
#
# Now a network: handwritten digits of 8 × 8 pixels, two hidden layers, softmax cross-entropy, batches of 32, and after
# 100 steps all pixels grow by a factor of 4. For a cross-entropy the bend of a sample is the *variance* of its logit
# changes under the predicted probabilities, $\operatorname{Var}_P(a)$: again no labels. We aim at the bottom of each
# parabola, $\chi = 1$: a network is no quadratic, and that leaves more room.
#
# With momentum, a new thing can happen. The step is mostly made of old gradients, and on the batch at hand it may point
# **uphill**, $g\!\cdot\!p \ge 0$: no length of it is short enough. The guard then *holds* the parameters for this step,
# $\alpha = 0$, while the buffer goes on and turns towards the new gradient.
#
# **Several seeds.** A run far outside its stability limit is *chaotic*: the last bit of a sum, which another processor
# rounds otherwise, decides how it ends. So one such run tells nothing, and its numbers will not come out on your
# machine as they did on ours. We look at the median of five, and at what does not hang on a bit: the first steps of the
# drift.

# %%
split = load_split(SEED)
SEEDS, WARM_UP, DRIFTED = range(5), 100, 150
Learned = tuple[list[float], History, float, float]


def learn(seed: int, optimizer_of: Callable[..., torch.optim.Optimizer], policy: Policy | None) -> Learned:
    """Train on batches of 32, pixels times 4 after the warm-up, from when on a policy is asked, if there is one.

    Return losses, the guard's history, and the loss and the accuracy at the end.
    """
    seed_everything(seed)
    model = mlp(width=32)
    optimizer = optimizer_of(model.parameters())
    losses, history = [], History()
    for step in range(WARM_UP + DRIFTED):
        if step == WARM_UP and policy is not None:
            history = safestep.attach(model, optimizer, policy=policy).history
        chosen = torch.randint(0, len(split.train_x), (32,))
        images = split.train_x[chosen] * (GAIN if step >= WARM_UP else 1.0)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), split.train_y[chosen])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        final = nn.functional.cross_entropy(model(GAIN * split.train_x), split.train_y).item()
        right = (model(GAIN * split.test_x).argmax(dim=1) == split.test_y).float().mean().item()
    return losses, history, final, right


SGD, MOMENTUM = "SGD, η = 0.5", "momentum 0.9, η = 0.1"
OPTIMIZERS = {
    SGD: partial(torch.optim.SGD, lr=0.5),
    MOMENTUM: partial(torch.optim.SGD, lr=0.1, momentum=0.9),
}
POLICIES = {"no throttle": None, "throttle": Throttle(chi=1.0)}
results = {
    (name, label): [learn(seed, optimizer_of, policy) for seed in SEEDS]
    for name, optimizer_of in OPTIMIZERS.items()
    for label, policy in POLICIES.items()
}
held = {
    name: [[str(one.status) for one in run[1]].count("held") for run in results[name, "throttle"]]
    for name in OPTIMIZERS
}
worst, final, right = {}, {}, {}
for key, runs in results.items():
    worst[key] = np.median([max(losses[WARM_UP + 1 : WARM_UP + 11]) for losses, *_ in runs])
    final[key], right[key] = np.median([run[2] for run in runs]), np.median([run[3] for run in runs])
print(f"medians of {len(SEEDS)} seeds {'worst of 10 steps':>38} {'loss at the end':>16} {'test accuracy':>14}")
for name, label in results:
    key = name, label
    print(f"{name:24} {label:13} {worst[key]:19.2f} {final[key]:16.3f} {right[key]:14.3f}")
    print(f"{'accuracy of each seed':>38}:", *(f"{run[3]:.2f}" for run in results[key]))
print("steps held:", held)

# %%
_, axes = plt.subplots(2, 2, figsize=(11, 6.4), layout="constrained", sharex=True)
for (above, below), name in zip(axes.T, OPTIMIZERS, strict=True):
    for label, colour in (("no throttle", ORANGE), ("throttle", BLUE)):
        above.semilogy(results[name, label][0][0], color=colour, lw=1, label=label)
    above.axhline(math.log(10), color="black", lw=1, ls="--")
    above.annotate("guessing, ln 10", (0, math.log(10)), (0, 5), textcoords="offset points")
    titled(above, f"{name}: seed {SEEDS[0]}", "", "loss of the batch, log scale")
    alpha = np.array(results[name, "throttle"][0][1]["scale"])
    drifted_steps = np.arange(WARM_UP, WARM_UP + DRIFTED)
    below.plot(drifted_steps, alpha, ".", ms=3, color=BLUE)
    below.plot(drifted_steps[alpha == 0], alpha[alpha == 0], "v", ms=5, color="tab:red")
    below.set_ylim(-0.05, 1.05)
    titled(below, f"The scale of every step, {held[name][0]} held", y="α")
    marked(above, WARM_UP)
    marked(below, WARM_UP)
axes[0, 0].legend(frameon=False, loc="lower left")

for name in OPTIMIZERS:
    lost, saved = (name, "no throttle"), (name, "throttle")
    assert worst[saved] < 0.5 * worst[lost]
    assert final[saved] < 0.7 * final[lost]
    assert right[saved] > right[lost] + 0.1
assert final[SGD, "no throttle"] > 0.9 * math.log(10)  # no better than guessing
assert right[SGD, "throttle"] > 0.8 > 0.3 > right[SGD, "no throttle"]
assert sum(held[SGD]) == 0 < sum(held[MOMENTUM])  # along the gradient nothing is uphill
assert any(
    later > earlier
    for losses, *_ in results[SGD, "throttle"]
    for earlier, later in itertools.pairwise(losses[WARM_UP:])
)

# %% [markdown]
# *What to look at.* Above: at the dotted line the pixels grow. Without a throttle SGD is thrown to where the network
# knows nothing, guesses, and stays there: a classifier does not go to infinity, it dies. With it, it stumbles and
# learns on. With momentum and no throttle it is a matter of luck: some seeds die, some limp on. With the throttle the
# worst of the first ten steps is less than half as bad, and the median run learns on; but nothing is promised of the
# end of a single run. Below: $\alpha$ of every step, and in red the steps that were held. Plain SGD has none; along
# the gradient of a batch nothing is uphill on it.
#
# Do not ask too much: the loss *of the batch of a step* is kept from rising, to second order. The next batch is another
# one, and so the blue losses do rise at times (the last `assert` above says so).
#
# ## 7. Only look
#
# Nobody has to hand the step length over at once. `Watch(Throttle())` leaves training as it is, bit for bit, and
# records in `would_scale` what the throttle would have done. **Diagnostics** add columns of your own: a function of
# the step as it was taken, what the guard saw, and the report. `safestep.tools.diagnostics` has more: `Sharpness`
# finds the eigenvalues of the Hessian.


# %%
def weight_error(step: Step, forwards: Forwards, report: StepReport) -> dict[str, float]:
    """Return how far the student was from the solution before the step."""
    before = next(iter(step.start.values()))
    return {"weight_error": float((before.double() - drifted.reference).norm())}


student.load_state_dict(trained)
inputs, answers = drifted.data()
sharpness = Sharpness(lambda: half_mse(student(inputs), answers))
_, history = after_drift(Watch(Throttle()), steps=6, diagnostics=[weight_error, sharpness])
watched = {name: value.clone() for name, value in student.state_dict().items()}
print(history, "\n")
print("step     2r   ηλ_max   would_scale   weight error")
for report in history:
    exact, error = report.extras["stability_margin_lambda_raw"], report.extras["weight_error"]
    print(f"{report.step:4} {2 * report.ratio:6.3f} {exact:8.3f} {report.would_scale:13.4f} {error:14.4g}")

student.load_state_dict(trained)  # the same six steps without any guard
plain = torch.optim.SGD(student.parameters(), lr=ETA)
for _ in range(6):
    plain.zero_grad()
    half_mse(student(inputs), answers).backward()
    plain.step()
assert torch.equal(student.state_dict()["0.weight"], watched["0.weight"])  # watching changed nothing
assert set(history["scale"]) == {1.0}
assert max(history["would_scale"]) < 0.18
for report in history:
    assert 2 * report.ratio < report.extras["stability_margin_lambda_raw"] * (1 + 1e-6)
    assert math.isclose(report.extras["stability_margin_lambda_raw"], margin, rel_tol=1e-4)

# %% [markdown]
# `guard.history` is a table when printed; a column comes by its name, `history["scale"]`, and `to_csv`, `to_jsonl` and
# `to_pandas` take all of it along. All columns of the published experiment, and its picture, are in one call; on the
# command line it is `safestep run drift-throttle`, over as many seeds as you like.

# %%
student.load_state_dict(trained)
record = DriftRun(law="curvature", rate=ETA, steps=60).train(student, drifted)
print(record)
assert record["loss"] == curvature[:60]  # section 4 was this run
record.plot(title="The drifted run under the curvature of the batch")

# %% [markdown]
# *What to look at.* Bottom left: the raw margin stays at 8.66, as the learning rate is wrong all the time. Bottom
# right: the $\alpha$ that makes up for it, and in green what the secant law would have chosen here.
#
# **When the claim fails.** "Every step goes down" was derived for a quadratic loss, its whole data, and a step along
# the gradient. So it is
#
# * *to second order*: a network is no quadratic, and $G$ leaves out how its outputs curve in the parameters. A step of
#   $\chi = 1.5$ lands half again as far as the model's lowest point, and there the model is only a model. A smaller
#   $\chi$ leaves more room.
# * *of this batch*: what the next batch thinks of the step nobody has asked. Small batches, noisy $\alpha$.
# * *of one step*: with momentum or Adam each step is kept from going up on its batch, a run of such steps is not. What
#   they gain is measured, not derived.
# * *of order 0 with `low=0`*: laws that move gradually are late, a smallest $\alpha$ above 0 may be too large, and the
#   secant law knows nothing at its first step and is meant for plain SGD.
# * *of the loss that was named*: the guard cannot see which loss the loop minimises. Multiply it by 4, and $r$ is four
#   times too small unless you say so:


# %%
def four_times(radius: Radius) -> tuple[list[float], float]:
    """Train on four times the loss; return the losses and the r of the first step."""
    student.load_state_dict(trained)
    optimizer = torch.optim.SGD(student.parameters(), lr=ETA)
    losses = []
    with safestep.attach(student, optimizer, policy=Throttle(), radius=radius) as guard:
        for _ in range(10):
            optimizer.zero_grad()
            loss = 4 * half_mse(student(inputs), answers)
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
    return losses, guard.history[0].ratio


wrong, wrong_r = four_times(CurvatureRadius("half_mse"))
right, right_r = four_times(CurvatureRadius("half_mse", scale=4.0))
for losses, first_r in ((wrong, wrong_r), (right, right_r)):
    print(f"r = {first_r:5.2f}; loss", ", ".join(f"{loss:.3g}" for loss in losses))
assert math.isclose(wrong_r, r, rel_tol=1e-3)
assert math.isclose(right_r, 4 * r, rel_tol=1e-3)
assert wrong[-1] > 1e3 * wrong[0]
assert all(later < earlier for earlier, later in itertools.pairwise(right))

# %% [markdown]
# ## 8. What to keep
#
# * Stable means $m = \eta\lambda_{\max} < 2$. A gain of $\gamma$ on the inputs takes the margin to $\gamma^2 m$, and a
#   margin above 2 multiplies the loss by $(1-m)^2$ a step.
# * `attach(model, optimizer, policy=Throttle())` scales each step by $\alpha = \min(1, \chi/(2r))$, with
#   $r = p^\top Gp/(-2\,g\!\cdot\!p)$ from the batch at hand: the first bad step is measured like any other.
# * Along the gradient of a quadratic every $\chi < 2$ goes down at every step.
# * Where $2r \le \chi$, as in a quiet run, the guard writes nothing.
# * Steps that point uphill on their batch are held.
#
# Next: [noisy descent](noisy_descent.ipynb), where the gradients are wrong by chance and the rate has to come down.
#
# **Sources.** M. Blanco Valentin, ENABOL / kappa, *Experiment 000: One-Layer Global Throttle Sanity Check*, repository
# manuelblancovalentin/kappa_budgeting: the teacher, the drift, and the secant law of the throttle. J. Martens, *New
# insights and perspectives on the natural gradient method*, JMLR 21 (2020), for the Gauss–Newton matrix.

# %%
if plt.get_backend().lower() != "agg":  # run as a plain script on a desktop, this opens the pictures
    plt.show()
