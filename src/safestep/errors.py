"""The errors and the warning that safestep raises itself."""

from __future__ import annotations


class SafestepError(RuntimeError):
    """Base of every error that safestep raises."""


class AttachError(SafestepError, ValueError):
    """The guard cannot be attached: wrong model, optimizer or option."""


class LogitsNotFoundError(SafestepError):
    """The output of the model holds no logits that safestep can find by itself."""


class MeasurementError(SafestepError):
    """The step ratio of this step cannot be measured."""


class NothingToMeasureError(MeasurementError):
    """No sample of this step to measure on: no forward that backward reached, or an empty batch."""


class LossMismatchError(MeasurementError):
    """The loss that training goes through is not one that the radius can limit, or not all of it."""


class UnseenGradientError(MeasurementError):
    """The loss does not go through the output that the guard sees, so that its gradient there is not known."""


class OneLogitError(LossMismatchError, ValueError):
    """A softmax over one class: nothing that a step does to it changes the probability."""


class TapeError(MeasurementError):
    """A recorded forward cannot be differentiated: what it computed is gone, or torch has no derivative of it."""


class PoisonedOptimizerError(SafestepError):
    """The optimizer's own state is not finite, so that no later step can be."""


class RanksError(SafestepError):
    """The guards of several processes could not agree: a rank is missing, late, or at another step."""


class DetachedError(SafestepError, AttributeError):
    """A copy of a guard was asked for what only the guard has."""


class AveragingError(SafestepError, ValueError):
    """An `Averaged` optimizer cannot be made so, or not be stepped or loaded now."""


class ScheduleError(SafestepError, ValueError):
    """A schedule was made, called or summed with what it cannot be."""


class MissingExtraError(SafestepError, ImportError):
    """A part was used whose optional dependency is not installed."""


class RunDirectoryError(SafestepError, OSError):
    """A run directory cannot be used: unwritable, full, in use, or of other settings."""


class LogError(SafestepError, ValueError):
    """A file that is to be looked at is not there, or is no log of steps."""


class UnknownNameError(SafestepError, KeyError):
    """A name (experiment, setting, column) that does not exist; the nearest that does is in the message."""

    def __str__(self) -> str:
        """Return the message itself; KeyError would quote it."""
        return str(self.args[0]) if self.args else ""


class SafestepWarning(UserWarning):
    """Something a user should know once: a fallback was taken, or a claim does not hold here."""


def first_line(error: BaseException | None) -> str:
    """Return the kind of an error and the first line of its message."""
    text = str(error).splitlines()[0][:160] if str(error) else ""
    return f"{type(error).__name__}: {text}"
