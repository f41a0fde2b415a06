"""Run every check on several gloo ranks and write what was found: a text per check, empty where all ranks agree."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

OWN = ("`torch.jit.", "FSDP2-wrapped module")
"""Warnings that torch raises in its own code."""
PATIENCE = timedelta(seconds=300)
"""For a rank that lags on a busy machine; one that failed ends its process, which the others notice at once."""


def work(rank: int, ranks: int, out: Path, only: tuple[str, ...]) -> None:
    """Run the checks on one rank; the first that fails ends them, since the other ranks are somewhere else then."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    for message in OWN:
        warnings.filterwarnings("ignore", message=message)
    os.environ["SAFESTEP_CHECKS"] = str(out.parent)
    store = distributed.FileStore(str(out.with_suffix(".store")), ranks)
    distributed.init_process_group("gloo", rank=rank, world_size=ranks, store=store, timeout=PATIENCE)
    found: dict[str, str] = {}
    for file in sorted(Path(__file__).parent.glob("*.py"), key=lambda file: (file.stem == "missing", file.stem)):
        module = importlib.import_module(file.stem) if file.stem != "__main__" else None
        for name, check in list(vars(module).items()) if module else ():  # a warning adds to them
            label = f"{file.stem}.{name.removeprefix('check_')}"
            if not name.startswith("check_") or (only and not label.startswith(only)):
                continue
            began = time.perf_counter()
            try:
                check()
                found[label] = ""
            except Exception:
                found[label] = f"rank {rank}: {traceback.format_exc()}"
            if rank == 0:
                print(f"{time.perf_counter() - began:6.1f} s {label}", flush=True)
            out.with_suffix(f".{rank}").write_text(json.dumps(found), encoding="utf-8")
            if found[label]:
                print(found[label], flush=True)
                os._exit(0)
            distributed.barrier()
    distributed.destroy_process_group()


def main(out: Path, ranks: int, *only: str) -> None:
    """Write the outcome of all checks, or of those named, of as many processes as there are ranks."""
    command = [sys.executable, str(Path(__file__).parent), str(out), str(ranks), *only]
    started = [subprocess.Popen(command, env=os.environ | {"RANK": str(rank)}) for rank in range(ranks)]
    for process in started:
        process.wait()
    by_rank = [json.loads(out.with_suffix(f".{rank}").read_text(encoding="utf-8")) for rank in range(ranks)]
    names = [name for name in by_rank[0] if all(name in found for found in by_rank)]
    merged = {name: "\n".join(filter(None, (found[name] for found in by_rank))) for name in names}
    out.write_text(json.dumps(merged), encoding="utf-8")


arguments = Path(sys.argv[1]).absolute(), int(sys.argv[2])
if "RANK" in os.environ:
    work(int(os.environ["RANK"]), arguments[1], arguments[0], tuple(sys.argv[3:]))
else:
    main(*arguments, *sys.argv[3:])
