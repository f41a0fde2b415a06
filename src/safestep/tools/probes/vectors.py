"""Lists of tensors as one long vector: norm, inner product, gradient, whether all of it is finite; in float64."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from safestep.recording.step import Parameters, Step


def norm(tensors: Iterable[Tensor]) -> float:
    """Return the Euclidean norm of all elements together; 0 of none.

    Example:
        >>> norm([torch.tensor([3.0]), torch.tensor([[4.0]])])
        5.0
    """
    norms = [torch.linalg.vector_norm(_real(tensor), dtype=torch.float64) for tensor in tensors]
    return float(torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))) if norms else 0.0


def inner(left: Parameters, right: Parameters) -> float:
    """Return the inner product of two tensors per parameter; both hold the same parameters.

    Example:
        >>> one = torch.zeros(2)
        >>> inner({one: torch.tensor([1.0, 2.0])}, {one: torch.tensor([3.0, 4.0])})
        11.0
    """
    products = [(_real(left[key]).double() * _real(right[key]).double()).sum() for key in left]
    return float(torch.stack([product.to(products[0].device) for product in products]).sum()) if products else 0.0


def difference(left: Parameters, right: Parameters) -> Parameters:
    """Return ``left - right``, in float64, for the parameters of both."""
    return {key: left[key].detach().double() - right[key].detach().double() for key in left if key in right}


def moved(step: Step) -> Parameters:
    """Return ``s p``, by how much the parameters were moved in the end, in float64."""
    return difference({parameter: parameter for parameter in step.start}, step.start)


def gradients(step: Step) -> Parameters:
    """Return the gradient of every parameter that may move and has one, dense, as the optimizer saw it."""
    return {
        parameter: parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        for parameter in step.start
        if parameter.grad is not None
    }


def _real(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
