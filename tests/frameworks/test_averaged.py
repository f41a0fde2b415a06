"""`Averaged` in real trainers: evaluated at the average, guarded where it trains, and resumed bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="transformers is not installed: make integrations")
pytest.importorskip("lightning", reason="lightning is not installed: make integrations")

import torch
import transformers

import safestep
from frameworks.hf import QUIET, Texts, gpt2
from frameworks.lit import Lit, trainer
from frameworks.task import loader
from frameworks.witness import assert_same_weights
from safestep.integrations.transformers import SafestepCallback, guard_trainer

pytestmark = pytest.mark.filterwarnings(
    *QUIET,
    "ignore:.isinstance.treespec, LeafSpec:FutureWarning",
    "ignore:The '.*_dataloader' does not have many workers",
)


def averaged(parameters: Any) -> safestep.Averaged:
    return safestep.Averaged(torch.optim.AdamW(parameters, lr=0.5, betas=(0.0, 0.999)))


class Looks(transformers.TrainerCallback):
    """Keeps the weights that every evaluation, and that every step of training, is made at."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.judged, self.trained = model, list[torch.Tensor](), list[torch.Tensor]()

    def first(self) -> torch.Tensor:
        return next(self.model.parameters()).detach().clone()

    def on_prediction_step(self, *_: Any, **__: Any) -> None:
        self.judged.append(self.first())

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.trained.append(self.first())


def hugging(folder: Path, resume: int = 0, **changed: Any) -> tuple[Any, SafestepCallback, Looks]:
    settings = {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}
    quiet = {"use_cpu": True, "report_to": [], "disable_tqdm": True}
    model = gpt2()
    optimizer = averaged(model.parameters())
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(str(folder), **{**settings, **quiet, **changed}),
        train_dataset=Texts(),
        eval_dataset=torch.utils.data.Subset(Texts(), range(8)),
        optimizers=(optimizer, None),
    )
    guarded = guard_trainer(trainer, policy=safestep.Pin())
    looks = Looks(model)
    trainer.add_callback(looks)
    trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{resume}") if resume else None)
    return trainer, guarded, looks


def test_hugging_face_evaluates_at_the_average_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, guarded, looks = hugging(tmp_path)
    p = next(whole.model.parameters())
    assert {str(report.status) for report in guarded.guard.history} == {"pinned"}
    assert [report.applied_ratio for report in guarded.guard.history] == pytest.approx([1.0] * 6)
    averages = whole.optimizer.optimizer
    assert "y" in averages.state[p]  # the last thing was an evaluation
    x = p.detach().clone()
    assert torch.equal(looks.judged[-1], x)
    assert not torch.equal(averages.state[p]["y"], x)
    resumed, *_ = hugging(tmp_path, resume=3)
    assert_same_weights(resumed.model, whole.model)
    assert torch.equal(resumed.optimizer.optimizer.state[next(resumed.model.parameters())]["y"], averages.state[p]["y"])


def test_hugging_face_trains_as_without_evaluations(tmp_path: Path) -> None:
    _, _, looking = hugging(tmp_path / "a", save_strategy="no")
    _, _, blind = hugging(tmp_path / "b", save_strategy="no", eval_strategy="no")
    assert len(looking.trained) == len(blind.trained) == 6
    assert all(map(torch.equal, looking.trained, blind.trained))


class Averaging(Lit):
    """As docs/averaging.md has it for Lightning: shown at the average while it is validated."""

    def configure_optimizers(self) -> Any:
        self.made, self.judged = averaged(self.parameters()), list[bool]()
        return self.made

    def on_train_start(self) -> None:
        """There is no witness here."""

    def on_validation_start(self) -> None:
        self.made.eval()

    def validation_step(self, batch: Any, number: int) -> None:
        self.judged.append(all("y" in state for state in self.made.state.values()))

    def on_validation_end(self) -> None:
        self.made.train()


def test_lightning_guards_it_and_validates_at_the_average(tmp_path: Path) -> None:
    module = Averaging(safestep.Pin(), radius=None)
    trainer(tmp_path, callbacks=module.callbacks).fit(module, loader(8), loader(2))
    assert len(module.guard.history) == 8
    assert {str(report.status) for report in module.guard.history} <= {"pinned", "held"}
    assert module.judged
    assert all(module.judged[-2:])
