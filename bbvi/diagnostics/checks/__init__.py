"""Checks of an approximation, one a file: each is an object that looks at the evidence and returns a finding or None.

To add one, write a frozen dataclass that is a `Check`, in a file of its own, and name it in `CHECKS`.
"""

from collections.abc import Iterable, Sequence

from bbvi.diagnostics.checks.base import Check, Evidence, Topic
from bbvi.diagnostics.checks.importance_weights import ImportanceWeights
from bbvi.diagnostics.checks.integrals import Integrals
from bbvi.diagnostics.checks.missed_mode import MissedMode
from bbvi.diagnostics.checks.missed_spike import MissedSpike
from bbvi.diagnostics.checks.no_density import NoDensity
from bbvi.diagnostics.checks.ran_off import RanOff
from bbvi.diagnostics.checks.remote_mass import RemoteMass
from bbvi.diagnostics.checks.rounding import Rounding
from bbvi.diagnostics.checks.stopped import Stopped
from bbvi.diagnostics.checks.support import Support
from bbvi.diagnostics.checks.too_narrow import TooNarrow
from bbvi.diagnostics.checks.vague_scale import VagueScale
from bbvi.outcome import Finding, Status
from bbvi.runtime.deadline import OutOfTimeError

CHECKS: tuple[Check, ...] = (  # in the order in which they speak
    NoDensity(),
    ImportanceWeights(),
    RanOff(),
    MissedMode(),
    MissedSpike(),
    TooNarrow(),
    RemoteMass(),
    Support(),
    Rounding(),
    Integrals(),
    VagueScale(),
    Stopped(),
)
OUT_OF_TIME = Finding(
    Status.USABLE, "there was no time to look for other modes and for mass far away", "raise the budget"
)


def examine(
    evidence: Evidence, checks: Sequence[Check] = CHECKS, topics: Iterable[Topic] = tuple(Topic)
) -> list[Finding]:
    """What the checks find, topic by topic, and within a topic in the order of `checks`.

    A finding of a check that `ends` its topic is the last one about it. Where time is up during a check, that is said
    in place of whatever was found about its topic.
    """
    found: list[Finding] = []
    for topic in topics:
        found += _about(evidence, [check for check in checks if check.topic is topic])
    return found


def _about(evidence: Evidence, checks: Sequence[Check]) -> list[Finding]:
    found: list[Finding] = []
    for check in checks:
        try:
            finding = check(evidence)
        except OutOfTimeError:
            return [OUT_OF_TIME]
        if finding is not None:
            found.append(finding)
            if check.ends:
                break
    return found
