"""Formulas as MathML, which browsers draw by themselves: no script, and nothing from the network."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.pages import Page

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_page_content(content: str, page: Page, **_: object) -> str:
    """Replace what arithmatex marked."""
    content = BLOCK.sub(lambda found: f'<div class="formula">{mathml(found.group(1), "block")}</div>', content)
    return INLINE.sub(lambda found: mathml(found.group(1), "inline"), content)


def mathml(tex: str, display: str) -> str:
    """Return TeX as MathML; commands that the converter does not know fail the build, and are not shown as they are."""
    drawn = convert(html.unescape(tex), display=display)
    if unknown := re.findall(r">(\\[a-zA-Z]+)", drawn):
        raise PluginError(
            f"latex2mathml does not know {unknown[0]} of the formula {html.unescape(tex)}: write it otherwise"
        )
    return drawn
