"""The ends of a spectrum by Lanczos, warm-started: where the last spectrum had its ends, the next is looked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from safestep._torch.extras import need

Product = Callable[[Tensor], Tensor]
"""From ``v`` to ``H v``, both float64, shape ``(size,)``."""

_ROUGHLY = 0.1


class Lanczos:
    r"""Finds the smallest and the largest eigenvalue of symmetric matrices that change little from one to the next.

    The matrix is shifted by twice the magnitude ``rho`` of its spectrum, ``H + 2 rho I``: every eigenvalue is then
    near ``rho`` in size, so that an end at 0, which no relative tolerance finds, is found like any other.

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

    def ends(self, product: Product, size: int) -> tuple[float, float]:
        """Return the smallest and the largest eigenvalue.

        Args:
            product: the matrix.
            size: its rows, at least 3.

        Raises:
            ArpackNoConvergence: of SciPy, if the ends do not settle.
        """
        self._linalg, self._numpy = need("scipy.sparse.linalg", "sharpness"), need("numpy", "sharpness")
        if self._start is None or len(self._start) != size:
            self._start, self._magnitude = self._numpy.random.default_rng(0).standard_normal(size), 0.0
        known = self._magnitude != 0.0
        try:
            return self._from(product, size)
        except self._linalg.ArpackNoConvergence:
            if not known:
                raise
            self._magnitude = 0.0  # that of a matrix of another size, which was no shift for this one
            return self._from(product, size)

    def _from(self, product: Product, size: int) -> tuple[float, float]:
        if self._magnitude == 0.0:
            if not bool(product(torch.from_numpy(self._start)).any()):  # no matrix at all, which ARPACK refuses
                return 0.0, 0.0
            matrix = self._operator(product, size, 0.0)
            largest = self._linalg.eigsh(matrix, 1, which="LM", v0=self._start, tol=_ROUGHLY, return_eigenvectors=False)
            self._magnitude = float(abs(largest[0]))
        shift = 2.0 * self._magnitude
        matrix = self._operator(product, size, shift)
        values, vectors = self._linalg.eigsh(matrix, 2, which="BE", v0=self._start, tol=self._tolerance)
        low, high = sorted(float(value) - shift for value in values)
        self._start, self._magnitude = vectors.sum(1), max(abs(low), abs(high))
        return low, high

    def _operator(self, product: Product, size: int, shift: float) -> Any:
        def shifted(vector: Any) -> Any:
            v = torch.from_numpy(self._numpy.ascontiguousarray(vector.reshape(size)))
            return (product(v) + shift * v).numpy()

        return self._linalg.LinearOperator((size, size), matvec=shifted, dtype=self._numpy.float64)
