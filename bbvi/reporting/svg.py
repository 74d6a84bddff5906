"""Matplotlib figures as SVG that stands within a page: no script, no links, in the page's own text colour."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import Any

INK = "#010203"  # stands for the colour of the page's text
STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, selected and searched
    "svg.hashsalt": "bbvi",  # the same figure gives the same bytes
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
}
INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")


@contextmanager
def style(ink: str = "black") -> Generator[None]:
    """Draw figures in the style of reports, with text and axes in the colour `ink`."""
    from matplotlib import rc_context

    with rc_context(STYLE | dict.fromkeys(INKED, ink)):
        yield


def inline(figure: Any, name: str, text: str) -> str:
    """A matplotlib Figure, drawn with `ink=INK`, as an `<svg>` element.

    Arguments:
        name: sets its ids apart from those of other figures on the page.
        text: alternative, for those who do not see it.
    """
    file = StringIO()
    with style(INK):
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")), dpi=150)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "currentColor")
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)
    head, _, rest = svg.partition(">")
    head = re.sub(r' (?:width|height|version)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(text)}"><title>{escape(text)}</title>{rest}'
