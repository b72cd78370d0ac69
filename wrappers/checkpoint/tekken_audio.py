"""What Mistral's tekken.json says of a stream of sound: mistral-common's AudioConfig."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alm.errors import BadCheckpoint
from wrappers.checkpoint.plain_files import read_json

FILE, SECTION = "tekken.json", "audio"
# Steps of silence behind a clip beside those of its delay: one for BOS, and what mistral-common
# takes for the longest word (OFFLINE_STREAMING_BUFFER_TOKENS).
RIGHT = 1 + 10
MOST_STEPS = 10_000
# How a server cuts sound that it sends on; what is computed does not depend on it.
OF_SERVERS = ("streaming_look_ahead_ms", "streaming_look_back_ms")
# Of other kinds of models.
EMPTY = ("chunk_length_s", "voice_num_audio_tokens")


@dataclass(frozen=True)
class Stream:
    """Steps of silence before the sound, and by how many words follow it."""

    left: int
    delay: int


def read(folder: Path, step_ms: float, wanted: dict[str, Any], encoding: dict[str, int]) -> Stream:
    """The folder's section on sound, found to be of a stream.

    Args:
        folder: that holds tekken.json.
        step_ms: milliseconds of a step.
        wanted: keys with the one value that fits the model.
        encoding: the same, of its audio_encoding_config.

    Raises:
        MissingFile: no tekken.json.
        BadCheckpoint: no such section, or one that cannot be followed; all faults named.
    """
    file = folder / FILE
    audio = read_json(file).get(SECTION)
    if not isinstance(audio, dict):
        raise BadCheckpoint(f"{file} has no section {SECTION!r}, which says how a stream is heard")
    plain = dict(audio)
    inner = plain.pop("audio_encoding_config", None)
    inner = inner if isinstance(inner, dict) else {}
    wanted = {"transcription_format": "streaming"} | wanted
    wrong = _differ(plain, wanted, "") + _differ(inner, encoding, "audio_encoding_config.")
    delay, left = plain.get("transcription_delay_ms"), plain.get("streaming_n_left_pad_tokens")
    if type(left) is not int or not 0 < left <= MOST_STEPS:
        wrong.append(
            f"streaming_n_left_pad_tokens: {str(left)[:80]}; it must be from 1 to {MOST_STEPS}"
        )
    if type(delay) not in (int, float) or not _steps(delay, step_ms):
        wrong.append(
            f"transcription_delay_ms: {str(delay)[:80]}; it must be a multiple of {step_ms:g}"
        )
    wrong += [f"{name}: {plain[name]!r:.80}" for name in EMPTY if plain.get(name) is not None]
    known = {*wanted, *OF_SERVERS, *EMPTY, "transcription_delay_ms", "streaming_n_left_pad_tokens"}
    odd = [name for name in plain if name not in known]
    odd += [f"audio_encoding_config.{name}" for name in inner if name not in encoding]
    wrong += [f"{name:.80}, which is not known here" for name in odd]
    if wrong:
        raise BadCheckpoint(f"{file} says of {SECTION}: {'; '.join(wrong)}")
    assert isinstance(left, int) and isinstance(delay, int | float)
    return Stream(left, _steps(delay, step_ms))


def _steps(delay: Any, step_ms: float) -> int:
    """Steps of so many milliseconds; 0 where they are none, or too many."""
    steps = delay / step_ms
    return int(steps) if steps == int(steps) and 0 < steps <= MOST_STEPS else 0


def _differ(plain: dict[str, Any], wanted: dict[str, Any], where: str) -> list[str]:
    return [
        f"{where}{name}: {plain.get(name)!r:.80} and not {want!r}"
        for name, want in wanted.items()
        if plain.get(name) != want
    ]
