"""Is a container of FFmpeg's all there? Looked at here, since FFmpeg reads a cut one in silence.

What is cut between two of its elements, and says nowhere how long it is, cannot be told from a
whole one: a recording that a browser streams may end anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from mmap import mmap

from alm.audio.containers import PACKET, is_adts, is_transport

EBML, SEGMENT, CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"udta", b"sidx", b"styp", b"mfra")
MOST = 2_000_000  # elements that are walked: 10 hours of frames, and no time for a bomb
ENDLESS = 0x7FFF0000  # sizes of writers that cannot seek back
AC3_KBPS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)


def lack(data: mmap | bytes) -> str:
    """What is not there of a file, as the end of a sentence; "" where nothing is known to lack."""
    head = data[:12]
    if head[:4] == EBML.to_bytes(4, "big"):
        return _matroska(data)
    if head[4:8] in BOXES:
        return _ends(data, _boxes(data), "a box")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        size, there = int.from_bytes(head[4:8], "little"), len(data) - 8
        return _short(size, there) if there < size < ENDLESS else ""
    if is_adts(head):
        return _ends(data, _adts(data), "a frame")
    if head[:2] == b"\x0b\x77":
        return _ends(data, _ac3(data), "a frame")
    if head[:4] == b"FLV\x01":
        return _ends(data, _tags(data), "a tag")
    if is_transport(data) and len(data) % PACKET:
        return "ends inside a packet: it was cut"
    return ""


def _ends(data: mmap | bytes, ends: Iterator[int], what: str) -> str:
    """Whether the last of a file's elements, each given by its end, is not all there."""
    for end in islice(ends, MOST):
        if end > len(data):
            return f"ends inside {what}: it was cut"
    return ""


def _short(size: int, there: int) -> str:
    return f"is cut: its header promises {size} bytes, {there} are there"


def _boxes(data: mmap | bytes) -> Iterator[int]:
    """Ends of the boxes of ISO/IEC 14496-12 that a file is made of."""
    at = 0
    while data[at + 4 : at + 8] in BOXES:  # what else follows is a tag or damage
        size = int.from_bytes(data[at : at + 4], "big")
        size = int.from_bytes(data[at + 8 : at + 16], "big") if size == 1 else size
        if size < 8:  # 0: it lasts until the end
            return
        at += size
        yield at


def _tags(data: mmap | bytes) -> Iterator[int]:
    """Ends of the tags of Flash video: a size before each, four bytes behind it."""
    at = int.from_bytes(data[5:9], "big") + 4
    while at < len(data):
        at += 11 + int.from_bytes(data[at + 1 : at + 4], "big")
        yield at
        at += 4


def _adts(data: mmap | bytes) -> Iterator[int]:
    """Ends of the frames of AAC, each of which says its length."""
    at = 0
    while is_adts(head := data[at : at + 7]):
        length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5 if len(head) == 7 else 7
        at += max(7, length)
        yield at


def _ac3(data: mmap | bytes) -> Iterator[int]:
    """Ends of the frames of AC-3 (ATSC A/52, table 5.18) and of Enhanced AC-3."""
    at = 0
    while (head := data[at : at + 6])[:2] == b"\x0b\x77":
        if len(head) < 6:
            length = 6
        elif head[5] >> 3 > 10:  # enhanced
            length = 2 * (((head[2] & 7) << 8 | head[3]) + 1)
        else:
            rate, code = head[4] >> 6, head[4] & 63
            if rate == 3 or code >= 2 * len(AC3_KBPS):
                return
            kbps = AC3_KBPS[code >> 1]
            odd = 2 * (kbps * 96_000 // 44_100 + (code & 1))
            length = (kbps * 4, odd, kbps * 6)[rate]
        at += length
        yield at


def _matroska(data: mmap | bytes) -> str:
    """Walks the elements (RFC 8794); an unknown size lasts until the next of its level."""
    at = 0
    for _ in range(MOST):
        if at >= len(data):
            break
        name, size, body = _element(data, at)
        if name == SEGMENT and size is not None and 0 < body < body + size > len(data):
            return _short(size, len(data) - body)
        if body < 0 or body > len(data):
            return _ends(data, iter([len(data) + 1]), "an element")
        if size is None and name not in (SEGMENT, CLUSTER):
            return ""  # only these may be endless; FFmpeg will say
        # Into segments, and into clusters of unknown size; past all else.
        at = body if name == SEGMENT or size is None else body + size
    return _ends(data, iter([at]), "an element")


def _element(data: mmap | bytes, at: int) -> tuple[int, int | None, int]:
    """(its name, its size or None where it is unknown, where its body begins); -1: cut in it."""
    at_size = at + 9 - data[at].bit_length()
    if at_size - at > 4 or at_size >= len(data):
        return 0, 0, -1
    name = int.from_bytes(data[at:at_size], "big")
    count = 9 - data[at_size].bit_length()
    if count > 8 or at_size + count > len(data):
        return 0, 0, -1
    endless = (1 << 7 * count) - 1
    size = int.from_bytes(data[at_size : at_size + count], "big") & endless
    return name, None if size == endless else size, at_size + count
