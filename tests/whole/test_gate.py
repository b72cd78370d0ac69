"""Where a transcript is wanted, sound without speech is not asked about, and no word is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import alm
from alm.cli import exit_status
from alm.cli.run_command import running
from alm.errors import BadOption
from alm.generation.model import Model
from demo.clips import FOLDER
from demo.phrases import SILENT

RATE = 16_000
LAMP = "turn on the lamp in the kitchen"


@pytest.fixture(scope="module")
def model(demo: Path) -> Model:
    return alm.load(demo, provider="cpu")


def lamp() -> np.ndarray:
    return soundfile.read(FOLDER / "lamp.wav", dtype="float32")[0]


def hiss(seconds: float, level: float = -45) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(round(seconds * RATE))
    return (noise * 10 ** (level / 20)).astype(np.float32)


@pytest.mark.parametrize("sound", [np.zeros(3 * RATE, np.float32), hiss(3), hiss(25, -20)])
def test_silence_and_hiss_are_answered_with_nothing_and_a_note(
    model: Model, sound: np.ndarray
) -> None:
    answer = model.generate(sound, "transcribe", gate=None)
    assert (answer.text, answer.token_ids, answer.stop_reason) == ("", [], "no_speech")
    assert set(answer.stop_reasons) == {"no_speech"} and answer.segments == ()
    assert (answer.audio_tokens, answer.prompt_tokens) == (0, 0)
    assert any("no speech was heard" in note and "--no-gate" in note for note in answer.notes)
    assert "".join(model.stream(sound, "transcribe", gate=None)) == ""
    assert model.generate([sound, lamp()], "transcribe", gate=None)[1].text == LAMP


def test_what_is_no_transcript_is_asked_of_any_sound(model: Model) -> None:
    assert model.generate(hiss(3, -20), "describe").token_ids
    assert model.generate(hiss(3), "transcribe", gate=False).text == SILENT
    assert model.generate(hiss(3), "describe", gate=True).stop_reason == "no_speech"
    words = model.tasks["transcribe"]
    assert model.generate(hiss(3), words, gate=None).stop_reason == "no_speech"
    with pytest.raises(BadOption, match="gate is True, False or None"):
        model.generate(hiss(3), "transcribe", gate="yes")  # pyright: ignore


def test_a_conversation_is_asked_unless_the_gate_is_wanted(model: Model) -> None:
    assert model.chat(gate=None).ask("transcribe", hiss(3)).token_ids
    chat = model.chat(gate=True)
    assert chat.ask("transcribe", hiss(3)).stop_reason == "no_speech" and chat.turns == 0
    assert chat.ask("transcribe", lamp()).text == LAMP and chat.turns == 1


@pytest.mark.parametrize("level", [0, -15, -25])
def test_quiet_words_are_the_words_without_a_gate(model: Model, level: float) -> None:
    pcm = lamp() * np.float32(10 ** (level / 20)) + hiss(len(lamp()) / RATE, -75)
    answer = model.generate(pcm, "transcribe", gate=None)
    assert answer.text == model.generate(pcm, "transcribe", gate=False).text != ""


def test_of_several_windows_those_with_speech_are_asked_and_keep_their_times(model: Model) -> None:
    pcm = np.concatenate([hiss(12), lamp(), hiss(14)])
    answer = model.generate(pcm, "transcribe", gate=None)
    assert answer.text == LAMP and answer.stop_reason == "eos"
    assert answer.stop_reasons.count("no_speech") == answer.windows - 1 >= 2
    assert len(answer.segments) == 1
    start = answer.segments[0].start
    assert 7 <= start <= 12.2 and 14 <= answer.segments[0].end <= start + 10.01
    gated = f"in {answer.windows - 1} of {answer.windows} windows"
    assert any(gated in note for note in answer.notes)


def run(capsys: Any, *words: object) -> str:
    assert exit_status.run(running, [str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_the_command_has_both_and_prints_why(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "hiss.wav", hiss(2), RATE)
    words = ("--engine", demo, "--provider", "cpu", tmp_path / "hiss.wav", "transcribe")
    said = json.loads(run(capsys, *words, "--json"))
    assert (said["text"], said["stop_reason"], said["segments"]) == ("", "no_speech", [])
    assert run(capsys, *words) == "\n"
    assert run(capsys, *words, "--format", "srt") == ""
    assert run(capsys, *words, "--no-gate") == f"{SILENT}\n"
