"""The recurrent network of the laboratory: it cannot look ahead, remembers, and takes a gain as the GPT does."""

from __future__ import annotations

import torch

from safestep.lab.models import CharLSTM


def test_it_does_not_look_ahead_and_remembers():
    model, text = CharLSTM(11, width=8), torch.randint(11, (2, 6))
    other = text.clone()
    other[:, 3] = (other[:, 3] + 1) % 11
    differ = (model(text) - model(other)).abs().amax((0, 2))
    assert differ[:3].max() == 0 < differ[3:].min()


def test_gain_multiplies_the_embeddings():
    model, text = CharLSTM(11, width=8), torch.randint(11, (2, 6))
    plain, louder = model(text), model(text, 100.0)
    assert torch.equal(model(text, 1.0), plain)
    with torch.no_grad():
        model.embedding.weight *= 100.0
    assert torch.allclose(model(text), louder, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(plain, louder)
