"""A round: one step of every optimizer of a guard, from the copies taken before it to the moment all have stepped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor
from torch.optim import LBFGS, Optimizer

from safestep._torch.warn_once import Once
from safestep.errors import AttachError
from safestep.guard.beginning import Beginning
from safestep.guard.group import Group
from safestep.guard.validation import is_scaler_step
from safestep.recording.forward_hooks import ForwardRecorder
from safestep.recording.last_step import LastStep
from safestep.recording.nonfinite import WithheldGradients, all_finite, parameters_of
from safestep.recording.optimizer_hooks import StepHooks, in_backward, loss_scale
from safestep.recording.step import Step
from safestep.recording.trained import Trained

_IN_BACKWARD = (
    "an optimizer stepped while backward was still running (optimizer-in-backward): there is no single step of the "
    "whole model to measure. Step after backward, or detach the guard"
)
_WRITTEN = (
    "the parameters were written to after some of several optimizers had stepped and before the others did (a "
    "checkpoint loaded, averaged weights swapped in?), so that step can no longer be measured: it is left as it is, "
    "without a record"
)


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that all optimizers of a round have taken.

    Attributes:
        step: where it started and where the parameters are now.
        optimizers: those that stepped.
        rates: the learning rates in this step, of all groups; when it is decided about a scheduler may have stepped.
        schedule: those of the groups that stepped and had a gradient, by name.
        forwards: how many of the recorded forwards are of this step.
        place: `Trained.version` where the step began.
        loss_scale: what a gradient scaler multiplied the loss by.
        skipped: whether gradients that are not finite were withheld from an optimizer.
        trouble: what failed under a policy that only watches, before the step ended.
    """

    step: Step
    optimizers: list[Optimizer]
    rates: tuple[float, ...]
    schedule: dict[str, float]
    forwards: int
    place: int
    loss_scale: float
    skipped: bool
    trouble: Exception | None

    @property
    def searched(self) -> bool:
        """Whether an optimizer has searched for its step itself, which may then not be scaled."""
        return any(isinstance(optimizer, LBFGS) for optimizer in self.optimizers)


class Round:
    """Copies the parameters before each optimizer steps, and hands over the step of all of them.

    Args:
        optimizers: those of the guard.
        trained: the parameters that they move.
        recorder: counts the forwards of the step.
        group: the ranks that take it together.
        say: warns, once about each thing.
        done: called with every step that was taken.
        writes: whether parameters may be changed. If not, what fails is kept for the report of the step.
        skips: whether gradients that are not finite are withheld from the optimizers.
        last: whether to look back at the last step before the next one.
        known: whether the optimizers are known to have stepped before, see `Beginning`.

    Attributes:
        beginning: looks at the optimizers before the first step.
        step: the running one.
        last: the one before it, where somebody looks back; None where it is not known.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        trained: Trained,
        recorder: ForwardRecorder,
        group: Group,
        say: Once,
        done: Callable[[Taken], None],
        *,
        writes: bool,
        skips: bool,
        last: bool = False,
        known: bool = False,
    ) -> None:
        self._trained, self._recorder, self._group, self._say, self._done = trained, recorder, group, say, done
        self._writes, self._skips, self._looks_back = writes, skips and writes, last
        self.beginning = Beginning(trained, say, known=known)
        self.step = Step(0)
        self.last: LastStep | None = None
        self._forwards, self._ended, self._place, self._loss_scale = 0, 0, 0, 1.0
        self._rates: tuple[float, ...] = ()
        self._schedule: dict[str, float] = {}
        self._withheld: dict[int, WithheldGradients] = {}
        self._held: dict[int, Tensor] = {}
        self._trouble: Exception | None = None
        before, between, abandoned = (
            partial(self.attempt, act) for act in (self._before, self._between, self._abandoned)
        )
        self._hooks = StepHooks(optimizers, before, between, self._over, abandoned)

    @property
    def running(self) -> bool:
        """Whether an optimizer is inside its step: the caller runs in its closure."""
        return self._hooks.running

    @property
    def waiting(self) -> bool:
        """Whether some optimizers have stepped and others have not yet."""
        return self._hooks.waiting

    def follow(self, index: int, step: Step) -> None:
        """Begin the step after one that was decided about; it takes over that one's memory."""
        self.last = LastStep.of(step) if self._looks_back else None
        self.step = Step(index, step)

    def close(self) -> None:
        """Remove the hooks."""
        self._hooks.close()

    def attempt(self, act: Callable[..., None], *arguments: object) -> None:
        """Do something for a step; under a policy that only watches, what fails is kept for the report of the step."""
        try:
            act(*arguments)
        except Exception as error:
            if self._writes:
                raise
            self._trouble = self._trouble or error

    def end(self) -> None:
        """Hand over the step of those that have stepped, where the others will not; drop one that raised."""
        raised = self._hooks.recover()
        if raised:  # what was recorded before a step that raised half way cannot be repeated after it
            self._recorder.take(self._recorder.count)
        if not self._hooks.waiting:
            return
        written = self._trained.version() != self._ended
        if not (raised or written):
            self._hooks.finish()
            return
        self._hooks.drop()
        if written:
            self._say("written", _WRITTEN)
        elif self._writes:
            self.step.undo()  # never leave an unmeasured step in place
        self.step = Step(self.step.index)

    def _before(self, optimizer: Optimizer, closure: object) -> None:
        if in_backward():
            raise AttachError(_IN_BACKWARD)
        self.beginning.look()
        began, scale = self._trained.version(), loss_scale()
        self._trained.began = began
        if not self.step.start:
            self._place, self._loss_scale, self._schedule = began, 1.0, {}
        self._loss_scale = scale if scale != 1.0 else self._loss_scale  # of several, one may step without the scaler
        if closure is not None:
            self.last = None  # it makes other gradients, at other places
        if self.last is not None:
            self._held[id(optimizer)] = self.last.holds(parameters_of(optimizer))
        self.step.remember(parameters_of(optimizer))
        looks = self._skips and closure is None and not is_scaler_step(optimizer)
        if looks and not self._group.peers(self.step.index).every(all_finite(self._trained.gradients())):
            self._withheld[id(optimizer)] = WithheldGradients(parameters_of(optimizer))

    def _between(self, optimizer: Optimizer) -> None:
        self._trained.began, self._forwards = None, self._recorder.count
        self._ended = self._trained.version() if self._trained.several else 0
        rates = self._trained.rates()
        self._rates = tuple(rates.values())
        self._schedule |= {name: rates[name] for name in self._trained.stepping(optimizer)}
        if id(optimizer) in self._withheld:
            self._withheld[id(optimizer)].give_back()
        held = self._held.pop(id(optimizer), None)
        if self.last is not None and held is not None:  # by the gradients that the step was made of, as g.p is
            slope = self.last.slope(parameters_of(optimizer))
            self.step.behind[id(optimizer)] = slope + held.to(slope.device)
            self.step.last = self.last.index, self.last.scale

    def _abandoned(self, optimizer: Optimizer) -> None:
        self._trained.began = None
        failed, parameters = Step(self.step.index), parameters_of(optimizer)
        failed.start = {q: self.step.start[q] for q in parameters if q in self.step.start}
        self.step.forget(parameters)
        # What moved before the error stays, as without a guard; somebody may have written to it since.
        if self._writes and not all_finite(failed.start):
            failed.undo()
        if (withheld := self._withheld.pop(id(optimizer), None)) is not None:
            withheld.give_back()

    def _over(self, stepped: list[Optimizer]) -> None:
        if self.last is not None and not self.last.within(q for one in stepped for q in parameters_of(one)):
            self.step.behind.clear()  # of a part of the last step nothing follows
        taken = Taken(
            self.step,
            stepped,
            self._rates,
            self._schedule,
            self._forwards,
            self._place,
            self._loss_scale,
            bool(self._withheld),
            self._trouble,
        )
        self.step, self._withheld, self._trouble = Step(self.step.index), {}, None
        self._done(taken)
