"""Files of sound as bytes: those in memory or open, and those that libsndfile does not read."""

from __future__ import annotations

import shlex
from mmap import mmap
from typing import Any

from alm.errors import BadAudio

# How a file begins -> what it is; phones and browsers write most of these.
BEGINNINGS = {
    b"\x1a\x45\xdf\xa3": "WebM or Matroska",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "Windows Media (wma)",
    b"#!AMR": "AMR",
    b"MAC ": "Monkey's Audio",
    b"wvpk": "WavPack",
    b"TTA1": "True Audio",
    b"DSD ": "DSD",
    b"ADIF": "AAC",
    b"FLV\x01": "Flash video",
    b"\x0b\x77": "AC-3",
    b"\0\0\x01\xba": "MPEG program stream",
}
# Containers that libsndfile knows, and not every codec in them.
SHELLS = {b"OggS": "Ogg", b"RIFF": "WAV", b"caff": "Core Audio", b"FORM": "AIFF", b".snd": "AU"}
PACKET = 188  # bytes of an MPEG transport stream's


def foreign(data: mmap | bytes) -> str:
    """What kind of sound that libsndfile cannot read begins like this; "" where it may."""
    at = 0
    if data[:3] == b"ID3" and len(data) >= 10:
        a, b, c, d = data[6:10]  # seven bits in each byte
        at = 10 + (a << 21 | b << 14 | c << 7 | d)
    head = data[at : at + 16]
    if head[4:8] in (b"ftyp", b"moov", b"mdat"):
        return "MPEG-4 (m4a, mp4)"
    if is_adts(head):
        return "AAC"
    if head[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "AVI"
    if is_transport(data):
        return "MPEG transport stream"
    return next((kind for magic, kind in BEGINNINGS.items() if head.startswith(magic)), "")


def is_adts(head: bytes) -> bool:
    """Whether a frame of AAC begins like this: MPEG's sync, and layer 0, which is no MPEG layer."""
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


def is_transport(data: mmap | bytes) -> bool:
    """Whether packets of an MPEG transport stream follow each other."""
    return all(data[at : at + 1] == b"G" for at in (0, PACKET, 2 * PACKET))


def shell(data: mmap | bytes) -> str:
    """The container that this is, of those that may hold what libsndfile cannot read; or ""."""
    return SHELLS.get(bytes(data[:4]), "")


def way_out(name: str) -> str:
    """The command that makes a file of it that can be read."""
    path = shlex.quote(name if not name.startswith("-") else f"./{name}")
    return f"convert it: ffmpeg -i {path} sound.wav"


def contents(source: Any, most: int) -> tuple[str, bytes]:
    """A name for messages and the bytes of a file that is in memory or open."""
    if isinstance(source, bytes | bytearray | memoryview):
        name, data = "the audio", bytes(source)
    else:
        name = getattr(source, "name", None)
        name, data = name if isinstance(name, str) else "the audio", bytearray()
        try:
            while block := source.read(2**20):
                data += block
                if len(data) > most:
                    raise BadAudio(f"{name} holds more than {most >> 20} MiB; cut it")
        except (TypeError, OSError, ValueError) as error:
            if isinstance(error, BadAudio):
                raise
            raise BadAudio(f"{name} cannot be read as bytes ({error}); open it with 'rb'") from None
    if not data:
        raise BadAudio(f"{name} is empty; wanted an audio file")
    return name, bytes(data)
