"""An interrupt from the keyboard that is never lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def heeded() -> Iterator[Callable[[], None]]:
    """Yield a function that raises KeyboardInterrupt if there has been one inside the block, even if it was swallowed.

    Python drops an exception that is raised while an object is being deleted or a callback of the garbage collector
    runs, and an interrupt may fall there: then nothing ends. Whoever works piece by piece asks after each.

    Example:
        >>> with heeded() as check:
        ...     check()
    """
    interrupted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    def check() -> None:
        if interrupted:
            raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) in {signal.SIG_IGN, None}:
        yield check
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
