"""What results.json and records.jsonl have to hold for everything that reads them; any other key may be missing."""

from __future__ import annotations

from collections.abc import Mapping

_RESULTS = {"experiment": str, "version": str, "settings": dict, "seeds": list, "environment": dict, "rows": list}
_RUN = {"label": str, "seed": int}
_WORDS = {str: "a text", int: "a whole number", dict: "an object", list: "a list"}


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
    """Return what keeps a parsed line of records.jsonl from being a record of a run; empty if nothing does.

    Example:
        >>> wrong_with_record({"kind": "epoch", "label": "pin"}), wrong_with_record([])
        ('expected seed to be a whole number', 'expected an object')
    """
    return _wrong(record, _RUN)


def _wrong(value: object, wanted: Mapping[str, type]) -> str:
    if not isinstance(value, dict):
        return "expected an object"
    wrong = (key for key, kind in wanted.items() if not _is(value.get(key), kind))
    return next((f"expected {key} to be {_WORDS[wanted[key]]}" for key in wrong), "")


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
