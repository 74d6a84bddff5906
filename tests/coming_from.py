"""The page docs/how_to/coming_from.md: its blocks, and the posterior that it prints."""

import re
from pathlib import Path
from typing import Any

import numpy as np

PAGE = (Path(__file__).parents[1] / "docs" / "how_to" / "coming_from.md").read_text()


def blocks(language: str, *words: str) -> list[str]:
    """Those in the language that have all the words."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return [block for block in found if all(word in block for word in words)]


def run(*code: str) -> dict[str, Any]:
    """What is defined after the page's data and this code."""
    names: dict[str, Any] = {}
    exec("\n".join([blocks("python")[0], *code]), names)
    return names


def assert_as_printed(posterior: Any) -> None:
    """Means within a tenth of the standard deviation, and these within a tenth of themselves, but for rounding."""
    (table,) = blocks("text", "from_numpyro")
    column = table.splitlines()[0].split().index("from_numpyro") - 3  # after "mean ± sd"
    mean, sd = posterior.mean(), posterior.sd()
    for row, *words in map(str.split, table.splitlines()[1:]):
        name, index = re.fullmatch(r"(\w+?)(?:\[(\d)\])?", row).groups()
        at = int(index) if index else ()
        printed_mean, _, printed_sd = words[3 * column : 3 * column + 3]
        np.testing.assert_allclose(mean[name][at], float(printed_mean), atol=0.005 + 0.1 * float(printed_sd))
        np.testing.assert_allclose(sd[name][at], float(printed_sd), rtol=0.1, atol=0.005)
