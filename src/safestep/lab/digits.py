"""The handwritten digits of scikit-learn: 8 x 8 pixels, ten classes, split once per seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from safestep._torch.extras import need
from safestep._torch.shapes import Float

CLASSES = 10

Loader = DataLoader[tuple[Tensor, ...]]
"""Yields batches ``(x, y)``."""


@dataclass(frozen=True)
class Split:
    """A training and a test part.

    Attributes:
        train_x: pixels of the training images in [0, 1], float32.
        train_y: their digits 0 ... 9, int64, shape ``(train,)``.
        test_x: pixels of the test images.
        test_y: their digits, int64, shape ``(test,)``.
    """

    train_x: Float[Tensor, "train 64"]
    train_y: Tensor
    test_x: Float[Tensor, "test 64"]
    test_y: Tensor


def load_split(seed: int) -> Split:
    """Return the 1797 digits, pixels divided by 16, a quarter of them (450) kept for testing.

    Args:
        seed: chooses the split; every digit keeps its share in both parts. No global generator is drawn from.

    Returns:
        1347 training and 450 test images.

    Raises:
        MissingExtraError: if scikit-learn is not installed.

    Example:
        >>> split = load_split(7)
        >>> tuple(split.train_x.shape), tuple(split.test_x.shape), float(split.train_x.max())
        ((1347, 64), (450, 64), 1.0)

    Reference:
        The protocol of the tutorials of github.com/piyush314/ghosts-of-softmax.
    """
    pixels, digits = need("sklearn.datasets", "experiments").load_digits(return_X_y=True)
    split = need("sklearn.model_selection", "experiments").train_test_split
    train_x, test_x, train_y, test_y = split(
        pixels.astype("float32") / 16.0, digits, test_size=0.25, random_state=seed, stratify=digits
    )
    return Split(*map(torch.as_tensor, (train_x, train_y, test_x, test_y)))


def loaders(split: Split, batch_size: int = 128, test_batch_size: int = 256) -> tuple[Loader, Loader]:
    """Return a training loader that shuffles and keeps the last, smaller batch, and a test loader in order.

    Args:
        split: the two parts.
        batch_size: images in a training batch, at least 1.
        test_batch_size: images in a test batch, at least 1.

    Returns:
        The training and the test loader.

    Note:
        Each pass over *either* loader draws from torch's global generator, so a run repeats only if both are passed
        over as often and in the same order.

    Example:
        >>> train, test = loaders(load_split(7))
        >>> len(train), len(test)
        (11, 2)
    """
    train, test = _Images(split.train_x, split.train_y), _Images(split.test_x, split.test_y)
    return (
        DataLoader(train, batch_size=batch_size, shuffle=True, collate_fn=tuple),
        DataLoader(test, batch_size=test_batch_size, collate_fn=tuple),
    )


class _Images(TensorDataset):
    """Returns a batch at once: picking and stacking images one by one costs a tenth of a run."""

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        return tuple(tensor[indices] for tensor in self.tensors)
