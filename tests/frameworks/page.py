"""The table of docs/trainers.md, made from these tests. `python tests/frameworks` writes it."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "trainers.md"
BEGIN, END = "<!-- made by tests/frameworks -->\n", "<!-- end -->"


@dataclass(frozen=True)
class Row:
    """A framework.

    Attributes:
        name: its section on the page.
        package: whose version was run; empty for no package.
        tests: the module of its tests.
        attach: how a guard is attached.
        resume: how it is saved.
    """

    name: str
    package: str
    tests: str
    attach: str
    resume: str

    def line(self) -> str:
        """Return the row: which loops its tests try, and what of each."""
        module = importlib.import_module(f"frameworks.{self.tests}")
        has = [name for name in vars(module) if name.startswith("test_")]
        cases = list(getattr(module, "LOOPS", ["float32"]))
        cases += ["default limit"] if any("default_limit" in name for name in has) else []
        cases += ["two processes"] if "test_on_two_processes" in has else []
        cases += ["bit for bit resumed, caps acting"] if any("resumed_run_goes_on" in name for name in has) else []
        link = re.sub(r"[^\w]+", "-", self.name.lower())
        run = f"{self.package} {version(self.package)}" if self.package else "torch alone"
        return f"| [{self.name}](#{link}) | {self.attach} | {self.resume} | {'; '.join(cases)} | {run} |\n"


ROWS = (
    Row("transformers", "transformers", "test_transformers", "`guard_trainer(trainer)`", "by itself"),
    Row("Lightning", "lightning", "test_lightning", '`SafestepCallback(module="net")`', "by itself"),
    Row(
        "Accelerate",
        "accelerate",
        "test_accelerate",
        "before or after `prepare`",
        "`accelerator.register_for_checkpointing(guard)`",
    ),
    Row("Ignite", "pytorch-ignite", "test_ignite", "before the trainer", '`Checkpoint({"guard": guard, ...})`'),
    Row("skorch", "skorch", "test_skorch", "in a callback's `on_train_begin`", "a file of its own"),
    Row("fastai", "fastai", "test_fastai", "in a callback's `before_fit`", "a file of its own"),
    Row("timm", "timm", "test_timm", "behind `create_optimizer_v2`", "a key of one's own"),
    Row("PEFT", "peft", "test_peft", "the adapted model, as any other", "as its trainer does"),
    Row("TRL", "trl", "test_trl", "`guard_trainer(trainer)` and `causal_lm_loss`", "by itself"),
    Row("Containers of optimizers", "", "test_containers", "the list inside", '`dcp.save({"guard": guard}, ...)`'),
)


def table() -> str:
    """Return the table."""
    head = "| framework | attach | save and resume | tested | with |\n|---|---|---|---|---|\n"
    return head + "".join(row.line() for row in ROWS)


def blocks() -> dict[str, str]:
    """Return the examples of the page by section; the beginning is under an empty name."""
    sections = re.split(r"^## (.*)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    texts = dict(zip(["", *sections[1::2]], sections[::2], strict=True))
    return {name: "".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)) for name, text in texts.items()}


def write() -> None:
    """Write the table into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.partition(END)[2], encoding="utf-8")
