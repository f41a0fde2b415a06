"""safestep in Hugging Face transformers: a callback, and the line that guards a trainer."""

from __future__ import annotations

import weakref
from typing import Any

from safestep._torch.extras import need
from safestep._torch.warn_once import warn
from safestep.errors import AttachError
from safestep.guard.attach import attach
from safestep.guard.guard import Guard
from safestep.integrations.causal_lm import causal_lm_loss
from safestep.logs.recent import recent

__all__ = ["SafestepCallback", "causal_lm_loss", "guard_trainer"]

transformers: Any = need("transformers", "transformers")
_callbacks: Any = need("transformers.trainer_callback", "transformers")
_ANEW = (
    "restore_callback_states_from_checkpoint=True makes every callback anew without what it was given: leave it off, "
    "SafestepCallback finds its state in the checkpoint by itself"
)
_begun: weakref.WeakKeyDictionary[Guard, Any] = weakref.WeakKeyDictionary()
"""The guards, and the state of the trainer in whose training each was attached: one that breaks off tells nobody."""


class SafestepCallback(transformers.TrainerCallback, _callbacks.ExportableState):
    """Guards the optimizer of a ``Trainer``: attached when training begins, detached when it ends.

    Each row that the trainer logs with a loss gets r, scale and cap share of the steps since the row before, see
    `safestep.logs.recent`: in ``trainer.state.log_history``, and for every callback after this one. ``report_to`` makes
    callbacks that come before those of ``callbacks=[...]``; `guard_trainer` puts this one in front of all. The state
    of the guard is in ``trainer_state.json`` of each checkpoint; a run that is resumed goes on with it.

    Args:
        arguments: of `safestep.attach`, any but model and optimizer.

    Attributes:
        guard: None until training begins; with its history afterwards, too. A copy of the callback has none.

    Raises:
        AttachError: when training begins, by `safestep.attach` or for ``restore_callback_states_from_checkpoint=True``.

    Example:
        >>> SafestepCallback(history=100).guard is None
        True
    """

    def __init__(self, **arguments: Any) -> None:
        self.guard: Guard | None = None
        self.arguments = arguments
        self._logged, self._in_front = 0, False

    def __getstate__(self) -> dict[str, Any]:
        # A copy guards nothing: a guard belongs to one model and one optimizer.
        return {**self.__dict__, "guard": None}

    def state(self) -> dict[str, Any]:
        """Return what the trainer keeps of this callback in a checkpoint."""
        return {"args": {}, "attributes": {} if self.guard is None else self.guard.state_dict()}

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Attach, and where a run is resumed go on from its state."""
        if args.restore_callback_states_from_checkpoint:
            raise AttachError(_ANEW)
        if args.report_to and not self._in_front and state.is_world_process_zero:
            warn(f"{args.report_to} come before SafestepCallback and get no r: use guard_trainer(trainer) instead")
        for guard, training in [*_begun.items()]:
            if guard is self.guard or (training is not state and guard.trains[0] is given["model"]):
                guard.detach()
        self.guard = attach(given["model"], given["optimizer"], **self.arguments)
        _begun[self.guard] = state
        self._logged = state.global_step
        if state.global_step:
            saved = state.stateful_callbacks.get(type(self).__name__, {}).get("attributes")
            if saved:
                self.guard.load_state_dict(saved)
            else:
                # The trainer took its callbacks from the checkpoint, and saves those that it knows.
                state.stateful_callbacks[type(self).__name__] = self.state()
                # As of a guard that knows that it begins anew: it is said here.
                self.guard.load_state_dict(self.guard.state_dict())
                warn(f"the checkpoint of step {state.global_step} has no state of a guard: it begins anew")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Add the numbers of the steps since the last row to a row of training."""
        if self.guard is not None and logs is not None and "loss" in logs:
            numbers = recent(self.guard.history, state.global_step - self._logged)
            self._logged = state.global_step
            logs.update(numbers)
            # The trainer has copied the row before it asks the callbacks.
            state.log_history[-1].update(numbers)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the model without hooks; the guard keeps its history."""
        if self.guard is not None:
            self.guard.detach()


def guard_trainer(trainer: Any, **arguments: Any) -> SafestepCallback:
    """Guard the steps of a ``Trainer``, or one derived from it, and put r into all of its logs.

    Args:
        trainer: which has not begun to train. Guarded before, it is guarded anew: the last call counts.
        arguments: of `safestep.attach`, any but model and optimizer.

    Returns:
        The callback, which has the ``guard`` as soon as training begins.
    """
    callback = SafestepCallback(**arguments)
    callback._in_front = True
    trainer.remove_callback(SafestepCallback)
    trainer.callback_handler.callbacks.insert(0, callback)
    return callback
