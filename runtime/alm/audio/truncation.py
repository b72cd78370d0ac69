"""Is an audio file all there? What its header promises, held against the bytes that follow.

libsndfile answers a cut file with the samples that are left, and reads an MPEG file only as far
as an estimate of its length: both lose sound without a word. FLAC needs no help, its decoder fails.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from mmap import mmap
from typing import Literal

# Writers that cannot seek back (pipes) leave such sizes: "until the end of the file".
ENDLESS = 0x7FFF0000
MOST_JUNK = 100_000  # false starts of MPEG frames, past which it is no MPEG file
LAST_PAGE = 65307  # bytes, the largest Ogg page

MPEG1_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
MPEG2_KBPS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def is_mpeg(data: mmap | bytes) -> bool:
    """Whether the bytes look like MPEG audio: an ID3 tag or a layer III frame."""
    return data[:3] == b"ID3" or _frame(data, 0) is not None


def lack(data: mmap | bytes) -> str:
    """What the file promises and does not hold, as the end of a sentence; "" when it is whole."""
    magic, kind = data[:4], data[8:12]
    if magic in (b"RIFF", b"RIFX", b"RF64") and kind == b"WAVE":
        return _chunks(data, "big" if magic == b"RIFX" else "little", b"data")
    if magic == b"FORM" and kind in (b"AIFF", b"AIFC"):
        return _chunks(data, "big", b"SSND")
    if magic == b"OggS":
        return _last_page(data)
    return _mpeg_lack(data) if is_mpeg(data) else ""


def mpeg_samples(data: mmap | bytes) -> int:
    """How many samples a channel of MPEG layer III decodes to, padding included; 0: unknown."""
    return sum(samples for _, _, samples in _frames(data))


def _chunks(data: mmap | bytes, order: Literal["little", "big"], wanted: bytes) -> str:
    at, wide = 12, 0  # wide: the 64-bit size that RF64 keeps in its first chunk
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], order)
        if name == b"ds64" and at + 24 <= len(data):
            wide = int.from_bytes(data[at + 16 : at + 24], "little")
        if name == wanted:
            size = wide if size == 0xFFFFFFFF and wide else size
            there = len(data) - at - 8
            endless = ENDLESS <= size <= 0xFFFFFFFF
            return "" if size <= there or endless else _cut(size, there)
        at += 8 + size + size % 2
    return "has no samples after its header"


def _last_page(data: mmap | bytes) -> str:
    at = data.rfind(b"OggS", max(0, len(data) - LAST_PAGE))
    table = data[at + 27 : at + 27 + data[at + 26]] if 0 <= at <= len(data) - 27 else b""
    if at < 0 or not table or at + 27 + len(table) + sum(table) > len(data):
        return "ends inside an Ogg page: it was cut"
    return ""


def _mpeg_lack(data: mmap | bytes) -> str:
    first, before, at, size, count = -1, -1, 0, 0, 0
    for here, length, _ in _frames(data):
        first = here if first < 0 else first
        before, at, size, count = at + size, here, length, count + 1
    if first < 0:
        return ""  # layers I and II, free format: libsndfile may know better
    partial = at + size > len(data)
    stated = _stated(data, first)
    # Encoders disagree whether the frame with the index counts itself.
    if stated and count - partial < stated - 1:
        return f"is cut: its header promises {stated} MPEG frames, {count - partial} are there"
    # Without an index, the last frame decides; one after junk may be no frame but a tag's bytes.
    if not stated and partial and before == at:
        return "ends inside an MPEG frame: it was cut"
    return ""


def _stated(data: mmap | bytes, at: int) -> int:
    """The number of frames in the index that VBR and most other encoders put first; 0: none."""
    head = data[at : at + 64]
    for name in (b"Xing", b"Info"):
        tag = head.find(name)
        if tag >= 0 and len(head) >= tag + 12 and head[tag + 7] & 1:
            return int.from_bytes(head[tag + 8 : tag + 12], "big")
    return 0


def _frames(data: mmap | bytes) -> Iterator[tuple[int, int, int]]:
    """(offset, bytes, samples) of each layer III frame; junk between frames is skipped."""
    at = 0
    if data[:3] == b"ID3" and len(data) >= 10:
        a, b, c, d = data[6:10]  # seven bits in each byte
        at = 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if data[5] & 16 else 0)
    sync, junk = b"", 0
    while 0 <= at < len(data) - 4 and junk < MOST_JUNK:
        frame = _frame(data, at) if data[at : at + 2] == sync or not sync else None
        if frame is None:
            junk += 1
            # Before the first frame any sync may be the one; after it, only the same kind.
            at = data.find(sync or b"\xff", at + 1)
            continue
        sync = data[at : at + 2]
        yield at, *frame
        at += frame[0]


def _frame(data: mmap | bytes, at: int) -> tuple[int, int] | None:
    """(bytes, samples) of the layer III frame that starts here; None when none does."""
    if at + 4 > len(data):
        return None
    (head,) = struct.unpack(">I", data[at : at + 4])
    version, layer = head >> 19 & 3, head >> 17 & 3
    step, pitch, pad = head >> 12 & 15, head >> 10 & 3, head >> 9 & 1
    if head >> 21 != 0x7FF or version == 1 or layer != 1 or step in (0, 15) or pitch == 3:
        return None
    kbps = (MPEG1_KBPS if version == 3 else MPEG2_KBPS)[step]
    samples = 1152 if version == 3 else 576
    return samples // 8 * kbps * 1000 // RATES[version][pitch] + pad, samples


def _cut(wanted: int, there: int) -> str:
    return f"is cut: its header promises {wanted} bytes of samples, {there} are there"
