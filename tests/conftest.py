"""What every test runs in: one thread, checked shapes, fixed examples, and torch's switches as they were found.

`make test-processors` sets what another machine may have otherwise: `SAFESTEP_THREADS` (1 without it) and
`SAFESTEP_MKLDNN=off`; and `SAFESTEP_HYPOTHESIS=long`: ten times the examples, others with every `--hypothesis-seed`.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import sys
from pathlib import Path

os.environ["SAFESTEP_CHECK_SHAPES"] = "1"  # before safestep is imported: shapes in annotations are real here
os.environ.setdefault("MPLBACKEND", "Agg")
sys.path.insert(0, str(Path(__file__).parent))  # the zoo, whatever import mode pytest is in

import hypothesis
import jaxtyping
import pytest
import torch

import processes
from browsers import browser  # noqa: F401 (a fixture)

jaxtyping.install_import_hook("safestep.formulas", "beartype.beartype")
pytest.register_assert_rewrite("zoo.asserts")
untimed = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}  # others may use the machine
hypothesis.settings.register_profile("fixed", derandomize=True, max_examples=50, **untimed)
hypothesis.settings.register_profile("long", derandomize=False, max_examples=500, **untimed)
hypothesis.settings.load_profile(os.environ.get("SAFESTEP_HYPOTHESIS", "fixed"))


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(int(os.environ.get("SAFESTEP_THREADS", "1")))
    if os.environ.get("SAFESTEP_MKLDNN") == "off":
        torch.backends.mkldnn.enabled = False
    torch.sparse.check_sparse_tensor_invariants.enable()  # torch warns of sparse gradients until one has chosen


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep the garbage collector, which some tests call, from going through all that was imported."""
    gc.collect()
    gc.freeze()


def _switches() -> dict[str, object]:
    """Return torch's process-wide switches that a replay turns, and the global module hooks it may set."""
    hooks = torch.nn.modules.module
    return {
        "grad mode": torch.is_grad_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()),
        "default dtype": torch.get_default_dtype(),
        "attention kernels": (
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.cuda.cudnn_sdp_enabled(),
        ),
        "fused encoder": torch.backends.mha.get_fastpath_enabled(),
        "oneDNN": torch.backends.mkldnn.enabled,
        "global hooks": (len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks)),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


@pytest.fixture(autouse=True)
def switches_stay():
    """Seed torch, and fail a test that leaves one of torch's global switches turned."""
    torch.manual_seed(0)
    before = _switches()
    yield
    assert _switches() == before


@pytest.fixture
def unchecked_shapes():
    """Let a wrong shape through to the function's own check."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def collected():
    """A function that runs the garbage collector until nothing more is found."""

    def collect() -> None:
        while gc.collect():
            pass

    return collect


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory):
    """`processes.outcomes` by name, once a session: the worker that asks first runs the checks, the others wait."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def of(name, folder, **options):
        place = shared / name
        with place.with_suffix(".lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = place / "found.json"
            if not found.exists():
                texts = processes.outcomes(folder, place, **options)
                found.write_text(json.dumps(texts), encoding="utf-8")
        return json.loads(found.read_text(encoding="utf-8"))

    return of
