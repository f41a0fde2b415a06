"""What bears on the last digits of a number: versions and the kind of machine, and nothing that tells whose it is."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch


def environment() -> dict[str, str]:
    """Return it for this process."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": version("numpy"),
        "scikit-learn": version("scikit-learn"),
        "platform": f"{platform.system()} {platform.machine()}",
    }
