"""Containers that FFmpeg reads: whole, cut, lying about their length, and where av is missing."""

from __future__ import annotations

import io
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alm.audio import by_av, reader
from alm.errors import BadAudio
from tests import ROOT

av = pytest.importorskip("av")
from tests.runtime.audio.written import written  # noqa: E402

RATE = 16_000
Kind = tuple[str, str]
M4A, WEBM, MKV = ("mp4", "aac"), ("webm", "libopus"), ("matroska", "aac")
# Container and codec, and the rates of the codec.
KINDS: dict[Kind, tuple[int, ...]] = {
    M4A: (8_000, 44_100, 48_000),
    ("mp4", "alac"): (44_100,),
    ("adts", "aac"): (8_000, 44_100, 48_000),
    WEBM: (8_000, 48_000),
    MKV: (44_100,),
    ("flv", "aac"): (44_100,),
    ("mpegts", "aac"): (48_000,),
    ("avi", "mp3"): (44_100,),
    ("asf", "wmav2"): (44_100,),
    ("wv", "wavpack"): (44_100,),
    ("tta", "tta"): (44_100,),
    ("ac3", "ac3"): (48_000, 44_100),
    ("amr", "libopencore_amrnb"): (8_000,),
}
VIDEOS = {("mp4", "aac"): "mpeg4", ("webm", "libopus"): "libvpx", ("matroska", "aac"): "mpeg4"}


def tone(rate: int, seconds: float = 2.0, hertz: float = 440.0) -> np.ndarray:
    """float32 [1, samples], with a little noise so that no codec leaves frames out."""
    time = np.arange(round(rate * seconds)) / rate
    noise = np.random.default_rng(0).normal(0, 0.003, len(time))
    return (0.4 * np.sin(2 * np.pi * hertz * time) + noise)[None].astype(np.float32)


def pitch(pcm: np.ndarray) -> float:
    middle = pcm[RATE // 2 : -RATE // 2]
    return float(
        np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * RATE / len(middle)
    )


def refused(data: bytes, **bounds: float) -> str:
    with pytest.raises(BadAudio) as caught:
        reader.read(data, RATE, **bounds)  # pyright: ignore
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "rate"), [(kind, rate) for kind, rates in KINDS.items() for rate in rates]
)
def test_what_ffmpeg_reads_keeps_its_length_its_pitch_and_its_rate(kind: Kind, rate: int) -> None:
    clip = reader.read(written(tone(rate), rate, *kind), RATE)
    assert clip.rate == RATE
    assert clip.source_rate == (48_000 if "opus" in kind[1] else rate)
    assert clip.seconds == pytest.approx(2.0, abs=0.3 if rate == 8_000 else 0.08)
    assert pitch(clip.pcm) == pytest.approx(440, abs=2)
    assert 0.3 < np.abs(clip.pcm).max() < 0.6
    assert clip.notes == ()


@pytest.mark.parametrize("kind", VIDEOS)
def test_of_a_video_the_sound_is_heard(kind: Kind) -> None:
    clip = reader.read(written(tone(48_000), 48_000, *kind, pictures=VIDEOS[kind]), RATE)
    assert clip.seconds == pytest.approx(2.0, abs=0.08) and pitch(clip.pcm) == pytest.approx(
        440, abs=2
    )


def test_a_sound_that_begins_after_its_pictures_keeps_its_times() -> None:
    data = written(tone(48_000), 48_000, *MKV, pictures="mpeg4", late=1.5)
    clip = reader.read(data, RATE)
    assert clip.seconds == pytest.approx(3.5, abs=0.1)
    loud = np.flatnonzero(np.abs(clip.pcm) > 0.1)
    assert loud[0] / RATE == pytest.approx(1.5, abs=0.1)
    assert any("begins 1.5 s late" in note for note in clip.notes)


def test_a_video_without_sound_is_one_sentence() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), format="yuv420p")
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    assert "holds no sound" in refused(buffer.getvalue())


@pytest.mark.parametrize("kind", [M4A, WEBM, ("mp4", "alac")])
def test_the_first_channel_or_the_mean_is_heard(kind: Kind) -> None:
    stereo = np.concatenate([tone(48_000), tone(48_000, hertz=1000.0) * 0])
    data = written(stereo, 48_000, *kind)
    first, mean = (reader.read(data, RATE, channel).pcm for channel in ("first", "mean"))  # pyright: ignore
    assert np.abs(mean).max() == pytest.approx(np.abs(first).max() / 2, rel=0.1)
    assert any("first of the 2 channels" in note for note in reader.read(data, RATE).notes)


def test_silence_one_sample_and_none() -> None:
    for kind in (M4A, WEBM, ("mp4", "alac")):
        silent = reader.read(written(tone(48_000) * 0, 48_000, *kind), RATE)
        assert np.abs(silent.pcm).max() < 1e-3
        assert any("nothing but silence" in note for note in silent.notes)
    one = reader.read(written(tone(48_000)[:, :1], 48_000, "mp4", "alac"), RATE)
    assert 1 <= len(one.pcm) < 0.1 * RATE
    none = written(np.zeros((1, 0), np.float32), 48_000, "webm", "libopus")
    assert "holds no samples" in refused(none)


def test_a_path_bytes_an_open_file_and_a_pipe_are_the_same_sound(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    path.write_bytes(data := written(tone(44_100), 44_100, *M4A))
    wanted = reader.read(path, RATE).pcm
    with path.open("rb") as opened:
        for source in (data, bytearray(data), io.BytesIO(data), opened, str(path)):
            np.testing.assert_array_equal(reader.read(source, RATE).pcm, wanted)
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as child:
        assert child.stdout
        np.testing.assert_array_equal(reader.read(child.stdout, RATE).pcm, wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piped", [False, True])
def test_a_file_that_was_cut_anywhere_is_refused(
    kind: Kind, piped: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    rate = KINDS[kind][-1]
    if piped and kind[0] == "mp4":
        data = written(tone(rate), rate, *kind, movflags="frag_keyframe+empty_moov")
    else:
        data = written(tone(rate), rate, *kind, piped=piped and kind == WEBM)
    reader.read(data, RATE)
    for share in (0.03, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.99):
        # Not where a frame of 13 bytes (AMR) or a packet of 188 ends: what ends there is whole.
        end = int(len(data) * share) // 13 * 13 + 2
        assert "the audio" in refused(data[: end + (end % 188 == 0)])
    assert capfd.readouterr() == ("", "")


def test_damaged_files_are_read_or_refused_and_nothing_else(
    capfd: pytest.CaptureFixture[str],
) -> None:
    chance = np.random.default_rng(3)
    for kind in (M4A, WEBM, ("adts", "aac"), ("avi", "mp3"), ("ac3", "ac3"), ("mpegts", "aac")):
        rate = KINDS[kind][-1]
        data = written(tone(rate, 0.3), rate, *kind)
        for number in range(40):
            broken = bytearray(data)
            for at in chance.integers(16, len(data) if number % 2 else 900, 4):
                broken[min(at, len(data) - 1)] = chance.integers(256)
            try:
                assert len(reader.read(bytes(broken), RATE, max_seconds=60).pcm)
            except BadAudio as error:
                assert "the audio" in str(error)
    assert capfd.readouterr() == ("", "")


# --- lengths that are not true


def lying(seconds: float) -> bytes:
    """A WebM of two seconds whose header says another length."""
    data = written(tone(48_000), 48_000, *WEBM)
    at = data.index(b"\x44\x89\x88") + 3  # Duration, a float64 of milliseconds
    return data[:at] + struct.pack(">d", seconds * 1e3) + data[at + 8 :]


def test_a_length_that_is_too_long_is_refused_before_it_is_decoded() -> None:
    assert "lasts 90000.0 s" in refused(lying(90_000))
    assert "is cut: its header promises 30.0 s, 2.0 s are there" in refused(lying(30))


def test_a_length_that_is_said_too_short_is_refused_as_soon_as_it_passes_the_bound() -> None:
    assert reader.read(lying(0.5), RATE, max_seconds=3).seconds == pytest.approx(2, abs=0.05)
    assert "lasts longer than the 1 s" in refused(lying(0.5), max_seconds=1)
    assert "decodes to more than" in refused(lying(0.5), max_bytes=100_000)
    endless = written(tone(48_000), 48_000, *WEBM, piped=True)
    assert "lasts longer than the 1 s" in refused(endless, max_seconds=1)


def test_a_list_of_other_files_is_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes(written(tone(RATE), RATE, "wav", "pcm_s16le"))
    lists = {
        "a.m3u8": f"#EXTM3U\n#EXTINF:2,\n{secret}\n#EXT-X-ENDLIST\n",
        "a.ffconcat": f"ffconcat version 1.0\nfile {secret}\n",
        "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=audio 5004 RTP/AVP 0\n",
    }
    for name, words in lists.items():
        (tmp_path / name).write_text(words)
        for source in (tmp_path / name, words.encode()):
            with pytest.raises(BadAudio):
                reader.read(source, RATE)
            bounds = reader.Bounds(60, 2**20, RATE)
            with pytest.raises(BadAudio, match="unknown to FFmpeg"):
                by_av.read(name, words.encode(), "a list", "first", bounds)


# --- without the package

ABSENT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "av":
            raise ModuleNotFoundError("no av")

sys.meta_path.insert(0, Absent())
from alm.audio import reader
from alm.errors import AlmError
for path in sys.argv[1:]:
    try:
        print(reader.read(path, 16000).seconds)
    except AlmError as error:
        print(type(error).__name__, error)
"""


def test_without_av_the_line_to_type_and_a_command_that_can_be_pasted_are_named(
    tmp_path: Path,
) -> None:
    names = ["-y.m4a", "a'b $(touch x).m4a", "plain.webm", "plain.wav", "odd.wav", "two.mp3"]
    made = [M4A, M4A, WEBM, ("wav", "pcm_s16le"), ("wav", "g722"), ("mp3", "mp3")]
    for name, kind in zip(names, made, strict=True):
        (tmp_path / name).write_bytes(written(tone(RATE), RATE, *kind))
    (tmp_path / "two.mp3").write_bytes(2 * (tmp_path / "two.mp3").read_bytes())
    said = subprocess.run(
        [sys.executable, "-c", ABSENT, *names],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "runtime"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for sentence, kind in zip(said, ("MPEG-4", "MPEG-4", "WebM"), strict=False):
        assert sentence.startswith("MissingPackage") and kind in sentence
        assert "pip install 'alm-edge[av]'" in sentence
        words = shlex.split(sentence.partition("convert it: ")[2])
        assert words[:2] == ["ffmpeg", "-i"] and not words[2].startswith("-")
        assert (tmp_path / words[2]).is_file() and words[3:] == ["sound.wav"]
    assert said[3] == "2.0"
    assert said[4].startswith("BadAudio odd.wav is not audio")
    assert said[5].startswith("BadAudio two.mp3 does not say truly how long it is; convert it")
    assert reader.read(tmp_path / "odd.wav", RATE).seconds == pytest.approx(2, abs=0.05)
