"""Equations as MathML, made when the site is built: browsers show it without any script."""

import re
from typing import Any

import latex2mathml.converter
from docutils.nodes import SkipNode

WORDS = re.compile(r"(<mi>(?:log|exp|det|max|min)</mi>)(?!<mo[^>]*>&#x00028;)")


def convert(latex: str, display: str = "inline") -> str:
    """MathML, with the thin space that belongs between the name of a function and its argument."""
    return WORDS.sub(r'\1<mspace width="0.17em"/>', latex2mathml.converter.convert(latex, display=display))


def inline(self: Any, node: Any) -> None:
    self.body.append(convert(node.astext()))
    raise SkipNode


def display(self: Any, node: Any) -> None:
    self.body.append(f'<div class="math">{convert(node.astext(), "block")}</div>')
    raise SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
