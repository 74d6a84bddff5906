"""Cells of tables, which pages of Markdown and of HTML both show."""

import math
from typing import NamedTuple


class Cell(NamedTuple):
    """What is shown, and what a column is sorted by."""

    text: str
    value: float | str


class Table(NamedTuple):
    """Titles of the columns, and rows of cells."""

    titles: list[str]
    rows: list[list[Cell]]

    def to_markdown(self) -> list[str]:
        """As lines."""
        lines = [f"| {' | '.join(self.titles)} |", "|---" * len(self.titles) + "|"]
        return lines + [f"| {' | '.join(cell.text for cell in row)} |" for row in self.rows]


def number(value: float | None, shape: str) -> Cell:
    """A cell of a number, which sorts last where it is not known."""
    if value is None or math.isnan(value):
        return Cell("", "")
    return Cell(shape.format(value) if math.isfinite(value) else str(value), value)


def word(text: str) -> Cell:
    """A cell of text."""
    return Cell(text, text)
