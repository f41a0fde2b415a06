"""CIFAR-10 from a folder of the files of its authors: the pickled batches for Python, or the binary ones."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from safestep._torch.extras import need
from safestep.errors import SafestepError
from safestep.lab.digits import CLASSES, Split
from safestep.lab.tasks import Batch, Task, shuffled

SIDE, CHANNELS = 32, 3
_PIXELS = CHANNELS * SIDE**2
_TRAIN, _TEST = tuple(f"data_batch_{one}" for one in range(1, 6)), "test_batch"
_ALLOWED = {"_reconstruct", "ndarray", "dtype", "encode", "_frombuffer"}
"""What a pickled batch may call: arrays of NumPy are made by these. A file from anywhere may ask for anything else."""

_HELD_OUT, _BATCH = 2000, 128
"""Test images that are evaluated, at most, and images of a batch."""


class Cifar10Error(SafestepError, OSError):
    """A folder does not hold the files of CIFAR-10, or one of them something else."""


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _ALLOWED and module.partition(".")[0] in {"numpy", "_codecs"}:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def load_cifar10(folder: str | Path) -> Split:
    """Return the 50 000 training and 10 000 test images that a folder holds, pixels in [0, 1].

    Args:
        folder: with ``data_batch_1`` to ``data_batch_5`` and ``test_batch``, or the same with ``.bin``. A batch may
            hold fewer images than the original.

    Returns:
        Flattened images, float32, shape ``(images, 3072)``: all red pixels row by row, then green, then blue.

    Raises:
        Cifar10Error: if files are missing or hold something else; the message says what was seen and expected.
        MissingExtraError: if NumPy is not installed.

    Reference:
        A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009, and the page of the data set.
    """
    place = Path(folder)
    ending = ".bin" if (place / f"{_TEST}.bin").is_file() else ""
    names = [f"{name}{ending}" for name in (*_TRAIN, _TEST)]
    if missing := [name for name in names if not (place / name).is_file()]:
        found = sorted(file.name for file in place.iterdir())[:8] if place.is_dir() else "no folder"
        raise Cifar10Error(
            f"{place}: no {', '.join(missing)} (there is: {found}); expected the unpacked CIFAR-10, for Python "
            f"({_TRAIN[0]} … {_TEST}) or binary (the same with .bin)"
        )
    parts = [_batch(place / name) for name in names]
    (train_x, train_y), test = (torch.cat(each) for each in zip(*parts[:-1], strict=True)), parts[-1]
    return Split(train_x.float().div_(255.0), train_y, test[0].float().div_(255.0), test[1])


def cifar10(folder: str | Path, model: nn.Module) -> Task:
    """Return the images of a folder, each channel standardised by the training part, for a model of flattened ones.

    The test is on 2000 of the test images; nothing is augmented. See `load_cifar10` for the folder and what it raises.
    """
    data = load_cifar10(folder)
    spread, middle = torch.std_mean(data.train_x.view(-1, CHANNELS, SIDE**2), (0, 2), keepdim=True)

    def standard(images: Tensor) -> Tensor:
        return ((images.view(-1, CHANNELS, SIDE**2) - middle) / spread).flatten(1)

    def batches(size: int, generator: torch.Generator) -> Iterator[Batch]:
        for places in shuffled(len(data.train_x), size, generator):
            yield standard(data.train_x[places]), data.train_y[places]

    held_out = standard(data.test_x[:_HELD_OUT]), data.test_y[:_HELD_OUT]
    return Task(model, CLASSES, _BATCH, -(-len(data.train_x) // _BATCH), batches, held_out)


def _batch(path: Path) -> tuple[Tensor, Tensor]:
    """Return images as bytes, and labels."""
    numpy, content = need("numpy", "experiments"), path.read_bytes()
    expected = f"{path}: expected images of {_PIXELS} bytes with labels from 0 to 9"
    try:
        if path.suffix == ".bin":
            rows = numpy.frombuffer(content, numpy.uint8).reshape(-1, 1 + _PIXELS)
            images, labels = rows[:, 1:], rows[:, 0]
        else:
            batch = _Arrays(io.BytesIO(content), encoding="bytes").load()
            images, labels = batch[b"data"], numpy.asarray(batch[b"labels"])
    except Exception as error:  # whatever a file of another kind makes of it
        raise Cifar10Error(f"{expected}; seen: {len(content)} bytes, {type(error).__name__}: {error}") from None
    fits = images.shape == (len(labels), _PIXELS) and images.dtype == numpy.uint8 and len(labels) > 0
    if not fits or not 0 <= labels.min() <= labels.max() <= 9:
        raise Cifar10Error(f"{expected}; seen: {images.dtype} of shape {images.shape}, {len(labels)} labels")
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(numpy.int64))
