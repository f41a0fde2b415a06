"""What README and docs say there is, is there; what there is, they name; and what works is not called impossible."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import typer

import safestep
from safestep.cli import app as cli
from safestep.experiments import NAMES, find
from safestep.guard import validation as checks
from safestep.radius.losses import LossName
from safestep.radius.softmax import Method, SoftmaxRadius, Sync

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
EVERYTHING = "\n".join(PAGES.values())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMAND = typer.main.get_command(cli.app)
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
on_every_page = pytest.mark.parametrize("page", PAGES)


def said(pattern: str, page: str = "") -> set[str]:
    """Return what a pattern's group finds on a page, or on all of them."""
    return set(re.findall(pattern, PAGES[page] if page else EVERYTHING))


# -- what is named exists ---------------------------------------------------------------------------------------------


@on_every_page
def test_every_dotted_name_exists(page):
    for name in said(r"(?<![\w./-])(safestep(?:\.[A-Za-z_]\w*)+)(?!\w|/)", page):
        found, *rest = safestep, *name.split(".")[1:]
        path = "safestep"
        for part in rest:
            path += f".{part}"
            # Keras knows one backend a process, and trainers have their own environment: other tests import them.
            if path.startswith("safestep.integrations."):
                assert in_integration(*name.split(".")[2:])
                break
            found = getattr(found, part) if hasattr(found, part) else importlib.import_module(path)


def in_integration(module: str, *names: str) -> bool:
    """Return whether a module of ours names these, read off its file: it may need what is not installed here."""
    file = ROOT / "src" / "safestep" / "integrations" / module
    text = next(f for f in (file.with_suffix(".py"), file / "__init__.py") if f.exists()).read_text(encoding="utf-8")
    return all(re.search(rf"\b{name}\b", text) for name in names)


@on_every_page
def test_every_option_of_attach_exists(page):
    calls = said(r"attach\(((?:[^()]|\([^()]*\))*)\)", page)
    names = {name for call in calls for name in re.findall(r"(?:^|, )(\w+)=", re.sub(r"\([^()]*\)", "", call))}
    assert names <= inspect.signature(safestep.attach).parameters.keys()


@on_every_page
def test_every_value_of_a_choice_exists(page):
    for option, known in (
        ("method", get_args(Method)),
        ("sync", get_args(Sync)),
        ("head", ("softmax", "sigmoid")),
        ("on_nonfinite", ("undo", "skip")),
    ):
        assert said(rf'(?<!\w){option}="([^"]*)"', page) <= {*known}, option
    assert said(r'CurvatureRadius\("(\w+)"', page) <= {*get_args(LossName)}


@on_every_page
def test_every_link_leads_somewhere(page):
    for target in said(r"\]\(([^)\s]+)\)", page):
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, target


@on_every_page
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert said(r"(?:`|^)make ([a-z-]+)", page) <= targets


@on_every_page
def test_every_extra_exists(page):
    extras = PROJECT["optional-dependencies"].keys()
    assert said(r"\.\[([\w-]+)\]", page) | said(r"extra [`']([\w-]+)[`']", page) <= extras


def lines(page: str) -> list[list[str]]:
    """Return every command line of ours on a page, in words."""
    shell = re.findall(r"`((?:\.venv/bin/)?safestep [a-z][^`]*)`", PAGES[page].replace("\n", " "))
    for block in re.findall(r"```sh\n(.*?)```", PAGES[page], re.DOTALL):
        shell += [line for line in block.splitlines() if re.match(r"(\.venv/bin/)?safestep [a-z]", line)]
    return [shlex.split(line.replace("|", " "), comments=True) for line in shell]


@on_every_page
def test_every_command_with_its_options_and_settings_exists(page):
    for words in lines(page):
        command = COMMAND
        rest = words[1:]
        while rest and hasattr(command, "commands"):
            assert rest[0] in command.commands, words
            inner = command.commands[rest.pop(0)]
            further = getattr(inner, "commands", {})
            if rest and rest[0] in command.commands and rest[0] not in further:  # "list | run | report": each by itself
                continue
            command = inner
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in rest if re.match(r"--[a-z]", word)} <= options, words
        if command is COMMAND.commands["run"] and rest and rest[0] != "NAME":
            experiment = find(rest[0])
            settings = [b for a, b in pairwise(rest) if a == "--set" and "=" in b and "..." not in b]
            experiment.settings.parse(settings)


# -- what exists is named ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "package"),
    [
        ("docs/how-to-choose.md", "safestep.policy"),
        ("docs/how-to-choose.md", "safestep.radius"),
        ("docs/logging.md", "safestep.logs"),
        ("docs/schedules.md", "safestep.schedules"),
    ],
)
def test_the_page_names_everything_of_its_kind(page, package):
    module = importlib.import_module(package)
    kinds = {name for name in module.__all__ if is_one(module, name)}
    assert kinds
    assert not {kind for kind in kinds - MADE_BY_OPERATORS if not re.search(rf"\b{kind}\b", PAGES[page])}


MADE_BY_OPERATORS = {"Product", "Scaled", "Shifted", "Then"}
"""Schedules that are written ``a * b``, ``2 * a``, ``a.shifted(t)``, ``a.then(b, t)``."""


def is_one(module, name: str) -> bool:
    """Return whether a name is a class that a user chooses: no base, error or record."""
    one = getattr(module, name)
    return inspect.isclass(one) and not (
        inspect.isabstract(one) or getattr(one, "_is_protocol", False) or issubclass(one, Exception)
    )


def test_a_page_names_every_command_and_extra():
    page = PAGES["docs/experiments.md"]
    for command in COMMAND.commands:
        assert f"safestep {command}" in page, command
    for extra in PROJECT["optional-dependencies"].keys() - {"test", "integrations-test", "tutorials"}:
        assert f"'.[{extra}]'" in page or f"extra `{extra}`" in page, extra


def test_every_experiment_is_told_somewhere():
    assert not {name for name in NAMES if f"safestep run {name}" not in EVERYTHING and f"`{name}`" not in EVERYTHING}


# -- what works is not called impossible, and numbers are those of the code --------------------------------------------


def checks_of(*functions: str) -> set[str]:
    """Return the functions below tests/ranks/checks, which run on several processes, that have one of these words."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "tests/ranks/checks").glob("*.py")]
    names = {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {name for name in names if any(word in name for word in functions)}


def test_what_is_said_of_several_processes_is_what_is_checked_on_several():
    """One guard on several ranks is checked by every function there; a page that denies it is wrong."""
    assert len(checks_of("check_")) > 50
    denials = ("(?:one|single) process only", "only (?:one|a single) process", "attaching one that acts is refused")
    denials += (r"several (?:ranks|processes)[^.|]{0,60}not supported",)
    assert not {page for page, text in PAGES.items() if re.search("(?i)" + "|".join(denials), text)}
    for name, check in (("DDP", "data_parallel"), ("FSDP2", "sharded"), ("tensor parallel", "tensor_parallel")):
        assert name in PAGES["README.md"]
        assert checks_of(check)
    assert "join()" in PAGES["docs/limitations.md"]
    assert checks_of("joining_uneven_batches_is_refused")


def test_the_optimizers_that_we_warn_of_are_those_the_guard_warns_of():
    (named,) = said(r"Optimizers that keep a second copy of the weights \(([^)]*)\)", "docs/limitations.md")
    known = inspect.getsource(checks).lower()
    for name in named.split(", "):
        assert name.lower().replace("-", "") in known, name


def test_numbers_of_things_are_those_of_the_code():
    counts = {
        "methods": len(get_args(Method)),
        "experiments": len(NAMES),
        "commands": len(COMMAND.commands),
        "policies": len({name for name in safestep.policy.__all__ if is_one(safestep.policy, name)}),
    }
    number = "|".join(WORDS[1:])
    for thing, count in counts.items():
        for page, text in PAGES.items():
            for word in re.findall(rf"(?i)(?:by|all|has) ({number}) (?:of the )?{thing}\b", text):
                assert WORDS.index(word.lower()) == count, (page, word, thing)


def test_the_default_method_is_the_one_that_the_pages_call_so():
    default = SoftmaxRadius().method
    assert said(r"default,? (?:is )?`?method=\"(\w+)\"") | said(r"\| (\w+) \(the default\)") <= {default}
