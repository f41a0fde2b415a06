"""The state of a guarded chain: plain arrays for the device, and the record of the last step read from it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from safestep.errors import MeasurementError, UnknownNameError
from safestep.integrations.optax._jax import Tree, jax
from safestep.records.reading import Reading, Status
from safestep.records.report import StepReport

STATUSES = tuple(Status)
"""By their number in a state."""


class GuardState(NamedTuple):
    """The last step of a guard and what its policy remembers: 0-d arrays, part of the state of the optimizer.

    Attributes:
        step: how many steps were taken.
        ratio: r of the last one, as it was proposed.
        scale: what it was multiplied by.
        target: the r that was aimed at.
        length: ``||p||`` of the proposal.
        kl: predicted mean KL divergence between the predictions before and after the step as applied, in nats.
        status: index into ``STATUSES``.
        exact: whether r is what its definition says.
        alpha: of a throttle.
        velocity: likewise.
    """

    step: Any
    ratio: Any
    scale: Any
    target: Any
    length: Any
    kl: Any
    status: Any
    exact: Any
    alpha: Any
    velocity: Any


def read(state: Tree) -> StepReport | None:
    """Return the record of the last step, found anywhere in the state of an optimizer; None before the first.

    Args:
        state: of a chain, of `optax.MultiSteps`, `optax.inject_hyperparams`, ``flax.nnx.Optimizer.opt_state`` ...; of
            `jax.pmap` too, where every device has the same.

    Raises:
        UnknownNameError: if there is no guard in it, or more than one: pass the part of the state that is meant.
        MeasurementError: inside ``jit``, and for the states of several steps or models, see `read_all`.

    Note:
        Waits for the device. Inside ``jit`` take the arrays of `GuardState`. The rates are not known here:
        ``lrs`` is empty.
    """
    now = _numbers(state)
    if not all(np.array_equal(row, now[0], equal_nan=True) for row in now):
        raise MeasurementError(
            f"saw the states of {len(now)} steps or models, one stacked on another by scan or vmap: read_all(states)"
        )
    return _record(now[0])


def read_all(states: Tree) -> list[StepReport]:
    """Return a record for each of several states that `jax.lax.scan` or `jax.vmap` stacked, in order.

    Args:
        states: as of `read`, with more dimensions in front; of the guard alone (``state[-1]`` of a chain) they are
            small enough to be kept of every step of a scan.

    Raises:
        UnknownNameError: as `read`.
        MeasurementError: inside ``jit``.

    Note:
        What took no step yet has no record. One transfer from the device for all.
    """
    return [record for row in _numbers(states) if (record := _record(row)) is not None]


def _numbers(state: Tree) -> np.ndarray:
    """Return a row of numbers for each state of the one guard that is in it."""
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, GuardState))
    found = [leaf for leaf in leaves if isinstance(leaf, GuardState)]
    if len(found) != 1:
        raise UnknownNameError(
            f"expected the state of an optimizer with one safestep guard in it, saw {len(found)} guards"
        )
    arrays = jax.tree.leaves(found[0])
    if any(isinstance(array, jax.core.Tracer) for array in arrays):
        raise MeasurementError(
            "read() inside jit, scan or vmap, where there are no numbers yet: return the state and read it outside; "
            "inside take the arrays of the guard, such as state[-1].ratio of a chain"
        )
    return np.stack([np.asarray(array, np.float64).ravel() for array in jax.device_get(arrays)], -1)


def _record(row: np.ndarray) -> StepReport | None:
    now = GuardState(*row.tolist())
    if now.step == 0:
        return None
    status = STATUSES[int(now.status)]
    measured = not (status is Status.STILL or math.isnan(now.ratio))
    method = "jvp" if measured else ""
    reading = Reading(int(now.step) - 1, now.ratio, method, bool(now.exact), _message(status, now))
    report = StepReport.of(reading, status, now.length, now.scale, now.scale, now.target, ())
    return replace(report, predicted_kl=now.kl)


def _message(status: Status, now: GuardState) -> str:
    if status is Status.HELD:
        return "uphill on this batch: g.p >= 0"
    if status is Status.STILL:
        return "nothing moved"
    if status not in (Status.UNDONE, Status.NONFINITE):
        return ""
    if not math.isfinite(now.length):
        return "the step is not finite: the gradient, or what the optimizer remembers of an earlier one, is not"
    if not math.isfinite(now.ratio):
        return "r is not finite: parameters or inputs are not, or a label is no class and not masked"
    return f"the target {now.target:.4g} is not positive"
