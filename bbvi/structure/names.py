"""Many names in few words."""

from collections.abc import Sequence

SHOWN = 6  # names, or ranges of names


def in_ranges(names: Sequence[str]) -> str:
    """Names in short: `a[0], a[1], a[2], b` as `a[0..2], b`, and the middle of what is still long left out."""
    runs: list[list[str]] = []
    for name in names:
        if runs and _follows(runs[-1][-1], name):
            runs[-1].append(name)
        else:
            runs.append([name])
    shown = [run[0] if len(run) == 1 else f"{run[0][:-1]}..{run[-1].rpartition('[')[2]}" for run in runs]
    return ", ".join(shown if len(shown) <= SHOWN else [*shown[: SHOWN - 2], "...", shown[-1]])


def _follows(before: str, after: str) -> bool:
    """Whether two names are of elements of an array that lie side by side."""
    (array, _, first), (other, _, second) = before.rpartition("["), after.rpartition("[")
    index, following = first.removesuffix("]"), second.removesuffix("]")
    return array == other != "" and index.isdecimal() and following.isdecimal() and int(index) + 1 == int(following)
