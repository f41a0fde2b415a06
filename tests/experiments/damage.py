"""Ways to damage a run directory, as an editor, a full disk or another program would."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VALUES = ("high", [], [1, "x"], {}, {"a": 1}, None, True, -1, 10**400, 1e308, "inf", "ρ")
"""What a value is replaced by: texts, lists, objects, nothing, and numbers of another kind."""


def everywhere(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path to every value of a parsed file; of a list the first and last place."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from everywhere(inner, (*path, key))
    elif isinstance(value, list) and value:
        for place in {0, len(value) - 1}:
            yield from everywhere(value[place], (*path, place))


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """Return a copy in which a change was made at a path; it is given the container and the key."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    change(inner, path[-1])
    return copy


def damage(directory: Path, chance: random.Random) -> str:
    """Damage one of the two files in one way; return what was done."""
    file = directory / chance.choice(("results.json", "records.jsonl", "records.jsonl"))
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    way = chance.choice(("value", "value", "value", "gone", "cut", "bytes", "lines", "twice", "utf-16"))
    if way in {"value", "gone"}:
        place = chance.randrange(len(lines)) if file.suffix == ".jsonl" else None
        parsed = json.loads(text if place is None else lines[place])
        path = chance.choice(list(everywhere(parsed)))
        new = chance.choice(VALUES)
        parsed = changed(parsed, path, (lambda c, k: c.pop(k)) if way == "gone" else lambda c, k: c.__setitem__(k, new))
        written = json.dumps(parsed)
        whole = written if place is None else "\n".join([*lines[:place], written, *lines[place + 1 :], ""])
        file.write_text(whole, encoding="utf-8")
        return f"{file.name}, {place}: {way} {path} {new!r}"
    if way == "cut":
        file.write_text(text[: chance.randrange(len(text))], encoding="utf-8")
    elif way == "bytes":
        raw = bytearray(text.encode())
        for _ in range(3):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        file.write_bytes(raw)
    elif way == "lines":
        file.write_text("\n".join(line for line in lines if chance.random() < 0.5), encoding="utf-8")
    elif way == "twice":
        file.write_text(text + text, encoding="utf-8")
    else:
        file.write_text(text, encoding="utf-16")
    return f"{file.name}: {way}"
