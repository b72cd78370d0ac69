"""Draws docs/parts.svg: the parts of SALMONN, the tensors between them, and who runs what."""

from __future__ import annotations

from pathlib import Path

WIDTH, HEIGHT = 1000, 400
COLOURS = {
    "frontend": "#d9ead3",
    "encoder": "#cfe2f3",
    "bridge": "#fff2cc",
    "table": "#ead1dc",
    "decoder": "#f4cccc",
    "plain": "#ffffff",
}

# name, note below it, role, left, top, width
BOXES = [
    ("clip.wav", "any rate, any channels", "plain", 10, 130, 110),
    ("mel", "log-mel from samples", "frontend", 190, 70, 120),
    ("whisper", "speech encoder", "encoder", 390, 70, 120),
    ("fbank", "Kaldi filterbank", "frontend", 190, 190, 120),
    ("beats", "sound encoder", "encoder", 390, 190, 120),
    ("qformer", "norms, windows, projection", "bridge", 590, 130, 150),
    ("prompt", "text or a task's name", "plain", 190, 300, 120),
    ("embed", "rows of a mapped file", "table", 390, 300, 120),
    ("decoder", "LoRA merged, KV cache", "decoder", 810, 210, 140),
    ("text", "as it comes", "plain", 825, 320, 110),
]
BOX_HEIGHT = 54

# from, to, the tensor's name
ARROWS = [
    ("clip.wav", "mel", "pcm"),
    ("clip.wav", "fbank", ""),
    ("mel", "whisper", "log_mel"),
    ("fbank", "beats", "fbank"),
    ("whisper", "qformer", "speech"),
    ("beats", "qformer", "audio"),
    ("qformer", "decoder", "audio_embeds"),
    ("prompt", "embed", "ids"),
    ("embed", "decoder", "inputs_embeds"),
]


def centre(name: str) -> tuple[float, float, float]:
    """Left edge, right edge and middle height of a box."""
    for label, _, _, left, top, width in BOXES:
        if label == name:
            return left, left + width, top + BOX_HEIGHT / 2
    raise KeyError(name)


def draw() -> str:
    """The picture as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#444"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fafafa"/>',
        '<text x="10" y="28" font-size="15" font-weight="bold">On the device: '
        "one ONNX graph a part, stitched by the tensors' names</text>",
        '<text x="10" y="48" fill="#555">export.py made them from the checkpoint and proved '
        "each equal to its torch module</text>",
    ]
    for start, end, tensor in ARROWS:
        _, x1, y1 = centre(start)
        x2, _, y2 = centre(end)
        bend = (x1 + x2) / 2
        parts.append(
            f'<path d="M{x1} {y1}C{bend} {y1} {bend} {y2} {x2} {y2}" fill="none" '
            'stroke="#444" stroke-width="1.4" marker-end="url(#tip)"/>'
        )
        parts.append(
            f'<text x="{bend}" y="{(y1 + y2) / 2 - 8}" text-anchor="middle" fill="#333" '
            'font-size="12" font-family="monospace" stroke="#fafafa" stroke-width="5" '
            f'paint-order="stroke">{tensor}</text>'
        )
    left, right, middle = centre("decoder")
    parts += [
        f'<path d="M{right} {middle - 12}C{right + 45} {middle - 30} {right + 45} {middle + 30} '
        f'{right} {middle + 12}" fill="none" stroke="#444" stroke-width="1.4" '
        'marker-end="url(#tip)"/>',
        f'<text x="{right - 6}" y="{middle - 38}" text-anchor="middle" font-size="12">'
        "one token a step</text>",
        f'<path d="M{(left + right) / 2} {middle + 27}V320" stroke="#444" stroke-width="1.4" '
        'marker-end="url(#tip)"/>',
    ]
    for label, note, role, x, y, width in BOXES:
        parts += [
            f'<rect x="{x}" y="{y}" width="{width}" height="{BOX_HEIGHT}" rx="7" '
            f'fill="{COLOURS[role]}" stroke="#444"/>',
            f'<text x="{x + width / 2}" y="{y + 24}" text-anchor="middle" '
            f'font-weight="bold">{label}</text>',
            f'<text x="{x + width / 2}" y="{y + 42}" text-anchor="middle" font-size="10.5" '
            f'fill="#444">{note}</text>',
        ]
    roles = [("front ends", "frontend"), ("encoders", "encoder"), ("bridge", "bridge")]
    for i, (label, role) in enumerate([*roles, ("table", "table"), ("decoder", "decoder")]):
        x = 10 + 105 * i
        parts += [
            f'<rect x="{x}" y="374" width="14" height="14" fill="{COLOURS[role]}" stroke="#444"/>',
            f'<text x="{x + 20}" y="386">{label}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), "utf-8")
