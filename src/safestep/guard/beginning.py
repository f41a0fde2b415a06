"""Notices, before the first step of a guard, that its optimizer has stepped before: a state was not loaded."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.optim import Optimizer

from safestep._torch.warn_once import Once
from safestep.recording.optimizer_hooks import learns_state
from safestep.recording.trained import Trained

_COUNTS = ("step", "n_iter")
_MOMENTS = ("momentum_buffer", "exp_avg")
"""What optimizers that count no steps keep from the first one on."""
_FEW = 8
"""Writes to a parameter from which on it has been trained here: to be initialised and loaded takes two to four."""

_BEGINS_ANEW = (
    "the state of {optimizer} {seen}, and its guard begins at step 0: it was given no state of its own. If this run is "
    "resumed, load the guard's too before the first step, guard.load_state_dict(checkpoint['guard']), and save it with "
    "guard.state_dict(). If the guard joins a run that had none, all is well; "
    "guard.load_state_dict(guard.state_dict()) before the first step says so"
)


class Beginning:
    """Looks at the optimizers before the first step of a guard to which nothing was loaded.

    Args:
        trained: gives the optimizers.
        say: warns, once about each thing.
        known: whether there is nothing to look for, as the guard's place in the run is known.

    Attributes:
        known: likewise; set when a state is loaded.
    """

    def __init__(self, trained: Trained, say: Once, *, known: bool) -> None:
        self.known = known
        self._trained, self._say, self._learnt = trained, say, False

    def look(self) -> None:
        """Look, before an optimizer steps, and say what was found."""
        if self.known:
            return
        if learns_state():  # a step of rate 0, which fills the state; often it is overwritten by a checkpoint
            self._learnt = True
            return
        self.known = True
        for optimizer in self._trained.optimizers:
            if seen := _seen(optimizer, learnt=self._learnt):
                self._say("begins anew", _BEGINS_ANEW.format(optimizer=type(optimizer).__name__, seen=seen))


def _seen(optimizer: Optimizer, *, learnt: bool) -> str:
    """Return in words what shows that an optimizer's steps were loaded, not taken here; an empty text for nothing.

    Some fill their state when they are made, with counts of 0. A count of 1 may be of the step that distributed
    checkpointing takes to learn what an optimizer keeps. Steps that were taken on these very parameters, before the
    guard was attached, have been written to them; fused kernels do not let one see that, and nothing is said.
    """
    fused = {p for group in optimizer.param_groups if group.get("fused") for p in group["params"]}
    for p, state in optimizer.state.items():
        if not isinstance(state, Mapping) or not isinstance(p, Tensor) or p in fused:
            continue
        count = next((state[name] for name in _COUNTS if name in state), None)
        if count is not None and float(count) > max(1, p._version):
            return f"counts {float(count):.0f} steps"
        held = next((name for name in _MOMENTS if state.get(name) is not None), None)
        if count is None and held is not None and not learnt and p._version < _FEW:
            return f"holds a {held}"
    return ""
