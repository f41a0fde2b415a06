"""One step of gradient descent on a quadratic, as an affine map with noise: what the exact law is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.descent.batches import Batches
from safestep.descent.noise import Gaussian, Noise, Silent
from safestep.descent.objective import DescentError, Objective
from safestep.descent.quadratic import Quadratic
from safestep.descent.quadratic_sum import QuadraticSum


@dataclass(frozen=True, eq=False)
class Affine:
    r"""The gradient ``g = H x - b + e`` of a step, and the covariance of its noise ``e``.

    Equation:
        ``Cov(e) = Sigma + kappa (C(m) + D(V))`` where ``x`` has mean ``m`` and covariance ``V``; ``C(m)`` is the
        population covariance of the single gradients ``H_i m - b_i`` and ``D(V) = mean_i H_i V H_i - H V H``.

    Attributes:
        matrix: ``H``, shape ``(d, d)``.
        offset: ``b``, shape ``(d,)``.
        constant: ``Sigma``, shape ``(d, d)``.
        factor: ``kappa``, of the batch; 0 without batches.
        hessians: every ``H_i``, shape ``(n, d, d)``, or None where they are all ``H``.
        offsets: every ``b_i``, shape ``(n, d)``, or None without batches.
        epoch: steps between two shuffles; 0 where every step draws anew.
        gaussian: whether ``x`` stays exactly Gaussian.
    """

    matrix: Tensor
    offset: Tensor
    constant: Tensor
    factor: float = 0.0
    hessians: Tensor | None = None
    offsets: Tensor | None = None
    epoch: int = 0
    gaussian: bool = True

    @property
    def samples(self) -> int:
        """``n``, from which batches are drawn; 0 without batches."""
        return 0 if self.offsets is None else len(self.offsets)

    def scatter(self, m: Tensor) -> Tensor:
        """Return ``C(m)``, shape ``(d, d)``."""
        if self.offsets is None:
            return torch.zeros_like(self.matrix)
        hessians = self.matrix if self.hessians is None else self.hessians
        single = hessians @ m - self.offsets
        away = single - single.mean(0)
        return away.T @ away / len(away)

    def spread(self, v: Tensor) -> Tensor:
        """Return ``D(V)``, shape ``(d, d)``."""
        if self.hessians is None:
            return torch.zeros_like(self.matrix)
        return (self.hessians @ v @ self.hessians).mean(0) - self.matrix @ v @ self.matrix


def affine_of(objective: Objective, noise: Noise) -> Affine:
    """Return the steps of gradient descent as an affine map.

    Raises:
        DescentError: where the law is not known: an objective that is no quadratic, noise of another kind, or epochs
            of batches whose curvatures differ.
    """
    if isinstance(objective, Quadratic):
        matrix = objective.matrix
        offset = matrix @ torch.tensor(objective.minimum, dtype=torch.float64)
        hessians, offsets = None, None
    elif isinstance(objective, QuadraticSum):
        every, offsets = objective.affine()
        matrix, offset = every.mean(0), offsets.mean(0)
        hessians = None if torch.equal(every, every[:1].expand_as(every)) else every
        matrix = every[0] if hessians is None else matrix
    else:
        raise DescentError(
            f"no exact law for {type(objective).__name__}: expected a Quadratic, or a finite sum of quadratics (Bowls, "
            "LeastSquares)"
        )
    nothing = torch.zeros_like(matrix)
    if isinstance(noise, Silent):
        return Affine(matrix, offset, nothing)
    if isinstance(noise, Gaussian):
        return Affine(matrix, offset, noise.covariance_in(objective.dimension))
    if not isinstance(noise, Batches) or offsets is None:
        on = f"{noise!r} on {type(objective).__name__}"
        raise DescentError(f"no exact law for {on}: expected None, Gaussian, or Batches of a finite sum")
    epoch = len(offsets) // noise.size if noise.draw == "epochs" else 0
    if epoch and hessians is not None:
        raise DescentError(
            "no exact law for epochs of batches whose curvatures differ: what the earlier batches of an epoch did "
            "decides what the later ones are. Expected draw='replacement' or 'distinct', or Bowls"
        )
    factor = noise.variance_factor(len(offsets))
    return Affine(matrix, offset, nothing, factor, hessians, offsets, epoch, gaussian=False)
