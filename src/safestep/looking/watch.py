"""The live view: one frame, or frames for as long as somebody looks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live

from safestep.errors import LogError
from safestep.logs.follow import Follower
from safestep.looking.frame import frame

_ASKED = "expected the .csv or .jsonl file that safestep.attach(..., log=...) writes"

_KEPT = 2_000
"""Steps that a frame is made of: it is drawn anew every second, beside the training."""


def watch(
    path: Path,
    screen: Console,
    *,
    once: bool = False,
    every: float = 1.0,
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Show the log of a run in a terminal until a keyboard interrupt; once, where there is no terminal.

    A log that is not there yet is waited for.

    Args:
        path: the log.
        screen: where to show it.
        once: show what there is, and no more.
        every: seconds between two looks.
        pause: what waits between them.

    Raises:
        LogError: for a directory, a file that is no log, and, for a single frame, a log that is not there or empty.
    """
    check_file(path)
    log = Follower(path, keep=_KEPT)
    log.look()
    if once or not screen.is_terminal:
        if not log.steps:
            raise LogError(
                f"{path} {_lack(path)}: {_ASKED}, or `safestep watch {path}` in a terminal, which waits for it"
            )
        screen.print(_frame(log, screen))
        return
    with Live(_frame(log, screen), console=screen, auto_refresh=False) as live:
        while True:
            pause(every)
            log.look()
            live.update(_frame(log, screen), refresh=True)


def check_file(path: Path) -> None:
    """Refuse what cannot be a log, whoever writes to it later.

    Raises:
        LogError: for a directory, the records of an experiment, and a compressed file.
    """
    if path.name == "records.jsonl" and path.with_name("results.json").exists():
        raise LogError(f"{path} holds the records of an experiment: expected `safestep report {path.parent}`")
    if path.is_dir():
        raise LogError(f"{path} is a directory: {_ASKED}")
    if path.suffix.lower() in {".gz", ".zip", ".bz2", ".xz", ".zst"}:
        raise LogError(f"{path} is compressed: {_ASKED}; unpack it first")


def _lack(path: Path) -> str:
    return "holds no step yet" if path.exists() else "does not exist"


def _frame(log: Follower, screen: Console) -> RenderableType:
    try:
        age = max(0.0, time.time() - log.path.stat().st_mtime)
    except FileNotFoundError:
        age = math.nan
    said = {"no record of a step": log.left_out, "superseded by later records of their steps": log.superseded}
    return frame(str(log.path), list(log.steps), said, age, screen.width)
