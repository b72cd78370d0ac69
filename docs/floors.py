"""The floors of the code, from its own imports: python docs/floors.py writes docs/floors.svg.

A room is a folder of `runtime/alm` or a file beside those folders; `wrappers`, `exporters` and
`export.py` are one room each. A room stands one floor above the highest room that it imports, so
every import leads down. An arrow is drawn where no longer way through other rooms leads there too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "floors.svg"
ALM = ROOT / "runtime" / "alm"
WORKSHOP = ("wrappers", "exporters", "export.py")

Rooms = dict[str, set[str]]  # room -> the rooms that it imports

BOX_HEIGHT, FLOOR_HEIGHT, MARGIN, GAP, LETTER = 30, 62, 24, 18, 8.2  # pixels
COLOURS = {"workshop": "#e8defa", "file": "#fdf0d5", "folder": "#d9ecf7"}


class Circle(ValueError):
    """Rooms import each other in a circle, so they have no floors."""


def imports(source: str) -> Iterator[str]:
    """The modules that a file imports anywhere in it, in a function and for types too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    """alm.audio.reader.Clip -> audio, alm.errors -> errors, alm.load -> alm, wrappers.x itself.

    "" for a module that is not ours.
    """
    package, _, rest = module.partition(".")
    if package in ("wrappers", "exporters"):
        return package
    if package == "export":
        return "export.py"
    if package != "alm":
        return ""
    name = rest.partition(".")[0]
    there = (ALM / name).is_dir() or (ALM / f"{name}.py").is_file()
    return name if name and there else "alm"


def rooms() -> Rooms:
    """Every room of the code with those that it imports."""
    found: Rooms = {}
    for file in _python(ALM):
        inside = file.relative_to(ALM).with_suffix("").as_posix().removesuffix("/__init__")
        name = "alm" if inside == "__init__" else inside.partition("/")[0]
        found.setdefault(name, set()).update(map(room_of, imports(file.read_text("utf-8"))))
    for name in WORKSHOP:
        for file in _python(ROOT / name):
            found.setdefault(name, set()).update(map(room_of, imports(file.read_text("utf-8"))))
    return {name: {used for used in uses if used in found} - {name} for name, uses in found.items()}


def files() -> Rooms:
    """Every file of the code, as a module's dotted name, with those of ours that it imports.

    What a type checker alone imports counts: it ties files together for a reader as much. That
    importing `alm.audio.reader` runs `alm/__init__.py` first does not: every file would be tied to
    the package that it is in.
    """
    paths = [path for home in (ALM, *(ROOT / name for name in WORKSHOP)) for path in _python(home)]
    sources = {_module(path): path.read_text("utf-8") for path in paths}

    def ours(name: str) -> str:
        """alm.audio.reader.Clip -> alm.audio.reader; "" for what is not ours."""
        while name and name not in sources:
            name = name.rpartition(".")[0]
        return name

    return {name: set(map(ours, imports(source))) - {"", name} for name, source in sources.items()}


def _python(home: Path) -> list[Path]:
    return sorted(home.rglob("*.py")) if home.is_dir() else [home]


def _module(path: Path) -> str:
    root = ALM.parent if ALM in path.parents else ROOT
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def circles(uses: Mapping[str, set[str]]) -> set[str]:
    """Whatever leads back to itself."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        ahead = [start]
        while ahead:
            new = uses[ahead.pop()] - found
            found |= new
            ahead += new
        return found

    return {name for name in uses if name in reached(name)}


def floors(uses: Mapping[str, set[str]]) -> dict[str, int]:
    """Room -> floor, 0 for one that imports no other.

    Raises:
        Circle: some rooms import each other; the message names them.
    """
    level: dict[str, int] = {}
    while len(level) < len(uses):
        ready = {
            name: max((level[used] + 1 for used in needs), default=0)
            for name, needs in uses.items()
            if name not in level and needs <= level.keys()
        }
        if not ready:
            raise Circle("a circle of imports among " + ", ".join(sorted(uses.keys() - level)))
        level |= ready
    return level


def reduced(uses: Mapping[str, set[str]]) -> Rooms:
    """The arrows without those that a longer way says already (the transitive reduction)."""

    def reached(name: str) -> set[str]:
        return uses[name].union(*(reached(used) for used in uses[name]))

    far = {name: set().union(*(reached(used) for used in needs)) for name, needs in uses.items()}
    return {name: needs - far[name] for name, needs in uses.items()}


def _placed(uses: Rooms, level: Mapping[str, int]) -> tuple[dict[str, tuple[float, float]], float]:
    """Centre of every room in pixels, and the width of the picture."""
    rows = [sorted(n for n in level if level[n] == i) for i in range(max(level.values()) + 1)]
    widest = max(sum(_width(n) + GAP for n in row) for row in rows)
    places: dict[str, tuple[float, float]] = {}
    for i, row in enumerate(rows):
        if i:  # beneath what a room uses: fewer crossings

            def pull(name: str) -> float:
                below = [places[used][0] for used in uses[name] if used in places]
                return sum(below) / len(below) if below else 0.0

            row.sort(key=lambda name: (pull(name), name))
        x = MARGIN + (widest - sum(_width(n) + GAP for n in row)) / 2
        y = MARGIN + (len(rows) - 1 - i) * FLOOR_HEIGHT + BOX_HEIGHT / 2
        for name in row:
            places[name] = (x + _width(name) / 2, y)
            x += _width(name) + GAP
    return places, widest + 2 * MARGIN


def _width(name: str) -> float:
    return len(_label(name)) * LETTER + 18


def _label(name: str) -> str:
    return f"{name}/" if (ALM / name).is_dir() or name in ("wrappers", "exporters") else name


def _colour(name: str) -> str:
    if name in WORKSHOP:
        return COLOURS["workshop"]
    return COLOURS["folder" if (ALM / name).is_dir() else "file"]


def svg() -> str:
    """The picture, the same bytes for the same imports."""
    uses = rooms()
    level = floors(uses)
    arrows = reduced(uses)
    places, width = _placed(arrows, level)
    height = 2 * MARGIN + max(level.values()) * FLOOR_HEIGHT + BOX_HEIGHT
    half = BOX_HEIGHT / 2
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" font-family="sans-serif" font-size="14">',
        "<title>Rooms of the code; every import leads down</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for name, needs in sorted(arrows.items()):
        x, y = places[name]
        for used in sorted(needs):
            to_x, to_y = places[used]
            lines.append(
                f'<path d="M{x:.0f} {y + half:.0f}L{to_x:.0f} {to_y - half:.0f}" '
                'stroke="#7a8794" stroke-width="1.2" fill="none"/>'
            )
    for name, (x, y) in sorted(places.items()):
        wide = _width(name)
        lines.append(
            f'<rect x="{x - wide / 2:.0f}" y="{y - BOX_HEIGHT / 2:.0f}" width="{wide:.0f}" '
            f'height="{BOX_HEIGHT}" rx="5" fill="{_colour(name)}" stroke="#45525e"/>'
        )
        lines.append(
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" fill="#16202a">'
            f"{escape(_label(name))}</text>"
        )
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(svg(), "utf-8")
