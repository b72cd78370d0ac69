"""Sound in: a file or an array becomes float32 mono at the model's rate, or one clear sentence.

The bounds hold before anything is decoded or resampled: at most an hour, and at most 256 MiB of
float32, both as the file holds it (all channels) and at the model's rate.
"""

from __future__ import annotations

import io
import os
import stat
import time
from contextlib import ExitStack
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO, BinaryIO, Literal

import numpy as np
import soundfile
import soxr

from alm.audio import arrays, by_av, truncation
from alm.audio.bounds import BLOCK, MOST_SECONDS, RATES, Bounds
from alm.audio.bounds import HOUR as HOUR
from alm.audio.bounds import MOST_BYTES as MOST_BYTES
from alm.audio.containers import contents, foreign, shell, way_out
from alm.audio.levels import Levels
from alm.audio.windows import windows as windows
from alm.errors import BadAudio, BadOption, MissingFile
from alm.host.hush import hush
from alm.timings import OnStage

PADDING = 10_000  # samples that an MPEG header may say to drop at both ends together

Source = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | np.ndarray
    | tuple[np.ndarray, int]
)


@dataclass(frozen=True)
class Clip:
    """Mono sound: `pcm` float32 [samples], full scale 1.0, and `rate` in Hz.

    `source_rate` is what it was before it was resampled; `notes` say what is odd about it.
    """

    pcm: np.ndarray
    rate: int
    source_rate: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.pcm) / self.rate


def read(
    source: Source,
    rate: int,
    channel: Literal["first", "mean"] = "first",
    max_seconds: float = HOUR,
    max_bytes: int = MOST_BYTES,
    on_stage: OnStage | None = None,
) -> Clip:
    """The sound of `source` as float32 mono [samples] at `rate` Hz.

    `source` is a file (wav, flac, mp3, ogg, and what else libsndfile reads; with the package av
    also m4a, aac, webm, videos and what else FFmpeg reads) as a path, as its bytes or opened for
    reading bytes; an array that is at `rate` already; or (array, its rate). Arrays are [samples] or
    [samples, channels]; integers are scaled by their type's range, floats are taken as they are.
    `channel`: the first, or the mean.

    At most `max_seconds` long and `max_bytes` decoded; past one hour the bytes grow in proportion,
    so max_seconds=7200 allows twice `max_bytes`.

    `on_stage` is called after the stages "decode_audio" and, where it is needed, "resample".

    Raises MissingFile when there is no file, BadAudio when it holds no sound that can be used,
    MissingPackage when only av could read it, BadOption when an option is out of range.
    """
    check_options(rate, channel, max_seconds, max_bytes)
    bounds = Bounds(max_seconds, max_bytes * max(1.0, max_seconds / HOUR), int(rate))
    start = time.perf_counter()
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        pcm, source_rate, levels = _read_file(Path(source), channel, bounds)
    elif isinstance(source, bytes | bytearray | memoryview) or hasattr(source, "read"):
        name, data = contents(source, 2 * int(bounds.bytes))  # float64 takes twice
        pcm, source_rate, levels = _read_data(name, data, io.BytesIO(data), channel, bounds)
    else:
        name, (pcm, source_rate, levels) = "the array", arrays.read(source, channel, bounds)
    if on_stage:
        on_stage("decode_audio", start)
    start = time.perf_counter()
    pcm = _resample(pcm, source_rate, int(rate))
    if on_stage and source_rate != rate:
        on_stage("resample", start)
    return Clip(pcm, int(rate), source_rate, levels.notes(name, channel))


def check_options(
    rate: int, channel: str, max_seconds: float = HOUR, max_bytes: int = MOST_BYTES
) -> None:
    """Refuse, with BadOption, options that `read` does not take."""
    if not arrays.is_whole(rate) or rate not in RATES:
        raise BadOption(f"a model's rate is {RATES[0]} to {RATES[-1]} Hz, not {rate!r}")
    if channel not in ("first", "mean"):
        raise BadOption(f"channel is 'first' or 'mean', not {channel!r}")
    if not arrays.is_number(max_seconds) or not 0 < max_seconds <= MOST_SECONDS:
        raise BadOption(
            f"--max-audio-seconds (max_audio_seconds) is above 0 and at most {MOST_SECONDS:g}, a "
            f"day, not {max_seconds!r:.40}"
        )
    if max_bytes < 1:
        raise BadOption(f"max_bytes is positive, not {max_bytes!r}")


def _read_file(path: Path, channel: str, bounds: Bounds) -> tuple[np.ndarray, int, Levels]:
    with ExitStack() as stack:
        file = stack.enter_context(_open(path))
        data = stack.enter_context(mmap(file.fileno(), 0, access=ACCESS_READ))
        # By descriptor: libsndfile guesses nothing from the name, and reads what was checked.
        return _read_data(str(path), data, file.fileno(), channel, bounds)


def _read_data(
    name: str, data: mmap | bytes, file: int | BinaryIO, channel: str, bounds: Bounds
) -> tuple[np.ndarray, int, Levels]:
    """The sound of a file's bytes, which `file` reads as well."""
    with ExitStack() as stack:
        if kind := foreign(data):
            return by_av.read(name, data, kind, channel, bounds)
        if lack := truncation.lack(data):
            raise BadAudio(f"{name} {lack}")
        mpeg = truncation.is_mpeg(data)
        if mpeg:
            stack.enter_context(hush())
        try:
            sound = stack.enter_context(soundfile.SoundFile(file, closefd=False))
        except soundfile.LibsndfileError as error:
            if (kind := shell(data)) and by_av.there():  # a known container of an unknown codec
                return by_av.read(name, data, kind, channel, bounds)
            why = f"({_reason(error)}); wanted wav, flac, mp3 or ogg"
            raise BadAudio(f"{name} is not audio that can be read {why}") from None
        frames = sound.frames
        if frames >= 2**62 or (mpeg and frames + PADDING < truncation.mpeg_samples(data)):
            if by_av.there():  # which counts what there is
                return by_av.read(name, data, sound.format, channel, bounds)
            raise BadAudio(f"{name} does not say truly how long it is; {way_out(name)}")
        bounds.check(name, frames, sound.channels, sound.samplerate)
        return _decode(name, sound, channel, short=mpeg or sound.format == "OGG")


def _open(path: Path) -> BinaryIO:
    """A file that is there, regular and not empty."""
    try:
        info = path.stat()
        # Only then: opening a pipe would wait for its writer.
        file = path.open("rb") if stat.S_ISREG(info.st_mode) and info.st_size else None
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFile(f"there is no file {path}; wanted an audio file") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise BadAudio(f"{str(path)!r} cannot be read ({why}); wanted an audio file") from None
    if file is None:
        what = "a folder" if path.is_dir() else "not a regular file"
        what = "empty" if stat.S_ISREG(info.st_mode) else what
        raise BadAudio(f"{path} is {what}; wanted an audio file")
    return file


def _decode(
    name: str, sound: soundfile.SoundFile, channel: str, short: bool
) -> tuple[np.ndarray, int, Levels]:
    """`short`: the header's count is an estimate, fewer samples are no damage."""
    rate, frames = sound.samplerate, sound.frames
    pcm, done, levels = np.empty(frames, np.float32), 0, Levels(sound.channels)
    while done < frames:
        wanted = min(frames - done, max(1, BLOCK // sound.channels))
        try:
            block = sound.read(wanted, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            after = f"after {done / rate:.1f} s of {frames / rate:.1f} s"
            raise BadAudio(f"{name} is cut or damaged {after} ({_reason(error)})") from None
        levels.add(name, block, done, rate)
        pcm[done : done + len(block)] = arrays.mono(block, channel)
        done += len(block)
        if len(block) < wanted:
            break
    if done < frames and (not short or not done):
        raise BadAudio(f"{name} is cut: its header promises {frames} samples, {done} are there")
    return (pcm if done == frames else pcm[:done].copy()), rate, levels


def _resample(pcm: np.ndarray, source_rate: int, rate: int) -> np.ndarray:
    if source_rate == rate:
        return pcm
    # soxr gives nothing for less than one sample at the new rate: then the first is kept.
    resampled = np.asarray(soxr.resample(pcm, source_rate, rate, quality="HQ"), np.float32)
    return resampled if len(resampled) else pcm[:1]


def _reason(error: soundfile.LibsndfileError) -> str:
    return error.error_string.strip().rstrip(".")
