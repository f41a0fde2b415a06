"""The digits: the split of the protocol, and loaders whose passes draw as the protocol says."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from safestep.errors import MissingExtraError
from safestep.lab.digits import CLASSES, load_split, loaders


def test_the_split_is_the_protocols():
    split = load_split(7)
    assert split.train_x.shape == (1347, 64)
    assert split.test_x.shape == (450, 64)
    assert split.train_x.dtype == torch.float32
    assert split.train_y.dtype == torch.int64
    assert 0.0 <= split.train_x.min() < split.train_x.max() == 1.0
    counts = torch.bincount(split.test_y, minlength=CLASSES)
    shares = torch.bincount(split.train_y, minlength=CLASSES) / 1347
    assert torch.allclose(counts / 450, shares, atol=0.002)  # every digit keeps its share


def test_the_seed_alone_chooses_the_split():
    assert torch.equal(load_split(3).train_x, load_split(3).train_x)
    assert not torch.equal(load_split(3).train_y, load_split(4).train_y)


def test_loading_draws_from_no_global_generator():
    before = torch.get_rng_state()
    load_split(7)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_is_shuffled_and_keeps_the_short_batch_testing_is_in_order():
    split = load_split(7)
    train, test = loaders(split)
    labels = [y for _, y in train]
    assert [len(y) for y in labels] == [128] * 10 + [67]
    assert not torch.equal(torch.cat(labels), split.train_y)
    assert torch.equal(torch.cat(labels).sort().values, split.train_y.sort().values)
    assert torch.equal(torch.cat([x for x, _ in test]), split.test_x)
    assert [len(y) for _, y in test] == [256, 194]


def test_batches_and_draws_are_those_of_a_plain_loader():
    split = load_split(7)
    plain = DataLoader(TensorDataset(split.train_x, split.train_y), batch_size=128, shuffle=True)
    passes = []
    for loader in (loaders(split)[0], plain):
        torch.manual_seed(1)
        passes.append(([batch for _ in range(2) for batch in loader], torch.get_rng_state()))
    (ours, after), (theirs, after_theirs) = passes
    assert torch.equal(after, after_theirs)
    assert all(
        torch.equal(a, b) for mine, other in zip(ours, theirs, strict=True) for a, b in zip(mine, other, strict=True)
    )


def test_every_pass_of_either_loader_draws_from_torchs_generator():
    """Why the protocol keeps the test pass: without it the next epoch's shuffle is another."""
    for loader in loaders(load_split(7)):
        before = torch.get_rng_state()
        list(loader)
        assert not torch.equal(torch.get_rng_state(), before)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"extra .experiments."):
        load_split(7)
