"""Stacked bars as an SVG: where the time of each run goes. Text only, no library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

# Told apart also by those who see red and green alike (Okabe and Ito), then the same paler.
COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#666666"),
    *("#80b8d8", "#f2cf80", "#80ceb9", "#e5bcd3", "#aad9f4", "#eaae80", "#f7f1a0", "#b2b2b2"),
)
WIDTH, LEFT, RIGHT, TOP, BAR, GAP = 900, 110, 90, 56, 26, 12  # pixels
LEAST = 28  # pixels of a piece that has room for its number
LINE = 20  # pixels from one line of the legend to the next


def bars(title: str, rows: Sequence[tuple[str, Mapping[str, float]]], unit: str = "ms") -> str:
    """An SVG of one bar a row, (label, {piece: length}); a piece's colour is the same in all."""
    names = list(dict.fromkeys(name for _, pieces in rows for name in pieces))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    longest = max((sum(pieces.values()) for _, pieces in rows), default=0.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / longest
    parts = [_text(12, 24, title, "title")]
    for i, (label, pieces) in enumerate(rows):
        y = TOP + i * (BAR + GAP)
        parts.append(_text(LEFT - 8, y + BAR * 0.68, label, "label"))
        x = float(LEFT)
        for name, length in pieces.items():
            wide = length * scale
            parts.append(_box(x, y, wide, BAR, colours[name], f"{name}: {length:.4g} {unit}"))
            if wide > LEAST:
                parts.append(_text(x + wide / 2, y + BAR * 0.68, f"{length:.0f}", "inside"))
            x += wide
        parts.append(_text(x + 6, y + BAR * 0.68, f"{sum(pieces.values()):.4g} {unit}", "sum"))
    y, x = TOP + len(rows) * (BAR + GAP) + 18, LEFT
    for name in names:
        wide = 30 + 7 * len(name)
        if x + wide > WIDTH - 8:
            x, y = LEFT, y + LINE
        parts.append(_box(x, y - 10, 12, 12, colours[name], name))
        parts.append(_text(x + 17, y, name, "name"))
        x += wide
    return _page(y + LINE, parts)


def _page(height: int, parts: Sequence[str]) -> str:
    style = (
        "text{font:12px sans-serif;fill:#222}.title{font-size:15px;font-weight:bold}"
        ".label{text-anchor:end}.inside{text-anchor:middle;font-size:11px}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
    head += f'width="{WIDTH}" height="{height}">'
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, f"<style>{style}</style>", ground, *parts, "</svg>", ""])


def _box(x: float, y: float, wide: float, high: float, colour: str, title: str) -> str:
    place = f'x="{x:.2f}" y="{y:.2f}" width="{wide:.2f}" height="{high}"'
    return f'<rect {place} fill="{colour}"><title>{escape(title)}</title></rect>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
