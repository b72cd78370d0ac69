"""The bytes of an .alm file around its members: a zip file that can be written in one way only.

Members are stored, not compressed, and begin at multiples of ALIGNED, so that weights are mapped in
place. Names, sizes and CRCs decide every other byte: whoever reads such a file makes them again and
compares. Duplicate names, sizes that lie, overlaps, gaps, links and comments are no layout.

Format: APPNOTE.TXT 6.3.10 of PKWARE, with zip64 where a size or a place wants it; the padding is
the extra field 0xd935, as Android's zipalign writes it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from alm.errors import BadArtifacts
from alm.parsing import check_name, printable

ALIGNED = 4096
FLAGS = 0x0800  # names are UTF-8
DATE = 0x0021  # 1980-01-01, the first that there is
MADE_BY, MODE = 0x031E, 0o100644 << 16
PADDING = 0xD935
WIDE16, WIDE32 = 0xFFFF, 0xFFFFFFFF  # where a number lies in zip64's records
MOST_MEMBERS = 4096
MOST_TAIL = 2**23  # bytes of the central directory and what follows it
MOST_BYTES = 2**62  # of all members
LOCAL, CENTRAL, END = 0x04034B50, 0x02014B50, 0x06054B50
END64, LOCATOR64 = 0x06064B50, 0x07064B50
END_BYTES, END64_BYTES, LOCATOR_BYTES = 22, 56, 20


@dataclass(frozen=True)
class Member:
    """A file inside: its name, its bytes, their CRC-32, and where they begin."""

    name: str
    bytes: int
    crc: int
    start: int = 0


@dataclass(frozen=True)
class Layout:
    """Where everything is, and the bytes that are no member's."""

    members: tuple[Member, ...]
    headers: tuple[bytes, ...]  # each ends where its member begins
    tail: bytes
    tail_start: int

    @property
    def bytes(self) -> int:
        """Of the whole file."""
        return self.tail_start + len(self.tail)


def compose(members: Sequence[Member]) -> Layout:
    """The layout of these members, in this order.

    Raises:
        BadArtifacts: names that may not be, two of them alike, too many members, or too large.
    """
    names = [member.name for member in members]
    for name in names:
        check_name(name)
    if len(set(names)) != len(names) or len(names) > MOST_MEMBERS:
        raise BadArtifacts(f"it has two members of one name, or more than {MOST_MEMBERS}")
    if sum(member.bytes for member in members) > MOST_BYTES:
        raise BadArtifacts(f"its members have more than {MOST_BYTES} bytes")
    at, placed, headers, central = 0, [], [], []
    for member in members:
        header = _local(member, at)
        placed.append(Member(member.name, member.bytes, member.crc, at + len(header)))
        headers.append(header)
        central.append(_central(member, at))
        at += len(header) + member.bytes
    directory = b"".join(central)
    tail = directory + _end(len(members), len(directory), at)
    return Layout(tuple(placed), tuple(headers), tail, at)


def read(stream: IO[bytes], size: int, where: str) -> Layout:
    """The layout of an open file of `size` bytes; no member is read.

    Raises:
        BadArtifacts: a byte between the members is another than `compose` writes.
    """
    layout = compose(_listed(stream, size, where))
    if layout.bytes != size or _at(stream, layout.tail_start, len(layout.tail)) != layout.tail:
        raise foreign(where, "its directory does not say where its members are")
    for member, header in zip(layout.members, layout.headers, strict=True):
        if _at(stream, member.start - len(header), len(header)) != header:
            name = printable(member.name, 100)
            raise foreign(where, f"the header of {name!r} is not what the directory says")
    return layout


def foreign(where: str, why: str) -> BadArtifacts:
    """The sentence about a file that `alm pack` did not write."""
    return BadArtifacts(f"{where} is no .alm file that alm pack wrote: {why}")


def _listed(stream: IO[bytes], size: int, where: str) -> list[Member]:
    """What the central directory lists."""
    end = _at(stream, size - END_BYTES, END_BYTES) if size >= END_BYTES else b""
    if len(end) != END_BYTES or end[:4] != struct.pack("<I", END) or end[-2:] != b"\0\0":
        raise foreign(where, "it does not end as one")
    count, length, start = struct.unpack("<8xHxxII2x", end)
    if WIDE16 == count or WIDE32 in (length, start):
        before = size - END_BYTES - LOCATOR_BYTES - END64_BYTES
        record = _at(stream, before, END64_BYTES) if before >= 0 else b""
        if len(record) != END64_BYTES or record[:4] != struct.pack("<I", END64):
            raise foreign(where, "it does not end as one")
        count, length, start = struct.unpack("<32xQQQ", record)
    if count > MOST_MEMBERS or length > MOST_TAIL or start + length > size:
        raise foreign(where, f"it lists {count} members in {length} bytes")
    directory, at, members = _at(stream, start, length), 0, list[Member]()
    for _ in range(count):
        member, at = _entry(directory, at, where)
        members.append(member)
    return members


def _entry(directory: bytes, at: int, where: str) -> tuple[Member, int]:
    """A member of the directory, and where the next one begins."""
    fixed = directory[at : at + 46]
    if len(fixed) != 46 or fixed[:4] != struct.pack("<I", CENTRAL):
        raise foreign(where, "its directory ends too early")
    crc, _, size, name_bytes, extra_bytes = struct.unpack("<16xIIIHH14x", fixed)
    name = directory[at + 46 : at + 46 + name_bytes]
    extra = directory[at + 46 + name_bytes : at + 46 + name_bytes + extra_bytes]
    if size == WIDE32:
        if len(extra) < 12:
            raise foreign(where, "a size is missing")
        (size,) = struct.unpack("<4xQ", extra[:12])
    try:
        return Member(name.decode("utf-8"), size, crc), at + 46 + name_bytes + extra_bytes
    except UnicodeDecodeError:
        raise foreign(where, "a name is not UTF-8") from None


def _local(member: Member, at: int) -> bytes:
    name, wide = member.name.encode(), member.bytes >= WIDE32
    extra = struct.pack("<HHQQ", 1, 16, member.bytes, member.bytes) if wide else b""
    padding = -(at + 30 + len(name) + len(extra) + 6) % ALIGNED
    extra += struct.pack("<HHH", PADDING, 2 + padding, ALIGNED) + bytes(padding)
    size = WIDE32 if wide else member.bytes
    numbers = (45 if wide else 20, FLAGS, 0, 0, DATE, member.crc, size, size)
    return struct.pack("<IHHHHHIIIHH", LOCAL, *numbers, len(name), len(extra)) + name + extra


def _central(member: Member, at: int) -> bytes:
    name, wide, far = member.name.encode(), member.bytes >= WIDE32, at >= WIDE32
    extra = struct.pack("<QQ", member.bytes, member.bytes) if wide else b""
    extra += struct.pack("<Q", at) if far else b""
    extra = struct.pack("<HH", 1, len(extra)) + extra if extra else b""
    size = WIDE32 if wide else member.bytes
    numbers = (MADE_BY, 45 if wide or far else 20, FLAGS, 0, 0, DATE, member.crc, size, size)
    places = (len(name), len(extra), 0, 0, 0, MODE, WIDE32 if far else at)
    return struct.pack("<IHHHHHHIIIHHHHHII", CENTRAL, *numbers, *places) + name + extra


def _end(count: int, length: int, start: int) -> bytes:
    end, wide = b"", start >= WIDE32 or length >= WIDE32
    if wide:
        numbers = (END64_BYTES - 12, MADE_BY, 45, 0, 0, count, count, length, start)
        end = struct.pack("<IQHHIIQQQQ", END64, *numbers)
        end += struct.pack("<IIQI", LOCATOR64, 0, start + length, 1)
    places = (WIDE32, WIDE32) if wide else (length, start)
    return end + struct.pack("<IHHHHIIH", END, 0, 0, count, count, *places, 0)


def _at(stream: IO[bytes], start: int, count: int) -> bytes:
    stream.seek(start)
    return stream.read(count)
