"""The API reference: a page for every public room, an entry for every public name, and links from names to entries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

SOURCE = Path(__file__).resolve().parents[1] / "src"
HIDDEN = {
    "safestep.lab": "data and models of the experiments",
    "safestep.tape": "a part of how the exact method measures",
    "safestep.tools.probes": "the former name of safestep.tools.diagnostics",
}
"""Rooms with an ``__all__`` that are not shown, and why; those with an underscore are not either."""


@dataclass
class Room:
    """A package with public names: what its page shows, by canonical path."""

    module: griffe.Module
    entries: dict[str, str]
    elsewhere: dict[str, str]

    @property
    def uri(self) -> str:
        return f"reference/{self.module.path}.md"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the rooms into nav, where it says ``reference/``."""
    for entry in config.nav or []:
        for title, pages in entry.items():
            if pages == "reference/":
                entry[title] = [{room.module.path: room.uri} for room in rooms()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every room."""
    for room in rooms():
        files.append(File.generated(config, room.uri, content=page_of(room)))
    return files


def on_page_content(content: str, page: Page, **_: object) -> str:
    """Let names in the reference lead to their entries, where there is just one that is called so."""
    if not page.file.src_uri.startswith("reference/"):
        return content

    def linked(found: re.Match[str]) -> str:
        target = targets().get(found.group(1))
        return f'<autoref identifier="{target}" optional>{found.group()}</autoref>' if target else found.group()

    return re.sub(r"(?<!>)<code>([\w.]+)</code>(?!</a>|</autoref>)", linked, content)


@cache
def targets() -> dict[str, str]:
    """Return the entry of each name, by the name alone and by its public path."""
    paths = [path for room in rooms() for path in room.entries.values()]
    names = [path.rpartition(".")[2] for path in paths]
    return {path: path for path in paths} | {
        name: path for name, path in zip(names, paths, strict=True) if names.count(name) == 1
    }


def page_of(room: Room) -> str:
    """Return the page of a room: what it is for, and its entries for mkdocstrings."""
    docstring = room.module.docstring.value if room.module.docstring else ""
    others = ", ".join(f"[`{name}`][{path}]" for name, path in sorted(room.elsewhere.items()))
    also = f"In a room of their own: {others}.\n\n" if others else ""
    return f"# {room.module.path}\n\n{docstring}\n\n{also}" + "".join(f"::: {path}\n\n" for path in room.entries.values())


@cache
def rooms() -> list[Room]:
    """Return the public rooms: safestep itself, then the others by name.

    A name that several rooms have is shown in the innermost, under the shortest path.
    """
    package: Any = griffe.load("safestep", search_paths=[SOURCE], allow_inspection=False)
    found = [Room(module, {}, {}) for module in public_modules(package)]
    inner: dict[str, Room] = {}
    shortest: dict[str, str] = {}
    for room in found:
        for name in names_of(room.module):
            member = room.module[name]
            if not member.is_module:
                inner[member.canonical_path] = room
                shortest.setdefault(member.canonical_path, f"{room.module.path}.{name}")
    for canonical, room in inner.items():
        room.entries[canonical] = shortest[canonical]
    for room in found:
        for name in names_of(room.module):
            canonical = room.module[name].canonical_path
            if canonical in inner and canonical not in room.entries:
                room.elsewhere[name] = shortest[canonical]
    return found


def names_of(module: griffe.Module) -> list[str]:
    """Return the public names of a room: its ``__all__``; of a module without one what it defines."""
    if module.exports is not None:
        return sorted(str(name) for name in module.exports)
    return [
        name
        for name, member in module.members.items()
        if not member.is_alias and not name.startswith("_") and (member.is_class or member.is_function)
    ]


def public_modules(module: griffe.Module) -> list[griffe.Module]:
    """Return this module and those inside it that are public rooms, outer ones first."""
    hidden = module.path in HIDDEN or module.name.startswith("_")
    # an integration may be one file, which then is the room
    is_room = module.exports is not None or (module.parent is not None and module.parent.path == "safestep.integrations")
    inside = [inner for inner in sorted(module.modules.values(), key=lambda one: one.path) if not inner.is_alias]
    if hidden:
        return []
    return [module] * is_room + [room for inner in inside for room in public_modules(inner)]
