"""Three runs that end in a spike, and the function that asks why: a rate too large, a corrupted batch, a layer.

The first line trains until the spike and writes post-mortem-rate.pt, the checkpoint of the step before it; the second
asks what carried the step after it too far:

    python examples/post_mortem.py rate
    safestep autopsy post-mortem-rate.pt --script examples/post_mortem.py:setup

Likewise with batch, layer, and none, which is an ordinary step. `python examples/post_mortem.py picture.png` draws all.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from safestep.tools.autopsy import Scene, autopsy

SPIKE = 50
KINDS = ("rate", "batch", "layer", "none")


def build() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a small classifier of digits, and its optimizer: a parameter group a layer."""
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 10))
    groups = [{"params": list(layer.parameters())} for layer in model if isinstance(layer, nn.Linear)]
    return model, torch.optim.AdamW(groups, lr=0.003)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss of a batch."""
    return F.cross_entropy(model(batch[0]), batch[1])


def train(kind: str, seed: int = 0) -> dict[str, Any]:
    """Train up to a step that goes wrong in one of three ways; return the checkpoint before it, with its batch."""
    torch.manual_seed(seed)
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    model, optimizer = build()
    for step in range(SPIKE + 1):
        rows = torch.randint(len(x), (64,))
        batch = x[rows].clone(), y[rows]
        if step == SPIKE:
            if kind == "rate":
                for group in optimizer.param_groups:
                    group["lr"] *= 1000
            if kind == "batch":
                batch[0][[3, 17, 40]] *= 160  # pixels that nobody divided by 16, and ten times that
            if kind == "layer":
                optimizer.param_groups[1]["lr"] *= 1000
            break
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
        before = batch
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "batch": batch, "before": before}


def setup(checkpoint: dict[str, Any]) -> Scene:
    """Return the step to examine: everything as it was before it."""
    model, optimizer = build()
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])
    return Scene(
        model=model, optimizer=optimizer, batch=checkpoint["batch"], loss=loss, ordinary=[checkpoint["before"]]
    )


def draw(path: str) -> None:
    """Draw the loss along the three spikes and the ordinary step."""
    import matplotlib.pyplot as plt  # here, so that setup needs none of it

    from safestep.plots import loss_along_step

    figure = plt.figure(figsize=(10, 7), layout="constrained")
    for ax, kind in zip(figure.subplots(2, 2).flat, KINDS, strict=True):
        found = autopsy(setup(train(kind)))
        loss_along_step(found, ax=ax)
        ax.set_title(f"{kind}: cause {found.cause}", loc="left", fontweight="bold")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    asked = " ".join(sys.argv[1:])
    if asked.endswith(".png"):
        draw(asked)
    elif asked in KINDS:
        torch.save(train(asked), f"post-mortem-{asked}.pt")
    else:
        sys.exit(f"usage: python {sys.argv[0]} {'|'.join(KINDS)}|PICTURE.png")
