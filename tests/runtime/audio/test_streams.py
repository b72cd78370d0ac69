"""Bytes of sound as they come are the samples of the whole, whatever the encoding and the cuts."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from alm.audio.streams import ALAW, PCM16, ULAW, Bytes, Resampled
from alm.errors import BadOption


@pytest.mark.parametrize(("encoding", "subtype"), [(ULAW, "ULAW"), (ALAW, "ALAW")])
def test_telephones_bytes_are_read_as_libsndfile_reads_them(encoding: str, subtype: str) -> None:
    every = bytes(range(256))
    form: Any = dict(samplerate=8000, channels=1, format="RAW", subtype=subtype, dtype="float32")
    wanted = soundfile.read(io.BytesIO(every), **form)[0]
    assert np.array_equal(Bytes(encoding, 8000, 8000).feed(every), wanted)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("size", [1, 7, 960, 10**6])
def test_bytes_may_be_cut_anywhere(rate: int, size: int) -> None:
    samples = (9000 * np.sin(np.arange(6000) / 9)).astype("<i2")
    stream, data = Bytes(PCM16, rate, 16_000), samples.tobytes() + b"\1"
    got = [stream.feed(data[at : at + size]) for at in range(0, len(data), size)]
    got.append(stream.finish())
    plain = samples.astype(np.float32) / 32768
    wanted = plain if rate == 16_000 else soxr.resample(plain, rate, 16_000, quality="HQ")
    assert np.allclose(np.concatenate(got), wanted, atol=1e-6)


def test_behind_its_end_another_stream_begins() -> None:
    stream, pcm = Resampled(24_000, 16_000), np.ones(2400, np.float32)
    first, again = (np.concatenate([stream.feed(pcm), stream.finish()]) for _ in range(2))
    assert np.array_equal(first, again) and len(first) == 1600


def test_other_encodings_and_rates_are_refused() -> None:
    for encoding, rate in (("opus", 16_000), (PCM16, 4000), (PCM16, 96_000), (ULAW, 16_000)):
        with pytest.raises(BadOption):
            Bytes(encoding, rate, 16_000)
