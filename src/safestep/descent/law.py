"""The exact law of noisy gradient descent on a quadratic: mean, variance and expected loss at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.descent.batches import Batches
from safestep.descent.noise import Gaussian, Noise, Silent
from safestep.descent.objective import DescentError, Objective
from safestep.descent.quadratic import Quadratic
from safestep.descent.quadratic_sum import QuadraticSum


@dataclass(frozen=True, eq=False)
class Law:
    """Exact moments of one run, at ``k`` steps, in float64.

    Attributes:
        at: the steps, from 0 (the start), shape ``(k,)``.
        mean: of the point, shape ``(k, d)``.
        covariance: of the point, shape ``(k, d, d)``.
        loss: expected ``f``, shape ``(k,)``.
        loss_variance: of ``f``, shape ``(k,)``; None where the point is not Gaussian.
    """

    at: Tensor
    mean: Tensor
    covariance: Tensor
    loss: Tensor
    loss_variance: Tensor | None

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, shape ``(k, d)``."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)


def exact_law(
    objective: Objective,
    rates: Sequence[float] | Tensor,
    *,
    noise: Noise | None = None,
    start: Sequence[float] | Tensor | None = None,
    at: Sequence[int] | Tensor | None = None,
) -> Law:
    r"""Return the moments of plain gradient descent on a quadratic.

    Equation:
        With ``A = I - eta_k H`` and noise of covariance ``Q`` on the gradient, from ``V_0 = 0``:

        ``m_k = A m_{k-1} + eta_k b``, ``V_k = A V_{k-1} A' + eta_k^2 Q``, ``E f = f(m) + tr(H V) / 2``.

        Along an eigenvector with curvature ``h``: ``m_k = (1 - eta_k h) m_{k-1}``,
        ``v_k = (1 - eta_k h)^2 v_{k-1} + eta_k^2 sigma^2``. For mini-batches ``Q`` depends on ``m`` and ``V``
        (`Affine`), and within an epoch that is dealt out the batches are correlated, by ``-C / (n - 1)``.

    Args:
        objective: a `Quadratic`, or a finite sum of quadratics.
        rates: ``eta_k`` of every step, shape ``(steps,)``.
        noise: on the gradients; None for none.
        start: the point where all runs begin, ``d`` numbers; the objective's by default.
        at: the steps to return, from 0 to ``steps``; all by default.

    Returns:
        The moments. With Gaussian noise the point is exactly Gaussian; with mini-batches these moments are exact,
        and the point is Gaussian only roughly.

    Raises:
        DescentError: where the law is not known, and for shapes that do not go together.

    Example:
        >>> from safestep.descent import PLANE, Gaussian
        >>> law = exact_law(PLANE, [0.1] * 50, noise=Gaussian())
        >>> law.variance[-1], round(law.loss[-1].item(), 3)
        (tensor([0.0278, 0.0156], dtype=torch.float64), 0.059)

    Source:
        Gradient descent on a quadratic is a linear recursion. The published runs whose means and variances it gives
        are those of "Stochastic Gradient Descent", Dive into Deep Learning (d2l.ai).
    """
    affine = affine_step(objective, noise)
    etas = torch.as_tensor(rates, dtype=torch.float64)
    m = torch.as_tensor(objective.start if start is None else start, dtype=torch.float64)
    if etas.dim() != 1 or m.shape != affine.offset.shape:
        raise DescentError(
            f"rates of shape {tuple(etas.shape)}, start of {tuple(m.shape)}: expected one rate a step, and the "
            f"{objective.dimension} numbers of one point where all runs begin"
        )
    steps = range(len(etas) + 1)
    chosen = list(steps) if at is None else torch.as_tensor(at).tolist()
    if not chosen or not set(chosen) <= set(steps):
        raise DescentError(f"at = {chosen}: expected steps from 0 to {len(etas)}, one at least")
    wanted, n = set(chosen), len(affine.offsets)
    v = cross = torch.zeros_like(affine.matrix)  # cross: covariance of x with the noise of each later step of the epoch
    moments = {0: (m, v)}
    for step, eta in enumerate(etas, 1):
        if affine.epoch and (step - 1) % affine.epoch == 0:
            cross = torch.zeros_like(v)
        a = torch.eye(len(m), dtype=m.dtype) - eta * affine.matrix
        q, c = affine.noise(m, v), affine.sample_covariance(m)
        m = m - eta * (affine.matrix @ m - affine.offset)
        v = a @ v @ a.T + eta.square() * q - eta * (a @ cross + cross.T @ a.T)
        if affine.epoch and n > 1:
            cross = a @ cross + eta * c / (n - 1)
        if step in wanted:
            moments[step] = m, v
    mean, covariance = (torch.stack([moments[step][part] for step in chosen]) for part in (0, 1))
    bent, loss_variance = affine.matrix @ covariance, None
    if affine.gaussian:
        slope = (mean @ affine.matrix - affine.offset).unsqueeze(-1)
        loss_variance = (slope.mT @ covariance @ slope).flatten() + _trace(bent @ bent) / 2
    return Law(torch.tensor(chosen), mean, covariance, objective.value(mean) + _trace(bent) / 2, loss_variance)


@dataclass(frozen=True, eq=False)
class Stationary:
    """Where noisy gradient descent at a constant rate settles.

    Attributes:
        mean: the minimum, shape ``(d,)``.
        covariance: shape ``(d, d)``; inf where nothing settles.
        loss: expected ``f``, the noise floor, shape ``()``; inf where nothing settles.
    """

    mean: Tensor
    covariance: Tensor
    loss: Tensor

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, shape ``(d,)``."""
        return self.covariance.diagonal()


def stationary_law(objective: Objective, rate: float, noise: Noise | None = None) -> Stationary:
    r"""Return the moments to which plain gradient descent at a constant rate tends.

    Equation:
        ``V = A V A' + eta^2 Q(V)``. Along an eigenvector with curvature ``h``: ``v = eta sigma^2 / (h (2 - eta h))``,
        so that the floor of ``E f`` is of order ``eta``.

    Args:
        objective: a `Quadratic`, or a finite sum of quadratics.
        rate: ``eta``, above 0.
        noise: on the gradients; None for none.

    Returns:
        The moments; inf where the variance grows without end: ``eta h >= 2`` for some curvature, a curvature that is
        not positive, or batches whose curvatures differ too much for the rate.

    Raises:
        DescentError: where the law is not known. Under epochs of batches the variance repeats from epoch to epoch
            and is nowhere constant.

    Example:
        >>> from safestep.descent import PLANE, Gaussian
        >>> stationary_law(PLANE, 0.1, Gaussian()).variance  # 0.1 / (2 * 1.8), 0.1 / (4 * 1.6)
        tensor([0.0278, 0.0156], dtype=torch.float64)
    """
    affine = affine_step(objective, noise)
    if affine.epoch:
        raise DescentError(
            "draw='epochs': the variance changes within every epoch; expected 'replacement' or 'distinct'"
        )
    if not 0 < rate < math.inf:
        raise DescentError(f"rate = {rate!r}: expected a finite learning rate above 0; at 0 nothing moves")
    d, h = len(affine.offset), affine.matrix
    minimum = torch.linalg.pinv(h, hermitian=True) @ affine.offset
    a = torch.eye(d, dtype=h.dtype) - rate * h
    # V flattened goes to map_ V + eta^2 Q(0); D(V) is linear in V
    spread = torch.einsum("nij,nkl->ikjl", affine.hessians, affine.hessians) / len(affine.hessians)
    map_ = torch.kron(a, a) + rate * rate * affine.factor * spread.reshape(d * d, d * d)
    # eigvals never returns from an infinite matrix
    if not map_.isfinite().all() or not torch.linalg.eigvals(map_).abs().max() < 1:
        return Stationary(minimum, torch.full_like(h, math.inf), h.new_tensor(math.inf))
    q = affine.noise(minimum, torch.zeros_like(h))
    v = torch.linalg.solve(torch.eye(d * d, dtype=h.dtype) - map_, rate * rate * q.flatten()).reshape(d, d)
    return Stationary(minimum, v, objective.value(minimum[None])[0] + _trace(h @ v) / 2)


@dataclass(frozen=True, eq=False)
class Affine:
    r"""The gradient ``g = H x - b + e`` of a step, and the covariance of its noise ``e``.

    Attributes:
        matrix: ``H``, shape ``(d, d)``.
        offset: ``b``, shape ``(d,)``.
        constant: the part ``Sigma`` of the covariance that is the same everywhere, shape ``(d, d)``.
        factor: ``kappa``, by which a batch multiplies the covariance of single gradients; 0 without batches.
        hessians: every ``H_i - H``, shape ``(n, d, d)``, or one zero for all where they are equal, ``(1, d, d)``.
        offsets: every ``b_i - b``, shape ``(n, d)``.
        epoch: steps between two shuffles; 0 where every step draws anew.
        gaussian: whether ``x`` stays exactly Gaussian.
    """

    matrix: Tensor
    offset: Tensor
    constant: Tensor
    factor: float
    hessians: Tensor
    offsets: Tensor
    epoch: int
    gaussian: bool

    def sample_covariance(self, m: Tensor) -> Tensor:
        """Return ``C(m)``, the covariance over the samples of their gradients ``H_i m - b_i``, shape ``(d, d)``."""
        away = self.hessians @ m - self.offsets
        return away.T @ away / len(away)

    def noise(self, m: Tensor, v: Tensor) -> Tensor:
        """Return ``Cov(e) = Sigma + kappa (C(m) + D(V))`` where ``x`` has mean ``m`` and covariance ``V``.

        ``D(V) = mean_i (H_i - H) V (H_i - H) = mean_i H_i V H_i - H V H``.
        """
        if self.factor == 0:
            return self.constant
        return self.constant + self.factor * (self.sample_covariance(m) + (self.hessians @ v @ self.hessians).mean(0))


def affine_step(objective: Objective, noise: Noise | None) -> Affine:
    """Return the steps of gradient descent as an affine map.

    Raises:
        DescentError: where the law is not known: an objective that is no quadratic, noise of another kind, or epochs
            of batches whose curvatures differ.
    """
    if isinstance(objective, QuadraticSum):
        h = objective.matrix
        hessians, offsets = objective.affine()
        hessians = hessians[:1] if (hessians == h).all() else hessians
    elif isinstance(objective, Quadratic):
        h = objective.matrix
        hessians, offsets = h[None], (h @ torch.tensor(objective.minimum, dtype=torch.float64))[None]
    else:
        raise DescentError(
            f"no exact law for {type(objective).__name__}: expected a Quadratic, or a finite sum of quadratics (Bowls, "
            "LeastSquares)"
        )
    b, factor, epoch, constant = offsets.mean(0), 0.0, 0, torch.zeros_like(h)
    hessians, offsets = hessians - h, offsets - b
    if isinstance(noise, Gaussian):
        constant = noise.covariance_in(len(b))
    elif isinstance(noise, Batches) and isinstance(objective, QuadraticSum):
        factor = noise.variance_factor(len(offsets))
        epoch = len(offsets) // noise.size if noise.draw == "epochs" else 0
        if epoch and hessians.any():
            raise DescentError(
                "no exact law for epochs of batches whose curvatures differ: what the earlier batches of an epoch did "
                "decides what the later ones are. Expected draw='replacement' or 'distinct', or Bowls"
            )
    elif noise is not None and not isinstance(noise, Silent):
        raise DescentError(
            f"no exact law for {noise!r} on {type(objective).__name__}: expected None, Gaussian, or Batches of a "
            "finite sum"
        )
    return Affine(h, b, constant, factor, hessians, offsets, epoch, gaussian=not isinstance(noise, Batches))


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)
