"""Bytes of sound as they come, cut anywhere, to samples at the model's rate."""

from __future__ import annotations

import numpy as np
import soxr

from alm.errors import BadOption

PCM16, ULAW, ALAW = ENCODINGS = "pcm16", "ulaw", "alaw"
G711_RATE = 8_000  # Hz
RATES = range(8_000, 48_001)  # Hz that are taken


def _ulaw() -> np.ndarray:
    """Samples float32 [256] of the bytes of G.711's mu-law."""
    bits = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (bits >> 4) & 7, bits & 15
    size = (((mantissa.astype(np.int32) << 3) + 132) << exponent) - 132
    return (np.where(bits & 128, -size, size) / 32768).astype(np.float32)


def _alaw() -> np.ndarray:
    """Samples float32 [256] of the bytes of G.711's A-law."""
    bits = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent, mantissa = ((bits >> 4) & 7).astype(np.int32), (bits & 15).astype(np.int32)
    size = np.where(
        exponent, ((mantissa << 4) + 264) << np.maximum(exponent - 1, 0), (mantissa << 4) + 8
    )
    return (np.where(bits & 128, size, -size) / 32768).astype(np.float32)


class Bytes:
    """A stream of bytes, one channel: 16 bits little-endian, or G.711's 8 bits at 8 kHz."""

    def __init__(self, encoding: str, source_rate: int, rate: int) -> None:
        """`source_rate` is theirs in Hz, `rate` the model's.

        Raises:
            BadOption: no such encoding, or no such rate of it.
        """
        if encoding not in ENCODINGS:
            raise BadOption(f"an encoding is one of {', '.join(ENCODINGS)}, not {encoding!r:.40}")
        fits = source_rate in RATES if encoding == PCM16 else source_rate == G711_RATE
        if not fits:
            raise BadOption(
                f"{PCM16} is of {RATES[0]} to {RATES[-1]} Hz and G.711 of {G711_RATE} Hz, "
                f"not {source_rate!r:.40}"
            )
        self.encoding = encoding
        self._table = {ULAW: _ulaw, ALAW: _alaw}[encoding]() if encoding != PCM16 else None
        self._rest = b""
        self._resampled = Resampled(source_rate, rate)

    def feed(self, data: bytes) -> np.ndarray:
        """Samples float32 [n] that are certain now; a sample may be cut in two."""
        if self._table is not None:
            return self._resampled.feed(self._table[np.frombuffer(data, np.uint8)])
        data = self._rest + data
        whole = len(data) - len(data) % 2
        self._rest = data[whole:]
        return self._resampled.feed(np.frombuffer(data[:whole], "<i2").astype(np.float32) / 32768)

    def finish(self) -> np.ndarray:
        """The last samples; half a sample is dropped. What is fed then is another stream."""
        self._rest = b""
        return self._resampled.finish()


class Resampled:
    """A stream of samples at another rate: what the whole would be, a little behind."""

    def __init__(self, source_rate: int, rate: int) -> None:
        self._rates = source_rate, rate
        self._stream = self._begin()

    def _begin(self) -> soxr.ResampleStream | None:
        if self._rates[0] == self._rates[1]:
            return None
        return soxr.ResampleStream(*self._rates, 1, dtype="float32", quality="HQ")

    def feed(self, pcm: np.ndarray) -> np.ndarray:
        """Samples float32 [n] at the new rate that float32 [m] more make certain."""
        return self._stream.resample_chunk(pcm) if self._stream else pcm

    def finish(self) -> np.ndarray:
        """The last samples; what is fed then is another stream."""
        if not self._stream:
            return np.zeros(0, np.float32)
        last = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        self._stream = self._begin()
        return last
