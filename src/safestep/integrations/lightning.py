"""safestep in Lightning: a callback that guards the optimizers of a module, logs r and goes with the checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from safestep._torch.extras import need
from safestep._torch.warn_once import warn
from safestep.errors import AttachError, NothingToMeasureError
from safestep.guard.attach import attach
from safestep.guard.guard import Guard
from safestep.logs.recent import recent
from safestep.recording.nonfinite import parameters_of

__all__ = ["SafestepCallback"]

pytorch: Any = need("lightning.pytorch", "lightning")


class SafestepCallback(pytorch.Callback):
    """Guards the optimizers of a ``LightningModule``: attached when training starts, detached when fitting ends.

    Of the optimizers those are guarded together that train a parameter of the module; in manual optimization, too.
    After each batch ``pl_module.log`` gets r, scale and cap share of the last ``log_every_n_steps`` steps, see
    `safestep.logs.recent`; of several callbacks under ``safestep/MODULE/``. The state of the guard is the callback's,
    which Lightning keeps in every checkpoint; what a checkpoint had is held until there are optimizers.

    Args:
        module: the name of the part that ``training_step`` calls, whose output holds the logits, such as ``"net"`` for
            ``self.net(x)``; empty where it calls ``self(x)``.
        arguments: of `safestep.attach`, any but model and optimizer.

    Attributes:
        guard: None until training starts; with its history afterwards, too. A copy of the callback has none.

    Raises:
        AttachError: when training starts, by `safestep.attach`, or if there is no such part or no optimizer trains it.

    Example:
        >>> SafestepCallback("net", history=100).state_key
        "SafestepCallback{'module': 'net'}"
    """

    def __init__(self, module: str = "", **arguments: Any) -> None:
        self.guard: Guard | None = None
        self.module, self.arguments = module, arguments
        self._saved: Mapping[str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy guards nothing: a guard belongs to one model and one optimizer.
        return {**self.__dict__, "guard": None}

    @property
    def state_key(self) -> str:
        """The name of the state in a checkpoint: two callbacks may guard two parts."""
        key: str = self._generate_state_key(module=self.module)
        return key

    def state_dict(self) -> dict[str, Any]:
        """Return the guard's state; before there is one, what a checkpoint had of it."""
        return dict(self._saved or {}) if self._saved or self.guard is None else self.guard.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep a state until the optimizers exist."""
        self._saved = state_dict

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Forget what a checkpoint had that was only tested: one that is resumed is loaded after this."""
        self._saved = None if stage == "fit" else self._saved

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach, and go on from the state of a checkpoint."""
        self.teardown(trainer, pl_module, "fit")  # where an earlier one was broken off
        module = self._part(pl_module)
        own = set(module.parameters())
        mine = [one for one in trainer.optimizers if not own.isdisjoint(parameters_of(one))]
        if not mine:
            raise AttachError(
                f"none of the {len(trainer.optimizers)} optimizers trains a parameter of {type(module).__name__} "
                f"(module={self.module!r}): name the part that they train"
            )
        self.guard = attach(module, mine, **self.arguments)
        saved, self._saved = self._saved, None
        if saved is None and trainer.ckpt_path:
            warn(f"{trainer.ckpt_path} has no state of a guard with module={self.module!r}: it begins anew")
        if saved is not None or trainer.ckpt_path:  # its own: what was said here is not said again
            self.guard.load_state_dict(saved or self.guard.state_dict())

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the numbers of the latest steps."""
        if self.guard is not None:
            numbers = recent(self.guard.history, trainer.log_every_n_steps)
            if sum(isinstance(one, SafestepCallback) for one in trainer.callbacks) > 1:
                numbers = {f"safestep/{self.module}{name.removeprefix('safestep')}": r for name, r in numbers.items()}
            # Of no batch: Lightning would look for a size in it, to weight the mean of an epoch that nobody asks for.
            pl_module.log_dict(numbers, on_step=True, batch_size=1)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave the module without hooks, for another callback; of several processes the others may wait for a step."""
        if isinstance(exception, NothingToMeasureError):
            exception.add_note(f"SafestepCallback(module={self.module!r}): name the part that training_step calls")
        if trainer.world_size == 1:
            self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave the module without hooks; the guard keeps its history and its state."""
        if self.guard is not None:
            self.guard.detach()

    def _part(self, pl_module: nn.Module) -> nn.Module:
        try:
            return pl_module.get_submodule(self.module)
        except AttributeError as error:
            parts = ", ".join(name for name, _ in pl_module.named_children()) or "none"
            raise AttachError(
                f"module={self.module!r}: {type(pl_module).__name__} has no such part; it has {parts}"
            ) from error
