"""Links of the repository lead to the right place on the site, too; source files that are linked become pages."""

from __future__ import annotations

import os.path
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
AT_ROOT = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every source file that some page links to."""
    for page in list(files.documentation_pages()):
        for link in LINK.findall(page.content_string):
            target = repository_file(page, link)
            if target is not None and (uri := uri_of(target)).startswith("files/") and uri not in files.src_uris:
                files.append(File.generated(config, uri, content=source_page(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links into those of the site; what leads nowhere stays, and the strict build fails."""

    def on_site(link: re.Match[str]) -> str:
        target = repository_file(page.file, link.group(1))
        return (
            link.group(1) if target is None else posixpath.relpath(uri_of(target), posixpath.dirname(page.file.src_uri))
        )

    return LINK.sub(on_site, markdown)


def repository_file(page: File, link: str) -> Path | None:
    """Return the file that a link of a page leads to, or None; a page that was made stands for README.md."""
    origin = Path(page.abs_src_path).parent if page.abs_src_path else ROOT
    if page.src_uri.startswith("tutorials/"):
        origin = DOCS / "tutorials"
    target = Path(os.path.normpath(origin / link))
    return target if target.is_relative_to(ROOT) and target.is_file() else None


def uri_of(target: Path) -> str:
    """Return where on the site a file of the repository is."""
    inside = target.relative_to(ROOT).as_posix()
    if inside in AT_ROOT:
        return AT_ROOT[inside]
    if target.is_relative_to(DOCS):
        return re.sub(r"\.ipynb$", ".md", target.relative_to(DOCS).as_posix())
    return f"files/{inside}.md"


def source_page(target: Path) -> str:
    """Return a page that shows a file; the search leaves it out."""
    text = target.read_text(encoding="utf-8")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    head = "---\nsearch: {exclude: true}\n---\n"
    return f"{head}# {target.relative_to(ROOT).as_posix()}\n\n{fence}{target.suffix[1:]}\n{text}{fence}\n"
