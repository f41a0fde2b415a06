"""The long form: ``PYTHONPATH=tests python -m faults --schedules 500 --jobs 2``, or one of them with ``--seed 123``."""

from __future__ import annotations

import argparse
import sys

from faults.many import print_one, print_table, run_many
from faults.sigkill import print_kills


def main() -> int:
    """Run what the command line asks for; return how many schedules failed, at most 1."""
    parser = argparse.ArgumentParser(prog="python -m faults", description="Train under random faults.")
    parser.add_argument("--schedules", type=int, default=500, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="play this one alone, and print it step by step")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=24, help="steps with faults in each (default: %(default)s)")
    parser.add_argument("--sigkill", type=int, default=5, help="runs that are really killed (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="where to train (default: %(default)s)")
    options = parser.parse_args()
    if options.seed is not None:
        return print_one(options.seed, options.steps, options.device)
    outcomes = run_many(options.first, options.schedules, options.steps, options.jobs, options.device)
    failed = print_table(outcomes) > 0
    return int(print_kills(options.sigkill, options.first) > 0 or failed)


sys.exit(main())
