"""The way of sound into the model: a tone in files of several rates, channels and codecs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from alm.audio import reader
from alm.doctor.finding import LEFT_OUT, OK, WRONG, Finding
from alm.errors import AlmError

SECONDS, HZ, LEVEL = 1.0, 440.0, 0.5
# Rate, channels, libsndfile's format and its subtype; how far the level and the length may be off.
FILES = (
    (8000, 1, "WAV", "PCM_16", 0.02, 0.005),
    (16000, 1, "WAV", "PCM_16", 0.02, 0.005),
    (44100, 2, "WAV", "PCM_24", 0.02, 0.005),
    (48000, 2, "FLAC", "PCM_16", 0.02, 0.005),
    (44100, 2, "OGG", "VORBIS", 0.1, 0.02),
    (48000, 1, "MP3", "MPEG_LAYER_III", 0.1, 0.06),
)
OFF = 2.0  # Hz


def check(rate: int, channel: Any) -> Iterator[Finding]:
    """One finding for each kind of file: length, pitch and level of the tone at the model's rate.

    The second channel holds another tone, at half the level: `channel` says what is heard.
    """
    known = soundfile.available_formats()
    for there, channels, kind, subtype, level, length in FILES:
        name = f"{kind.lower()} {there} Hz, {channels} channel{'s' * (channels > 1)}"
        if kind not in known or subtype not in soundfile.available_subtypes(kind):
            what = "this libsndfile does not write it"
            yield Finding("audio", name, LEFT_OUT, what=what)
            continue
        try:
            clip = reader.read(_file(there, channels, kind, subtype), rate, channel)
        except AlmError as error:
            yield Finding("audio", name, WRONG, what=str(error))
            continue
        share = 0.5 if channel == "mean" and channels == 2 else 1.0
        wrong = _faults(clip.pcm, rate, LEVEL * share, level, length)
        way_out = (
            "install soundfile and soxr anew; check which libsndfile is loaded" if wrong else ""
        )
        verdict = WRONG if wrong else OK
        yield Finding("audio", name, verdict, what=wrong, way_out=way_out)


def _file(rate: int, channels: int, kind: str, subtype: str) -> bytes:
    time = np.arange(int(SECONDS * rate)) / rate
    tones = [LEVEL * np.sin(2 * np.pi * HZ * time), LEVEL / 2 * np.sin(2 * np.pi * 3 * HZ * time)]
    stream = io.BytesIO()
    pcm = np.stack(tones[:channels], 1).astype(np.float32)
    soundfile.write(stream, pcm, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def _faults(pcm: np.ndarray, rate: int, level: float, off: float, length: float) -> str:
    """What is wrong with the tone, in words."""
    seconds = len(pcm) / rate
    if abs(seconds - SECONDS) > length:
        return f"{seconds:.3f} s were heard of {SECONDS:.3f}"
    if not np.isfinite(pcm).all():
        return "samples are not finite"
    middle = pcm[rate // 4 : rate // 4 + rate // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 8 * rate))
    pitch = float(np.argmax(spectrum)) / 8
    if abs(pitch - HZ) > OFF:
        return f"a tone of {HZ:.0f} Hz is heard at {pitch:.1f} Hz"
    wave = np.exp(-2j * np.pi * HZ * np.arange(len(middle)) / rate)
    heard = 2 * abs(complex((middle * wave).mean()))
    if abs(heard - level) > off * level + 0.005:
        return f"a tone of level {level:.2f} is heard at {heard:.2f}"
    return ""
