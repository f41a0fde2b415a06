"""Lets a torchvision that was made for CUDA be imported beside a torch for the CPU; nothing here runs its operators.

timm needs torchvision, and package indexes have it for torch with CUDA alone. Its compiled operators (boxes, regions of
interest) do not load then, and its import fails as it registers their shapes. Lightning, transformers and TRL import it
where it is installed.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import torch


def name() -> None:
    """Declare the operators without any kernel, where those of torchvision do not load: a call would be an error."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or torch.version.cuda is not None:
        return
    folder = Path(found.origin).parent
    try:
        torch.ops.load_library(next(folder.glob("_C*.so")))
    except (OSError, StopIteration):
        shapes = (folder / "_meta_registrations.py").read_text(encoding="utf-8")
        for operator in set(re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"\)', shapes)):
            torch.library.define(f"torchvision::{operator}", "(Tensor x) -> Tensor")
