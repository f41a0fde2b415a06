"""The exact law of noisy gradient descent on a quadratic: mean, variance and expected loss at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safestep.descent.affine import Affine, affine_of
from safestep.descent.noise import Noise, Silent
from safestep.descent.objective import DescentError, Objective


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
    affine = affine_of(objective, Silent() if noise is None else noise)
    eta = torch.as_tensor(rates, dtype=torch.float64)
    m = torch.as_tensor(objective.start if start is None else start, dtype=torch.float64)
    steps = len(eta) if eta.dim() == 1 else -1
    if steps < 0 or m.shape != (objective.dimension,):
        raise DescentError(
            f"rates of shape {tuple(eta.shape)}, start of {tuple(m.shape)}: expected one rate a step, and the "
            f"{objective.dimension} numbers of one point where all runs begin"
        )
    chosen = list(range(steps + 1)) if at is None else torch.as_tensor(at).tolist()
    if not chosen or not set(chosen) <= set(range(steps + 1)):
        raise DescentError(f"at = {chosen}: expected steps from 0 to {steps}, one at least")
    wanted, found = set(chosen), {}
    v = cross = torch.zeros_like(affine.matrix)
    for step in range(steps + 1):
        if step > 0:
            if affine.epoch and (step - 1) % affine.epoch == 0:
                cross = torch.zeros_like(v)
            m, v, cross = _advanced(affine, eta[step - 1], m, v, cross)
        if step in wanted:
            found[step] = m, v
    means, covariances = (torch.stack([found[step][part] for step in chosen]) for part in (0, 1))
    loss, loss_variance = _losses(objective, affine, means, covariances)
    return Law(torch.tensor(chosen), means, covariances, loss, loss_variance)


def _advanced(affine: Affine, eta: Tensor, m: Tensor, v: Tensor, cross: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, covariance, and the covariance with the noise of later steps of the epoch, after one step."""
    a = torch.eye(len(m), dtype=m.dtype) - eta * affine.matrix
    single = affine.scatter(m)
    noise = affine.constant + affine.factor * (single + affine.spread(v))
    m = m - eta * (affine.matrix @ m - affine.offset)
    v = a @ v @ a.T + eta.square() * noise - eta * (a @ cross + cross.T @ a.T)
    if affine.epoch and affine.samples > 1:
        cross = a @ cross + eta * single / (affine.samples - 1)
    return m, v, cross


def _losses(objective: Objective, affine: Affine, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor | None]:
    bent = affine.matrix @ v
    loss = objective.value(m) + bent.diagonal(dim1=-2, dim2=-1).sum(-1) / 2
    if not affine.gaussian:
        return loss, None
    slope = m @ affine.matrix - affine.offset
    along = (slope.unsqueeze(-2) @ v @ slope.unsqueeze(-1)).flatten()
    return loss, along + (bent @ bent).diagonal(dim1=-2, dim2=-1).sum(-1) / 2


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
    affine = affine_of(objective, Silent() if noise is None else noise)
    if affine.epoch:
        raise DescentError(
            "draw='epochs': the variance changes within every epoch; expected 'replacement' or 'distinct'"
        )
    if not 0 < rate < math.inf:
        raise DescentError(f"rate = {rate!r}: expected a finite learning rate above 0; at 0 nothing moves")
    d, h = len(affine.offset), affine.matrix
    minimum = torch.linalg.pinv(h, hermitian=True) @ affine.offset
    a = torch.eye(d, dtype=h.dtype) - rate * h
    map_ = torch.kron(a, a)
    if affine.hessians is not None:
        apart = torch.stack([torch.kron(one, one) for one in affine.hessians]).mean(0) - torch.kron(h, h)
        map_ = map_ + rate**2 * affine.factor * apart
    infinite = torch.full_like(h, math.inf)
    # eigvals never returns from an infinite matrix
    if not map_.isfinite().all() or not torch.linalg.eigvals(map_).abs().max() < 1:
        return Stationary(minimum, infinite, infinite[0, 0])
    noise_there = affine.constant + affine.factor * affine.scatter(minimum)
    v = torch.linalg.solve(torch.eye(d * d, dtype=h.dtype) - map_, rate**2 * noise_there.reshape(-1)).reshape(d, d)
    loss, _ = _losses(objective, affine, minimum[None], v[None])
    return Stationary(minimum, v, loss[0])
