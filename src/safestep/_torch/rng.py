"""The random generators a forward may draw from: captured, set again, and left as they were found."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

Setter = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class GeneratorStates:
    """The states of Python's, NumPy's (where loaded) and torch's global generators at one moment."""

    states: tuple[tuple[Setter, Any], ...]

    @classmethod
    def capture(cls) -> GeneratorStates:
        """Read every generator; a few microseconds, no device is synchronised."""
        states: list[tuple[Setter, Any]] = [
            (torch.set_rng_state, torch.get_rng_state()),
            (random.setstate, random.getstate()),
        ]
        if (numpy_random := sys.modules.get("numpy.random")) is not None:
            states.append((numpy_random.set_state, numpy_random.get_state()))
        if torch.cuda.is_initialized():
            states.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
        if torch.backends.mps.is_available():
            states.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
        return cls(tuple(states))

    def restore(self) -> None:
        """Set every captured generator back."""
        for setter, state in self.states:
            setter(state)


@contextmanager
def preserved_generators() -> Iterator[None]:
    """Leave every generator as it was, whatever is drawn inside."""
    states = GeneratorStates.capture()
    try:
        yield
    finally:
        states.restore()
