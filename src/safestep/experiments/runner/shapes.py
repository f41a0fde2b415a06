"""What results.json and records.jsonl have to hold for everything that reads them; any other key may be missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

_RESULTS = {"experiment": str, "version": str, "settings": dict, "seeds": list, "environment": dict, "rows": list}
_RUN = {"label": str, "seed": int}
_SUMMARY = {"label": str}
_WORDS = {str: "a text", int: "a whole number", float: "a number", dict: "an object", list: "a list"}
_NUMBERS = {"inf", "-inf", "nan"}
"""Texts that stand for numbers."""
_LARGEST = 10**300
_TEXTS = frozenset(
    [
        "label",
        "optimizer",
        "policy",
        "run",
        "law",
        "student",
        "batch",
        "rate",
        "noise",
        "series",
        "schedule",
        "last_point",
        "workload",
        "disturbance",
        "method",
        "judged",
        "statuses",
        "steps_range",
    ]
)
"""What may be a text in a row or a summary of an experiment of ours; everything else is a number, a flag or null."""
_KINDS: Mapping[str, Mapping[str, type]] = {
    "epoch": {"epoch": int, "policy": str},
    "audit": {},
    "steps": {"first_step": int, "workload": str, "disturbance": str, "method": str},
    "drift": {"first_step": int, "run": str, "law": str, "gain": float},
    "map": {"first_cell": int, "law": str, "gain": float, "limit_rate": float, "rates": list, "diverged": list},
    "check": {"law": str, "rate": float, "gain": float},
    "descent": {"first_step": int, "student": str, "optimizer": str, "law": str, "gain": float},
    "course": {"first_step": int, "schedule": str, "steps": int, "at": list, "quantiles_f": list, "mean_f": list},
    "rates": {"schedule": str, "steps": int, "rate": list},
    "trace": {"schedule": str, "steps": int, "run": int, "x1": list, "x2": list},
    "floor": {"first_step": int, "noise": str, "batch": int, "rate": float, "floor": float, "law_floor": float},
}
"""What a record of each kind cannot be without."""


def wrong_with_results(results: object) -> str:
    """Return what keeps a parsed results.json from being one; empty if nothing does.

    Example:
        >>> wrong_with_results({"experiment": "digits-sgd"})
        'expected version to be a text'
    """
    wrong = _wrong(results, _RESULTS)
    return wrong if wrong or not isinstance(results, dict) else next(_wrongs(results), "")


def _wrongs(results: Mapping[str, Any]) -> Iterator[str]:
    if not all(_is(seed, int) for seed in results["seeds"]):
        yield "expected seeds to be whole numbers"
    for key in ("started", "finished"):
        if not _is_moment(results.get(key)):
            yield f"expected {key} to be a time or null, found {_seen(results[key])}"
    for key, value in results["settings"].items():
        inner = value if isinstance(value, list) else [value]
        if any(isinstance(one, (list, dict)) for one in inner):
            yield f"expected the setting {key} to be a value or a list of values, found {_seen(value)}"
    continued = results.get("continued", [])
    if not _is(continued, list) or any(_wrong(one, {"version": str, "environment": dict}) for one in continued):
        yield f"expected continued to be a list of objects with version and environment, found {_seen(continued)}"
    for name, keys in (("rows", _RUN), ("summary", _SUMMARY)):
        found = results.get(name, [])
        if not _is(found, list):
            yield f"expected {name} to be a list"
            return
        for place, row in enumerate(found, start=1):
            if wrong := _wrong(row, keys) or (_ours(results) and _wrong_values(row, numbers_of(results))):
                yield f"{wrong} in place {place} of {name}"


def numbers_of(results: Mapping[str, Any]) -> frozenset[str]:
    """Return the columns of an experiment of ours that its tables write as numbers."""
    from safestep.experiments import find  # here: it imports what imports this

    experiment = find(results["experiment"])
    return frozenset(c.key for c in (*experiment.columns, *experiment.summary_columns) if c.form)


def wrong_with_record(record: object) -> str:
    """Return what keeps a parsed line of records.jsonl from being a record; empty if nothing does.

    Example:
        >>> wrong_with_record({"kind": "epoch"}), wrong_with_record([])
        ('expected label to be a text', 'expected an object')
    """
    epoch = isinstance(record, dict) and record.get("kind") == "epoch"
    return _wrong(record, {**_RUN, **_KINDS["epoch"]} if epoch else _RUN)


def wrong_with_values(record: Mapping[str, Any]) -> str:
    """Return what keeps a record from being drawn; empty if nothing does, and for a kind that nobody here draws.

    Example:
        >>> run = {"label": "pin", "seed": 7, "kind": "epoch", "epoch": 1, "policy": "pin"}
        >>> wrong_with_values(run), wrong_with_values({**run, "train_loss": "low"})
        ('', "expected train_loss to be a number, found 'low'")
    """
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        return ""
    wanted = _KINDS[kind]
    return _wrong(record, wanted) or next(_wrongs_of(record, wanted), "")


def _wrongs_of(record: Mapping[str, Any], wanted: Mapping[str, type]) -> Iterator[str]:
    lists = {key: value for key, value in record.items() if isinstance(value, list)}
    single = {key: value for key, value in record.items() if key not in lists}
    if wrong := _wrong_values(single, frozenset(key for key, kind in wanted.items() if kind is float), {"kind"}):
        yield wrong
    lengths = {key: len(value) for key, value in lists.items() if key != "quantiles_f"}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        yield f"expected lists of one length, found {', '.join(f'{key}: {n}' for key, n in lengths.items())}"
    for key, value in lists.items():
        for place, one in enumerate(value if key not in _WORDLISTS else ()):
            inner = one if key == "quantiles_f" and isinstance(one, list) else [one]
            if not all(map(_is_number, inner)):
                yield f"expected {key}[{place}] to be a number, found {_seen(one)}"


_WORDLISTS = {"status", "way"}


def _wrong_values(row: Mapping[str, Any], numbers: frozenset[str], more: Iterable[str] = ()) -> str:
    for key, value in row.items():
        text = isinstance(value, str) and (key in _TEXTS or key in more) and key not in numbers
        if not (text or value is None or _is_number(value)):
            return f"expected {key} to be a number, found {_seen(value)}"
    return ""


def _is_number(value: object) -> bool:
    if isinstance(value, int):  # a flag too
        return abs(value) <= _LARGEST
    return isinstance(value, float) or (isinstance(value, str) and value in _NUMBERS)


def _is_moment(value: object) -> bool:
    try:
        return value is None or datetime.fromisoformat(value).tzinfo is not None  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False


def _ours(results: Mapping[str, Any]) -> bool:
    from safestep.experiments import NAMES  # here: it imports what imports this

    return results["experiment"] in NAMES


def _seen(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _wrong(found: object, wanted: Mapping[str, type]) -> str:
    if not isinstance(found, dict):
        return "expected an object"
    wrong = (key for key, kind in wanted.items() if not _is(found.get(key), kind))
    return next((f"expected {key} to be {_WORDS[wanted[key]]}" for key in wrong), "")


def _is(value: object, kind: type) -> bool:
    if kind is float:
        return _is_number(value) and not isinstance(value, bool)
    return isinstance(value, kind) and not isinstance(value, bool)
