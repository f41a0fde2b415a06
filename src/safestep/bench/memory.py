"""Peak memory of tensors, counted to the byte, on the CPU as on a CUDA device."""

from __future__ import annotations

import gc
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch.profiler import ProfilerActivity, profile, record_function

_WINDOW = "safestep bench window "
_CPU = 0
"""The number of this device type in a trace."""
_QUIET = "6"
"""The level above which torch's tracing library (Kineto) does not announce itself on stderr."""


class PeakMeter:
    """Counts the memory allocated inside its block, and finds the peak of each window in it.

    On a CUDA device it reads ``torch.cuda.max_memory_allocated``. On the CPU it takes the memory events of
    `torch.profiler`: every allocation and release of torch's CPU allocator with its size, temporaries inside an
    operator included. What a library behind an operator allocates by itself (oneDNN's and MKL's scratch) is not seen,
    nor is what Python holds, nor what a thread of the user's own allocates. Build everything inside the block: what was
    there before it does not count.

    Args:
        device: where the tensors are.

    Attributes:
        peaks: bytes at the peak of each window by name, after the block.

    Example:
        >>> with PeakMeter(torch.device("cpu")) as meter:
        ...     kept = torch.empty(1000, dtype=torch.uint8)
        ...     with meter.window("doubling"):
        ...         twice = torch.cat([kept, kept])
        >>> meter.peaks
        {'doubling': 3000}
    """

    def __init__(self, device: torch.device) -> None:
        self.peaks: dict[str, int] = {}
        self._device = device

    def __enter__(self) -> Self:
        """Begin to count."""
        gc.collect()
        if self._device.type == "cuda":
            self._before = torch.cuda.memory_allocated(self._device)
        else:
            os.environ.setdefault("KINETO_LOG_LEVEL", _QUIET)
            self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self._profile.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop counting and find the peaks."""
        if self._device.type == "cuda":
            return
        self._profile.__exit__(kind, error, at)
        if error is None:
            with tempfile.TemporaryDirectory() as folder:
                trace = Path(folder) / "trace.json"
                self._profile.export_chrome_trace(str(trace))
                self.peaks = _peaks(json.loads(trace.read_text(encoding="utf-8"))["traceEvents"])

    @contextmanager
    def window(self, name: str) -> Iterator[None]:
        """Look for a peak inside this block; each name once."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            yield
            self.peaks[name] = torch.cuda.max_memory_allocated(self._device) - self._before
        else:
            with record_function(_WINDOW + name):
                yield


def _peaks(events: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the highest level inside each window, from the events of a trace: the level it begins with counts."""
    changes = sorted(
        (event["ts"], event["args"]["Ev Idx"], event["args"]["Addr"], event["args"]["Bytes"])
        for event in events
        if event.get("name") == "[memory]" and event["args"]["Device Type"] == _CPU
    )
    levels, level, sizes = list[tuple[float, int]](), 0, dict[int, int]()
    for time, _, address, change in changes:
        if change > 0:
            sizes[address] = change
            level += change
        else:  # what was allocated before the block, and is released in it, never counted
            level -= sizes.pop(address, 0)
        levels.append((time, level))
    peaks = {}
    for event in events:
        if str(event.get("name", "")).startswith(_WINDOW):
            begin, end = event["ts"], event["ts"] + event["dur"]
            at_begin = [level for time, level in levels if time <= begin][-1:]
            inside = [level for time, level in levels if begin < time <= end]
            peaks[event["name"].removeprefix(_WINDOW)] = max([0, *at_begin, *inside])
    return peaks
