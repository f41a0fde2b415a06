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


@dataclass(frozen=True)
class Entry:
    """One public name: where griffe finds it, under which path the reference shows it, and its place on the page."""

    identifier: str
    shown: str
    order: tuple[bool, bool, str]

    @property
    def directive(self) -> str:
        """What tells mkdocstrings to show it."""
        if self.identifier == self.shown:
            return f"::: {self.shown}\n\n"
        # a module of the same name stands in the way
        label = self.shown.rpartition(".")[2]
        return f"::: {self.identifier}\n    options: {{heading: {self.shown}, toc_label: {label}}}\n\n"


@dataclass(frozen=True)
class Room:
    """A package with public names: those that its page shows, and those that another page does."""

    module: griffe.Module
    here: list[Entry]
    elsewhere: list[Entry]

    @property
    def uri(self) -> str:
        """Where its page is among the sources."""
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
    """Return the identifier of each entry by its path, and by the name alone where only one has it."""
    entries = [entry for room in rooms() for entry in room.here]
    names = [entry.shown.rpartition(".")[2] for entry in entries]
    alone = {name: entry.identifier for name, entry in zip(names, entries, strict=True) if names.count(name) == 1}
    return alone | {entry.shown: entry.identifier for entry in entries}


def page_of(room: Room) -> str:
    """Return the page of a room: what it is for, and its entries for mkdocstrings."""
    docstring = room.module.docstring.value if room.module.docstring else ""
    links = ", ".join(f"[`{entry.shown.rpartition('.')[2]}`][{entry.identifier}]" for entry in room.elsewhere)
    also = f"On a page of their own: {links}.\n\n" if links else ""
    return f"# {room.module.path}\n\n{docstring}\n\n{also}" + "".join(entry.directive for entry in room.here)


@cache
def rooms() -> list[Room]:
    """Return the public rooms: safestep itself, then the others by name.

    A name that several rooms have is shown in the innermost, under the shortest path.
    """
    package: Any = griffe.load("safestep", search_paths=[SOURCE], allow_inspection=False)
    modules = public_modules(package)
    names = {module.path: [(name, object_of(module, name)) for name in names_of(module)] for module in modules}
    entries: dict[str, Entry] = {}
    innermost: dict[str, str] = {}
    for module in modules:
        for name, found in names[module.path]:
            if found is not None:
                shown = f"{module.path}.{name}"
                identifier = found.canonical_path if is_hidden(module, name) else shown
                order = (name.endswith(("Error", "Warning")), not found.is_function, name)
                entries.setdefault(found.canonical_path, Entry(identifier, shown, order))
                innermost[found.canonical_path] = module.path

    def of(module: griffe.Module, *, here: bool) -> list[Entry]:
        paths = {found.canonical_path for _, found in names[module.path] if found is not None}
        return sorted(
            (entries[path] for path in paths if (innermost[path] == module.path) is here), key=lambda e: e.order
        )

    return [Room(module, of(module, here=True), of(module, here=False)) for module in modules]


def is_hidden(module: griffe.Module, name: str) -> bool:
    """Return whether griffe finds a module under the name that a room gives to something in it."""
    member = module[name]
    return bool(member.final_target.is_module if member.is_alias else member.is_module)


def object_of(module: griffe.Module, name: str) -> griffe.Object | griffe.Alias | None:
    """Return what a room calls so: not the module of the same name that defines it; None for a room inside."""
    member: griffe.Object | griffe.Alias = module[name]
    if not is_hidden(module, name):
        return member
    inside = member.members.get(name)
    return inside if inside is not None and not inside.is_module else None


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
    is_room = module.exports is not None or (
        module.parent is not None and module.parent.path == "safestep.integrations"
    )
    inside = [inner for inner in sorted(module.modules.values(), key=lambda one: one.path) if not inner.is_alias]
    if hidden:
        return []
    return [module] * is_room + [room for inner in inside for room in public_modules(inner)]
