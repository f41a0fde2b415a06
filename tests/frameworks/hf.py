"""Tiny language models, random texts, and a guarded run of a trainer of the Hugging Face family."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the import: nothing here comes from elsewhere

import pytest

transformers = pytest.importorskip("transformers", reason="transformers is not installed: make integrations")
pytest.importorskip("accelerate", reason="accelerate is not installed: make integrations")

import torch
from torch import Tensor

import safestep
from frameworks.witness import EXACT, PROMPT, Witness, causal
from safestep.integrations.transformers import SafestepCallback, guard_trainer

VOCABULARY, STEPS = 29, 6
QUIET = (
    "ignore:`torch.jit:DeprecationWarning",
    "ignore:.*pin_memory.*:UserWarning",
    "ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning",
)
"""Warnings of the frameworks and of torch about each other."""


class Texts(torch.utils.data.Dataset):
    """Random tokens; the first of each text are a prompt, which is no part of the loss."""

    def __len__(self) -> int:
        return 96

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = torch.randint(0, VOCABULARY, (8,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": ids, "labels": torch.where(torch.arange(8) < PROMPT, -100, ids)}


def gpt2(dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    rates = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, **rates, bos_token_id=0, eos_token_id=0))


def llama() -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 16}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, **heads))


def trainer_of(folder: Path, model: Any = None, callbacks: Any = None, **arguments: Any) -> Any:
    """Return a trainer of three steps."""
    quiet = {"use_cpu": True, "report_to": [], "disable_tqdm": True, "max_steps": 3, "save_strategy": "no"}
    settings = transformers.TrainingArguments(str(folder), **{**quiet, "learning_rate": 1e-2, **arguments})
    return transformers.Trainer(model or gpt2(), settings, train_dataset=Texts(), callbacks=callbacks)


@dataclass
class Run:
    """A run of a trainer: what came out, and who watched."""

    trainer: Any
    model: Any
    guard: safestep.Guard | None
    audit: Any
    witness: Witness


class Onlookers(transformers.TrainerCallback):
    """Comes after the guard: the witness's hooks are to run after it has acted."""

    def __init__(self, witness: Witness, guarded: SafestepCallback | None, audited: bool) -> None:
        self.witness, self.guarded, self.audited, self.audit = witness, guarded, audited, None

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        if self.guarded is not None and self.audited:
            self.audit = self.guarded.guard.audit(1.0)
        self.witness.watch(optimizer.optimizer)


def train(
    folder: Path,
    policy: safestep.Policy | None,
    *,
    build: Callable[[], Any] = gpt2,
    attached: dict[str, Any] | None = None,
    audited: bool = False,
    resume: int = 0,
    rate: float = 1e-2,
    kinds: tuple[Any, Any] = (transformers.Trainer, transformers.TrainingArguments),
    given: dict[str, Any] | None = None,
    **arguments: Any,
) -> Run:
    """Train a model with a guard, or without.

    Args:
        folder: where checkpoints go.
        policy: of the guard; None for no guard.
        build: makes the model.
        attached: what else `safestep.attach` is given.
        audited: whether every step is measured again.
        resume: the step of the checkpoint to go on from.
        rate: the learning rate.
        kinds: the trainer and its settings.
        given: what else the trainer is given.
        arguments: the settings that are not the usual ones.
    """
    model = build()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=rate)
    options = {"policy": policy, "radius": EXACT, **(attached or {})}
    defaults = {"max_steps": STEPS, "save_strategy": "no", "per_device_train_batch_size": 4, "logging_steps": 1}
    quiet = {"use_cpu": True, "report_to": [], "disable_tqdm": True}
    settings = kinds[1](str(folder), **{**quiet, **defaults, **arguments})
    trainer = kinds[0](model, settings, **{"train_dataset": Texts(), "optimizers": (optimizer, None), **(given or {})})
    guarded = None if policy is None else guard_trainer(trainer, **options)
    onlookers = Onlookers(Witness(model, build, causal), guarded, audited)
    trainer.add_callback(onlookers)
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{resume}") if resume else None)
    return Run(trainer, model, guarded and guarded.guard, onlookers.audit, onlookers.witness)
