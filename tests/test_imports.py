"""What importing safestep loads, and what works without the extras."""

from __future__ import annotations

import importlib.util

import jaxtyping
import pytest
import torch

from processes import run
from safestep.formulas.softmax_ratio import spread

EXTRAS = (
    "matplotlib",
    "scipy",
    "sklearn",
    "pandas",
    "typer",
    "rich",
    "jinja2",
    "joblib",
    "jaxtyping",
    "beartype",
    "hypothesis",
    "keras",
    "jax",
    "optax",
    "tensorboard",
    "wandb",
)


def python(code):
    """Run code in a fresh interpreter, without the settings of the tests, and return what it prints."""
    return run("-W", "error", "-c", code, SAFESTEP_CHECK_SHAPES="").strip()


def test_import_loads_torch_and_nothing_else():
    """Every top-level module that `import safestep` adds to those of `import torch` is safestep's or the library's."""
    code = """
import sys, torch
before = set(sys.modules)
import safestep
added = {name.split('.')[0] for name in set(sys.modules) - before}
print(sorted(added - {'safestep'} - sys.stdlib_module_names))
print(sorted(name for name in set(sys.modules) - before if name.startswith('torch.')))
"""
    others, torchs = python(code).splitlines()
    assert others == "[]"
    assert "torch._dynamo" not in torchs  # seconds of import time
    assert "torch._inductor" not in torchs


BLOCKED = f"""
import sys
sys.modules |= dict.fromkeys({(*EXTRAS, "numpy")})  # None: importing one of these is a ModuleNotFoundError
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of torch.jit.script
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
import torch, safestep
model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Dropout(), torch.nn.Linear(6, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=100.0)
guard = safestep.attach(model, optimizer, log=["log.csv", "log.jsonl"])
for _ in range(2):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(torch.randn(5, 4)), torch.tensor([0, 1, 2, 0, 1])).backward()
    optimizer.step()
assert guard.last.applied_ratio == 1.0 or abs(guard.last.applied_ratio - 1) < 1e-9
"""


@pytest.fixture(scope="module")
def without_extras(tmp_path_factory):
    """What a core install says and writes, in one process."""
    folder = tmp_path_factory.mktemp("files")
    code = f"""
print(guard.last.status, len(str(guard.history).splitlines()))
try:
    guard.history.to_pandas()
except ImportError as error:
    print(type(error).__name__, '|', error)
guard.history.to_csv({str(folder / "history.csv")!r})
guard.history.to_jsonl({str(folder / "history.jsonl")!r})
"""
    return python(f"import os; os.chdir({str(folder)!r})" + BLOCKED + code).splitlines(), folder


def test_the_core_works_without_any_extra(without_extras):
    assert without_extras[0][0] == "capped 3"


def test_a_missing_part_names_its_extra(without_extras):
    name, message = without_extras[0][1].split(" | ")
    assert name == "MissingExtraError"
    assert "with its extra 'pandas'" in message


@pytest.mark.parametrize("stem", ["history", "log"])
@pytest.mark.parametrize(("suffix", "lines"), [("csv", 3), ("jsonl", 2)])
def test_files_need_no_extra(without_extras, stem, suffix, lines):
    assert len((without_extras[1] / f"{stem}.{suffix}").read_text().splitlines()) == lines


def test_parts_that_are_not_imported_are_there_when_they_are_asked_for():
    code = """
import inspect, sys, safestep
assert not {"safestep.integrations", "safestep.plots", "safestep.descent"} & set(sys.modules)
assert {"attach", "descent", "integrations", "plots"} <= set(dir(safestep))
assert safestep.tools.diagnostics.__name__ in sys.modules
print(safestep.descent.simulate.__name__, safestep.plots.step_ratios.__name__, safestep.integrations.__name__)
from safestep import *
try:
    safestep.integrations.mxnet
except AttributeError as error:
    print(error)
print(sorted({"keras", "mxnet"} & set(dir(safestep.integrations))))
inspect.getmembers(safestep)
"""
    assert python(code).splitlines() == [
        "simulate step_ratios safestep.integrations",
        "module 'safestep.integrations' has no attribute 'mxnet'",
        "[]" if importlib.util.find_spec("keras") is None else "['keras']",
    ]


def test_an_integration_as_the_readme_writes_it_names_its_extra_where_that_is_missing():
    code = """
import sys
sys.modules |= dict.fromkeys(["transformers", "matplotlib"])  # None: importing it is a ModuleNotFoundError
import safestep
assert not {"transformers"} & set(dir(safestep.integrations)) and "plots" not in dir(safestep)
try:
    safestep.integrations.transformers.guard_trainer(None)
except ImportError as error:
    print(type(error).__name__, error)
"""
    assert python(code).startswith("MissingExtraError this part of safestep needs transformers")


def test_the_tests_check_the_shapes_that_annotations_state():
    with pytest.raises(jaxtyping.TypeCheckError, match="tangent"):
        spread(torch.zeros(()))
