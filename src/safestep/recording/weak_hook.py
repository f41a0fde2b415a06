"""A module hook that holds its owner weakly, and that copies and pickles of the model carry as an inert stub."""

from __future__ import annotations

import weakref
from typing import Any

from torch._compile import _disable_dynamo

from safestep.recording.mute import hears


class WeakHook:
    """Calls a method as long as its owner lives and is to hear the forward, see `safestep.recording.mute`.

    Args:
        method: bound to its owner; None for a stub.
        listener: who has to hear the forward; None for the owner itself.
    """

    def __init__(self, method: Any = None, listener: object | None = None) -> None:
        self._method = weakref.WeakMethod(method) if method is not None else None
        self._listener = weakref.ref(listener) if listener is not None else None

    @_disable_dynamo  # a compiled model runs its hooks as they are: nothing in them is for a graph
    def __call__(self, *args: Any) -> None:
        """Call the method, if it is there and to hear this forward."""
        method = self._method() if self._method is not None else None
        if method is not None and hears(self._listener() if self._listener is not None else method.__self__):
            method(*args)

    def __reduce__(self) -> tuple[type[WeakHook], tuple[()]]:
        return (WeakHook, ())
