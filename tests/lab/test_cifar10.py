"""CIFAR-10 from a generated folder of its form: every way it comes in, what is not it, and what it must not do."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from lab.cifar_files import NAMES, batches, fill
from safestep.lab.cifar10 import Cifar10Error, cifar10, load_cifar10
from safestep.lab.residual import resnet


@pytest.mark.parametrize("form", ["python 2", "python 3", "binary"])
def test_every_form_gives_the_same_images_and_labels(tmp_path, form):
    split, made = load_cifar10(fill(tmp_path, form)), batches()
    assert torch.equal(split.train_y, torch.cat([torch.from_numpy(made[name][1]) for name in NAMES[:-1]]))
    assert torch.equal(split.test_y, torch.from_numpy(made["test_batch"][1]))
    pixels = np.concatenate([made[name][0] for name in NAMES[:-1]]).astype(np.float32) / np.float32(255)
    assert torch.equal(split.train_x, torch.from_numpy(pixels))
    assert split.test_x.shape == (6, 3072)


def test_what_is_learned_is_standardised_by_channel_and_fits_the_network(tmp_path):
    task = cifar10(fill(tmp_path, "binary"), resnet(3, 32, 2))
    x, y = next(task.batches(30, torch.Generator().manual_seed(0)))  # all of it, in some order
    spread, middle = torch.std_mean(x.view(30, 3, -1), (0, 2))
    assert torch.allclose(middle, torch.zeros(3), atol=1e-5)
    assert torch.allclose(spread, torch.ones(3), rtol=1e-5)
    assert task.loss(x, y).isfinite()
    loss, right = task.test()
    assert loss > 0.0
    assert right * 6 == pytest.approx(round(right * 6))


def test_a_folder_without_the_files_is_refused_with_what_is_there(tmp_path):
    fill(tmp_path, "binary")
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(Cifar10Error, match=r"no data_batch_3.bin \(there is: .*data_batch_1.bin.*expected the"):
        load_cifar10(tmp_path)
    with pytest.raises(Cifar10Error, match=r"no data_batch_1, .*there is: no folder"):
        load_cifar10(tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"hello", "5 bytes, UnpicklingError"),
        (pickle.dumps([1, 2]), "TypeError"),
        (pickle.dumps({b"labels": [1]}), "KeyError"),
        (pickle.dumps({b"data": np.zeros((2, 12), np.uint8), b"labels": [1, 2]}), r"shape \(2, 12\)"),
        (pickle.dumps({b"data": np.zeros((1, 3072)), b"labels": [1]}), "float64"),
        (pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}), "1 labels"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_name(tmp_path, content, seen):
    (fill(tmp_path, "python 3") / "data_batch_2").write_bytes(content)
    with pytest.raises(Cifar10Error, match=f"data_batch_2: expected images of 3072 bytes.*seen: .*{seen}"):
        load_cifar10(tmp_path)


def test_a_binary_file_that_is_cut_off_is_refused(tmp_path):
    file = fill(tmp_path, "binary") / "data_batch_2.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Cifar10Error, match=r"data_batch_2.bin: expected .*seen: 18437 bytes"):
        load_cifar10(tmp_path)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_a_file_that_asks_for_more_than_arrays_is_not_obeyed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (fill(tmp_path, "python 3") / "test_batch").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(Cifar10Error, match=r"it asks for (posix|nt)\.mkdir"):
        load_cifar10(tmp_path)
    assert not (tmp_path / "harmed").exists()
