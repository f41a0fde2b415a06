"""The site builds without a warning, has every page and every public name, and its links lead somewhere."""

from __future__ import annotations

import importlib
import json
import os
import posixpath
import re
import subprocess
import sys
from collections import Counter
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from markdown_it import MarkdownIt
from mkdocs.exceptions import PluginError

from website.conftest import ROOT, build
from website.html_page import HtmlPage

NOT_SHOWN = {"safestep.lab.descent", "safestep.tape", "safestep.tools.probes"}
"""Rooms with an ``__all__`` that the reference leaves out; website/reference.py says why."""


@pytest.fixture(scope="module")
def pages(site):
    """Every page by its path on the site; 404.html is for servers, and its links are from their root."""
    found = {path.relative_to(site).as_posix(): HtmlPage(path) for path in site.rglob("*.html")}
    del found["404.html"]
    return found


def nav_pages(entry):
    if isinstance(entry, str):
        return [entry]
    return [page for inner in (entry.values() if isinstance(entry, dict) else entry) for page in nav_pages(inner)]


def test_every_page_of_docs_is_in_nav_once():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = nav_pages(yaml.load(text, Loader=yaml.BaseLoader)["nav"])
    there = [path.relative_to(ROOT / "docs").with_suffix(".md").as_posix() for path in (ROOT / "docs").rglob("*")
             if path.suffix in {".md", ".ipynb"}]  # fmt: skip
    missing = sorted(set(there) - set(listed))
    assert not missing, f"in docs/ and not in nav: put {missing} into `nav` of mkdocs.yml, under the task it is for"
    assert Counter(listed).most_common(1)[0][1] == 1


PUBLIC = """
import importlib, inspect, json, pkgutil
import safestep, safestep.errors

rooms = {"safestep": safestep}
for found in pkgutil.walk_packages(safestep.__path__, "safestep."):
    if not any(part.startswith("_") for part in found.name.split(".")):
        try:
            module = importlib.import_module(found.name)
        except safestep.errors.MissingExtraError:  # of a trainer that has an environment of its own
            continue
        if hasattr(module, "__all__"):
            rooms[found.name] = module
names = {}
for room, module in rooms.items():
    found = {name: getattr(module, name) for name in module.__all__}
    names[room] = {name: id(one) for name, one in found.items() if not inspect.ismodule(one)}
print(json.dumps(names))
"""
"""What is public, by importing it all; in a process of its own, since Keras knows one backend and old names warn."""


@pytest.fixture(scope="module")
def rooms():
    """The names of every public room, each with the identity of what it names."""
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    command = [sys.executable, "-W", "ignore", "-c", PUBLIC]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return {room: names for room, names in json.loads(said.splitlines()[-1]).items() if room not in NOT_SHOWN}


def test_every_public_name_has_one_entry(pages, rooms):
    shown = Counter(
        word
        for uri, page in pages.items()
        if uri.startswith("reference/")
        for heading in page.headings
        for word in re.findall(r"\bsafestep\.[\w.]+", heading)
        if heading.strip() not in rooms
    )
    paths: dict[int, set[str]] = {}
    for room, names in rooms.items():
        for name, identity in names.items():
            paths.setdefault(identity, set()).add(f"{room}.{name}")
    assert sum(map(len, paths.values())) > 150
    assert {"safestep.default_limit", "safestep.radius.default_limit"} in paths.values()
    counts = {tuple(sorted(names)): sum(shown[name] for name in names) for names in paths.values()}
    assert {names: count for names, count in counts.items() if count != 1} == {}


def test_every_public_room_has_a_page(pages, rooms):
    assert {f"reference/{name}.html" for name in rooms} <= set(pages)


def test_the_reference_shows_nothing_private(pages):
    for uri, page in pages.items():
        if uri.startswith("reference/"):
            assert [name for name in page.ids if re.search(r"\._[a-z]", name)] == [], uri


def test_examples_of_docstrings_are_code(pages, site):
    for uri in pages:
        if uri.startswith("reference/"):
            text = (site / uri).read_text(encoding="utf-8")
            prompts = text.count("&gt;&gt;&gt;")
            assert prompts == len(re.findall(r'<span class="gp">&gt;&gt;&gt; ?</span>', text)), uri
    assert "&gt;&gt;&gt;" in (site / "reference/safestep.radius.html").read_text(encoding="utf-8")


def test_every_link_leads_somewhere(pages, site):
    wrong = []
    for uri, page in pages.items():
        for tag, link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if tag != "a" or parts.scheme not in {"https", "http"}:
                    wrong.append(f"{uri}: <{tag}> asks the network for {link}")
                continue
            target = posixpath.normpath(posixpath.join(uri, "..", unquote(parts.path))) if parts.path else uri
            if not (site / target).is_file():
                wrong.append(f"{uri}: nothing at {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                wrong.append(f"{uri}: no anchor {link}")
    assert wrong == []


def test_the_styles_ask_nothing_of_the_network(site):
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^)]*", style.read_text(encoding="utf-8")) == []


SAME = {"docs": "", "README.md": "index.html", "CHANGELOG.md": "changelog.html", "CONTRIBUTING.md": "contributing.html"}
MARKDOWN = [*sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in SAME if name != "docs")]


@pytest.mark.parametrize("source", MARKDOWN, ids=lambda source: source.name)
def test_a_page_has_what_it_has_in_the_repository(source, pages):
    """CommonMark, which readers of the repository see, and the site's Markdown differ: about lists, code and tables."""
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(source.read_text(encoding="utf-8"))
    page = pages[SAME.get(source.name) or f"{source.stem}.html"]
    for tag in ("h1", "h2", "h3", "li", "pre", "table", "tr", "img", "blockquote", "em", "strong"):
        assert page.in_article[tag] == len(re.findall(rf"<{tag}[ />]", rendered)), tag


def test_a_source_file_that_is_linked_to_can_be_read(pages, site):
    assert "files/examples/several_processes.py.html" in pages
    page = (site / "files/examples/several_processes.py.html").read_text(encoding="utf-8")
    assert "safestep" in page


def test_formulas_are_mathml(pages, site):
    tutorials = [uri for uri in pages if uri.startswith("tutorials/")]
    assert len(tutorials) == 7
    for uri in tutorials:
        assert pages[uri].in_article["math"] > 10
        assert "arithmatex" not in (site / uri).read_text(encoding="utf-8")


def test_a_formula_with_an_unknown_command_fails_the_build(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "website"))
    mathml = importlib.import_module("mathml")
    assert "<mfrac>" in mathml.mathml(r"\tfrac12 &lt; x", "inline")
    with pytest.raises(PluginError, match=r"does not know \\nosuch of the formula"):
        mathml.mathml(r"\nosuch{x} + 1", "inline")


def test_tutorials_show_what_their_notebooks_show(pages, site):
    for uri in (uri for uri in pages if uri.startswith("tutorials/")):
        page = pages[uri]
        pictures = [link for tag, link in page.links if tag == "img" and "pictures/" in link]
        assert len(pictures) > 2
        assert page.in_article["table"] >= len(pictures)
        assert "built without running" not in (site / uri).read_text(encoding="utf-8")


def test_without_outputs_a_tutorial_says_so(tmp_path):
    assert build(tmp_path / "site", SAFESTEP_EXECUTED_TUTORIALS="").returncode == 0
    assert "built without running" in (tmp_path / "site/tutorials/sgd.html").read_text(encoding="utf-8")
