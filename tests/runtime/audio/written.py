"""Files that PyAV writes for tests: any container and codec, with or without pictures."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np


def written(
    pcm: np.ndarray,
    rate: int,
    container: str,
    codec: str,
    *,
    pictures: str = "",
    late: float = 0.0,
    piped: bool = False,
    **options: str,
) -> bytes:
    """float32 [channels, samples] as a file; `late` seconds after its pictures, which are noise.

    `piped`: the writer cannot seek back, and so leaves out what it knows only at the end.
    """
    buffer = io.BytesIO()
    target: Any = _Pipe(buffer) if piped else buffer
    with av.open(target, "w", format=container, options=options) as file:
        sound: Any = file.add_stream(codec, rate=rate)
        sound.layout = "mono" if len(pcm) == 1 else "stereo"
        if codec.startswith("wma"):
            sound.bit_rate = 128_000
        packets = _sound(sound, pcm, rate, late)
        if pictures:
            packets += _pictures(file.add_stream(pictures, rate=10), pcm.shape[1] / rate + late)
        packets.sort(key=lambda packet: packet.pts * packet.time_base)
        file.start_encoding()  # a file without packets has a header too
        for packet in packets:
            file.mux(packet)
    return buffer.getvalue()


def _sound(stream: Any, pcm: np.ndarray, rate: int, late: float) -> list[Any]:
    if not pcm.size:
        return stream.encode(None)
    whole = av.AudioFrame.from_ndarray(pcm, format="fltp", layout=stream.layout.name)
    whole.sample_rate = rate
    size = stream.codec_context.frame_size or 1024
    cut = av.AudioResampler(stream.format, stream.layout, rate, frame_size=size)
    frames, packets, at = [*cut.resample(whole), *cut.resample(None)], [], round(late * rate)
    for frame in frames:
        frame.pts, at = at, at + frame.samples
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _pictures(stream: Any, seconds: float) -> list[Any]:
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    chance, packets = np.random.default_rng(0), []
    for number in range(int(seconds * 10)):
        noise = chance.integers(0, 255, (96, 64), dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(noise, format="yuv420p")
        frame.pts = number
        packets += stream.encode(frame)
    return packets + stream.encode(None)


class _Pipe:
    def __init__(self, buffer: io.BytesIO) -> None:
        self.write = buffer.write
