"""Docstrings as the code writes them, for autodoc.

They are plain text: sections ("Arguments:", "Returns:", "Raises:", "Fields:", "Example:"), indented equations, and
`code` in backticks. Napoleon knows the sections; what it does not know is here, and so is where reStructuredText would
see markup. The fields of named tuples are described by the comments beside them.
"""

import enum
import inspect
import re
from typing import Any

SECTION = re.compile(r"^[A-Z]\w+:$")


def read_fields(cls: Any) -> list[str]:
    """The section "Fields:" of a named tuple, from the comments beside its fields."""
    source = inspect.getsource(cls)
    comments = {name: re.search(rf"^    {name}: [^#\n]*  # (.+)$", source, flags=re.MULTILINE) for name in cls._fields}
    return ["", "Fields:", *(f"    {name}: {found[1] if found else ''}" for name, found in comments.items())]


def to_rst(lines: list[str]) -> list[str]:
    """Indented blocks outside of sections become literal blocks; in all other text but code, no sign is markup."""
    marked, section, literal = [], "", False
    for i, line in enumerate(lines):
        if line and not line.startswith(" "):
            section, literal = line if SECTION.match(line) else "", False
        elif line.startswith("    ") and not section and not literal and not lines[i - 1]:
            marked += ["::", ""]
            literal = True
        marked.append(line if literal or section == "Example:" else escape(line))
    return marked


def escape(line: str) -> str:
    """The line with `|` and `*` escaped outside of backticks."""
    return "`".join(re.sub(r"[|*]", r"\\\g<0>", part) if i % 2 == 0 else part for i, part in enumerate(line.split("`")))


def keep_sentences(lines: list[str]) -> list[str]:
    """What is returned is told in sentences, in which a colon does not end the name of a type."""
    text = re.sub(r"^Returns:\n    ", ":returns: ", "\n".join(lines), flags=re.MULTILINE)
    return text.split("\n")


def process_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if what == "class" and hasattr(obj, "_fields"):
        lines += read_fields(obj)
    lines[:] = keep_sentences(to_rst(lines))
    if what == "data":
        lines[:0] = ["..", ""]  # what stands before a colon on the first line would be taken for a type


def process_signature(app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str) -> Any:
    """Objects that the library makes for the user have none, and `Any` says nothing: arguments are described below."""
    if what == "class" and (issubclass(obj, enum.Enum) or hasattr(obj, "_fields") or "Fields:" in (obj.__doc__ or "")):
        return "", None
    shorter = signature and re.sub(r": (~typing\.)?Any(?=[,)]| =)", "", signature)
    return shorter, None if returns in ("Any", "~typing.Any") else returns


def skip_member(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """The fields of named tuples are described already."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process_docstring, priority=400)  # before Napoleon
    app.connect("autodoc-process-signature", process_signature)
    app.connect("autodoc-skip-member", skip_member)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
