"""Where a live run's samples come from: raw bytes of a pipe, a file read on, a microphone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

from alm.audio import reader
from alm.audio.streams import Resampled
from alm.errors import BadAudio, MissingFile, MissingPackage

BYTES = 2**16  # of a pipe at a time, at most
SECONDS = 0.08  # of a microphone, or a file, at a time


def pcm(stream: BinaryIO) -> Iterator[np.ndarray]:
    """Chunks float32 [n] of raw samples, 16 bits little-endian, one channel: as they come."""
    rest = b""
    read = getattr(stream, "read1", stream.read)  # what there is, and not what fills a buffer
    while block := read(BYTES):
        block = rest + block
        whole = len(block) - len(block) % 2
        rest = block[whole:]
        yield np.frombuffer(block[:whole], "<i2").astype(np.float32) / 32768


def file(path: Path, rate: int, channel: Any, most_seconds: float) -> Iterator[np.ndarray]:
    """Chunks float32 [n] of a file: of the model's rate and one channel, without holding it whole.

    Any other is decoded first, as that of a clip.

    Raises:
        MissingFile: there is none.
        BadAudio: it is no sound, or longer than `most_seconds`.
    """
    if not path.exists():
        raise MissingFile(f"there is no file {path}; wanted an audio file")
    block = int(SECONDS * rate)
    plain = _plain(path, rate, most_seconds)
    if plain is None:
        whole = reader.read(path, rate, channel, most_seconds).pcm
        yield from (whole[at : at + block] for at in range(0, len(whole), block))
        return
    with plain as sound:
        while len(some := sound.read(block, dtype="float32")):
            if not np.isfinite(some).all():
                raise BadAudio(f"{path} holds a sample that is not a finite number")
            yield some


def _plain(path: Path, rate: int, most_seconds: float) -> soundfile.SoundFile | None:
    """The file opened, if it can be read on; None where it must be decoded as a whole."""
    try:
        sound = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, OSError):
        return None  # what is wrong with it, the reader says
    alike = sound.samplerate == rate and sound.channels == 1 and sound.format in ("WAV", "FLAC")
    if alike and 0 < sound.frames <= most_seconds * rate:
        return sound
    sound.close()
    return None


def microphone(rate: int, on_lost: Callable[[], object] = lambda: None) -> Iterator[np.ndarray]:
    """Chunks float32 [n] of the system's microphone, until the run is interrupted.

    One that does not record at `rate` is resampled. `on_lost` is called when sound was lost because
    it was not read in time.

    Raises:
        MissingPackage: sounddevice is not installed, or finds no microphone.
    """
    try:
        import sounddevice  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:  # OSError: it is there, and PortAudio is not
        raise MissingPackage(
            "a microphone is heard through the package sounddevice, which is not installed: pip "
            "install 'alm-edge[microphone]', or pipe raw samples in: arecord -t raw -f S16_LE -r "
            f"{rate} | alm-run --live -"
        ) from error
    try:
        own = _recorded(sounddevice, rate)
        resampled = Resampled(own, rate)
        with sounddevice.InputStream(samplerate=own, channels=1, dtype="float32") as stream:
            while True:
                some, lost = stream.read(int(SECONDS * own))
                if lost:
                    on_lost()
                yield resampled.feed(some[:, 0].copy())
    except sounddevice.PortAudioError as error:
        raise MissingPackage(f"sounddevice finds no microphone: {error}") from error


def _recorded(sounddevice: Any, rate: int) -> int:
    """The rate to record at: the model's, or the microphone's own where it knows no other."""
    try:
        sounddevice.check_input_settings(samplerate=rate, channels=1, dtype="float32")
    except sounddevice.PortAudioError:
        return round(sounddevice.query_devices(kind="input")["default_samplerate"])
    return rate
