"""What results.json and records.jsonl have to hold for everything that reads them; any other key may be missing."""

from __future__ import annotations

from collections.abc import Mapping

_RESULTS = {"experiment": str, "version": str, "settings": dict, "seeds": list, "environment": dict, "rows": list}
_RUN = {"label": str, "seed": int}
_EPOCH = {**_RUN, "epoch": int, "policy": str}
_SUMMARY = {"label": str}
_WORDS = {str: "a text", int: "a whole number", dict: "an object", list: "a list"}


def wrong_with_results(results: object) -> str:
    """Return what keeps a parsed results.json from being one; empty if nothing does.

    Example:
        >>> wrong_with_results({"experiment": "digits-sgd"})
        'expected version to be a text'
    """
    if wrong := _wrong(results, _RESULTS):
        return wrong
    assert isinstance(results, dict)
    if not all(_is(seed, int) for seed in results["seeds"]):
        return "expected seeds to be whole numbers"
    for name, keys in (("rows", _RUN), ("summary", _SUMMARY)):
        found = results.get(name, [])
        if not _is(found, list):
            return f"expected {name} to be a list"
        for place, row in enumerate(found, start=1):
            if wrong := _wrong(row, keys):
                return f"{wrong} in place {place} of {name}"
    return ""


def wrong_with_record(record: object) -> str:
    """Return what keeps a parsed line of records.jsonl from being a record; empty if nothing does.

    Example:
        >>> wrong_with_record({"kind": "epoch"}), wrong_with_record([])
        ('expected label to be a text', 'expected an object')
    """
    epoch = isinstance(record, dict) and record.get("kind") == "epoch"
    return _wrong(record, _EPOCH if epoch else _RUN)


def _wrong(found: object, wanted: Mapping[str, type]) -> str:
    if not isinstance(found, dict):
        return "expected an object"
    wrong = (key for key, kind in wanted.items() if not _is(found.get(key), kind))
    return next((f"expected {key} to be {_WORDS[wanted[key]]}" for key in wrong), "")


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
