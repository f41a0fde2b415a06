"""Python processes of their own for tests: one that runs code, several ranks, a Keras backend, one that is killed.

A folder of checks has functions ``check_WHAT`` in files, and a ``__main__.py`` that calls `run_checks` in each process.
By hand, with the folder, the number of processes and beginnings of names:
``PYTHONPATH=tests python -m processes tests/ranks/checks 2 alone.a_nan``.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parent
LAST_WORDS = 6000
"""Characters of what a process said that are told of one that failed."""
FAST_COMPILING = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
"""For jax: most of the time goes into compiling small models that then run for a moment; what is compiled is kept."""


def start(*arguments: object, log: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
    """Start an interpreter that finds the modules of tests/; what it says goes into the log, if there is to be one."""
    command, variables = [sys.executable, *map(str, arguments)], _environment(environment)
    if log is None:
        return subprocess.Popen(command, env=variables)
    with log.open("wb") as file:
        return subprocess.Popen(command, env=variables, stdout=file, stderr=subprocess.STDOUT)


def run(*arguments: object, **environment: str) -> str:
    """Run an interpreter to its end, which has to be a good one, and return what it printed."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=_environment(environment), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-LAST_WORDS:] + done.stderr[-LAST_WORDS:]
    return done.stdout


def _environment(more: dict[str, str]) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path} | more


# -- a folder of checks -----------------------------------------------------------------------------------------------


def checks_in(folder: Path, only: tuple[str, ...] = ()) -> list[str]:
    """Return the checks of a folder as FILE.WHAT, without importing them; all, or those that begin as one of `only`."""
    names = [
        f"{file.stem}.{node.name.removeprefix('check_')}"
        for file in sorted(folder.glob("*.py"))
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
    ]
    return [name for name in names if not only or name.startswith(only)]


def outcomes(
    folder: Path, place: Path, *, processes: int = 1, only: tuple[str, ...] = (), **environment: str
) -> dict[str, str]:
    """Run the checks of a folder in one process or in several ranks that go through them together.

    Args:
        folder: of the checks.
        place: where the processes write: what they found, and what they said.
        processes: how many ranks.
        only: beginnings of names; all checks without it.
        environment: variables of the processes.

    Returns:
        A text for every check: empty where it holds, in every process; else what went wrong.
    """
    place.mkdir(parents=True, exist_ok=True)
    logs = [place / f"{rank}.log" for rank in range(processes)]
    common = {"CHECKS_PLACE": str(place), "WORLD_SIZE": str(processes)} | environment
    started = [start(folder, *only, log=log, RANK=str(rank), **common) for rank, log in enumerate(logs)]
    try:
        for process in started:
            process.wait()
    finally:
        for process in started:
            process.kill()
    found = [_read(place / f"{rank}.json") for rank in range(processes)]
    said = "\n".join(log.read_text(encoding="utf-8", errors="replace")[-LAST_WORDS:] for log in logs)
    missing = f"not reached: a process ended before. All together they said:\n{said}"
    return {
        name: "\n".join(filter(None, (mine[name] for mine in found)))
        if all(name in mine for mine in found)
        else missing
        for name in checks_in(folder, only)
    }


def run_checks(
    folder: Path, *, last: str = "", ignored: tuple[str, ...] = (), after: Callable[[str], None] | None = None
) -> None:
    """Run the checks that the command line names, in a process that `outcomes` started; a warning is an error.

    Args:
        folder: of the checks.
        last: the file whose checks run after all others.
        ignored: beginnings of warnings that others raise in their own code.
        after: called after each check with what was found.
    """
    warnings.simplefilter("error")
    for message in ignored:
        warnings.filterwarnings("ignore", message=message)
    out = Path(os.environ["CHECKS_PLACE"]) / f"{os.environ['RANK']}.json"
    found: dict[str, str] = {}
    for name in sorted(checks_in(folder, tuple(sys.argv[1:])), key=lambda name: name.split(".")[0] == last):
        file, what = name.split(".")
        began = time.process_time()
        try:
            getattr(importlib.import_module(file), f"check_{what}")()
            found[name] = ""
        except Exception:
            found[name] = f"process {os.environ['RANK']}: {traceback.format_exc()}"
        print(f"{time.process_time() - began:6.1f} s of computing: {name} {found[name]}", flush=True)
        out.write_text(json.dumps(found), encoding="utf-8")
        if after is not None:
            after(found[name])


def _read(file: Path) -> dict[str, str]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        texts = outcomes(Path(sys.argv[1]), Path(name), processes=int(sys.argv[2]), only=tuple(sys.argv[3:]))
        print((Path(name) / "0.log").read_text(encoding="utf-8"), *filter(None, texts.values()), sep="\n")
    sys.exit(any(texts.values()))
