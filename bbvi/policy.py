"""The numbers of coordinates at which methods change, all in one place.

What is dense costs memory of dim^2 numbers and time of dim^3, or dim products with a Hessian; what is long is to be in
memory as few times as can be. `bbvi info` prints the table.
"""

from dataclasses import dataclass, fields

CHAIN_EVALUATIONS = 2**13  # that a few seconds have to be enough for, where chains are to be run
FEW_CHAINS = 32  # where each takes long
SHORT_CHAINS = 2**18  # gradients, where something else may do better
STAGE_SHARE = 0.5  # of the time that is left, for chains after which a flow may come
KEPT_NUMBERS = 2**25  # in the draws behind a verdict, at most
HYPER_DRAWS, FEWEST_HYPER_DRAWS = 512, 128  # of q(phi), to judge a hierarchy by
VERDICT_DRAWS, FEWEST_VERDICT_DRAWS = 4096, 256  # of q, to judge it by


@dataclass(frozen=True)
class Limits:
    """Numbers of coordinates; each field says up to how many something holds."""

    no_structure: int = 7  # there is no room for a structure of hyper-parameters and blocks that is worth a search
    structure_later: int = 40  # a Gaussian of all coordinates is tried before the structure of a hierarchy is sought
    no_hierarchy: int = 19  # there is no room for a hierarchy whose scales creep: a stalled fit is left at that
    full_rank: int = 100  # full-rank is the family fitted when none is named, and mean-field above
    dense_start: int = 200  # quasi-Newton paths, mass matrices and other modes hold a whole covariance
    flow: int = 500  # a flow is worth its time
    dense_response: int = 500  # a linear system for each coordinate, or a Hessian at each step, is affordable
    newton: int = 1000  # full-rank Newton steps, Laplace's matrix and correlations of draws are affordable
    exact_diagonal: int = 2000  # a diagonal of curvature takes a product for each coordinate, and random probes above
    several_paths: int = 10_000  # more than one quasi-Newton path is climbed
    long: int = 2**17  # vectors may be in memory several times, and draws made many at once


LIMITS = Limits()


@dataclass(frozen=True)
class Regime:
    """What suits a problem of so many coordinates."""

    has_room_for_structure: bool
    structure_later: bool
    has_room_for_hierarchy: bool
    full_rank: bool  # is the default family
    dense_start: bool
    flow: bool
    dense_response: bool
    newton: bool
    exact_diagonal: bool
    several_paths: bool
    long: bool
    verdict_draws: int  # of q, to judge it by

    @classmethod
    def of(cls, dim: int) -> "Regime":
        """That of so many coordinates."""
        return cls(
            has_room_for_structure=dim > LIMITS.no_structure,
            structure_later=dim <= LIMITS.structure_later,
            has_room_for_hierarchy=dim > LIMITS.no_hierarchy,
            full_rank=dim <= LIMITS.full_rank,
            dense_start=dim <= LIMITS.dense_start,
            flow=dim <= LIMITS.flow,
            dense_response=dim <= LIMITS.dense_response,
            newton=dim <= LIMITS.newton,
            exact_diagonal=dim <= LIMITS.exact_diagonal,
            several_paths=dim <= LIMITS.several_paths,
            long=dim > LIMITS.long,
            verdict_draws=max(FEWEST_VERDICT_DRAWS, min(VERDICT_DRAWS, KEPT_NUMBERS // dim)),
        )


def default_rank(dim: int, most: int = 32) -> int:
    """Directions beside a diagonal, where their number is not given."""
    return max(1, min(most, dim // 4))


def hyper_draws(dim: int) -> int:
    """Draws of the hyper-parameters of a posterior with so many coordinates in all, a power of 2."""
    most = max(FEWEST_HYPER_DRAWS, min(HYPER_DRAWS, KEPT_NUMBERS // (16 * dim)))
    return 1 << most.bit_length() - 1


def table() -> list[tuple[str, int]]:
    """What holds up to how many coordinates."""
    return [(each.name.replace("_", " "), getattr(LIMITS, each.name)) for each in fields(LIMITS)]
