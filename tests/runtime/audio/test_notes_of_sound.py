"""What is odd about a recording is noted, and what cannot be read names the way out."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from alm.audio import reader
from alm.errors import BadAudio

RATE = 16_000


def tone(hertz: float = 440.0, samples: int = 8000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)).astype(np.float32)


def pair(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.stack([left, right], axis=1)


def notes(source: Any, channel: Any = "first") -> tuple[str, ...]:
    return reader.read(source, RATE, channel).notes


# --- channels


def test_a_dropped_channel_that_differs_is_noted() -> None:
    (note,) = notes(pair(tone(), tone(600)))
    assert note == "only the first of the 2 channels of the array was heard, and they differ"
    assert notes(pair(tone(), tone(600)), "mean") == ()


def test_a_dropped_channel_is_no_matter_where_both_are_alike() -> None:
    assert notes(pair(tone(), tone())) == ()
    assert notes(pair(tone(), tone() * 0.999)) == ()  # 60 dB below
    assert notes(tone()) == notes(tone()[:, None]) == ()


def test_a_silent_first_channel_beside_one_that_is_not_is_noted() -> None:
    (note,) = notes(pair(0 * tone(), tone()))
    assert note.endswith("was heard, and it is silent while another is not")
    assert notes(pair(tone(), 0 * tone())) != ()  # the second is dropped, and differs


def test_channels_that_cancel_each_other_are_noted_where_the_mean_is_heard() -> None:
    (note,) = notes(pair(tone(), -tone()), "mean")
    assert "the 2 channels of the array cancel each other" in note
    (note,) = notes(pair(tone(), -tone()))  # their first alone is sound
    assert note.endswith("and they differ")
    assert notes(pair(tone(), tone() * 0.5), "mean") == ()


def test_a_channel_that_begins_to_differ_late_in_a_file_is_noted(tmp_path: Path) -> None:
    left = np.tile(tone(), 60)  # 30 s: more than one block of samples
    right = left.copy()
    right[-2 * RATE :] *= -1
    path = tmp_path / "a.wav"
    soundfile.write(path, pair(left, right), RATE)
    assert notes(path) == (
        f"only the first of the 2 channels of {path} was heard, and they differ",
    )


# --- scale


@pytest.mark.parametrize("kind", ["array", "file"])
def test_floats_on_the_scale_of_int16_are_noted_and_integers_are_not(
    tmp_path: Path, kind: str
) -> None:
    loud = tone() * 32767
    path = tmp_path / "a.wav"
    soundfile.write(path, loud, RATE, subtype="FLOAT")
    (note,) = notes(path if kind == "file" else loud)
    assert "if they are 16-bit integers stored as floats, divide them by 32768" in note
    soundfile.write(path, tone(), RATE, subtype="PCM_16")
    assert notes(path if kind == "file" else loud.astype(np.int16)) == ()
    assert notes(tone() * 4) == ()  # mixing and filters overshoot full scale


def test_silence_is_noted_and_a_quiet_recording_is_not() -> None:
    assert notes(0 * tone()) == ("the array holds nothing but silence",)
    assert notes(tone() * 1e-3) == ()


# --- containers that are not read

ISO = bytes([0, 0, 0, 32]) + b"ftypM4A " + bytes(16)
FOREIGN = {
    "m4a": (ISO, "MPEG-4 (m4a, mp4)"),
    "webm": (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01" + bytes(24), "WebM or Matroska"),
    "wma": (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(24), "Windows Media (wma)"),
    "aac": (b"\xff\xf1\x50\x80" + bytes(24), "AAC"),
    "amr": (b"#!AMR\n" + bytes(24), "AMR"),
    "avi": (b"RIFF\x20\0\0\0AVI LIST" + bytes(24), "AVI"),
    "tagged": (b"ID3\x04\0\0\0\0\0\x04" + bytes(4) + b"\xff\xf1\x50\x80" + bytes(24), "AAC"),
}


@pytest.mark.parametrize("end", FOREIGN)
def test_a_container_that_only_begins_like_one_is_named(tmp_path: Path, end: str) -> None:
    data, kind = FOREIGN[end]
    path = tmp_path / f"my recording.{end}"
    path.write_bytes(data)
    with pytest.raises(BadAudio) as caught:
        reader.read(path, RATE)
    assert str(path) in str(caught.value) and kind in str(caught.value)


# --- what is not a path

OPENED: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "BytesIO": lambda path: BytesIO(path.read_bytes()),
    "an open file": lambda path: path.open("rb"),
}


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("way", OPENED)
def test_a_file_in_memory_or_open_is_the_same_sound_as_its_path(
    tmp_path: Path, way: str, kind: str
) -> None:
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, pair(tone(), tone(600)), RATE)
    source = OPENED[way](path)
    found, wanted = reader.read(source, RATE), reader.read(path, RATE)
    np.testing.assert_array_equal(found.pcm, wanted.pcm)
    named = str(path) if way == "an open file" else "the audio"
    assert found.notes == tuple(note.replace(str(path), named) for note in wanted.notes) != ()
    if way == "an open file":
        source.close()


def test_a_pipe_is_read_to_its_end_without_seeking(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), RATE, subtype="FLOAT")
    child = subprocess.Popen(["cat", tmp_path / "a.wav"], stdout=subprocess.PIPE)
    with child:
        assert child.stdout
        np.testing.assert_array_equal(reader.read(child.stdout, RATE).pcm, tone())


def test_what_is_opened_as_text_closed_or_empty_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    closed = tempfile.TemporaryFile()
    closed.close()
    with (tmp_path / "a.txt").open() as text:
        sources: list[tuple[Any, str]] = [
            (text, "open it with 'rb'"),
            (closed, "cannot be read as bytes"),
            (b"", "the audio is empty"),
            (BytesIO(), "the audio is empty"),
            (BytesIO(ISO), "the audio, MPEG-4"),
        ]
        for source, words in sources:
            with pytest.raises(BadAudio, match=words):
                reader.read(source, RATE)


def test_an_endless_stream_is_cut_off_at_the_bound() -> None:
    class Endless:
        given = 0

        def read(self, most: int) -> bytes:
            self.given += most
            return bytes(most)

    stream = Endless()
    with pytest.raises(BadAudio, match="holds more than .* MiB; cut it"):
        reader.read(stream, RATE, max_bytes=2**20)  # pyright: ignore
    assert stream.given <= 8 * 2**20
