"""What a guard costs today: the same steps without it and with it, interleaved, as paired ratios.

Run it: ``.venv/bin/python docs/cost.py``. The figures of the README come from here.
"""

from __future__ import annotations

import statistics
import time
from itertools import pairwise

import torch
from torch import nn

import safestep

MODELS = {
    "digits MLP 64-128-128-10, batch 128": ((64, 128, 128, 10), 128),
    "MLP 784-1024-1024-10, batch 256": ((784, 1024, 1024, 10), 256),
}
ROUNDS, STEPS = 15, 10


def mlp(sizes: tuple[int, ...]) -> nn.Sequential:
    """Return a GELU network with the given layer sizes."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    return nn.Sequential(*layers[:-1])


def timed(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the seconds that some steps take."""
    begin = time.perf_counter()
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return time.perf_counter() - begin


def main() -> None:
    """Print a table: median ratio of a guarded step to a plain one, with quartiles."""
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, AdamW, {ROUNDS} pairs of {STEPS} steps")
    for name, (sizes, batch) in MODELS.items():
        x, y = torch.randn(batch, sizes[0]), torch.randint(0, sizes[-1], (batch,))
        pairs = []
        for lr in (1e-4, 10.0):  # far inside; capped at every step
            contestants = []
            for guarded in (False, True):
                model = mlp(sizes)
                optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4 if not guarded else lr)
                if guarded:
                    safestep.attach(model, optimizer)
                timed(model, optimizer, x, y)
                contestants.append((model, optimizer))
            ratios = []
            for _ in range(ROUNDS):
                plain, guarded_time = (timed(m, o, x, y) for m, o in contestants)
                ratios.append(guarded_time / plain)
            low, _, high = statistics.quantiles(ratios, n=4)
            pairs.append(f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})")
        print(f"{name}: inside {pairs[0]}, capped at every step {pairs[1]} times a plain step")


if __name__ == "__main__":
    main()
