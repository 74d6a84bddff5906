"""Equations as MathML, made when the site is built: browsers show it without any script."""

from typing import Any

import latex2mathml.converter
from docutils.nodes import SkipNode


def inline(self: Any, node: Any) -> None:
    self.body.append(latex2mathml.converter.convert(node.astext()))
    raise SkipNode


def display(self: Any, node: Any) -> None:
    self.body.append(f'<div class="math">{latex2mathml.converter.convert(node.astext(), display="block")}</div>')
    raise SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
