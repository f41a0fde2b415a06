"""A process that is really killed: signal 9 at a random moment, again and again, until the run comes to its end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from faults.schedule import Plan, Schedule, Setting
from faults.task import SAMPLES, data
from faults.training import Training
from processes import start
from safestep import SafestepWarning

_STEPS = 400
_SLEEP = 0.004
"""Seconds a step lasts at least, so that there is a moment to be killed in."""


def train(setting: Setting, seed: int, folder: Path, plans: tuple[Plan, ...]) -> None:
    """Train, with a checkpoint after every few steps; go on from the last one there is. A process of its own."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", SafestepWarning)
    training, (x, y), start = Training(setting, seed, folder / "log.jsonl"), data(), 0
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        training.load(checkpoint.read_bytes())
        start = training.schedules[0].last_epoch
    for position in range(start, _STEPS):
        plan = plans[position % len(plans)]
        order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(position))[: sum(plan.sizes)]
        training.zero()
        for rows in order.split(plan.sizes):
            with training.autocast:
                logits = training.model(x[rows])
            loss = cross_entropy(logits.float(), y[rows]) * (len(rows) / len(order))
            (loss if training.scaler is None else training.scaler.scale(loss)).backward()
        for optimizer in training.optimizers:
            (optimizer.step if training.scaler is None else lambda one=optimizer: training.scaler.step(one))()
        if training.scaler is not None:
            training.scaler.update()
        for schedule in training.schedules:
            schedule.step()
        if (position + 1) % 7 == 0:
            saved = folder / "saved"
            saved.write_bytes(training.save())
            saved.replace(checkpoint)  # whole or not at all
        time.sleep(_SLEEP)
    training.guard.detach()
    (folder / "done").touch()


def killed_and_whole(seed: int) -> tuple[int, int, str]:
    """Run a setting undisturbed and once more with kills; return the kills, the lines, and what differs."""
    schedule = Schedule.of(seed)
    with tempfile.TemporaryDirectory() as name:
        folders = Path(name, "whole"), Path(name, "killed")
        for folder in folders:
            folder.mkdir()
        start("-m", "faults.sigkill", seed, folders[0]).wait()
        kills, draw = 0, random.Random(seed)
        while not (folders[1] / "done").exists():
            process = start("-m", "faults.sigkill", seed, folders[1])
            try:
                code = process.wait(timeout=draw.uniform(2.5, 6.0) if kills < 6 else None)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
            else:
                if code:
                    return kills, 0, f"exit code {code}\n{schedule}"
        logs = [[_line(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in folders]
    whole = {row["step"]: row for row in logs[0] if row is not None}
    torn = sum(row is None for row in logs[1])
    for row in logs[1]:
        if row is not None and row != whole.get(row["step"]):
            return kills, len(logs[1]), f"seed {seed}: {row}\nundisturbed: {whole.get(row['step'])}"
    missing = whole.keys() - {row["step"] for row in logs[1] if row is not None}
    return (
        kills,
        len(logs[1]),
        f"seed {seed}: steps without a record: {sorted(missing)}" if missing or torn > kills else "",
    )


def print_kills(count: int, first: int) -> int:
    """Run several; print how many kills they took, and return how many failed."""
    failed = kills = lines = 0
    for seed in range(first, first + count):
        some, written, error = killed_and_whole(seed)
        kills, lines, failed = kills + some, lines + written, failed + bool(error)
        if error:
            sys.stdout.write(f"FAILED {error}\n")
    sys.stdout.write(f"{count} runs killed by signal 9, {kills} times in all: {lines} lines, {failed} failed\n")
    return failed


def _line(text: str) -> dict[str, object] | None:
    try:
        row: dict[str, object] = json.loads(text)
    except ValueError:  # cut short by a kill
        return None
    return row


if __name__ == "__main__":
    _, _seed, _folder = sys.argv
    _schedule = Schedule.of(int(_seed))
    train(_schedule.setting, int(_seed), Path(_folder), _schedule.plans)
