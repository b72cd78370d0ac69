"""Sound that libsndfile does not read (m4a, aac, webm, videos, ..), decoded by FFmpeg through PyAV.

FFmpeg is given bytes that are open already, never a name: it opens nothing else, no file and no
network, and only the demuxers and decoders that are listed here may see the bytes. Of a video the
pictures are not decoded. The bounds of `audio.read` hold before anything is decoded, by what the
header promises, and at every block, since a header may lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from types import ModuleType
from typing import Any

import numpy as np

from alm.audio import arrays, cut
from alm.audio.bounds import RATES, Bounds
from alm.audio.containers import way_out
from alm.audio.levels import Levels
from alm.errors import AlmError, BadAudio, MissingPackage

# FFmpeg's names. Left out are lists of other files (concat, hls, dash), devices and raw data.
DEMUXERS = (
    *("mov", "matroska", "aac", "asf", "amr", "ape", "wv", "tta", "dsf", "iff", "flv", "ac3"),
    *("eac3", "avi", "mpegts", "mpeg", "ogg", "caf", "wav", "w64", "aiff", "au", "mp3", "flac"),
    *("dts", "mpc", "mpc8", "loas"),
)
DECODERS = (
    *("aac", "aac_latm", "mp3float", "mp3", "mp2float", "mp2", "mp1float", "mp1", "opus"),
    *("libopus", "vorbis", "flac", "alac", "ac3", "eac3", "dca", "truehd", "mlp", "wmav1", "wmav2"),
    *("wmapro", "wmavoice", "wmalossless", "amrnb", "amrwb", "libopencore_amrnb"),
    *("libopencore_amrwb", "ape", "wavpack", "tta", "mpc7", "mpc8", "dsd_lsbf", "dsd_msbf"),
    *("dsd_lsbf_planar", "dsd_msbf_planar", "gsm", "gsm_ms", "speex", "nellymoser", "ilbc"),
    *("adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "adpcm_swf", "adpcm_yamaha", "g722", "g726"),
    *("pcm_alaw", "pcm_mulaw", "pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le"),
    *("pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be"),
    *("pcm_bluray", "pcm_dvd"),
)
# Containers without a length of their own: FFmpeg estimates it by the bit rate.
ESTIMATED = ("aac", "ac3", "eac3", "mp3", "mpegts", "mpeg", "amr", "dts", "loas", "flv")
SHORT = 0.25  # seconds that a container may promise beyond its last frame: rounding and padding
LATE = 0.1  # seconds after the container's own start: a sound that begins later has silence before
CHANGED = "changes its rate or channels on the way"


def read(
    name: str, data: mmap | bytes, kind: str, channel: str, bounds: Bounds
) -> tuple[np.ndarray, int, Levels]:
    """Sound of `data` as float32 mono [samples], its rate, and what it is like.

    `kind` is what the container is taken for, in words; `channel` and `bounds` as in `audio.read`.

    Raises:
        MissingPackage: PyAV is not installed.
        BadAudio: it is cut, damaged or not to be read, or beyond the bounds.
    """
    av = _package(name, kind)
    if lack := cut.lack(data):
        raise BadAudio(f"{name}, {kind}, {lack}")
    decoded = _Decoded(name, channel, bounds)
    try:
        with _opened(av, data) as container:
            stream = container.streams.best("audio")
            if stream is None:
                raise BadAudio(f"{name} is {kind} and holds no sound; wanted an audio track")
            promised = _promised(container, stream)
            decoded.expect(stream, promised)
            _leave_out(av, container, stream)
            for frame in _frames(name, container, stream):
                decoded.add(frame, _late(container, frame))
            tracks = len(container.streams.audio)
    except AlmError:
        raise
    except EOFError:  # of a header alone; what is cut was refused
        decoded.result()
        raise BadAudio(f"{name}, {kind}, ends too early") from None
    except Exception as error:  # PyAV lets through what damage makes its own code stumble over
        raise BadAudio(_damaged(name, kind, decoded.seconds, error)) from None
    if decoded.seconds < promised - SHORT:
        there = f"{decoded.seconds:.1f} s are there"
        raise BadAudio(f"{name} is cut: its header promises {promised:.1f} s, {there}")
    if tracks > 1:
        decoded.notes.append(f"{name} holds {tracks} tracks of sound, of which one was heard")
    return decoded.result()


class _Decoded:
    """Blocks of samples as they are decoded, within the bounds."""

    def __init__(self, name: str, channel: str, bounds: Bounds) -> None:
        self.name, self.channel, self.bounds = name, channel, bounds
        self.rate, self.channels, self.done = 0, 0, 0
        self.levels: Levels | None = None
        self.notes: list[str] = []
        self._blocks: list[np.ndarray] = []

    @property
    def seconds(self) -> float:
        return self.done / self.rate if self.rate else 0.0

    def expect(self, stream: Any, promised: float) -> None:
        """Refuse what the header says is beyond the bounds."""
        rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
        if promised and rate in RATES:
            self.bounds.check(self.name, max(1, int(promised * rate)), max(1, channels), rate)

    def add(self, frame: Any, late: float) -> None:
        """Take a frame's samples, `late` seconds of silence before the first."""
        block = _samples(frame)
        if not len(block):
            return
        rate, channels = frame.sample_rate, block.shape[1]
        if self.levels is None:
            self.bounds.check(self.name, len(block), channels, rate)
            self.rate, self.channels, self.levels = rate, channels, Levels(channels)
            if late:
                silence = round(late * rate)
                self.bounds.check_so_far(self.name, silence, channels, rate)
                self._blocks.append(np.zeros(silence, np.float32))
                self.done += silence
                self.notes.append(f"the sound of {self.name} begins {late:.1f} s late")
        if (rate, channels) != (self.rate, self.channels):
            raise BadAudio(f"{self.name} {CHANGED}; {way_out(self.name)}")
        self.bounds.check_so_far(self.name, self.done + len(block), channels, rate)
        self.levels.add(self.name, block, self.done, rate)
        self._blocks.append(arrays.mono(block, self.channel).astype(np.float32))
        self.done += len(block)

    def result(self) -> tuple[np.ndarray, int, Levels]:
        """All samples, their rate and what they are like."""
        if self.levels is None:
            raise BadAudio(f"{self.name} holds no samples; wanted at least one")
        self.levels.said += self.notes
        return np.concatenate(self._blocks), self.rate, self.levels


class _Bytes:
    """A file of bytes that are in memory already; it has no name for FFmpeg to guess by."""

    def __init__(self, data: mmap | bytes) -> None:
        self._data, self._at = data, 0

    def read(self, count: int) -> bytes:
        some = self._data[self._at : self._at + count]
        self._at += len(some)
        return some

    def seek(self, offset: int, whence: int = 0) -> int:
        begin = (0, self._at, len(self._data))[whence]
        self._at = min(max(0, begin + offset), len(self._data))
        return self._at

    def tell(self) -> int:
        return self._at


def there() -> bool:
    """Whether PyAV is installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def _package(name: str, kind: str) -> ModuleType:
    try:
        import av
        import av.error
        import av.stream
    except ImportError as error:
        raise MissingPackage(
            f"{name} is {kind}, which is read through the package av, and that is not installed: "
            f"pip install 'alm-edge[av]', or {way_out(name)}"
        ) from error
    return av


def _opened(av: ModuleType, data: mmap | bytes) -> Any:
    allowed = {
        "format_whitelist": ",".join(DEMUXERS),
        "codec_whitelist": ",".join(DECODERS),
        "protocol_whitelist": "none",  # no such protocol: nothing else is opened
    }
    return av.open(
        _Bytes(data),
        "r",
        options=allowed,
        metadata_errors="replace",
        io_open=_refuse,  # what a container asks for beside its own bytes
    )


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    raise ValueError("it refers to another file")


def _promised(container: Any, stream: Any) -> float:
    """Seconds that the header promises; 0: it does not say, or it is an estimate."""
    names = container.format.name.split(",")
    if any(name in ESTIMATED for name in names):
        return 0.0
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    alone = len(container.streams) == 1  # pictures may last longer than the sound
    return float(container.duration) / 1e6 if container.duration and alone else 0.0


def _leave_out(av: ModuleType, container: Any, wanted: Any) -> None:
    """Skip what is not wanted where it is read, if this PyAV can."""
    if discard := getattr(av.stream, "Discard", None):
        for stream in container.streams:
            if stream is not wanted:
                stream.discard = discard.all


def _frames(name: str, container: Any, stream: Any) -> Iterator[Any]:
    for packet in container.demux(stream):
        if packet.is_corrupt:
            at = float(packet.pts * packet.time_base) if packet.pts is not None else 0.0
            raise BadAudio(f"{name} is cut or damaged at {at:.1f} s")
        yield from packet.decode()


def _late(container: Any, frame: Any) -> float:
    """Seconds by which the first frame comes after the container's beginning; 0: it does not."""
    if container.start_time is None or frame.time is None:
        return 0.0
    late = frame.time - container.start_time / 1e6
    return late if late > LATE else 0.0


def _samples(frame: Any) -> np.ndarray:
    """Samples float32 [samples, channels] of a frame, full scale 1.0."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    return arrays.to_float(np.ascontiguousarray(array.T))


def _damaged(name: str, kind: str, seconds: float, error: Exception) -> str:
    reason = (getattr(error, "strerror", None) or str(error)).strip().rstrip(".")
    after = f" after {seconds:.1f} s" if seconds else ""
    return f"{name} is {kind} that is cut, damaged or unknown to FFmpeg{after} ({reason:.200})"
