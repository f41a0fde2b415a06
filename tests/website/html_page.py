"""What is on a page of the site: elements with their attributes, in the article or anywhere, and headings."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path


class HtmlPage(HTMLParser):
    """Reads one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.in_article: Counter[str] = Counter()
        self.headings: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        self.open.append(tag)
        if "article" in self.open:
            self.in_article[tag] += 1
        if tag in {"h1", "h2", "h3", "h4"}:
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, text: str) -> None:
        if {"h1", "h2", "h3", "h4"} & set(self.open):
            self.headings[-1] += text

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    @property
    def links(self) -> list[tuple[str, str]]:
        """Whatever a browser follows or fetches, with the tag that says so."""
        named = [(tag, attributes.get("href") or attributes.get("src")) for tag, attributes in self.elements]
        return [(tag, link) for tag, link in named if link]
