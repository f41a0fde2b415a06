"""Settings of an experiment: frozen dataclasses that check themselves, read from ``key=value`` texts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

from safestep.errors import SafestepError, UnknownNameError
from safestep.experiments.runner.names import nearest
from safestep.records.report import plain

_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_EXPECTED = {float: "a finite number", int: "a whole number", bool: "true or false", str: "a text"}


class SettingError(SafestepError, ValueError):
    """A setting of an experiment has a value that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of the settings of every experiment: all that a run depends on besides its seed.

    Fields are of type float, int, bool or str, or a tuple of one of these. A subclass checks its ranges in
    ``__post_init__``, after this class has checked the types.
    """

    QUICK: ClassVar[dict[str, Any]] = {}
    """What ``--quick`` changes: enough to see everything work, not to see the result."""

    def __post_init__(self) -> None:
        """Check the type of every value; numbers must be finite."""
        for key, kind in self.types().items():
            value = getattr(self, key)
            if get_origin(kind) is tuple:
                if not isinstance(value, tuple):
                    raise SettingError(f"{key}={value!r}: expected a tuple")
                shape = get_args(kind)
                self.require(shape[-1] is ... or len(value) == len(shape), key, f"{len(shape)} values")
                for item in value:
                    self.require(_is(item, shape[0]), key, f"{_EXPECTED[shape[0]]} in each place")
            else:
                self.require(_is(value, kind), key, _EXPECTED[kind])

    def require(self, holds: bool, key: str, expected: str) -> None:
        """Raise SettingError unless a condition on a setting holds."""
        if not holds:
            raise SettingError(f"{key}={_written(getattr(self, key))}: expected {expected}")

    def require_range(self, low: int, high: int, *keys: str) -> None:
        """Raise SettingError unless every one of some settings is within bounds, both included."""
        for key in keys:
            self.require(low <= getattr(self, key) <= high, key, f"at least {low} and at most {high}")

    def require_names(self, key: str, names: Collection[str]) -> None:
        """Raise SettingError unless a setting holds some of these names, none of them twice."""
        chosen = getattr(self, key)
        usable = len(set(chosen)) == len(chosen) > 0 and set(chosen) <= set(names)
        self.require(usable, key, f"each at most once of {', '.join(names)}")

    @classmethod
    def types(cls) -> dict[str, Any]:
        """Return the type of every setting by key."""
        return {key: kind for key, kind in get_type_hints(cls).items() if get_origin(kind) is not ClassVar}

    @classmethod
    def parse(cls, assignments: Iterable[str] = (), *, quick: bool = False) -> Self:
        """Return the defaults with some values changed.

        Args:
            assignments: texts ``key=value``; lists are separated by commas.
            quick: start from the reduced setting.

        Returns:
            The settings, checked.

        Raises:
            UnknownNameError: for a key that does not apply here; the message says which do.
            SettingError: for a value that cannot be read or used.
        """
        types, values = cls.types(), dict(cls.QUICK) if quick else {}
        for assignment in assignments:
            key, equals, text = (part.strip() for part in assignment.partition("="))
            if not equals:
                raise SettingError(f"{assignment!r}: expected key=value with a key of {', '.join(types)}")
            if key not in types:
                raise UnknownNameError(f"no setting {key!r} in this experiment{nearest(key, list(types))}")
            values[key] = _read(key, text, types[key])
        return cls(**values)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the settings that `as_record` gave a record of; what is missing there is the default."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in record.items()})

    def as_record(self) -> dict[str, Any]:
        """Return the settings as results.json keeps them."""
        record: dict[str, Any] = plain(asdict(self))
        return record


def assignment(key: str, value: Any) -> str:
    """Return a setting, or its kept record, as one would write it after ``--set``.

    Example:
        >>> assignment("lrs", [0.05, 0.5]), assignment("nesterov", True)
        ('lrs=0.05,0.5', 'nesterov=true')
    """
    return f"{key}={_written(value)}"


def _written(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(_written, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is(value: object, kind: type) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, kind)


def _read(key: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        return tuple(_read(key, part.strip(), get_args(kind)[0]) for part in text.split(",") if part.strip())
    try:
        return _FLAGS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise SettingError(f"{key}={text}: expected {_EXPECTED[kind]}") from None
