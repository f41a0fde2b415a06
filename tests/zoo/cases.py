"""The zoo: a table of models, each with its batches, its loss and where its logits are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from zoo import models
from zoo.batches import Batch, bags, cross_entropy, images, labelled_vectors, sequences, tokens, vectors

CONVERGED = 60
"""Power iterations after which sigma's derivative is u v^T, whether or not u and v are held fixed; before, autograd
(which holds them) and a difference of the forward (which does not) are two derivatives of two functions."""


@dataclass(frozen=True)
class Case:
    """One model of the zoo.

    Attributes:
        build: makes a fresh model from the present state of the generators.
        batch: makes batch number n; floating-point inputs in the given dtype. Draws from a generator of its own.
        read: from the output of the model to its logits (independent of safestep's own finder).
        objective: from the output and the labels to the loss; cross-entropy of the logits by default.
        warns: part of the warning with which safestep says that it measures this model by differences where it has to
            run the forward again; "" if it can differentiate it.
        untaped: part of the warning with which the exact method says that the training pass is of no use; "" if it is.
        sparse: whether an embedding table has sparse gradients.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[int, torch.dtype], Batch]
    read: Callable[[Any], Tensor] = lambda output: output
    objective: Callable[[Any, Tensor], Tensor] | None = None
    warns: str = ""
    untaped: str = ""
    sparse: bool = False

    def loss(self, output: Any, labels: Tensor) -> Tensor:
        return self.objective(output, labels) if self.objective else cross_entropy(self.read(output), labels)

    @property
    def difference(self) -> bool:
        """Whether the exact method, too, measures this model by differences, and no reading is exact."""
        return bool(self.untaped and self.warns)

    def __str__(self) -> str:
        return self.name


ZOO = {
    case.name: case
    for case in (
        Case("mlp", models.mlp, vectors),
        Case("cnn", models.cnn, images),
        Case("cnn-channels-last", models.ChannelsLast, images),
        Case("tied-language-model", models.TiedLanguageModel, tokens),
        Case("attention", lambda: models.Attention(need_weights=True), sequences),
        Case("attention-no-weights", lambda: models.Attention(need_weights=False), sequences),
        Case("encoder-layer", models.Encoder, sequences),
        Case("dot-product", models.DotProduct, sequences),
        Case("lstm", lambda: models.Recurrent(nn.LSTM), sequences),
        Case("gru", lambda: models.Recurrent(nn.GRU), sequences),
        Case("embedding-bag", models.Bag, bags, warns=r"layer 'bag' \(EmbeddingBag\)"),
        Case("sparse-table", models.SparseTable, bags, sparse=True),
        Case(
            "spectral-norm-old",
            models.old_style(partial(nn.utils.spectral_norm, n_power_iterations=CONVERGED)),
            vectors,
            warns=r"layer '0' \(Linear\)",
        ),
        Case(
            "spectral-norm",
            models.new_style(partial(parametrizations.spectral_norm, n_power_iterations=CONVERGED)),
            vectors,
            warns=r"\(_SpectralNorm\)",
        ),
        Case("weight-norm-old", models.old_style(nn.utils.weight_norm), vectors, warns=r"layer '0' \(Linear\)"),
        Case("weight-norm", models.new_style(parametrizations.weight_norm), vectors, warns=r"\(_WeightNorm\)"),
        Case("frozen", models.frozen, vectors),
        Case("unused", models.Unused, vectors),
        Case(
            "checkpoint-reentrant",
            lambda: models.Checkpointed(reentrant=True),
            vectors,
            warns=r"\(Checkpointed\)",
            untaped=r"\(Checkpointed\)",
        ),
        Case("checkpoint", lambda: models.Checkpointed(reentrant=False), vectors, untaped="recomputes activations"),
        Case("custom-function", models.custom_function, vectors, warns=r"layer '1' \(Squared\)"),
        Case(
            "output-object",
            lambda: models.Wrapped(lambda z, h: SimpleNamespace(logits=z, hidden=h)),
            vectors,
            lambda o: o.logits,
        ),
        Case(
            "output-dict",
            lambda: models.Wrapped(lambda z, h: {"hidden": h, "logits": z}),
            vectors,
            lambda o: o["logits"],
        ),
        Case("output-tuple", lambda: models.Wrapped(lambda z, h: (z, h)), vectors, lambda o: o[0]),
        Case("output-loss-and-logits", models.WithLoss, labelled_vectors, lambda o: o[1], lambda o, labels: o[0]),
        Case("chancy", models.Chancy, vectors),
        Case("annealed", models.Annealed, vectors),
        Case("masked-class", models.Masked, vectors),
    )
}
