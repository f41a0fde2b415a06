"""A tiny generated folder of the form of CIFAR-10, in each of its ways."""

from __future__ import annotations

import io
import pickle
import struct
from typing import ClassVar

import numpy as np

NAMES = (*(f"data_batch_{one}" for one in range(1, 6)), "test_batch")


def batches(images=6):
    """Images and labels by the name of the batch, as bytes."""
    random = np.random.default_rng(0)
    return {
        name: (random.integers(256, size=(images, 3072), dtype=np.uint8), random.integers(10, size=images))
        for name in NAMES
    }


class Python2(pickle._Pickler):
    """Writes bytes as the strings of Python 2, which the files of the data set are from."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def python_2(content):
    """A pickle as Python 2 writes it."""
    stream = io.BytesIO()
    Python2(stream, protocol=2).dump(content)
    return stream.getvalue()


def fill(folder, form):
    """Write the batches and return the folder."""
    for name, (images, labels) in batches().items():
        if form == "binary":
            rows = np.concatenate([labels[:, None].astype(np.uint8), images], 1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            content = {b"data": images, b"labels": labels.tolist(), b"batch_label": b"tiny"}
            write = python_2 if form == "python 2" else lambda value: pickle.dumps(value, protocol=2)
            (folder / name).write_bytes(write(content))
    return folder
