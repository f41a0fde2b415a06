"""Run every check on the backend of KERAS_BACKEND and write what was found: a text per check, empty where it holds."""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch

OWN = ("`torch.jit.script", "__array__ implementation doesn't accept a copy")
"""Warnings that torch and Keras raise in their own code."""


def main(out: Path, *only: str) -> None:
    """Write the outcome of all checks, or of those named."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    for message in OWN:
        warnings.filterwarnings("ignore", message=message)
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if file.stem == "__main__":
            continue
        module = importlib.import_module(file.stem)
        for name, check in vars(module).items():
            label = f"{file.stem}.{name.removeprefix('check_')}"
            if not name.startswith("check_") or (only and not label.startswith(only)):
                continue
            began = time.perf_counter()
            try:
                check()
                found[label] = ""
            except Exception:
                found[label] = traceback.format_exc()
            print(f"{time.perf_counter() - began:6.1f} s {label} {found[label]}", flush=True)
    out.write_text(json.dumps(found), encoding="utf-8")


main(Path(sys.argv[1]), *sys.argv[2:])
