"""A hint after a name that is not known."""

import difflib
from typing import Any


def nearest(name: str, known: Any) -> str:
    """A sentence that helps after a wrong name."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(name, known, n=1)
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return (f"Did you mean {close[0]!r}? " if close else "") + f"Known: {shown}."
