"""The command line of the post-mortem of a step: `safestep autopsy`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from safestep._torch.extras import need
from safestep.cli.user_errors import errors_told
from safestep.errors import first_line
from safestep.experiments.report.screen import console, say
from safestep.experiments.runner.settings import SettingError
from safestep.looking.autopsy_page import write_autopsy
from safestep.simulation.user_file import read_function
from safestep.tools.autopsy import Scene, autopsy

_SCRIPT = "expected FILE.py:FUNCTION, a function from the checkpoint to a safestep.tools.autopsy.Scene"


def autopsy_command(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="What torch.save wrote before the spike.")],
    script: Annotated[
        str,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="A function that takes the loaded checkpoint and returns a safestep.tools.autopsy.Scene; FILE.py "
            "alone means its setup.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Directory of page and figure.", show_default="CHECKPOINT.autopsy")
    ] = None,
) -> None:
    """Ask why the loss jumped: what carried the step after a checkpoint too far, its length, its batch or a layer.

    The step is taken again and measured; then each suspect is left out. The
    directory gets report.html, its figure and results.json.
    """
    screen = console()
    with errors_told():
        need("matplotlib", "experiments")  # before the work, not after it
        need("jinja2", "experiments")
        setup = read_function(f"{script}:setup" if script.endswith(".py") else script, SettingError)
        if setup is None:
            raise SettingError(f"--script {script}: {_SCRIPT}")
        state = read_checkpoint(checkpoint)
        try:
            scene = setup(state)
        except SettingError as error:
            held = ", ".join(map(str, state)) if isinstance(state, Mapping) else f"a {type(state).__name__}"
            raise SettingError(f"{error}\n{checkpoint} holds: {held}") from error
        if not isinstance(scene, Scene):
            raise SettingError(f"{script} returned {type(scene).__name__}: {_SCRIPT}")
        found = autopsy(scene)
        page = write_autopsy(found, out or checkpoint.with_name(f"{checkpoint.name}.autopsy"), checkpoint.name)
        for line in (str(found), *(f"note: {note}" for note in found.notes), f"page: {page}"):
            say(screen, line)


def read_checkpoint(path: Path) -> Any:
    """Return what a checkpoint holds, its tensors on the CPU, without running any code of it.

    Raises:
        SettingError: if the file is not there, is none that torch.save wrote, or holds more than plain data.
    """
    if not path.is_file():
        raise SettingError(f"{path} is not there, or no file: expected a checkpoint that torch.save wrote")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise SettingError(
            f"{path} cannot be read as a checkpoint ({first_line(error)}): is it whole? Classes other than tensors and "
            "plain data have to be allowed by the script, with torch.serialization.add_safe_globals"
        ) from error
