"""The loss of a causal language model of Hugging Face, from logits that a guard can see."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from safestep._torch.extras import need

__all__ = ["causal_lm_loss"]

_losses: Any = need("transformers.loss.loss_utils", "transformers")


def causal_lm_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Return the cross-entropy of the next token, from the logits: ``compute_loss_func`` of a trainer.

    TRL's ``SFTTrainer`` fuses head and loss by default and makes no logits that a limit could be computed from; with
    this loss it does. It is that of transformers: labels of -100 do not count, and the sum is divided by
    ``num_items_in_batch`` where the trainer gives it (all tokens of the step), else by the labels that count.

    Example:
        >>> import torch
        >>> causal_lm_loss({"logits": torch.zeros(1, 3, 5)}, torch.tensor([[0, 1, -100]])).item()  # log 5
        1.6094379425048828
    """
    logits = outputs["logits"]
    loss: Tensor = _losses.ForCausalLMLoss(logits, labels, logits.shape[-1], num_items_in_batch=num_items_in_batch)
    return loss
