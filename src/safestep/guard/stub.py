"""What copies and pickles of a guard are: a stub that says so."""

from __future__ import annotations

from typing import NoReturn

from safestep.errors import DetachedError


class DetachedGuard:
    """Stands where a model that was copied or loaded had its guard. It acts on nothing and has no history.

    A guard belongs to one model and one optimizer in this process; what should survive is in its ``state_dict()``.

    Args:
        of: what the guard was, in words.

    Example:
        >>> import copy, torch, safestep
        >>> model = torch.nn.Linear(4, 3)
        >>> model.guard = safestep.attach(model, torch.optim.SGD(model.parameters(), lr=0.1), policy=safestep.Watch())
        >>> copy.deepcopy(model).guard.attached
        False
    """

    attached = False

    def __init__(self, of: str = "a guard") -> None:
        self._of = of

    def detach(self) -> None:
        """Do nothing: there is nothing to remove."""

    def __repr__(self) -> str:
        return f"<copy of {self._of.strip('<>')}: detached, attach() makes a new one>"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise DetachedError(
            f"no {name!r} here: this is what a copy or pickle of a model keeps of its guard, {self!r}. The guard "
            "itself has the history; for the copy call safestep.attach(model, optimizer)"
        )

    def __reduce__(self) -> tuple[type[DetachedGuard], tuple[str]]:
        return DetachedGuard, (self._of,)
