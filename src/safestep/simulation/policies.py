"""A policy as it is written on a command line: ``cap:1``, ``throttle:1.5``, ``watch``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from safestep.errors import UnknownNameError
from safestep.experiments.runner.names import nearest
from safestep.experiments.runner.settings import SettingError
from safestep.policy import Cap, Pin, Policy, Throttle, Watch
from safestep.simulation.values import numbers

_WITH_NUMBER: Mapping[str, tuple[Callable[[float], Policy], float, str]] = {
    "cap": (Cap, 1.0, "cap:TARGET"),
    "pin": (Pin, 1.0, "pin:TARGET"),
    "throttle": (lambda chi: Throttle(chi=chi), 1.5, "throttle:CHI"),
}
FORMS = ", ".join([*(form for _, _, form in _WITH_NUMBER.values()), "watch"])
"""How each is written."""


def read_policy(text: str) -> Policy:
    """Return the policy that a text tells.

    Raises:
        UnknownNameError: for one that does not exist.
        SettingError: for a number outside its range, or several.

    Example:
        >>> read_policy("cap:0.5"), read_policy("cap"), read_policy("throttle:1.2").chi
        (Cap(target=0.5), Cap(target=1.0), 1.2)
    """
    name, _, rest = (part.strip() for part in text.lower().partition(":"))
    if name == "watch":
        if rest:
            raise SettingError(f"policy={text}: expected watch, which has no number")
        return Watch()
    if name not in _WITH_NUMBER:
        raise UnknownNameError(f"no policy {name!r}{nearest(name, [*_WITH_NUMBER, 'watch'])}")
    make, usual, form = _WITH_NUMBER[name]
    found = numbers(rest, name) if rest else (usual,)
    if len(found) != 1:
        raise SettingError(f"policy={text}: expected {form}")
    try:
        return make(found[0])
    except ValueError as error:
        raise SettingError(f"policy={text}: {error}") from None
