"""The run of the README, with and without its one line: `python examples/rate_spike.py [PICTURE]` draws both."""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import safestep

STEPS, SPIKE, RATE, TOO_MUCH, TRAINED = 200, 50, 0.003, 3.0, 1400


def losses(*, guarded: bool) -> tuple[list[float], float]:
    """Return the loss of each batch, in nats, and the accuracy on the digits that were not trained on."""
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    if guarded:
        safestep.attach(model, optimizer)
    found = []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = TOO_MUCH if step == SPIKE else RATE
        rows = torch.randint(TRAINED, (64,))
        loss = cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    with torch.no_grad():
        right = model(x[TRAINED:]).argmax(1) == y[TRAINED:]
    return found, right.float().mean().item()


def draw(axes: Axes) -> None:
    """Draw both runs, each with its name and accuracy beside its end."""
    for guarded, colour, name in ((False, "#D55E00", "without"), (True, "#0072B2", "with safestep.attach")):
        found, accuracy = losses(guarded=guarded)
        axes.plot(found, color=colour, linewidth=1.6)
        label = f"{name}\n{accuracy:.0%} right"
        axes.annotate(label, (STEPS - 1, found[-1]), (6, 0), textcoords="offset points", color=colour, va="center")
    axes.annotate("rate ×1000,\none step", (SPIKE, 30.0), (-8, 0), textcoords="offset points", ha="right", color="0.35")
    axes.axvline(SPIKE, color="0.8", linewidth=1.0, zorder=0)
    axes.set(yscale="log", xlabel="step", ylabel="loss (nats)", xlim=(0, STEPS))
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    figure, axes = plt.subplots(figsize=(7.2, 2.9), layout="constrained")
    draw(axes)
    figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "rate-spike.png", dpi=160)
