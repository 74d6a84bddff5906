"""The table of the verdict's truth: of the fits that a method vouches for, how many are right.

A fit is within a tolerance when all its means are, in posterior standard deviations, and all its standard deviations,
relative, beyond two standard errors of the reference. A fit that ended without an answer is within none.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.record.cells import Cell, Table, number, word
from benchmarks.record.lines import Line

TOLERANCES = (0.05, 0.1, 0.2)
CLOSE, WRONG = 0.1, 0.2  # what a fit that is trusted should be within, and beyond which it is a lie to call it reliable
GOOD_K, BAD_K = 0.5, 0.7  # of q's k-hat, as others go by it (Yao et al. 2018)
ENDED = "no answer"
VERDICTS = ("reliable", "usable", "unreliable", "failed")
K_HATS = (f"below {GOOD_K}", f"{GOOD_K} to {BAD_K}", f"above {BAD_K}")
CONTENT = 0.9  # what a central 90 % interval should hold
ESTIMATES = ("mean", "sd", "5 %", "95 %")
WORDS = {
    "auto": "bbvi",
    "laplace": "bbvi, Laplace",
    "pathfinder": "bbvi, Pathfinder",
    "svi": "NumPyro SVI, full rank",
    "svi_mean_field": "NumPyro SVI, mean field",
    "nuts": "NumPyro NUTS",
}


class Claim(NamedTuple):
    """What somebody says of some fits, and those fits."""

    by: str
    says: str
    lines: list[Line]

    def within(self, tolerance: float) -> int:
        """How many are."""
        return sum(line.error <= tolerance for line in self.lines)


def claims(lines: Sequence[Line]) -> list[Claim]:
    """By the verdict, by k-hat of the approximation alone, and by what the others say."""
    of = lambda method: [line for line in lines if line.method == method]
    found = [*_by("bbvi's verdict", of("auto"), _verdict), *_by("k-hat of q alone", of("auto"), _k_hat)]
    for method in dict.fromkeys(line.method for line in lines if line.method != "auto"):
        found += _by(WORDS.get(method, method), of(method), _others)
    return found


def false_claims(lines: Sequence[Line]) -> list[Line]:
    """Fits of the default that are called reliable and are wrong."""
    return [line for line in lines if (line.method, line.status) == ("auto", "reliable") and line.error > WRONG]


def truth_table(lines: Sequence[Line]) -> Table:
    """A row for each claim."""
    titles = ["by", "says", "fits", *(f"within {each:g} sd and {100 * each:.0f} %" for each in TOLERANCES)]
    titles += ["false alarms", "median error of a 5 or 95 % quantile", "largest"]
    return Table([*titles, "content of 90 % intervals", "worst"], [_row(claim) for claim in claims(lines)])


def errors_table(lines: Sequence[Line]) -> Table:
    """How many estimates of the default are as near to the truth as their standard errors say."""
    titles = ["says", "fits", *ESTIMATES]
    rows = []
    for claim in _by("", [line for line in lines if line.method == "auto" and line.covered], _verdict):
        shares = []
        for name in ESTIMATES:
            counts = [line.covered[name] for line in claim.lines if name in line.covered]
            within, known = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
            shares.append(number(100 * within / known if known else None, f"{{:.1f}} % of {known}"))
        rows.append([word(claim.says), number(len(claim.lines), "{:.0f}"), *shares])
    return Table(titles, rows)


def _by(by: str, lines: Sequence[Line], says: Callable[[Line], str]) -> list[Claim]:
    words = sorted({says(line) for line in lines}, key=_order)
    return [Claim(by, word, [line for line in lines if says(line) == word]) for word in words]


def _order(word: str) -> tuple[int, str]:
    known = [*VERDICTS, *K_HATS, "converged", "not converged", "nothing", ENDED]
    return (known.index(word), word) if word in known else (len(known), word)


def _verdict(line: Line) -> str:
    return line.status or ENDED


def _k_hat(line: Line) -> str:
    if line.k_hat is None:
        return ENDED
    return K_HATS[0] if line.k_hat < GOOD_K else K_HATS[1] if line.k_hat <= BAD_K else K_HATS[2]


def _others(line: Line) -> str:
    return ENDED if line.mean is None else line.status or "nothing"


def _row(claim: Claim) -> list[Cell]:
    lines, alarming = claim.lines, claim.says in ("unreliable", "failed", K_HATS[2], "not converged")
    quantiles = [max(line.low.raw, line.high.raw) for line in lines if line.low is not None and line.high is not None]
    held = [line.content for line in lines if line.content is not None]
    worst = [line.worst_content for line in lines if line.worst_content is not None]
    median = statistics.median(quantiles) if quantiles else None
    mean = 100 * statistics.mean(held) if held else None
    furthest = 100 * max(worst, key=lambda each: abs(each - CONTENT)) if worst else None
    return [
        word(claim.by),
        word(claim.says),
        number(len(lines), "{:.0f}"),
        *(number(claim.within(tolerance), "{:.0f}") for tolerance in TOLERANCES),
        number(claim.within(CLOSE) if alarming else None, "{:.0f}"),
        number(median, "{:.3f}"),
        number(max(quantiles, default=None), "{:.3f}"),
        number(mean, "{:.1f} %"),
        number(furthest, "{:.1f} %"),
    ]
