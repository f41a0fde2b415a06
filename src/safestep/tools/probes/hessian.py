"""The Hessian of a loss, by its products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

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
            seen = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise MeasurementError(
                f"the closure returned {seen}: expected the loss of the batch, a scalar with a graph to the parameters "
                "(no backward, no .item(), no torch.no_grad)"
            )
        gradient = _derivative([loss], self._parameters, None, create_graph=True)
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
        given = [pieces[place].view_as(g).to(g) for place, g in self._gradient]
        product = _derivative([g for _, g in self._gradient], self._parameters, given, retain_graph=True)
        return torch.cat([piece.detach().flatten().to(vector.device, torch.float64) for piece in product])

    def dense(self) -> Tensor:
        """Return the whole matrix, float64, made symmetric; one product per row."""
        rows = torch.eye(self.size, dtype=torch.float64)
        matrix = torch.stack([self @ row for row in rows])
        return (matrix + matrix.T) / 2


def _derivative(
    values: Sequence[Tensor], parameters: Sequence[Tensor], along: Sequence[Tensor] | None, **graph: bool
) -> tuple[Tensor, ...]:
    try:
        return torch.autograd.grad(values, parameters, along, allow_unused=True, materialize_grads=True, **graph)
    except RuntimeError as error:
        raise MeasurementError(f"the loss cannot be differentiated twice ({first_line(error)})") from error
