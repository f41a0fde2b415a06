"""TRL: the supervised trainer with its default loss, which makes no logits, and with losses that do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

trl = pytest.importorskip("trl", reason="trl is not installed: make integrations")

import datasets
import tokenizers
import torch
import transformers
from torch import Tensor
from torch.nn import functional as F

import safestep
from frameworks.hf import QUIET, STEPS, Run, Texts, llama, train
from frameworks.witness import PROMPT, ROUGH, SLACK, Batch, assert_kept, assert_same_weights
from safestep.integrations.transformers import causal_lm_loss

pytestmark = pytest.mark.filterwarnings(
    *QUIET, "ignore:`(label_smoothing_factor|compute_loss_func)` is deprecated:FutureWarning"
)

TARGET = 0.02
READOUT = safestep.Readout(lambda model, *, fused_lm_head, **given: model(**given).logits)
"""The same module makes the logits where it is not asked for the fused loss."""

FUSED: dict[str, Any] = {"attached": {"forward": READOUT}}
OUTSIDE: dict[str, Any] = {"label_smoothing_factor": 0.1, "gradient_checkpointing": False}
"""A loss that wants the logits: the trainer then calls the model as it is."""


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    datasets.disable_progress_bars()


def supervised(folder: Path, policy: safestep.Policy | None, loss: Any = None, **options: Any) -> Run:
    words = {**{f"w{i}": i for i in range(27)}, "<end>": 27, "<unknown>": 28}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unknown>")),
        pad_token="<end>",
        eos_token="<end>",
    )
    texts = [{name: value.tolist() for name, value in text.items()} for text in map(Texts().__getitem__, range(96))]
    given = {"train_dataset": datasets.Dataset.from_list(texts), "processing_class": tokenizer}
    given |= {} if loss is None else {"compute_loss_func": loss}
    kinds = (trl.SFTTrainer, trl.SFTConfig)
    return train(folder, policy, build=llama, kinds=kinds, given=given, **options)


LOOPS: dict[str, dict[str, Any]] = {  # bfloat16 and checkpointing are the trainer's defaults
    "fused loss": FUSED,
    "fused loss, float32": {**FUSED, "bf16": False},
    "fused loss, accumulated": {**FUSED, "bf16": False, "gradient_accumulation_steps": 2},
    "smoothed labels": OUTSIDE,
    "smoothed labels, float32": {**OUTSIDE, "bf16": False},
}


def one_too_many(function: Any, batch: Batch) -> Tensor:
    """Return the rows that a readout looks at: it cannot tell which of two neighbours a label belongs to."""
    return function(input_ids=batch[1]["input_ids"], attention_mask=batch[1]["attention_mask"]).logits[:, PROMPT - 1 :]


@pytest.mark.parametrize("policy", [safestep.Watch(), safestep.Cap(1e6)], ids=str)
@pytest.mark.parametrize("loop", LOOPS)
def test_inside_training_is_bit_for_bit_what_it_is_without_a_guard(
    loop: str, policy: safestep.Policy, tmp_path: Path
) -> None:
    plain, guarded = (supervised(tmp_path, p, **LOOPS[loop]) for p in (None, policy))
    assert_same_weights(guarded.model, plain.model)
    assert guarded.guard is not None
    assert {str(report.status) for report in guarded.guard.history} <= {"watched", "inside", "still"}


@pytest.mark.parametrize("loop", LOOPS)
def test_no_step_goes_beyond_the_target_and_the_records_count_the_steps(loop: str, tmp_path: Path) -> None:
    run = supervised(tmp_path, safestep.Cap(TARGET), audited=True, **LOOPS[loop])
    assert run.guard is not None
    assert len(run.guard.history) == run.trainer.state.global_step == STEPS
    rough = SLACK if "bf16" in LOOPS[loop] else ROUGH
    numbers = (1, 3, STEPS - 1)
    if "attached" in LOOPS[loop]:
        assert max(map(run.witness.ratio, numbers)) <= TARGET * (1 + rough)
        run.witness.logits = one_too_many
    exact = "attached" not in LOOPS[loop] and rough == SLACK
    assert_kept(run.guard, run.audit, run.witness, TARGET, numbers, rough=rough, exact=exact)


@pytest.mark.parametrize("loop", ["fused loss", "smoothed labels"])
def test_a_resumed_run_goes_on_bit_for_bit_with_caps_acting(loop: str, tmp_path: Path) -> None:
    arguments = {**LOOPS[loop], "save_strategy": "steps", "save_steps": 3}
    whole = supervised(tmp_path, safestep.Cap(TARGET), **arguments)
    resumed = supervised(tmp_path, safestep.Cap(TARGET), resume=3, **arguments)
    assert_same_weights(resumed.model, whole.model)
    assert whole.guard is not None
    assert resumed.guard is not None
    assert [r.row() for r in resumed.guard.history] == [r.row() for r in list(whole.guard.history)[3:]]
    assert sum(str(r.status) == "capped" for r in resumed.guard.history) >= 2


def test_without_a_way_to_logits_the_fused_loss_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(safestep.MeasurementError, match="forward="):
        supervised(tmp_path, safestep.Cap(TARGET))


def test_without_a_way_to_logits_a_watch_says_so_and_leaves_training_alone(tmp_path: Path) -> None:
    plain = supervised(tmp_path, None)
    with pytest.warns(safestep.SafestepWarning, match="forward="):
        watched = supervised(tmp_path, safestep.Watch())
    assert_same_weights(watched.model, plain.model)
    assert watched.guard is not None
    assert {str(report.status) for report in watched.guard.history} == {"unmeasured"}


def test_the_fused_loss_is_the_cross_entropy_that_is_measured(tmp_path: Path) -> None:
    """What the readout returns are the logits whose log-probabilities the trainer's loss is made of."""
    model = supervised(tmp_path, None, max_steps=1, bf16=False).model
    texts = [Texts()[index] for index in range(4)]
    ids, labels = (torch.stack([text[name] for text in texts]) for name in ("input_ids", "labels"))
    output = model(input_ids=ids, labels=labels, fused_lm_head=True)
    logits: Tensor = READOUT.function(model, input_ids=ids, labels=labels, fused_lm_head=True)[:, :-1]
    wanted = -F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="none").view(4, -1)
    torch.testing.assert_close(output.log_probs, wanted)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_with_a_loss_that_shows_its_logits_the_default_limit_holds(precision: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"attached": {"radius": None}, "rate": 3.0, "bf16": precision == "bfloat16"}
    arguments |= {"loss": causal_lm_loss, "gradient_accumulation_steps": 2}
    plain, capped = (supervised(tmp_path, policy, **arguments) for policy in (None, safestep.Cap()))
    assert capped.guard is not None
    rows = [report.row() for report in capped.guard.history]
    assert len(rows) == STEPS
    assert sum(row["status"] == "capped" for row in rows) >= 2
    assert all(row["scale"] == 1.0 or row["applied_ratio"] <= 1 + SLACK for row in rows)
    assert "loss found: cross_entropy" in repr(capped.guard)
    logged = [[row["loss"] for row in run.trainer.state.log_history if "loss" in row] for run in (plain, capped)]
    assert logged[0][0] == logged[1][0]
    assert max(logged[1]) < max(logged[0])


def test_the_loss_that_shows_its_logits_is_the_trainers_own(tmp_path: Path) -> None:
    runs = [supervised(tmp_path, None, bf16=False, loss=loss) for loss in (None, causal_lm_loss)]
    one, other = ([row["loss"] for row in run.trainer.state.log_history if "loss" in row] for run in runs)
    assert one == pytest.approx(other, rel=1e-4)
