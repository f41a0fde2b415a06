"""A loop in the style of nanoGPT: loss in the forward, compiled or not, autocast, accumulation, warm-up from 0."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import safestep
from frameworks.witness import EXACT, PROMPT, ROUGH, SLACK, Batch, Witness, assert_kept, assert_same_weights

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

STEPS, TARGET = 6, 0.02


class Nano(nn.Module):
    """Returns logits and loss, as nanoGPT's model does; embedding and head share their weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.block, self.norm = nn.Embedding(29, 16), nn.Linear(16, 16), nn.LayerNorm(16)
        self.head = nn.Linear(16, 29, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        h = self.embed(ids)
        logits = self.head(self.norm(h + torch.tanh(self.block(h))))
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)


def counted(function: Any, batch: Batch) -> Tensor:
    return function(batch[0][0])[0][:, PROMPT:]


class Run:
    """nanoGPT's loop: warm-up from 0 by hand, accumulation, autocast, clipping, the compiled model called."""

    def __init__(self, policy: safestep.Policy | None, compiled: bool, reduced: bool) -> None:
        self.model = Nano()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.guard = self.audit = None
        if policy is not None:
            self.guard = safestep.attach(self.model, self.optimizer, policy=policy, radius=EXACT)
            self.audit = self.guard.audit(1.0)
        self.called = torch.compile(self.model, backend="aot_eager") if compiled else self.model
        self.context = torch.autocast("cpu", torch.bfloat16) if reduced else contextlib.nullcontext()
        self.witness = Witness(self.model, Nano, counted).watch(self.optimizer)

    def train(self, steps: int = STEPS) -> Run:
        chance = torch.Generator().manual_seed(1)
        for step in range(steps):
            for group in self.optimizer.param_groups:
                group["lr"] = 0.1 * min(1.0, step / 2)
            for _ in range(2):
                ids = torch.randint(0, 29, (4, 9), generator=chance)
                targets = torch.where(torch.arange(8) < PROMPT, -1, ids[:, 1:])
                with self.context:
                    _, loss = self.called(ids[:, :-1], targets)
                (loss / 2).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return self


@pytest.mark.parametrize("reduced", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
class Test:
    @pytest.mark.parametrize("policy", [safestep.Watch(), safestep.Cap(1e6)], ids=str)
    def test_inside_training_is_bit_for_bit_what_it_is_without_a_guard(
        self, policy: safestep.Policy, compiled: bool, reduced: bool
    ) -> None:
        bare, guarded = (Run(p, compiled, reduced).train() for p in (None, policy))
        assert_same_weights(guarded.model, bare.model)
        assert {str(report.status) for report in guarded.guard.history} <= {"watched", "inside", "still"}

    def test_no_step_goes_beyond_the_target_and_the_records_count_the_steps(
        self, compiled: bool, reduced: bool
    ) -> None:
        run = Run(safestep.Cap(TARGET), compiled, reduced).train()
        assert len(run.guard.history) == STEPS
        rough = ROUGH if reduced else SLACK
        # Compiled, nobody sees the gradient at the logits: the rows that count are guessed, and no record says exact.
        exact = not (compiled or reduced)
        assert_kept(run.guard, run.audit, run.witness, TARGET, (1, 3, 5), rough=rough, exact=exact)
