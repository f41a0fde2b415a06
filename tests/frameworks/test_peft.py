"""PEFT: LoRA adapters under the Hugging Face ``Trainer``, the frozen base in float32 and in bfloat16."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

peft = pytest.importorskip("peft", reason="peft is not installed: make integrations")
pytest.importorskip("accelerate", reason="accelerate is not installed: make integrations")

import torch

import safestep
from frameworks.hf import QUIET, STEPS, VOCABULARY, llama, train
from frameworks.witness import EXACT, PROMPT, ROUGH, SLACK, Witness, assert_kept, assert_same_weights, causal

pytestmark = pytest.mark.filterwarnings(*QUIET)

TARGET = 0.005
SETTINGS: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["q_proj", "v_proj"]},
    "all layers, rank-stabilised": {"target_modules": "all-linear", "use_rslora": True},
    "directions apart (DoRA)": {"target_modules": ["q_proj", "v_proj"], "use_dora": True},
    "the head trained too": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
}


def adapted(kind: str = "attention", base: torch.dtype = torch.float32) -> Any:
    model = llama().to(base)
    torch.manual_seed(1)
    settings = {"r": 4, "lora_alpha": 64, "task_type": "CAUSAL_LM", "lora_dropout": 0.0, **SETTINGS[kind]}
    return peft.get_peft_model(model, peft.LoraConfig(**settings))


LOOPS: dict[str, dict[str, Any]] = {
    **{kind: {"build": lambda kind=kind: adapted(kind)} for kind in SETTINGS},
    "accumulated": {"build": adapted, "gradient_accumulation_steps": 2},
    "bfloat16": {"build": adapted, "bf16": True},
    "base in bfloat16": {"build": lambda: adapted(base=torch.bfloat16)},
}


@pytest.mark.parametrize("policy", [safestep.Watch(), safestep.Cap(1e6)], ids=str)
@pytest.mark.parametrize("loop", LOOPS)
def test_inside_training_is_bit_for_bit_what_it_is_without_a_guard(
    loop: str, policy: safestep.Policy, tmp_path: Path
) -> None:
    plain, guarded = (train(tmp_path, p, **LOOPS[loop]) for p in (None, policy))
    assert_same_weights(guarded.model, plain.model)
    assert guarded.guard is not None
    assert {str(report.status) for report in guarded.guard.history} <= {"watched", "inside", "still"}


@pytest.mark.parametrize("loop", LOOPS)
def test_no_step_goes_beyond_the_target_and_the_records_count_the_steps(loop: str, tmp_path: Path) -> None:
    run = train(tmp_path, safestep.Cap(TARGET), audited=True, **LOOPS[loop])
    if "DoRA" in loop:  # its norms are detached and move all the same
        run.witness.look = 0.05
    rough = ROUGH if "bfloat16" in loop else SLACK
    assert_kept(run.guard, run.audit, run.witness, TARGET, (0, 1, 3, STEPS - 1), rough=rough)
    assert run.guard is not None
    assert len(run.guard.history) == run.trainer.state.global_step == STEPS


@pytest.mark.parametrize("loop", ["attention", "the head trained too", "bfloat16"])
def test_a_resumed_run_goes_on_bit_for_bit_with_caps_acting(loop: str, tmp_path: Path) -> None:
    arguments = {**LOOPS[loop], "save_strategy": "steps", "save_steps": 3}
    whole = train(tmp_path, safestep.Cap(TARGET), **arguments)
    resumed = train(tmp_path, safestep.Cap(TARGET), resume=3, **arguments)
    assert_same_weights(resumed.model, whole.model)
    assert whole.guard is not None
    assert resumed.guard is not None
    assert [r.row() for r in resumed.guard.history] == [r.row() for r in list(whole.guard.history)[3:]]
    assert sum(str(r.status) == "capped" for r in resumed.guard.history) >= 2


@pytest.mark.parametrize("inner", [False, True], ids=["the wrapper", "the model inside"])
def test_the_wrapper_and_the_model_inside_are_measured_alike(inner: bool) -> None:
    whole = adapted()
    optimizer = torch.optim.SGD([p for p in whole.parameters() if p.requires_grad], lr=10.0)
    guard = safestep.attach(whole.get_base_model() if inner else whole, optimizer, radius=EXACT)
    witness = Witness(whole, adapted, causal).watch(optimizer)
    ids = torch.randint(0, VOCABULARY, (2, 8))
    whole(input_ids=ids, labels=torch.where(torch.arange(8) < PROMPT, -100, ids)).loss.backward()
    optimizer.step()
    assert guard.last is not None
    assert math.isclose(guard.last.applied_ratio, witness.ratio(0), rel_tol=SLACK)
