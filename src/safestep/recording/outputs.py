"""From what a model returns to its outputs: which tensors to follow, and what to hold of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from safestep._torch.unwrap import bare
from safestep.heads.model_heads import Heads
from safestep.heads.output import Output, max_logits_of
from safestep.heads.places import Path, rounded, upstream
from safestep.recording.forwards import Forwards
from safestep.recording.logits import Reader
from safestep.tape import Tape

_SOON = 3
"""Steps in which outputs are held through backward whatever their size, to tell what the loss is."""


class OutputFollower:
    """Chooses, forward by forward, the outputs to follow to backward.

    Args:
        model: the module that the training loop calls.
        reader: reads outputs off what it returns.
        heads: what is known of them.
        keep: how many bytes of logits may be held from the forward to the step, by reference. They live longer than
            they would, through the peak of backward: where they are large, they are not kept.
    """

    def __init__(self, model: nn.Module, reader: Reader, heads: Heads, keep: int) -> None:
        self._reader, self._heads, self._keep = reader, heads, keep
        self._size = sum(parameter.nbytes for parameter in bare(model).parameters())
        self._rough: dict[Path, bool] = {}
        self._shown: set[Path] = set()

    def new_step(self) -> None:
        """Forget which outputs were looked at in this step."""
        self._shown = set()

    def outputs(self, returned: Any, forwards: Forwards, tape: Tape | None) -> tuple[list[Output], list[Tensor]]:
        """Return the outputs to follow, and their tensors.

        Args:
            returned: what the model returned.
            forwards: those of the step so far, whose logits may be held too.
            tape: recorded the forward, if one did; closed here.
        """
        own = self._reader.outputs(returned)
        named = {**own, **{("model", *path): tensor for path, tensor in self._reader.others(returned, own).items()}}
        grown = {path: tensor for path, tensor in named.items() if tensor.grad_fn is not None}
        if self._heads.due and len(grown) > 1:
            self._heads.upstream |= upstream(grown)
        if not self._heads.due:
            named = {path: t for path, t in named.items() if not self._heads.passed_over(path)} or named
        if tape is not None:
            tape.close(*named.values())
        held = sum(o.value.nbytes for f in forwards.kept for o in f.outputs if o.value is not None)
        outputs = []
        for path, tensor in named.items():
            outputs.append(self._output(path, tensor, held, taped=tape is not None))
            outputs[-1].apart = path not in own
        return outputs, list(named.values())

    def _output(self, path: Path, tensor: Tensor, held: int, *, taped: bool) -> Output:
        small = held + tensor.nbytes <= self._keep
        # One forward of a step is enough to tell by.
        wanted = path not in self._shown and self._heads.looks(path)
        shown = wanted and (self._heads.steps < _SOON or tensor.nbytes <= self._size)
        if shown:
            self._shown.add(path)
        if path not in self._rough or self._heads.due:
            self._rough[path] = tensor.grad_fn is not None and rounded(tensor)
        value = tensor.detach()
        return Output(
            path,
            tensor.shape,
            max_logits_of(value),
            self._rough[path],
            value=value if taped or small or shown else None,
            version=value._version,
            lent=not (taped or small),
            taped=not small,
        )


def unread_output() -> Output:
    """Return the output that stands for logits that the model does not make itself."""
    return Output((), torch.Size(()), torch.zeros(0))
