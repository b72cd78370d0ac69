"""How long and large sound may be: held before it is decoded, and while it is."""

from __future__ import annotations

from dataclasses import dataclass

from alm.errors import BadAudio

HOUR = 3600.0  # seconds
MOST_SECONDS = 24 * HOUR  # that may be allowed: at 16 kHz the samples are 5.5 GB by then
MOST_BYTES = 256 * 2**20
RATES = range(1_000, 768_001)  # Hz that are resampled; beyond lie broken headers
BLOCK = 2**18  # samples of all channels decoded at a time


@dataclass(frozen=True)
class Bounds:
    """At most so many seconds, and bytes of float32, all channels or at the model's `rate`."""

    seconds: float
    bytes: float
    rate: int  # the model's

    def check(self, name: str, frames: int, channels: int, rate: int) -> None:
        """Refuse sound that is empty, too long or too large; `rate` is the sound's own.

        Raises:
            BadAudio: it is.
        """
        if rate not in RATES:
            wanted = f"{RATES[0]} to {RATES[-1]} Hz"
            raise BadAudio(f"{name} has a sample rate of {rate} Hz; wanted {wanted}")
        if frames < 1:
            raise BadAudio(f"{name} holds no samples; wanted at least one")
        seconds = frames / rate
        if seconds > self.seconds:
            raise BadAudio(
                f"{name} lasts {seconds:.1f} s, and at most {self.seconds:g} s was wanted; cut it, "
                f"or allow more: --max-audio-seconds {int(seconds) + 1}"
            )
        need = self._need(frames, channels, rate)
        if need > self.bytes:
            # The byte bound grows with max_seconds, so this is what would let the sound in.
            enough = int(max(self.seconds, HOUR) * need / self.bytes) + 1
            raise BadAudio(
                f"{name} decodes to {need / 2**20:.0f} MiB ({seconds:.0f} s, {channels} channels, "
                f"{rate} Hz), and at most {self.bytes / 2**20:.0f} MiB was wanted; cut it, or "
                f"allow more: --max-audio-seconds {enough}"
            )

    def check_so_far(self, name: str, frames: int, channels: int, rate: int) -> None:
        """Refuse sound of which so much is decoded and nobody knows how much comes.

        Raises:
            BadAudio: it is too long or large already.
        """
        if frames / rate > self.seconds:
            raise BadAudio(
                f"{name} lasts longer than the {self.seconds:g} s that were wanted; cut it, or "
                "allow more: --max-audio-seconds S"
            )
        if self._need(frames, channels, rate) > self.bytes:
            raise BadAudio(
                f"{name} decodes to more than the {self.bytes / 2**20:.0f} MiB that were wanted "
                f"({channels} channels, {rate} Hz); cut it, or allow more: --max-audio-seconds S"
            )

    def _need(self, frames: int, channels: int, rate: int) -> float:
        return max(frames * channels, frames / rate * self.rate) * 4
