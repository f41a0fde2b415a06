"""The state of a guarded chain: plain arrays for the device, and the record of the last step read from it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from safestep.errors import UnknownNameError
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

    Note:
        Waits for the device. Inside ``jit`` take the arrays of `GuardState`. The rates are not known here:
        ``lrs`` is empty.
    """
    leaves = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, GuardState))
    found = [leaf for leaf in leaves if isinstance(leaf, GuardState)]
    if len(found) != 1:
        raise UnknownNameError(
            f"expected the state of an optimizer with one safestep guard in it, saw {len(found)} guards"
        )
    arrays = jax.device_get(jax.tree.leaves(found[0]))
    now = GuardState(*(np.asarray(array).ravel()[0].item() for array in arrays))
    if now.step == 0:
        return None
    status = STATUSES[now.status]
    measured = not (status is Status.STILL or math.isnan(now.ratio))
    method, message = "jvp" if measured else "", _MESSAGES.get(status, "")
    reading = Reading(now.step - 1, now.ratio, method, bool(now.exact), message)
    report = StepReport.of(reading, status, now.length, now.scale, now.scale, now.target, ())
    return replace(report, predicted_kl=now.kl)


_MESSAGES = {
    Status.HELD: "uphill on this batch: g.p >= 0",
    Status.UNDONE: "the step, its r or the target is not finite",
    Status.NONFINITE: "the step or its r is not finite",
    Status.STILL: "nothing moved",
}
