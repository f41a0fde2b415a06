"""Pages that are files outside docs/: README, a section of it, the changelog; and the site's own assets."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
WHOLE = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
SECTIONS = {"cannot.md": ("README.md", "What it cannot do")}
"""Pages of the site, and what they show."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Rebuild when what is outside docs/ changes, and say in the footer which version this is."""
    config.watch += [str(ROOT / name) for name in (*WHOLE.values(), "src", "website")]
    (version,) = re.findall(r'__version__ = "(.+?)"', (ROOT / "src/safestep/_version.py").read_text(encoding="utf-8"))
    config.copyright = f"safestep {version}. {config.copyright}"
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and the assets to those of docs/."""
    for page, name in WHOLE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for page, (name, title) in SECTIONS.items():
        files.append(File.generated(config, page, content=section(name, title)))
    for asset in ("style.css", "iframe-worker.js"):
        files.append(File.generated(config, f"assets/{asset}", abs_src_path=str(ROOT / "website" / asset)))
    return files


def section(name: str, title: str) -> str:
    """Return the section of a page under a heading of the second level, as a page of its own."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    if found is None:
        raise PluginError(f"{name} has no section '## {title}' any more: mend SECTIONS in website/included.py, and nav")
    return f"# {title}\n{found.group(1)}"
