"""Pages that are files outside docs/: README, changelog, what contributors read; and the site's own assets."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
WHOLE = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
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
    for asset in ("style.css", "iframe-worker.js"):
        files.append(File.generated(config, f"assets/{asset}", abs_src_path=str(ROOT / "website" / asset)))
    return files
