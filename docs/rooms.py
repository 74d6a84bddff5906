"""Draws the rooms of bbvi, from the imports in its files: `python docs/rooms.py` writes `docs/_static/rooms.svg`.

A room is a folder or a module directly below the package. It stands one floor above the highest room that it imports
from. An arrow is left out where a longer way says the same.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bbvi"
PICTURE = Path(__file__).parent / "_static" / "rooms.svg"
WIDTH, FLOOR, BOX, GAP = 900, 62, 26, 14  # pixels
LETTER = 7.4  # pixels that a letter takes


def modules() -> dict[str, Path]:
    """All files, by the dotted names of their modules."""
    paths = sorted(PACKAGE.rglob("*.py"))
    dotted = {".".join(("bbvi", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in paths}
    return {name.removesuffix(".__init__"): path for name, path in dotted.items()}


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of bbvi that a file imports, also inside functions and for types only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            inner = [f"{node.module}.{each.name}" for each in node.names]  # a module of the folder, or a name in a file
            found |= {name if name in known else node.module for name in inner}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return found & known.keys()


def room(module: str) -> str:
    """The folder or module directly below the package."""
    return module.split(".")[1] if "." in module else "__init__"


def graph() -> dict[str, set[str]]:
    """For each room those that it imports from."""
    known = modules()
    found: dict[str, set[str]] = {room(name): set() for name in known}
    for name, path in known.items():
        found[room(name)] |= {room(other) for other in imports(path, known)} - {room(name)}
    return found


def floors(rooms: dict[str, set[str]]) -> dict[str, int]:
    """The floor of each room.

    Raises:
        ValueError: where rooms import from one another in a circle.
    """
    known: dict[str, int] = {}

    def floor(name: str, above: tuple[str, ...]) -> int:
        if name in above:
            raise ValueError(f"a circle of imports: {' -> '.join((*above[above.index(name) :], name))}")
        if name not in known:
            known[name] = 1 + max((floor(other, (*above, name)) for other in rooms[name]), default=-1)
        return known[name]

    return {name: floor(name, ()) for name in rooms}


def direct(rooms: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The arrows that no longer way replaces."""

    def reached(name: str) -> set[str]:
        return rooms[name].union(*(reached(other) for other in rooms[name]))

    behind = {name: reached(name) for name in rooms}
    return {
        (name, other) for name in rooms for other in rooms[name] if not any(other in behind[way] for way in rooms[name])
    }


def draw() -> str:
    """The picture, an SVG."""
    rooms = graph()
    level = floors(rooms)
    top = max(level.values())
    boxes: dict[str, tuple[float, float, float]] = {}  # left, top, width
    for number in range(top + 1):
        names = sorted(name for name in rooms if level[name] == number)
        widths = [LETTER * len(name) + 18 for name in names]
        left = (WIDTH - sum(widths) - GAP * (len(names) - 1)) / 2
        for name, width in zip(names, widths, strict=True):
            boxes[name] = left, 10.0 + FLOOR * (top - number), width
            left += width + GAP
    lines = []
    for name, other in sorted(direct(rooms)):
        (x, y, width), (end, below, wide) = boxes[name], boxes[other]
        start, stop = x + width / 2, end + wide / 2
        bend = (below - y - BOX) / 2
        lines.append(
            f'<path d="M{start:.0f} {y + BOX:.0f} C{start:.0f} {y + BOX + bend:.0f} {stop:.0f} {below - bend:.0f} '
            f'{stop:.0f} {below - 2:.0f}" marker-end="url(#tip)"/>'
        )
    texts = [
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{BOX}" rx="5"/>'
        f'<text x="{x + width / 2:.0f}" y="{y + 17:.0f}">{name}</text>'
        for name, (x, y, width) in sorted(boxes.items())
    ]
    height = 20 + FLOOR * top + BOX
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            "<title>The rooms of bbvi: arrows point to what a room imports from</title>",
            "<style>path{fill:none;stroke:#8c8c8c;stroke-width:1.1}rect{fill:#fff;stroke:#3b82c4}"
            "text{font:12px monospace;text-anchor:middle;fill:#222}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" style="fill:#8c8c8c;stroke:none"/></marker></defs>',
            *lines,
            *texts,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(draw())
