"""The tutorials as pages: notebooks of docs/tutorials, as they are or as `make docs` ran them, in Markdown."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from nbconvert import MarkdownExporter

EXECUTED = "SAFESTEP_EXECUTED_TUTORIALS"
"""Names the folder of notebooks with their outputs."""

WITHOUT_OUTPUTS = (
    "!!! warning\n\n    This page was built without running the notebook, so its pictures and outputs are missing. "
    "`make docs` runs it.\n\n"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put a page in the place of each notebook, with its pictures; the notebook stays, to be taken away."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        folder = os.environ.get(EXECUTED)
        path = Path(folder) / Path(notebook.src_uri).name if folder else Path(notebook.abs_src_path or "")
        text, pictures = as_markdown(path, taken_from=Path(notebook.src_uri).name)
        page = notebook.src_uri.removesuffix(".ipynb")
        files.append(File.generated(config, f"{page}.md", content=text if folder else WITHOUT_OUTPUTS + text))
        for name, picture in pictures.items():
            content = File.generated(config, f"tutorials/{name}", content=picture, inclusion=InclusionLevel.INCLUDED)
            files.append(content)
    return files


def as_markdown(path: Path, taken_from: str) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and the bytes of its pictures by name."""
    notebook = nbformat.read(path, as_version=4)
    # the first cell installs what is missing where somebody opens the notebook elsewhere
    notebook.cells = notebook.cells[1:]
    resources = {"output_files_dir": "pictures", "unique_key": path.stem}
    text, written = MarkdownExporter().from_notebook_node(notebook, resources=resources)
    text = text.replace("![png](", "![What the code above draws](")
    head = f'*This page is the notebook <a href="{taken_from}" download>{taken_from}</a>.*\n\n'
    title, _, rest = text.strip().partition("\n")
    return f"{title}\n\n{head}{rest}\n", written["outputs"]
