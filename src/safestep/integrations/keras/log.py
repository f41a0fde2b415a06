"""ThrottleLog: the throttle's alpha and margin among the logs of fit, so that other callbacks see them."""

from __future__ import annotations

import warnings
from typing import Any

from safestep.errors import AttachError, SafestepWarning
from safestep.integrations.keras._keras import keras
from safestep.integrations.keras.throttled_optimizer import Throttled, find_throttled


class ThrottleLog(keras.callbacks.Callback):
    """Adds to the logs of ``fit`` what a `Throttled` optimizer did.

    The columns: ``alpha``, ``margin`` (of the raw update), ``applied_margin`` (``alpha margin``), ``curvature``, and
    ``undone`` (updates taken back so far). Put it before callbacks that shall see them, such as ``CSVLogger``;
    ``History`` always does.

    Args:
        every: ``"epoch"`` logs the last update of each epoch. ``"batch"`` logs every update, among the logs of the
            batch and as a row in `rows`, and of an epoch the smallest alpha and the largest margins; on jax it brings
            the state back from the device after each batch, which costs time.

    Attributes:
        rows: one dictionary of plain numbers per batch (or epoch), with ``epoch`` and ``batch``.

    Raises:
        ValueError: at construction, for another ``every``.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(optimizer=Throttled("sgd"), loss="mse")
        >>> log = ThrottleLog()
        >>> history = model.fit(keras.ops.ones((4, 2)), keras.ops.ones((4, 1)), verbose=0, callbacks=[log])
        >>> history.history["alpha"], log.rows[0]["margin"]  # nothing to compare with in the first step
        ([1.0], 0.0)

    Warns:
        SafestepWarning: once, when an update was taken back because it was not finite.
    """

    def __init__(self, every: str = "epoch") -> None:
        super().__init__()
        if every not in {"epoch", "batch"}:
            raise ValueError(f"every={every!r}: expected 'epoch' or 'batch'")
        self.every = every
        self.rows: list[dict[str, float]] = []
        self._epoch, self._first, self._warned = 0, 0, False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Raise AttachError if the optimizer is not throttled."""
        self._optimizer()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note where the rows of this epoch begin."""
        self._epoch, self._first = epoch, len(self.rows)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the update of a batch."""
        if self.every == "batch":
            if (sync := getattr(self.model, "jax_state_sync", None)) is not None:
                sync()
            self._note({} if logs is None else logs, batch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log an epoch."""
        logs = {} if logs is None else logs
        if self.every == "epoch":
            self._note(logs)
        elif rows := self.rows[self._first :]:
            logs["alpha"] = min(row["alpha"] for row in rows)
            logs |= {name: max(row[name] for row in rows) for name in ("margin", "applied_margin", "curvature")}
            logs["undone"] = rows[-1]["undone"]

    def _note(self, logs: dict[str, Any], batch: int | None = None) -> None:
        optimizer = self._optimizer()
        variables = (optimizer.alpha, optimizer.margin, optimizer.curvature, optimizer.undone)
        alpha, margin, curvature, undone = (float(keras.ops.convert_to_numpy(v.value)) for v in variables)
        applied = alpha * margin if alpha else 0.0
        row = {
            "alpha": alpha, "margin": margin, "applied_margin": applied, "curvature": curvature, "undone": int(undone),
        }  # fmt: skip
        logs |= row
        self.rows.append({"epoch": self._epoch, **({} if batch is None else {"batch": batch}), **row})
        if undone and not self._warned:
            self._warned = True
            warnings.warn(
                "an update, or its gradients, was not finite: it was taken back, the weights and the optimizer are "
                "where they were before it; the column 'undone' counts such updates",
                SafestepWarning,
                stacklevel=2,
            )

    def _optimizer(self) -> Throttled:
        optimizer = find_throttled(self.model.optimizer)
        if optimizer is None:
            raise AttachError(
                f"ThrottleLog: the model was compiled with {type(self.model.optimizer).__name__}, which is not "
                "throttled: compile(optimizer=Throttled(...))"
            )
        return optimizer
