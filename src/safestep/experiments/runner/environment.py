"""What bears on the last digits of a number: versions and the kind of machine, and nothing that tells whose it is."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from safestep._version import __version__


def environment() -> dict[str, str]:
    """Return it for this process."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": version("numpy"),
        "scikit-learn": version("scikit-learn"),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Return it with the version of safestep."""
    return {"safestep": __version__, **environment()}
