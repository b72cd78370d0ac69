"""Sound in pieces: whole steps whatever the pieces, where it comes from, and what is refused."""

from __future__ import annotations

import builtins
import io
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

import alm
from alm.artifacts.port_checks import check_decoder, check_state
from alm.audio import reader
from alm.errors import BadAudio, BadOption, MissingFile, MissingPackage
from alm.facts import LiveFacts
from alm.live import sources
from alm.live.hearing import MOST_STEPS, Hearing, behind, steps
from alm.parsing import Misshapen
from alm.ports import Port
from tests.runtime.cli.commands import Capture, refused

FACTS = LiveFacts(step_samples=40, ahead_samples=6, left=3, right=2, delay=4)
RATE = 16_000


def heard(clip: np.ndarray, size: int, delay: int = 4) -> tuple[np.ndarray, Hearing, list[int]]:
    """All samples that parts are given, as steps, of a clip that comes in pieces of this size."""
    given: list[int] = []

    def run(pcm: np.ndarray) -> np.ndarray:
        given.append(len(pcm))
        return pcm.reshape(-1, FACTS.step_samples).copy()

    hearing = Hearing(FACTS, run)
    rows = [r for at in range(0, len(clip), size) for r in hearing.feed(clip[at : at + size])]
    rows += [*hearing.end(behind(FACTS, len(clip), delay))]
    return np.concatenate(rows), hearing, given


@pytest.mark.parametrize("samples", [0, 1, 39, 40, 41, 4000])
def test_parts_are_given_the_same_steps_however_sound_is_cut(samples: int) -> None:
    clip = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    silence = 3 * 40, -samples % 40 + (4 + 2) * 40
    wanted = np.pad(clip, silence)
    for size in (1, 7, 40, 333, 10_000):
        rows, hearing, given = heard(clip, size)
        assert len(rows) == steps(FACTS, samples, 4) == len(wanted) // 40
        # Six samples later than the sound: what the last frame of a step looks ahead to.
        assert np.array_equal(rows.ravel(), np.pad(wanted[6:], (0, 6)))
        assert hearing.samples == samples
        assert max(given) <= MOST_STEPS * 40 and not any(n % 40 for n in given)


def test_a_step_is_heard_as_soon_as_it_and_what_it_looks_ahead_to_are_there() -> None:
    hearing = Hearing(FACTS, lambda pcm: pcm.reshape(-1, 40))
    assert sum(map(len, hearing.feed(np.ones(45, np.float32)))) == 3  # the silence before it
    assert sum(map(len, hearing.feed(np.ones(1, np.float32)))) == 1


# --- where samples come from


def test_raw_bytes_may_be_cut_within_a_sample() -> None:
    pcm = np.random.default_rng(0).integers(-32768, 32767, 999).astype("<i2")

    class Pipe(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            return self.read(7)

    got = np.concatenate([*sources.pcm(Pipe(pcm.tobytes() + b"\1"))])
    assert got.dtype == np.float32 and np.array_equal(got, pcm.astype(np.float32) / 32768)


@pytest.mark.parametrize("form", [("WAV", RATE, 1), ("FLAC", RATE, 1), ("WAV", 8000, 2)])
def test_a_file_is_read_on_as_the_reader_reads_it_whole(
    tmp_path: Path, form: tuple[str, int, int]
) -> None:
    kind, rate, channels = form
    sound = 0.3 * np.random.default_rng(0).standard_normal((20_001, channels))
    soundfile.write(tmp_path / "clip", sound.clip(-1, 1), rate, format=kind, subtype="PCM_16")
    chunks = [*sources.file(tmp_path / "clip", RATE, "mean", 60.0)]
    wanted = reader.read(tmp_path / "clip", RATE, "mean").pcm
    assert np.array_equal(np.concatenate(chunks), wanted)
    assert max(map(len, chunks)) == 1280


def test_what_is_no_sound_or_too_long_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(3 * RATE), RATE)
    (tmp_path / "text.wav").write_bytes(b"not a sound at all")
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan]), RATE, subtype="FLOAT")
    for name, error, words in (
        ("none.wav", MissingFile, "there is no file"),
        ("text.wav", BadAudio, "is not audio"),
        ("long.wav", BadAudio, "lasts 3.0 s"),
        ("nan.wav", BadAudio, "not a finite number"),
    ):
        with pytest.raises(error, match=words):
            list(sources.file(tmp_path / name, RATE, "mean", 2.0))


def test_a_microphone_wants_its_package_and_the_sentence_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def absent(name: str, *more: Any) -> Any:
        if name == "sounddevice":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", absent)
    sound: Iterator[np.ndarray] = sources.microphone(RATE)
    with pytest.raises(
        MissingPackage, match=r"pip install 'alm-edge\[microphone\]'.*arecord .*-r 16000"
    ):
        next(sound)


def test_a_microphone_of_another_rate_is_resampled_and_lost_sound_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tone = np.sin(np.arange(48_000) / 20).astype(np.float32)

    class NoMicrophone(Exception):
        pass

    class Stream:
        at = 0

        def __init__(self, samplerate: int, channels: int, dtype: str) -> None:
            assert (samplerate, channels, dtype) == (48_000, 1, "float32")

        def __enter__(self) -> Stream:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self, count: int) -> tuple[np.ndarray, bool]:
            if self.at >= len(tone):
                raise NoMicrophone("it was pulled out")
            some = tone[self.at : self.at + count, None]
            self.at += count
            return some, self.at == 2 * count

    def check(samplerate: int, **_: object) -> None:
        if samplerate != 48_000:
            raise NoMicrophone("Invalid sample rate")

    device = types.ModuleType("sounddevice")
    vars(device).update(
        PortAudioError=NoMicrophone,
        InputStream=Stream,
        check_input_settings=check,
        query_devices=lambda kind: {"default_samplerate": 48_000.0},
    )
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    lost: list[int] = []
    got: list[np.ndarray] = []
    with pytest.raises(MissingPackage, match="it was pulled out"):
        list(sources.microphone(RATE, on_lost=lambda: lost.append(1)))
    for chunk in sources.microphone(RATE, on_lost=lambda: lost.append(1)):
        got.append(chunk)
        if sum(map(len, got)) > 8000:
            break
    whole = np.concatenate(got)
    assert lost == [1, 1]
    assert np.allclose(whole, soxr.resample(tone, 48_000, RATE, "HQ")[: len(whole)], atol=1e-6)


# --- models that hear clips


def test_a_model_that_hears_clips_has_no_live_run_of_a_stream(artifacts: Path) -> None:
    model = alm.load(artifacts, "cpu")
    with pytest.raises(BadOption, match=r"hears clips, no streams.*model.listen"):
        model.live()
    with pytest.raises(BadOption, match="a delay is of a model that hears a stream"):
        model.generate(np.zeros(8000, np.float32), "transcribe", delay=80)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--chat",), "--chat is not for it"),
        (("--format", "srt", "--truncate"), "--format, --truncate is not for it"),
        (("--cache", "x"), "--cache is not for it"),
        (("a.wav", "transcribe", "b.wav"), "a clip, - for raw samples of stdin, or nothing"),
        (("a.wav",), "there is no file a.wav"),
        (("-", "trascribe"), "did you mean transcribe?"),
        (("-", "--language", "xx"), "transcribe knows no language 'xx'"),
        (("-", "--pace", "1"), "--pace is for a clip"),
        (("-", "--delay", "80"), "--delay is of a model that hears a stream"),
    ],
)
def test_what_a_live_run_does_not_have_is_refused(
    artifacts: Path, capsys: Capture, words: tuple[str, ...], sentence: str
) -> None:
    status, said = refused(capsys, "--engine", artifacts, "--live", *words)
    assert status in (1, 2) and sentence in said


def test_a_pace_is_of_a_live_run(artifacts: Path, clip: Path, capsys: Capture) -> None:
    words = ("--engine", artifacts, "--pace", "1", clip, "transcribe")
    assert "--pace is for --live" in refused(capsys, *words)[1]


# --- manifests


STATE = "past_key_values.conv"


@pytest.mark.parametrize(
    ("port", "twin", "sentence"),
    [
        (Port("float32", ("batch", "n")), "same", "of one size from the second on"),
        (Port("float32", (3, 2)), "same", "the first must be 'batch' or 1"),
        (Port("float32", ("batch", 2)), "", "gives no present.conv"),
        (Port("float32", ("batch", 2)), "other", "another tensor than"),
    ],
)
def test_a_state_that_cannot_be_carried_is_misshapen(port: Port, twin: str, sentence: str) -> None:
    outputs = {"present.conv": port if twin == "same" else Port("float32", ("batch", 3))}
    with pytest.raises(Misshapen, match=sentence):
        check_state({STATE: port}, outputs if twin else {}, "part ears")


def test_a_decoder_that_wants_what_nothing_gives_is_misshapen() -> None:
    inputs = {"inputs_embeds": Port("float32", ("batch", "seq", 4)), "mood": Port("float32", (1,))}
    with pytest.raises(Misshapen, match="takes 'mood', which nothing gives"):
        check_decoder(inputs, {"logits": Port("float32", ("batch", 1, 9))}, "part decoder")
