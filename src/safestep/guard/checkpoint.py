"""What a guard saves and how it is read back: keys that never change, and one text that holds what was learnt."""

from __future__ import annotations

import base64
import io
import pickle
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from safestep.guard.rate_peaks import RatePeaks
from safestep.guard.wind_down import WindDown
from safestep.policy import Policy
from safestep.radius import Radius
from safestep.radius.radius import State

VERSION = 3
"""Version 2 had what radius and policy remember as nested dictionaries, whose keys come and go with what was learnt."""

_PARTS = ("radius", "policy")
_KEYS = {2: ("step", "undone_in_a_row", *_PARTS), 3: ("step", "undone_in_a_row", "held_in_a_row", *_PARTS, "memory")}


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What must survive a restart.

    Attributes:
        step: how many steps were counted.
        undone: steps in a row that were undone.
        held: steps in a row that were held.
        radius: what the radius remembers.
        policy: what the policy remembers.
        forwards: what the recorder learnt of the model's forwards; empty if that is not known.
        wind_down: the end of the run; None if nobody has decided on one, as before there was any.
        peaks: of the learning rates; none where they were not kept, as before a target followed them.
        last: some coordinates of the last step; None where nobody looks back at it.
    """

    step: int
    undone: int
    held: int = 0
    radius: State = None
    policy: State = None
    forwards: dict[str, Any] = field(default_factory=dict)
    wind_down: WindDown | None = None
    peaks: RatePeaks = field(default_factory=RatePeaks)
    last: dict[str, Any] | None = None

    def as_state(self, radius: Radius, policy: Policy) -> dict[str, Any]:
        """Return numbers and texts under the same keys for every guard, new or old.

        Distributed checkpointing takes dictionaries apart and reads only keys that are there before it reads: what was
        learnt is therefore one text, a file of ``torch.save`` in base 64.

        Raises:
            TypeError: if something remembered is not plain data, and could not be loaded again.
        """
        end = self.wind_down and asdict(self.wind_down)
        memory = {"radius": self.radius, "policy": self.policy, "forwards": self.forwards, "wind_down": end}
        memory |= {"peaks": self.peaks.as_state()}
        memory |= {} if self.last is None else {"last": self.last}
        return {
            "version": VERSION,
            "step": self.step,
            "undone_in_a_row": self.undone,
            "held_in_a_row": self.held,
            "radius": kind_of(radius),
            "policy": kind_of(policy),
            "memory": _packed(memory),
        }

    @classmethod
    def of(cls, state: Mapping[str, Any], radius: Radius, policy: Policy) -> Saved:
        """Read a state, of this version or the one before.

        Raises:
            ValueError: if it is no state of a guard, of an unknown version, of another radius or policy, or damaged.
        """
        version = state.get("version") if isinstance(state, Mapping) else None
        if not isinstance(version, int) or (missing := [key for key in _KEYS.get(version, ()) if key not in state]):
            found = f"keys {sorted(map(str, state))}" if isinstance(state, Mapping) else f"a {type(state).__name__}"
            lacking = ", ".join(missing) if isinstance(version, int) else "version"
            raise ValueError(f"not the state of a guard: {lacking} missing from {found}")
        if version not in _KEYS:
            raise ValueError(f"state of version {version}: this safestep reads versions 2 and {VERSION}; upgrade it")
        names = {part: state[part] if version == VERSION else state[part]["name"] for part in _PARTS}
        parts: tuple[tuple[str, Radius | Policy], ...] = (("radius", radius), ("policy", policy))
        for part, mine in parts:
            if names[part] not in {kind_of(mine), type(mine).__name__ if version < VERSION else ""}:
                raise ValueError(
                    f"the state was saved with {part} {names[part]}, this guard has {kind_of(mine)}: "
                    "attach with the same one before loading"
                )
        counts = {key: _count(key, state[key]) for key in ("step", "undone_in_a_row")}
        if version < VERSION:
            learnt, held = {part: state[part]["state"] for part in _PARTS}, 0
        else:
            learnt, held = _unpacked(state["memory"]), _count("held_in_a_row", state["held_in_a_row"])
        return cls(step=counts["step"], undone=counts["undone_in_a_row"], held=held, **learnt)


def kind_of(part: Radius | Policy) -> str:
    """Return the name of a radius's or policy's class; of a radius made of others, theirs too.

    Example:
        >>> from safestep import CurvatureRadius, SoftmaxRadius, Tightest
        >>> kind_of(Tightest({SoftmaxRadius(): 1.0, CurvatureRadius(): 0.75}))
        'Tightest of SoftmaxRadius, CurvatureRadius'
    """
    inside = ", ".join(map(kind_of, part.parts)) if isinstance(part, Radius) else ""
    return f"{type(part).__name__} of {inside}" if inside else type(part).__name__


def _packed(memory: Mapping[str, Any]) -> str:
    file = io.BytesIO()
    torch.save(_interned(memory), file)
    file.seek(0)
    if unsafe := torch.serialization.get_unsafe_globals_in_checkpoint(file):
        raise TypeError(
            f"the radius or policy remembers {', '.join(unsafe)}: expected plain data (numbers, texts, lists, "
            "dictionaries, tensors), else torch.load(weights_only=True) could not read the checkpoint"
        )
    return base64.b64encode(file.getbuffer()).decode("ascii")


def _interned(value: Any) -> Any:
    """Return the same with one object for equal texts, which a file tells apart from two: equal states are equal."""
    if isinstance(value, dict):
        return {_interned(key): _interned(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_interned, value))
    return sys.intern(value) if type(value) is str else value


def _unpacked(text: object) -> dict[str, Any]:
    try:
        if not isinstance(text, str):
            raise TypeError(f"expected a text, saw a {type(text).__name__}")
        file = io.BytesIO(base64.b64decode(text, validate=True))
        # On the CPU: the device it was saved from may be another rank's, or not there any more.
        memory = torch.load(file, map_location="cpu", weights_only=True)
        end, peaks = memory.get("wind_down"), RatePeaks.of(memory.get("peaks", {}))
        extra = {"wind_down": end and WindDown(**end), "peaks": peaks, "last": memory.get("last")}
        return {part: memory[part] for part in (*_PARTS, "forwards")} | extra
    except (ValueError, TypeError, KeyError, RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"what the guard remembered cannot be read ({_first_line(error)}): the checkpoint is cut short or damaged; "
            "load an earlier one"
        ) from error


def _count(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{key} = {value!r} in the state of a guard: expected a whole number of at least 0")
    return value


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0] or type(error).__name__
