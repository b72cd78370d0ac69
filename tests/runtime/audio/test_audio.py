"""Sound in: every kind of file and array, the bounds, and one sentence for what is no sound."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import soundfile

from alm.audio import reader
from alm.errors import BadAudio, BadOption, MissingFile
from tests.reference import DIGITS, LIBRISPEECH


def tone(rate: int, seconds: float = 0.5, channels: int = 1, hertz: float = 440.0) -> np.ndarray:
    """Channel k is the tone at 0.5 / (k + 1): float32 [samples, channels]."""
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)
    return np.stack([wave / (k + 1) for k in range(channels)], axis=1).astype(np.float32)


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(BadAudio) as caught:
        reader.read(source, 16000, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(
    ("kind", "subtype", "near"),
    [
        ("wav", "PCM_U8", 1e-2),
        ("wav", "PCM_16", 1e-3),
        ("wav", "PCM_24", 1e-3),
        ("wav", "FLOAT", 1e-3),
        ("flac", "PCM_16", 1e-3),
        ("flac", "PCM_24", 1e-3),
    ],
)
def test_a_lossless_file_is_read_at_any_rate_width_and_channel_count(
    tmp_path: Path, rate: int, channels: int, kind: str, subtype: str, near: float
) -> None:
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, tone(rate, channels=channels), rate, subtype=subtype)
    clip = reader.read(path, 16000)
    assert clip.pcm.dtype == np.float32 and clip.pcm.shape == (8000,) and clip.rate == 16000
    middle = slice(400, -400)  # a resampler's ends ring
    np.testing.assert_allclose(clip.pcm[middle], tone(16000)[middle, 0], atol=near)


@pytest.mark.parametrize(
    ("kind", "subtype", "rate"),
    [
        *(("ogg", "VORBIS", rate) for rate in (8000, 16000, 44100, 48000)),
        *(("mp3", None, rate) for rate in (8000, 16000, 44100, 48000)),
        *(("ogg", "OPUS", rate) for rate in (8000, 16000, 48000)),  # no file of Opus has 44.1 kHz
    ],
)
def test_a_lossy_file_keeps_its_length_and_its_tone(
    tmp_path: Path, kind: str, subtype: str | None, rate: int
) -> None:
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, tone(rate, 2.0, channels=2), rate, subtype=subtype)
    clip = reader.read(path, 16000)
    assert clip.seconds == pytest.approx(2.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(clip.pcm[4000:20000]))
    assert spectrum.argmax() == 440


def test_a_tone_of_30_seconds_at_44100_hz_is_the_same_tone_at_16000_hz(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(44100, 30.0, hertz=1000.0), 44100, subtype="FLOAT")
    clip = reader.read(tmp_path / "a.wav", 16000)
    assert len(clip.pcm) == 480_000 and clip.seconds == 30.0
    spectrum = np.abs(np.fft.rfft(clip.pcm * np.hanning(480_000))) / 480_000 * 4
    assert spectrum.argmax() == 30_000  # bins of 1/30 Hz
    assert spectrum[30_000] == pytest.approx(0.5, rel=1e-3)
    assert np.delete(spectrum, range(29_900, 30_101)).max() < 1e-5  # no aliases


def test_real_speech_is_read() -> None:
    clip = reader.read(LIBRISPEECH[0], 16000)
    assert 10 < clip.seconds < 20 and 0.1 < np.abs(clip.pcm).max() <= 1
    digit = reader.read(DIGITS[0], 16000)
    assert 0.2 < digit.seconds < 2


def test_the_first_channel_is_taken_or_the_mean_when_asked() -> None:
    left, right = np.full(100, 0.5, np.float32), np.full(100, -0.25, np.float32)
    stereo = np.stack([left, right], axis=1)
    np.testing.assert_array_equal(reader.read(stereo, 16000).pcm, left)
    np.testing.assert_array_equal(reader.read(stereo, 16000, channel="mean").pcm, left / 4)
    loud = np.full((10, 2), 2e9, np.float32)
    np.testing.assert_array_equal(reader.read(loud, 16000, channel="mean").pcm, loud[:, 0])


@pytest.mark.parametrize(
    ("dtype", "low", "middle"),
    [
        ("int8", -128, 0),
        ("uint8", 0, 128),
        ("int16", -32768, 0),
        ("uint16", 0, 32768),
        ("int32", -(2**31), 0),
        ("int64", -(2**63), 0),
    ],
)
def test_integer_arrays_are_scaled_by_their_types_range(dtype: str, low: int, middle: int) -> None:
    clip = reader.read(np.array([low, middle], dtype), 16000)
    assert clip.pcm.dtype == np.float32 and clip.pcm.tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_bare_array_is_at_the_models_rate_and_is_copied(dtype: str) -> None:
    array = np.linspace(-1, 1, 1000).astype(dtype)
    clip = reader.read(array, 16000)
    np.testing.assert_array_equal(clip.pcm, array.astype(np.float32))
    array[:] = 0
    assert clip.pcm[0] == -1


def test_an_array_with_a_rate_is_resampled() -> None:
    assert len(reader.read((tone(8000)[:, 0], 8000), 16000).pcm) == 8000
    assert len(reader.read((tone(48000, channels=2), 48000), 16000).pcm) == 8000


@pytest.mark.parametrize("rate", [1000, 8000, 16000, 48000, 768000])
def test_silence_stays_silence_and_one_sample_is_enough(tmp_path: Path, rate: int) -> None:
    assert not reader.read((np.zeros(rate, np.float32), rate), 16000).pcm.any()
    assert len(reader.read((np.ones(1, np.float32), rate), 16000).pcm) >= 1
    soundfile.write(tmp_path / "one.wav", np.array([0.5], np.float32), rate, subtype="FLOAT")
    assert len(reader.read(tmp_path / "one.wav", 16000).pcm) >= 1


def test_no_samples_are_refused(tmp_path: Path) -> None:
    assert "no samples" in refused(np.zeros(0, np.float32))
    for kind in ("wav", "flac", "ogg"):
        path = tmp_path / f"none.{kind}"
        soundfile.write(path, np.zeros(0, np.float32), 16000)
        assert str(path) in refused(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel", [0, 1])
def test_a_sample_that_is_not_finite_is_named(tmp_path: Path, bad: float, channel: int) -> None:
    sound = tone(8000, 100.0, channels=2)
    sound[600_000, channel] = bad
    soundfile.write(tmp_path / "a.wav", sound, 8000, subtype="FLOAT")
    for source in (tmp_path / "a.wav", (sound, 8000)):
        assert "number 600000, at 75.000 s" in refused(source)


def test_a_float64_beyond_float32_is_not_finite() -> None:
    assert "number 1," in refused(np.array([0.0, 1e300]))


def test_more_than_an_hour_is_refused_unless_asked_for() -> None:
    sound = np.zeros(1000 * 3601, np.int16)
    assert "--max-audio-seconds 3602" in refused((sound, 1000), max_bytes=2**30)
    assert reader.read((sound, 1000), 1000, max_seconds=3602).seconds == 3601


def test_the_bytes_are_bounded_with_all_channels_and_at_the_models_rate(tmp_path: Path) -> None:
    stereo = np.zeros((1000, 2), np.float32)
    reader.read(stereo, 16000, max_bytes=8000)
    said = refused(stereo, max_bytes=7999)
    needed = float(said.split()[-1])
    reader.read(stereo, 16000, max_bytes=7999, max_seconds=needed)  # the advice helps
    assert "decodes to" in refused((np.zeros(1000, np.float32), 8000), max_bytes=7999)
    soundfile.write(tmp_path / "a.wav", stereo, 16000)
    assert str(tmp_path / "a.wav") in refused(tmp_path / "a.wav", max_bytes=7999)


def test_a_header_that_promises_days_is_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    soundfile.write(path, tone(16000)[:, 0], 16000)
    data = bytearray(path.read_bytes())
    (packed,) = struct.unpack(">Q", data[18:26])
    for total, answer in ((2**36 - 1, "lasts 4294967.3 s"), (8001, "cut")):
        data[18:26] = struct.pack(">Q", packed >> 36 << 36 | total)
        path.write_bytes(data)
        assert answer in refused(path)
    data[18:26] = struct.pack(">Q", packed >> 36 << 36)  # it does not say: FFmpeg counts
    path.write_bytes(data)
    assert reader.read(path, 16000).seconds == 0.5


@pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 2**31 - 1, 2**32 - 1])
def test_an_absurd_rate_is_refused(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16000), 16000)
    data = bytearray(path.read_bytes())
    data[24:28] = struct.pack("<I", rate)
    path.write_bytes(data)
    assert str(path) in refused(path)
    assert f"{rate} Hz" in refused((tone(16000), rate))


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("wav", "PCM_16"),
        ("wav", "FLOAT"),
        ("rf64", "PCM_16"),
        ("aiff", "PCM_16"),
        ("flac", "PCM_16"),
        ("ogg", "VORBIS"),
        ("ogg", "OPUS"),
        ("mp3", None),
    ],
)
@pytest.mark.parametrize("part", [0.05, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_is_refused(
    tmp_path: Path, kind: str, subtype: str | None, part: float, capfd: pytest.CaptureFixture[str]
) -> None:
    path, noise = tmp_path / f"a.{kind}", np.random.default_rng(0).normal(0, 0.1, 240_000)
    soundfile.write(path, noise.astype(np.float32), 24000, subtype=subtype)
    data = path.read_bytes()
    assert reader.read(path, 16000).seconds == pytest.approx(10, abs=0.1)
    path.write_bytes(data[: int(len(data) * part)])
    assert str(path) in refused(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_ends_where_the_file_ends(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16000), 16000)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", size)
    path.write_bytes(data)
    assert reader.read(path, 16000).seconds == 0.5


def mp3(path: Path, mode: str, seconds: float = 20.0) -> bytes:
    """Noise, then silence: with a variable bitrate, the first frames tell nothing of the rest."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.2, int(44100 * seconds / 2)).astype(np.float32)
    kind = {"format": "MP3", "bitrate_mode": mode, "compression_level": 0.5}
    with soundfile.SoundFile(path, "w", 44100, 1, **kind) as file:
        file.write(np.concatenate([noise, noise * 0]))
    return path.read_bytes()


def test_an_mp3_without_an_index_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    for mode in ("CONSTANT", "VARIABLE"):
        data = mp3(path, mode)
        path.write_bytes(data[data.find(data[:2], 4) :])  # the index is the first frame
        # Of the variable one libsndfile would stop at its estimate, after a fraction of the sound.
        assert reader.read(path, 16000).seconds == pytest.approx(20, abs=0.1)


def test_an_mp3_with_tags_is_read_and_two_in_one_file_are_not_halved(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.mp3"
    data = mp3(path, "CONSTANT")
    path.write_bytes(b"ID3\4\0\0\0\0\x10\0" + bytes(2048) + data + b"TAG" + bytes(125))
    assert reader.read(path, 16000).seconds == pytest.approx(20, abs=0.1)
    path.write_bytes(data + data)
    assert reader.read(path, 16000).seconds == pytest.approx(40, abs=0.2)
    path.write_bytes(data[:50_000] + bytes(3000) + data[50_000:])
    assert str(path) in refused(path)
    assert capfd.readouterr() == ("", "")
    os.write(2, b"heard")  # stderr is back
    assert capfd.readouterr().err == "heard"


def test_what_is_no_audio_is_told_in_one_sentence(tmp_path: Path) -> None:
    text, empty, raw = tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "c.raw"
    text.write_text("these are words\n" * 50)
    empty.touch()
    raw.write_bytes(bytes(1000))
    assert f"{text} is not audio" in refused(text)
    assert f"{empty} is empty" in refused(empty)
    assert f"{raw} is not audio" in refused(raw)
    assert f"{tmp_path} is a folder" in refused(tmp_path)
    assert "cannot be read" in refused("a\0b.wav")
    assert "cannot be read" in refused("a" * 5000)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert "not a regular file" in refused(tmp_path / "pipe")


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none.wav", tmp_path / "file" / "none.wav"):
        with pytest.raises(MissingFile, match=f"no file {path}"):
            reader.read(str(path), 16000)


@contextmanager
def nobody() -> Iterator[None]:
    """Root may read everything, so what is done in here is done as nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name == "nt", reason="files have no modes there")
def test_a_file_without_permission_is_told() -> None:
    with TemporaryDirectory() as folder:  # pytest's own are closed to nobody
        os.chmod(folder, 0o755)
        path = Path(folder) / "a.wav"
        soundfile.write(path, tone(16000), 16000)
        with nobody():
            assert reader.read(path, 16000).seconds == 0.5
        path.chmod(0)
        with nobody():
            sentence = refused(path)
    assert "ermission" in sentence


@pytest.mark.parametrize(
    "source",
    [
        [0.1, 0.2],
        None,
        b"a.wav",
        (16000, np.zeros(10)),
        (np.zeros(10), 16000.0),
        (np.zeros(10), True),
        np.zeros(10, bool),
        np.zeros(10, complex),
        np.array(0.5),
        np.zeros((2, 2, 2)),
        np.zeros((2, 16000)),
        np.zeros((10, 0)),
        np.array(["a"]),
    ],
    ids=str,
)
def test_what_is_no_array_of_sound_is_told_in_one_sentence(source: object) -> None:
    assert "wanted" in refused(source)


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 0},
        {"rate": 16000.0},
        {"channel": "left"},
        {"max_seconds": 0},
        {"max_seconds": float("nan")},
        {"max_seconds": float("inf")},
        {"max_bytes": 0},
    ],
    ids=str,
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        reader.read(np.zeros(10, np.float32), **{"rate": 16000, **options})


def test_damaged_files_are_read_or_refused_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(7)
    for kind in ("wav", "flac", "ogg", "mp3", "aiff"):
        path = tmp_path / f"a.{kind}"
        soundfile.write(path, tone(16000, 0.3, channels=2), 16000)
        data = path.read_bytes()
        for _ in range(60):
            broken = bytearray(data[: rng.integers(1, len(data) + 1)])
            for at in rng.integers(0, min(len(broken), 200), 3):
                broken[at] = rng.integers(256)
            path.write_bytes(broken)
            try:
                assert len(reader.read(path, 16000).pcm)
            except BadAudio as error:
                assert str(path) in str(error)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("samples", [0, 1, 99, 100, 101, 200, 201, 950, 1000, 1001])
@pytest.mark.parametrize("slack", [0, 1, 30, 99, 500])
def test_windows_are_the_fewest_that_cover_everything_once(samples: int, slack: int) -> None:
    pcm = np.random.default_rng(samples).normal(size=samples).astype(np.float32)
    cuts = reader.windows(samples, 100, pcm, slack, quiet=8)
    assert len(cuts) == -(-samples // 100)
    assert all(0 < cut.stop - cut.start <= 100 for cut in cuts)
    assert [cut.start for cut in cuts] == [0, *(cut.stop for cut in cuts)][:-1]
    assert sum(cut.stop - cut.start for cut in cuts) == samples


def test_sixty_seconds_are_cut_at_thirty() -> None:
    pcm = np.ones(960_000, np.float32)
    pcm[460_000:461_000] = 0  # quieter, but there a third window would be needed
    assert reader.windows(960_000, 480_000, pcm, 32_000) == [
        slice(0, 480_000),
        slice(480_000, 960_000),
    ]


def test_a_cut_lies_in_the_quietest_20_milliseconds_of_the_slack() -> None:
    pcm = np.random.default_rng(0).normal(0, 0.1, 800_000).astype(np.float32)
    pcm[461_000:461_320] = 0  # inside of the last two seconds
    pcm[430_000:440_000] = 0  # too early
    first, second = reader.windows(800_000, 480_000, pcm, 32_000)
    assert first.stop == second.start == 461_160
    pcm[:] = 0  # all the same: the window is filled
    assert reader.windows(800_000, 480_000, pcm, 32_000)[0] == slice(0, 480_000)


def test_windows_that_cannot_be_are_refused() -> None:
    pcm = np.zeros(10, np.float32)
    for samples, most, slack in ((10, 0, 1), (10, 5, -1), (11, 5, 1)):
        with pytest.raises(BadOption):
            reader.windows(samples, most, pcm, slack)
