"""Draw docs/rooms.svg: the rooms of the package, and which imports which. `make docs` writes it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parents[1] / "python" / "noetl_worker"
PICTURE: Final = Path(__file__).with_name("rooms.svg")
_WIDE, _BOX_HEIGHT, _BETWEEN, _MARGIN = 920, 50, 30, 12
_STYLE: Final = (
    "rect{fill:#f6f8fa;stroke:#57606a}text{font-family:sans-serif;fill:#1f2328}.name{font-size:14px;font-weight:600}"
    ".role{font-size:11px}path{fill:none;stroke:#57606a;marker-end:url(#head)}"
)
_HEAD: Final = (
    '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<polygon points="0 0 8 4 0 8" fill="#57606a"/></marker>'
)

Rooms = Mapping[str, frozenset[str]]
"""Room -> the rooms that it imports."""


def rooms() -> Rooms:
    """Return each folder of the package with those that its files import, for annotations too."""
    names = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    found: dict[str, set[str]] = {name: set() for name in names}
    for path in PACKAGE.glob("*/**/*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("noetl_worker"):
                inner = node.module.removeprefix("noetl_worker").removeprefix(".")
                found[room].update([inner.partition(".")[0]] if inner else [alias.name for alias in node.names])
    return {room: frozenset(found[room] & names - {room}) for room in sorted(names)}


def floors(imports: Rooms) -> list[list[str]]:
    """Return the rooms from the ground up: each above all that it imports, and just below those that import it."""
    height: dict[str, int] = {}

    def lowest(room: str) -> int:
        return 1 + max((lowest(below) for below in imports[room]), default=-1)

    for room in sorted(imports, key=lowest, reverse=True):
        importers = [height[one] for one in imports if room in imports[one]]
        height[room] = min(importers) - 1 if importers else lowest(room)
    by_height = defaultdict(list)
    for room in sorted(imports):
        by_height[height[room]].append(room)
    return [by_height[number] for number in sorted(by_height)]


def arrows(imports: Rooms) -> list[tuple[str, str]]:
    """Return the imports that follow from no other ones: `a` to `c` is left out where `a` imports `b` and `b` `c`."""

    def below(room: str) -> frozenset[str]:
        return imports[room].union(*(below(one) for one in imports[room]))

    return [
        (room, one)
        for room, wanted in imports.items()
        for one in sorted(wanted)
        if not any(one in below(other) for other in wanted)
    ]


def role(room: str) -> str:
    """Return the first sentence of a room's docstring."""
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].removesuffix(".")


def picture() -> str:
    """Return the drawing, the ground floor below."""
    imports = rooms()
    house = floors(imports)
    places: dict[str, tuple[float, float, float]] = {}
    boxes = []
    for number, floor in enumerate(reversed(house)):
        top = _MARGIN + number * (_BOX_HEIGHT + _BETWEEN)
        width = (_WIDE - _MARGIN * (len(floor) + 1)) / len(floor)
        for index, room in enumerate(floor):
            left = _MARGIN + index * (width + _MARGIN)
            places[room] = (left + width / 2, top, width)
            boxes.append(_box(room, left, top, width))
    lines = [_line(places[room], places[one]) for room, one in arrows(imports)]
    height = _MARGIN * 2 + len(house) * (_BOX_HEIGHT + _BETWEEN) - _BETWEEN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {height}" width="{_WIDE}" height="{height}">'
    ground = f'<rect x="0" y="0" width="{_WIDE}" height="{height}" style="fill:#ffffff;stroke:none"/>'
    defs = f"<defs>{_HEAD}</defs><style>{_STYLE}</style>"
    return "\n".join([head, defs, ground, *boxes, *lines, "</svg>", ""])


def _box(room: str, left: float, top: float, width: float) -> str:
    middle = left + width / 2
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{_BOX_HEIGHT}" rx="5"/>'
        f'<text class="name" x="{middle:g}" y="{top + 20:g}" text-anchor="middle">{room}/</text>'
        f'<text class="role" x="{middle:g}" y="{top + 38:g}" text-anchor="middle">{escape(role(room))}</text>'
    )


def _line(above: tuple[float, float, float], below: tuple[float, float, float]) -> str:
    (x, top, _), (to_x, to_top, width) = above, below
    to_x = min(max(x, to_x - width / 2 + 20), to_x + width / 2 - 20)  # straight down where the room below is wide
    return f'<path d="M{x:g} {top + _BOX_HEIGHT:g} L{to_x:g} {to_top:g}"/>'


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
