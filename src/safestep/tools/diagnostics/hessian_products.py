"""The Hessian of a loss by its products with vectors, and the ends of its spectrum by Lanczos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from safestep._torch.extras import need
from safestep.errors import MeasurementError, first_line


class Hessian:
    """The second derivative of a loss at the present parameters, all of them as one vector.

    Built inside ``torch.enable_grad()``; the graph of the loss is kept until this object goes.

    Args:
        closure: returns the scalar loss.
        parameters: by which to differentiate, at least one.

    Attributes:
        size: elements of all parameters.
        finite: whether loss and gradient are.

    Raises:
        MeasurementError: if the closure does not return a scalar with a graph, or torch has no second derivative.

    Example:
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> Hessian(lambda: w[0] ** 2 * w[1], [w]).dense()
        tensor([[4., 2.],
                [2., 0.]], dtype=torch.float64)
    """

    def __init__(self, closure: Callable[[], Tensor], parameters: Sequence[Tensor]) -> None:
        self._parameters = list(parameters)
        self.size = sum(parameter.numel() for parameter in self._parameters)
        loss = closure()
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            saw = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise MeasurementError(
                f"the closure returned {saw}: expected the loss of the batch, a scalar with a graph to the parameters "
                "(no backward, no .item(), no torch.no_grad)"
            )
        gradient = self._derivative([loss], None, create_graph=True)
        if any(g.is_sparse for g in gradient):
            raise MeasurementError("a sparse gradient has no second derivative in torch: sparse=False in the layer")
        # what the loss is linear in has a constant gradient, which no graph leads to
        self._gradient = [(place, g) for place, g in enumerate(gradient) if g.requires_grad]
        self.finite = bool(loss.isfinite()) and all(bool(g.isfinite().all()) for g in gradient)

    def __matmul__(self, vector: Tensor) -> Tensor:
        """Return ``H v``, float64, for a vector of any real dtype, shape ``(size,)``."""
        if not self._gradient:
            return torch.zeros_like(vector, dtype=torch.float64)
        pieces = vector.split([parameter.numel() for parameter in self._parameters])
        along = [pieces[place].view_as(g).to(g) for place, g in self._gradient]
        product = self._derivative([g for _, g in self._gradient], along, retain_graph=True)
        return torch.cat([piece.detach().flatten().to(vector.device, torch.float64) for piece in product])

    def dense(self) -> Tensor:
        """Return the whole matrix, float64, made symmetric; one product per row."""
        matrix = torch.stack([self @ row for row in torch.eye(self.size, dtype=torch.float64)])
        return (matrix + matrix.T) / 2

    def _derivative(self, values: Sequence[Tensor], along: Sequence[Tensor] | None, **graph: bool) -> Sequence[Tensor]:
        try:
            return torch.autograd.grad(
                values, self._parameters, along, allow_unused=True, materialize_grads=True, **graph
            )
        except RuntimeError as error:
            raise MeasurementError(f"the loss cannot be differentiated twice ({first_line(error)})") from error


class Lanczos:
    r"""Finds the smallest and the largest eigenvalue of symmetric matrices that change little from one to the next.

    The matrix is shifted by twice the magnitude ``rho`` of its spectrum, ``H + 2 rho I``: every eigenvalue is then
    near ``rho`` in size, so that an end at 0, which no relative tolerance finds, is found like any other. Where the
    last matrix had its ends, those of the next are looked for.

    Args:
        tolerance: of an eigenvalue, relative to ``rho``.

    Raises:
        MissingExtraError: when it is called and SciPy is not installed.

    Example:
        >>> d = torch.linspace(-1.0, 3.0, 200, dtype=torch.float64)
        >>> low, high = Lanczos().ends(lambda v: d * v, 200)
        >>> round(low, 4), round(high, 4)
        (-1.0, 3.0)

    Source:
        R. B. Lehoucq, D. C. Sorensen, C. Yang, "ARPACK users' guide", SIAM 1998, through ``scipy.sparse.linalg.eigsh``.
    """

    def __init__(self, tolerance: float = 1e-5) -> None:
        self._tolerance = tolerance
        self._start: Any = None
        self._magnitude = 0.0

    def ends(self, product: Callable[[Tensor], Tensor], size: int) -> tuple[float, float]:
        """Return the smallest and the largest eigenvalue.

        Args:
            product: from ``v`` to ``H v``, both float64, shape ``(size,)``.
            size: rows of the matrix, at least 3.

        Raises:
            ArpackNoConvergence: of SciPy, if the ends do not settle.
        """
        linalg, numpy = need("scipy.sparse.linalg", "sharpness"), need("numpy", "sharpness")
        if self._start is None or len(self._start) != size:
            self._start, self._magnitude = numpy.random.default_rng(0).standard_normal(size), 0.0

        def shifted(shift: float) -> Any:
            def times(vector: Any) -> Any:
                v = torch.from_numpy(numpy.ascontiguousarray(vector.reshape(size)))
                return (product(v) + shift * v).numpy()

            return linalg.LinearOperator((size, size), matvec=times, dtype=numpy.float64)

        if self._magnitude:
            try:
                return self._near(linalg, shifted)
            except linalg.ArpackNoConvergence:
                pass  # the magnitude was that of a matrix of another size, which is no shift for this one
        if not bool(product(torch.from_numpy(self._start)).any()):  # no matrix at all, which ARPACK refuses
            return 0.0, 0.0
        largest = linalg.eigsh(shifted(0.0), 1, which="LM", v0=self._start, tol=0.1, return_eigenvectors=False)
        self._magnitude = float(abs(largest[0]))
        return self._near(linalg, shifted)

    def _near(self, linalg: Any, shifted: Callable[[float], Any]) -> tuple[float, float]:
        """Find both ends of a matrix of about the remembered magnitude, and remember what is found."""
        shift = 2.0 * self._magnitude
        values, vectors = linalg.eigsh(shifted(shift), 2, which="BE", v0=self._start, tol=self._tolerance)
        low, high = sorted(float(value) - shift for value in values)
        self._start, self._magnitude = vectors.sum(1), max(abs(low), abs(high))
        return low, high
