"""What the gradients of the first step say against the loss that a curvature radius was given."""

from __future__ import annotations

from collections.abc import Iterator

from safestep.radius.losses import NamedLoss
from safestep.radius.quadratic_model import QuadraticTerms
from safestep.recording.proposal import Proposal

_TOO_MUCH = 1.5
"""Labels of any kind leave at most the gradient that hard ones would; beyond this factor it is another loss."""
_MORE = 1.05
"""Clipping makes the gradients of the parameters smaller than the loss's; beyond this factor they hold more than it."""


def doubts(named: NamedLoss, proposal: Proposal, terms: QuadraticTerms) -> Iterator[str]:
    """Yield what does not fit; on several ranks the same on all, as a warning may be made an error.

    Args:
        named: what the radius is given.
        proposal: the step, and the forwards it was measured on.
        terms: of the step itself, for the whole batch.
    """
    step, forwards = proposal.step, proposal.forwards
    directional_derivative, half_l1_logit_grad = terms.directional_derivative, terms.half_l1_logit_grad
    likely = terms.likely
    if likely > 0.0 and (factor := half_l1_logit_grad / likely) > _TOO_MUCH:
        yield (
            f"the gradient at the logits is {factor:.3g} times that of CurvatureRadius(loss={named.loss!r}, "
            f"reduction={named.reduction!r}, scale={named.scale:g}), so r is too small, by about as much or more. If "
            "the loop multiplies this loss by a constant, or adds the means of micro-batches: scale="
            f"{named.scale * factor:.3g}. If it multiplies the logits (a temperature): let the model do that. "
            "For another loss: HessianRadius(closure)"
        )
    # a rank may hold a piece of the gradients, which tells nothing by itself
    product = None if forwards.searched else step.read(directional_derivative=True).directional_derivative
    whole = product or 0.0
    if (
        directional_derivative < 0.0
        and forwards.dropped == 0
        and (whole > 0.0 or whole < _MORE * directional_derivative)
    ):
        yield (
            f"along the step the gradients of the parameters make {whole:.3g} of the loss, the gradient at the logits "
            f"{directional_derivative:.3g}: old gradients were left in place (is optimizer.zero_grad() called before "
            "each backward?), or the loss has parts that do not go through these logits (a penalty, another head). r "
            "is that of the named loss alone; for all of it: HessianRadius(closure)"
        )
