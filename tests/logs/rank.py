"""One process of several: trains under a watching guard with every kind of log. Arguments: rank, size, folder."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from torch import distributed

import safestep
from safestep.logs import EachRank, JsonLines, TensorBoard


def main() -> None:
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    try:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        called: list[int] = []
        guard = safestep.attach(
            model,
            optimizer,
            policy=safestep.Watch(),
            log=[
                folder / f"of-{rank}.jsonl",
                folder / f"of-{rank}.csv",
                TensorBoard(folder / f"of-{rank}"),
                lambda report: called.append(report.step),
                EachRank(JsonLines(folder / f"each-{rank}.jsonl")),
            ],
            log_every=2,
        )
        for _ in range(5):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(torch.randn(8, 4)), torch.randint(0, 3, (8,))).backward()
            optimizer.step()
        guard.detach()
        (folder / f"called-{rank}").write_text(f"{called} {len(guard.history)}")
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
