"""Gradient hooks on the outputs of a forward: which of them backward reaches, and what it brings."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from safestep.distributed.dtensor import is_sharded
from safestep.heads.output import Output
from safestep.heads.places import Root, root, tensors_in, turned
from safestep.recording.forward import Forward


class Listener(Protocol):
    """Who wants to know."""

    def reached(self, forward: Forward, output: Output | None, gradient: Tensor | None) -> None:
        """Take in that backward came to an output."""


def listen(listener: Listener, forward: Forward, tensors: list[Tensor], returned: Any) -> None:
    """Tell a listener when backward reaches an output of a forward, whatever copy, cast or view it was returned as.

    Args:
        listener: who wants to know.
        forward: the forward, whose outputs are those tensors.
        tensors: the tensors of its outputs, in order.
        returned: what the model returned; the loss goes through tensors in it.
    """
    given = [tensor for tensor in tensors_in(returned) if tensor.requires_grad]
    hooked: set[int] = set()
    roots: dict[Root, Output] = {}
    for output, tensor in zip(forward.outputs[: len(tensors)], tensors, strict=True):
        base = next((one for one in given if one is tensor), None)
        if base is None:
            base = next((one for one in given if _shares(tensor, one)), None)
        if base is None:
            if tensor.requires_grad:  # out of an object that nobody can look into, or new: no loss goes through that
                tensor.register_hook(partial(_at_tensor, listener, forward, output))
            continue
        if base is not tensor:
            hooked.add(id(base))
            base.register_hook(partial(_seen_through, listener, forward, output, base.detach(), tensor.detach()))
            continue
        hooked.add(id(tensor))
        node, index, through = root(tensor)
        if (node, index) in roots:
            continue  # the same numbers under another name count once
        roots[node, index] = output
        if through and not is_sharded(tensor):
            node.register_prehook(partial(_at_node, listener, forward, output, index))
        else:
            tensor.register_hook(partial(_at_tensor, listener, forward, output))
    for output, tensor in zip(forward.outputs[: len(tensors)], tensors, strict=True):
        back, behind = turned(tensor) or ((), None)
        if behind in roots:
            output.source = roots[behind], back
    for tensor in given:
        if id(tensor) not in hooked:  # a loss, say; through it too the forward counts
            tensor.register_hook(partial(_at_tensor, listener, forward, None))


def _shares(tensor: Tensor, base: Tensor) -> bool:
    """Return whether a tensor is a view of one that the model returned."""
    if tensor.layout is not torch.strided or base.layout is not torch.strided or is_sharded(tensor):
        return False
    same: bool = tensor.untyped_storage()._cdata == base.untyped_storage()._cdata
    return same


@_disable_dynamo  # compiled autograd would trace it
@torch.no_grad()
def _at_tensor(listener: Listener, forward: Forward, output: Output | None, gradient: Tensor | None) -> None:
    listener.reached(forward, output, gradient)


@_disable_dynamo
@torch.no_grad()
def _at_node(
    listener: Listener, forward: Forward, output: Output, index: int, gradients: tuple[Tensor | None, ...]
) -> None:
    gradient = gradients[index]
    listener.reached(forward, output, None if gradient is None else gradient.reshape(output.shape))


@_disable_dynamo
@torch.no_grad()
def _seen_through(
    listener: Listener, forward: Forward, output: Output, base: Tensor, view: Tensor, gradient: Tensor | None
) -> None:
    """Look at the gradient of a tensor as its view looks at the tensor."""
    if gradient is None:
        listener.reached(forward, output, None)
        return
    like = torch.empty_strided(base.shape, base.stride(), dtype=gradient.dtype, device=gradient.device).copy_(gradient)
    offset = int(view.storage_offset()) - int(base.storage_offset())
    listener.reached(forward, output, like.as_strided(view.shape, view.stride(), offset))
