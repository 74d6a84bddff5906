"""A line of the record: one fit of one posterior by one method, and the file in which lines are kept."""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

INFINITE = ("inf", "-inf")  # how JSON, which has no word for them, holds infinite numbers


class Error(NamedTuple):
    """The largest error over all quantities."""

    raw: float  # of a mean or quantile in posterior standard deviations, of a standard deviation relative
    beyond: float  # what is left of the largest when two standard errors of the reference are taken off
    quantity: str  # in which the raw one is
    reference: float | None  # standard error of the reference in that quantity, in the same unit; None: unknown


class Key(NamedTuple):
    """What is done once."""

    posterior: str
    method: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Line:
    """What is known of a fit; None stands for what the method has no word for, or what was not reached."""

    posterior: str
    kind: str  # posteriordb, bugs, gym or shapes
    method: str
    seed: int
    ended: str = ""  # why there is no answer, or no warm fit: the limit, or the text of the error
    dim: int | None = None
    status: str = ""
    k_hat: float | None = None  # of the approximation alone
    resampling_k_hat: float | None = None
    r_hat: float | None = None
    stages: str = ""
    mean: Error | None = None
    sd: Error | None = None
    low: Error | None = None  # of the 5 % quantile
    high: Error | None = None  # of the 95 % quantile
    content: float | None = None  # share of the reference in the central 90 % interval, averaged over quantities
    worst_content: float | None = None  # that of the quantity in which it is furthest from 90 %
    covered: dict[str, list[int]] = field(default_factory=dict)  # of estimates, how many are as near as they say
    reference: str = ""  # where the answer comes from
    log_evidence: float | None = None  # nats
    log_evidence_error: float | None = None
    elbo: float | None = None  # nats
    reference_log_evidence: float | None = None
    reference_log_evidence_error: float | None = None
    evaluations: float | None = None  # gradients; a Hessian-vector product is 2, a value 1/3
    cold: float | None = None  # seconds from the start of the process
    warm: float | None = None  # seconds of another fit in the same process
    ess: float | None = None  # of NUTS, the smallest
    ess_seconds: float | None = None  # of NUTS, to an effective sample size of 400
    wall: float = 0.0  # seconds of the whole process, judging included
    run: dict[str, Any] = field(default_factory=dict)  # commit, date, versions, machine, processes at a time

    @property
    def key(self) -> Key:
        """Of which fit this is the line."""
        return Key(self.posterior, self.method, self.seed)

    @property
    def error(self) -> float:
        """The larger error of means and standard deviations beyond that of the reference; infinite without answer."""
        return math.inf if self.mean is None or self.sd is None else max(self.mean.beyond, self.sd.beyond)

    @property
    def raw_error(self) -> float:
        """The same with nothing taken off."""
        return math.inf if self.mean is None or self.sd is None else max(self.mean.raw, self.sd.raw)

    def to_json(self) -> str:
        """One line, without what is not known."""
        held = {key: value for key, value in asdict(self).items() if value not in (None, "", {})}
        named = {key: value._asdict() if isinstance(value, Error) else value for key, value in held.items()}
        return json.dumps(_strict(named), allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Line":
        """Read what `to_json` wrote."""
        known = {each.name for each in fields(cls)}
        held: dict[str, Any] = {key: _loose(value) for key, value in json.loads(text).items() if key in known}
        errors = {key: Error(**held[key]) for key in ("mean", "sd", "low", "high") if key in held}
        held.update(errors)
        return cls(**held)


def append(path: Path, line: Line) -> None:
    """Add a line to the file, after the end of one that was cut off."""
    text = path.read_text() if path.exists() else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(("\n" if text and not text.endswith("\n") else "") + line.to_json() + "\n")


def read(path: Path) -> list[Line]:
    """The lines of the file, the last one of each fit; what was cut off in the midst of writing is left out.

    Raises:
        ValueError: when another line than one that was cut off is damaged.
    """
    found: dict[Key, Line] = {}
    for number, text in enumerate(path.read_text().splitlines() if path.exists() else (), 1):
        try:
            line = Line.from_json(text)
        except json.JSONDecodeError as error:
            if text.endswith("}"):
                raise ValueError(f"Line {number} of {path} is no JSON: {error}. Mend or remove it.") from error
            print(f"Line {number} of {path} was cut off: that fit counts as not made.")
            continue
        found[line.key] = line
    return list(found.values())


def _strict(value: Any) -> Any:
    """The same without numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _strict(each) for key, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _loose(value: Any) -> Any:
    """What `_strict` was given."""
    if isinstance(value, dict):
        return {key: _loose(each) for key, each in value.items()}
    return float(value) if value in INFINITE else value
