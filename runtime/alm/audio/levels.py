"""What a recording's samples are like, measured while they are decoded, and what is odd in them."""

from __future__ import annotations

import numpy as np

from alm.errors import BadAudio

# int32's scale. Beyond it lies no recording, and the spectra's float32 would overflow.
MOST_PEAK = 2.0**31
SCALED = 16.0  # full scale is 1: mixing and filters overshoot it a few times, integers by thousands
SILENT = 2.0**-15  # one step of 16 bits: what dither leaves of nothing
APART = 0.01  # of the loudest channel's energy: a difference of 20 dB below it can be heard
CANCELLED = 1e-3  # of the channels' energy that is left in their mean: 30 dB below


class Levels:
    """The peak and the channels' energies of one recording, block by block."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.peak = 0.0
        self.said: list[str] = []  # notes of whoever decodes it
        self._energy = np.zeros(channels)
        self._apart = np.zeros(channels)  # energy of the difference to the first channel
        self._mean = 0.0

    def add(self, name: str, block: np.ndarray, start: int, rate: int) -> None:
        """Measure float32 [samples, channels], which begin at sample `start`.

        Raises:
            BadAudio: a sample that is no finite number, or on no recording's scale.
        """
        bad = ~np.isfinite(block).all(axis=1)
        if bad.any():
            at = start + int(bad.argmax())
            where = f"number {at}, at {at / rate:.3f} s"
            raise BadAudio(f"{name} has a sample that is not a finite number: {where}")
        peak = max(float(block.max()), -float(block.min())) if block.size else 0.0
        if peak > MOST_PEAK:
            raise BadAudio(
                f"{name} has samples up to {peak:.3g}, and full scale is 1.0: that is no recording"
            )
        self.peak = max(self.peak, peak)
        if self.channels > 1:
            wide = block.astype(np.float64)
            self._energy += np.einsum("nc,nc->c", wide, wide)
            self._mean += float(np.square(wide.mean(axis=1)).sum())
            wide -= wide[:, :1].copy()
            self._apart += np.einsum("nc,nc->c", wide, wide)

    def notes(self, name: str, channel: str) -> tuple[str, ...]:
        """What a listener should know; `channel` is the one that is heard, first or mean."""
        notes = [*self.said]
        loudest = float(self._energy.max())
        if self.peak > SCALED:
            notes.append(
                f"{name} has samples up to {self.peak:.6g}, and full scale is 1.0; if they are "
                "16-bit integers stored as floats, divide them by 32768"
            )
        if self.peak <= SILENT:
            notes.append(f"{name} holds nothing but silence")
        elif channel == "first" and self._energy[0] < 1e-6 * loudest:
            notes.append(
                f"only the first of the {self.channels} channels of {name} was heard, and it is "
                "silent while another is not"
            )
        elif channel == "first" and float(self._apart.max()) > APART * loudest:
            notes.append(
                f"only the first of the {self.channels} channels of {name} was heard, and they "
                "differ"
            )
        elif channel == "mean" and self._mean < CANCELLED * float(self._energy.mean()):
            notes.append(
                f"the {self.channels} channels of {name} cancel each other: their mean, which was "
                "heard, is nearly silent"
            )
        return tuple(notes)
