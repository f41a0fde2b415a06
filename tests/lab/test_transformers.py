"""The tiny transformers: attention as its formula says, a GPT that cannot look ahead, and the gain of its inputs."""

from __future__ import annotations

import math

import pytest
import torch

from safestep.lab.models import Block, CharGPT, DigitsTransformer


@pytest.mark.parametrize("causal", [False, True])
def test_a_block_is_attention_and_perceptron_beside_the_way_through(causal):
    block, x = Block(8, 2, causal=causal).double(), torch.randn(3, 5, 8, dtype=torch.float64)
    query, key, value = block.query_key_value(block.before_attention(x)).chunk(3, dim=-1)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(4)
        if causal:
            scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
        heads.append(scores.softmax(-1) @ value[..., part])
    middle = x + block.joined(torch.cat(heads, -1))
    expected = middle + block.perceptron(block.before_perceptron(middle))
    assert torch.allclose(block(x), expected, rtol=0, atol=1e-12)


def test_a_gpt_does_not_look_ahead_and_a_reader_of_digits_looks_everywhere():
    gpt = CharGPT(11, context=6, width=8, heads=2)
    text = torch.randint(11, (2, 6))
    other = text.clone()
    other[:, 4] = (other[:, 4] + 1) % 11
    differ = (gpt(text) - gpt(other)).abs().amax((0, 2))
    assert differ[:4].max() == 0 < differ[4:].min()
    reader, image = DigitsTransformer(), torch.rand(2, 64)
    changed = image.clone()
    changed[:, -1] += 1
    assert (reader(image) != reader(changed)).all()


def test_order_matters_to_both():
    reader, image = DigitsTransformer(), torch.rand(2, 64)
    assert not torch.allclose(reader(image), reader(image.view(2, 8, 8).flip(1).flatten(1)))
    gpt = CharGPT(11)
    same_letter = gpt(torch.zeros(1, 9, dtype=torch.int64))[0]
    assert not torch.allclose(same_letter[0], same_letter[5])


def test_gain_multiplies_the_embeddings_and_nothing_else():
    gpt, text = CharGPT(11), torch.randint(11, (2, 6))
    plain, louder = gpt(text), gpt(text, 100.0)
    assert torch.equal(gpt(text, 1.0), plain)
    with torch.no_grad():
        gpt.embedding.weight *= 100.0
    assert torch.allclose(gpt(text), louder, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(plain, louder)
