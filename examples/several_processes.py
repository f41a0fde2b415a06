"""Train a small classifier of the digits on several processes, guarded: data parallel, sharded or tensor parallel.

On one machine, with as many processes as there are GPUs, or on CPUs:

    torchrun --nproc-per-node 2 examples/several_processes.py
    torchrun --nproc-per-node 4 examples/several_processes.py --parallel sharded --steps 100 --checkpoint runs/digits

On two machines of eight GPUs each, started on both:

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 examples/several_processes.py

Run again with the same --checkpoint it goes on where it stopped. safestep is one line of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import functional as F

import safestep

KIND = "cuda" if torch.cuda.is_available() else "cpu"


def build(parallel: str, device: torch.device) -> nn.Module:
    """Return the model, spread over the processes."""
    torch.manual_seed(0)  # the same weights everywhere
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 10)).to(device)
    mesh = init_device_mesh(KIND, (dist.get_world_size(),))
    if parallel == "data":
        return nn.parallel.DistributedDataParallel(model)
    if parallel == "sharded":
        for layer in (model[0], model[2], model[4]):
            fully_shard(layer, mesh=mesh)
        return fully_shard(model, mesh=mesh)
    return parallelize_module(model, mesh, {"2": ColwiseParallel(), "4": RowwiseParallel()})


def rows(step: int, size: int, batch: int, parallel: str) -> Tensor:
    """Return which rows this process takes: its part of the batch, or all of it where the model is spread."""
    everyone = torch.randint(size, (batch,), generator=torch.Generator().manual_seed(step))
    return everyone if parallel == "tensor" else everyone.chunk(dist.get_world_size())[dist.get_rank()]


def state(model: nn.Module, optimizer: torch.optim.Optimizer, guard: safestep.Guard, step: int) -> dict[str, object]:
    """Return all that has to survive; the guard has a state of its own."""
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments, "guard": guard.state_dict(), "step": step}


def train(options: argparse.Namespace, device: torch.device) -> None:
    """Train, and print from the first process."""
    digits = load_digits()
    x = torch.tensor(digits.data, dtype=torch.float32, device=device) / 16
    y = torch.tensor(digits.target, device=device)
    model = build(options.parallel, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, foreach=False)
    guard = safestep.attach(model, optimizer, log=options.records)  # the one line
    first, begin = dist.get_rank() == 0, 0
    if options.checkpoint and options.checkpoint.exists():
        saved = state(model, optimizer, guard, 0)
        dcp.load(saved, checkpoint_id=options.checkpoint)
        set_state_dict(model, optimizer, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"])
        guard.load_state_dict(saved["guard"])
        begin = saved["step"]
    for step in range(begin, options.steps):
        taken = rows(step, len(y), options.batch, options.parallel)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[taken]), y[taken])
        loss.backward()
        optimizer.step()
        if first and (step + 1) % 20 == 0:
            print(f"loss here {loss.item():.4f}  {guard.last}", flush=True)
    if options.checkpoint:
        dcp.save(state(model, optimizer, guard, options.steps), checkpoint_id=options.checkpoint)
    with torch.no_grad():
        right = (model(x).argmax(-1) == y).float().mean().item()
    if first:
        print(
            f"{options.parallel}, {dist.get_world_size()} processes: {right:.1%} of the training digits right",
            flush=True,
        )


def main() -> None:
    """Read the options, join the other processes, train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parallel", choices=["data", "sharded", "tensor"], default="data")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=128, help="rows of a step over all processes")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--records", type=Path, help="a file for the steps, written by the first process")
    parser.add_argument("--checkpoint", type=Path, help="a directory to go on from, and to save to")
    options = parser.parse_args()
    dist.init_process_group("nccl" if KIND == "cuda" else "gloo")  # torchrun says who is who
    device = torch.device(KIND, dist.get_node_local_rank()) if KIND == "cuda" else torch.device("cpu")
    if KIND == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    train(options, device)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
