"""What may be said about a posterior."""

import enum
from typing import NamedTuple


class Status(enum.Enum):
    """How far to trust a posterior; the value says it in words."""

    RELIABLE = "reliable: the approximation is close enough for importance sampling to correct what is left"
    USABLE = "usable: importance sampling corrects it, with larger Monte Carlo error"
    UNRELIABLE = "unreliable: the approximation differs from the posterior by more than importance sampling can correct"
    FAILED = "failed: no draw of the approximation has a finite log density"


class Concern(NamedTuple):
    """Something that speaks against trusting a posterior, or that one should know about it."""

    worst: Status  # the best status that it allows
    reason: str
    advice: str | None = None
    inherent: bool = False  # of the posterior itself, so that no better approximation would end it
