"""What results.json and records.jsonl have to hold for everything that reads them; any other key may be missing."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

_RESULTS = {"experiment": str, "version": str, "settings": dict, "seeds": list, "environment": dict, "rows": list}
_RUN = {"label": str, "seed": int}
_WORDS = {str: "a text", int: "a whole number", dict: "an object", list: "a list"}
# fmt: off
_TEXTS = {
    "kind", "label", "optimizer", "policy", "run", "law", "student", "batch", "rate", "noise", "schedule", "series",
    "last_point", "workload", "disturbance", "method", "status", "way",
}
# fmt: on
"""What may be a text in a record; everything else is a number, a flag or null, or a list of these."""
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "epoch": ("epoch", "policy"),
    "audit": (),
    "steps": ("first_step", "workload", "disturbance", "method"),
    "drift": ("first_step", "run", "law", "gain"),
    "map": ("first_cell", "law", "gain", "limit_rate", "rates", "diverged"),
    "check": ("law", "rate", "gain"),
    "descent": ("first_step", "student", "optimizer", "law", "gain"),
    "course": ("first_step", "schedule", "steps", "at", "quantiles_f", "mean_f"),
    "rates": ("schedule", "steps", "rate"),
    "trace": ("schedule", "steps", "run", "x1", "x2"),
    "floor": ("first_step", "noise", "batch", "rate", "floor", "law_floor"),
}
"""What a record of each kind that is drawn cannot be without."""


def wrong_with_results(results: object) -> str:
    """Return what keeps a parsed results.json from being one; empty if nothing does.

    Example:
        >>> wrong_with_results({"experiment": "digits-sgd"})
        'expected version to be a text'
    """
    if (wrong := _wrong(results, _RESULTS)) or not isinstance(results, dict):
        return wrong
    if not all(_is(seed, int) for seed in results["seeds"]):
        return "expected seeds to be whole numbers"
    for name, keys in (("rows", _RUN), ("summary", {})):
        rows = results.get(name, [])
        if not isinstance(rows, list):
            return f"expected {name} to be a list"
        for place, row in enumerate(rows, start=1):
            if wrong := _wrong(row, keys):
                return f"{wrong} in place {place} of {name}"
    return ""


def wrong_with_record(record: object) -> str:
    """Return what keeps a parsed line of records.jsonl from being a record of any run; empty if nothing does.

    Example:
        >>> wrong_with_record({"kind": "epoch", "label": "pin"}), wrong_with_record([])
        ('expected seed to be a whole number', 'expected an object')
    """
    return _wrong(record, _RUN)


def wrong_with_values(record: Mapping[str, Any]) -> str:
    """Return what keeps a record from being drawn; empty if nothing does, and for a kind that nobody here draws.

    Example:
        >>> run = {"label": "pin", "seed": 7, "kind": "epoch", "epoch": 1, "policy": "pin"}
        >>> wrong_with_values(run), wrong_with_values({**run, "train_loss": "low"})
        ('', "expected train_loss to be a number, found 'low'")
    """
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in _NEEDED:
        return ""
    if absent := [key for key in _NEEDED[kind] if record.get(key) is None]:
        return f"expected {absent[0]} in a record of the kind {kind}"
    wrong = (key for key, value in record.items() if key not in _TEXTS and not _is_number(value))
    return next((f"expected {key} to be a number, found {reprlib.repr(record[key])}" for key in wrong), "")


def _wrong(value: object, wanted: Mapping[str, type]) -> str:
    if not isinstance(value, dict):
        return "expected an object"
    wrong = (key for key, kind in wanted.items() if not _is(value.get(key), kind))
    return next((f"expected {key} to be {_WORDS[wanted[key]]}" for key in wrong), "")


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_number, value))
    if isinstance(value, str):
        return value in {"inf", "-inf", "nan"}
    return value is None or isinstance(value, (int, float))
