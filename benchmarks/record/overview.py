"""What the record says of each posterior: of every method the worst of its seeds."""

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.record.lines import Error, Line
from benchmarks.record.posteriors import KINDS
from benchmarks.record.truth import CLOSE, VERDICTS

NOTES = Path(__file__).with_name("notes.toml")
TRUSTED = VERDICTS[:2]


class Summary(NamedTuple):
    """A method on a posterior: the worst of each number over the seeds, by itself."""

    lines: list[Line]  # by seed

    @property
    def statuses(self) -> str:
        """Of each seed, or once where they are alike."""
        words = [line.status or ("no answer" if line.mean is None else "") for line in self.lines]
        return words[0] if len(set(words)) == 1 else ", ".join(words)

    @property
    def answered(self) -> bool:
        """Whether each seed has an answer."""
        return all(line.mean is not None for line in self.lines)

    def largest(self, name: str) -> float | None:
        """Of a field that is a number."""
        return max(_known(getattr(line, name) for line in self.lines), default=None)

    def error(self, name: str) -> Error | None:
        """The largest of a field that is an error, by its raw value."""
        return max(_known(getattr(line, name) for line in self.lines), key=lambda each: each.raw, default=None)

    @property
    def beyond(self) -> float:
        """The largest error of means and standard deviations beyond the reference's own."""
        return max(line.error for line in self.lines)

    @property
    def raw(self) -> float:
        """The same with nothing taken off."""
        return max(line.raw_error for line in self.lines)

    @property
    def quantile(self) -> float | None:
        """The larger error of both quantiles."""
        errors = _known((self.error("low"), self.error("high")))
        return max((each.raw for each in errors), default=None)

    @property
    def stages(self) -> str:
        """Of each seed, or once where they are alike; without the families."""
        words = [", ".join(part.split(" (")[0] for part in line.stages.split("), ")) for line in self.lines]
        return "; ".join(dict.fromkeys(filter(None, words)))


class Row(NamedTuple):
    """A posterior."""

    posterior: str
    kind: str
    dim: int | None
    methods: dict[str, Summary]

    @property
    def falls_short(self) -> bool:
        """Whether the default is further off than is close, or does not trust its answer, with any seed."""
        mine = self.methods.get("auto")
        return mine is not None and (mine.beyond > CLOSE or any(line.status not in TRUSTED for line in mine.lines))


def overview(lines: Sequence[Line]) -> list[Row]:
    """A row for each posterior, by kind and name."""
    rows = []
    for kind, name in sorted({(line.kind, line.posterior) for line in lines}, key=_order):
        mine = sorted((line for line in lines if line.posterior == name), key=lambda line: line.seed)
        methods = dict.fromkeys(line.method for line in mine)
        by_method = {method: Summary([line for line in mine if line.method == method]) for method in methods}
        rows.append(Row(name, kind, next((line.dim for line in mine if line.dim is not None), None), by_method))
    return rows


def read_notes(path: Path = NOTES) -> dict[str, str]:
    """Sentences by hand, by posterior."""
    return tomllib.loads(path.read_text())


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _order(pair: tuple[str, str]) -> tuple[int, str]:
    kind, name = pair
    return KINDS.index(kind) if kind in KINDS else len(KINDS), name
