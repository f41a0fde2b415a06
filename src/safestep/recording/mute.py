"""Switches off the recording of forwards that are not training: trials, diagnostics, replays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[object | None] = ContextVar("listener", default=None)
"""The one recorder that hears forwards; None if all do."""


@contextmanager
def heard_only_by(recorder: object) -> Iterator[None]:
    """Keep every other recorder from hearing the forwards inside: they are trials, no part of its training."""
    token = _listener.set(recorder)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def unheard() -> Iterator[None]:
    """Keep every recorder from hearing the forwards inside."""
    with heard_only_by(object()):
        yield


def hears(recorder: object) -> bool:
    """Return whether a recorder is to hear the forward that is running."""
    return _listener.get() in {None, recorder}
