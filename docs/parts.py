"""Draws docs/parts.svg, the parts of SALMONN and the tensors between them: python docs/parts.py"""

from __future__ import annotations

from pathlib import Path

WIDTH, HEIGHT = 1000, 500
INK, SOFT, GROUND = "#1f2328", "#424a53", "#ffffff"
COLOURS = {
    "frontend": "#cdebc5",
    "encoder": "#c3dcf7",
    "bridge": "#fde9a9",
    "table": "#ead0e6",
    "decoder": "#f7c6c0",
    "plain": "#eef1f4",
}
BOX_HEIGHT = 76

# name, note below it, role, left, top, width
BOXES = [
    ("sound file", "wav, mp3, flac", "plain", 20, 150, 166),
    ("mel", "log-mel", "frontend", 262, 76, 122),
    ("whisper", "speech encoder", "encoder", 476, 76, 148),
    ("fbank", "filter bank", "frontend", 262, 222, 122),
    ("beats", "sound encoder", "encoder", 476, 222, 148),
    ("qformer", "bridge", "bridge", 716, 150, 124),
    ("prompt", "text, or a task", "plain", 20, 376, 166),
    ("embed", "embedding table", "table", 318, 376, 150),
    ("decoder", "LLM, LoRA merged", "decoder", 604, 376, 180),
    ("answer", "text, streamed", "plain", 838, 376, 142),
]
# from, to, the tensor's name, and where it stands beside the middle of the arrow
ARROWS = [
    ("sound file", "mel", "pcm", (0, -12)),
    ("sound file", "fbank", "pcm", (0, 24)),
    ("mel", "whisper", "log_mel", (0, -10)),
    ("fbank", "beats", "fbank", (0, -10)),
    ("whisper", "qformer", "speech", (8, -24)),
    ("beats", "qformer", "audio", (8, 34)),
    ("prompt", "embed", "ids", (0, -10)),
    ("embed", "decoder", "inputs_embeds", (0, -10)),
    ("decoder", "answer", "", (0, 0)),
]


def box(name: str) -> tuple[float, float, float, float]:
    """Left, right, top and middle height of a box."""
    for label, _, _, left, top, width in BOXES:
        if label == name:
            return left, left + width, top, top + BOX_HEIGHT / 2
    raise KeyError(name)


def text(x: float, y: float, words: str, size: int, more: str = "") -> str:
    """A line of text around x."""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="middle" fill="{INK}" {more}>'
        f"{words}</text>"
    )


def arrow(path: str) -> str:
    """A line with a tip."""
    style = f'fill="none" stroke="{SOFT}" stroke-width="2" marker-end="url(#tip)"'
    return f'<path d="{path}" {style}/>'


def named(x: float, y: float, tensor: str) -> str:
    """A tensor's name, with the ground around it so that no line runs through.

    The halo is a text of its own: not every renderer knows paint-order.
    """
    font = 'font-family="monospace"'
    halo = text(x, y, tensor, 16, f'{font} stroke="{GROUND}" stroke-width="6"')
    return halo + text(x, y, tensor, 16, font)


def draw() -> str:
    """The picture as SVG, on a ground of its own: pages are light or dark."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="6" '
        f'markerHeight="6" orient="auto"><path d="M0 0L8 4L0 8z" fill="{SOFT}"/></marker></defs>',
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="10" fill="{GROUND}" '
        'stroke="#d0d7de" stroke-width="2"/>',
        f'<text x="20" y="40" font-size="21" font-weight="bold" fill="{INK}">'
        "A sound file and a prompt in, text out: one ONNX graph a part</text>",
    ]
    names = []
    for start, end, tensor, (dx, dy) in ARROWS:
        _, x1, _, y1 = box(start)
        x2, _, _, y2 = box(end)
        bend = (x1 + x2) / 2
        parts.append(arrow(f"M{x1} {y1}C{bend} {y1} {bend} {y2} {x2} {y2}"))
        if tensor:
            names.append(named(bend + dx, (y1 + y2) / 2 + dy, tensor))
    left, right, top, _ = box("qformer")
    middle, low = (left + right) / 2, top + BOX_HEIGHT
    x1, x2, above, _ = box("decoder")
    at = (x1 + x2) / 2 + 20
    parts.append(arrow(f"M{middle} {low}C{middle} {low + 90} {at} {above - 90} {at} {above}"))
    names.append(named((middle + at) / 2 + 6, (low + above) / 2 + 4, "audio_embeds"))
    below = above + BOX_HEIGHT
    parts.append(arrow(f"M{x2 - 40} {below}C{x2 - 40} {below + 34} {x1 + 40} {below + 34} "
                       f"{x1 + 40} {below}"))  # fmt: skip
    names.append(named((x1 + x2) / 2, below + 31, "KV cache"))
    for label, note, role, x, y, width in BOXES:
        place = f'x="{x}" y="{y}" width="{width}" height="{BOX_HEIGHT}" rx="9"'
        parts += [
            f'<rect {place} fill="{COLOURS[role]}" stroke="{SOFT}" stroke-width="1.5"/>',
            text(x + width / 2, y + 33, label, 19, 'font-weight="bold"'),
            text(x + width / 2, y + 58, note, 16),
        ]
    return "\n".join([*parts, *names, "</svg>", ""])


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), "utf-8")
