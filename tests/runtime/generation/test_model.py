"""Audio and a prompt in, text out: the Python API on a tiny model whose window is 4 s."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import alm
from alm.cache.audio import MOST_ROWS
from alm.errors import BadAudio, BadOption, BadPrompt, MissingFile
from alm.generation.answers import Answer
from alm.generation.model import Model
from alm.host import processor
from tests.reference import moving

RATE, WINDOW = 16000, 64000
GREEDY: dict[str, Any] = {"num_beams": 1, "max_new_tokens": 8}
WAYS: dict[str, dict[str, Any]] = {
    "greedy": GREEDY,
    "beams": {"num_beams": 3, "max_new_tokens": 8},
    "penalty": GREEDY | {"repetition_penalty": 1.5, "min_new_tokens": 4},
}


@pytest.fixture(scope="module")
def loaded(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALM_CACHE", str(tmp_path_factory.mktemp("cache")))
        # Parts run side by side, and the next window is encoded while one is answered.
        patch.setattr(processor, "usable_cores", lambda: 2)
        return alm.load(artifacts, threads=1)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return moving(samples, RATE, seed)


def core(answer: Answer) -> dict[str, Any]:
    """An answer without what differs from run to run."""
    varying = {"timings_ms", "audio_cached", "prefix_tokens"}
    return {name: value for name, value in answer.to_json().items() if name not in varying}


def uncut(answer: Answer) -> list[str]:
    """The notes, but for that of an answer of eight tokens, which they all are."""
    return [note for note in answer.notes if not note.startswith("the answer ")]


# --- several clips

PROMPTS = ("transcribe", "describe", "Say {} in one word.", "music", "asr_zh")


@pytest.mark.parametrize("way", WAYS)
def test_a_list_of_clips_is_answered_as_the_clips_alone(loaded: Model, way: str) -> None:
    clips: list[Any] = [noise(n, n) for n in (500, 16000, WINDOW, 100_000, 30_001)]
    clips[1] = (clips[1], 16000)
    together = loaded.generate(clips, PROMPTS, **WAYS[way])
    alone = [loaded.generate(c, p, **WAYS[way]) for c, p in zip(clips, PROMPTS, strict=True)]
    assert [core(answer) for answer in together] == [core(answer) for answer in alone]
    assert len({str(answer.token_ids) for answer in together}) > 1


def test_more_clips_than_fit_at_once_are_answered_all_and_in_order(loaded: Model) -> None:
    clips: list[Any] = [noise(3000 + 700 * i, i) for i in range(2 * MOST_ROWS + 1)]
    together = loaded.generate(clips, "describe", **GREEDY)
    alone = [loaded.generate(clip, "describe", **GREEDY) for clip in clips]
    assert [core(answer) for answer in together] == [core(answer) for answer in alone]


def test_a_seed_repeats_what_was_sampled(loaded: Model) -> None:
    clips: list[Any] = [noise(9000, 1), noise(9000, 2)]
    hot = {"max_new_tokens": 12, "temperature": 2.0, "top_p": 1.0}
    first, again, other = (loaded.generate(clips, "describe", seed=s, **hot) for s in (1, 1, 2))
    assert [core(answer) for answer in first] == [core(answer) for answer in again]
    assert first[0].token_ids != other[0].token_ids
    alone = [loaded.generate(clip, "describe", seed=1, **hot) for clip in clips]
    assert [core(answer) for answer in alone] == [core(answer) for answer in first]


def test_no_clips_have_no_answers_and_each_clip_has_one_prompt(loaded: Model) -> None:
    assert loaded.generate([], "describe") == []
    with pytest.raises(BadPrompt, match="there are 2 clips but 3 prompts"):
        loaded.generate([noise(9), noise(9)], ["a", "b", "c"])
    with pytest.raises(BadOption, match="on_text follows one prompt"):
        loaded.generate([noise(9)] * 2, "describe", on_text=print)


def test_two_threads_may_ask_at_once(loaded: Model) -> None:
    clips = [noise(20_000 + 500 * i, i) for i in range(8)]
    one = [core(loaded.generate(clip, "describe", **GREEDY)) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        many = list(pool.map(lambda c: core(loaded.generate(c, "describe", **GREEDY)), clips))
    assert many == one


# --- sources and windows


def test_a_path_an_array_and_an_array_with_its_rate_are_the_same_clip(
    loaded: Model, clip: Path
) -> None:
    pcm, rate = soundfile.read(clip, dtype="float32")
    sources = (clip, str(clip), pcm, (pcm, rate), pcm[:, None], (pcm.astype(np.float64), rate))
    answers = [core(loaded.generate(source, "describe", **GREEDY)) for source in sources]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["audio_seconds"] == 1.5 and answers[0]["windows"] == 1
    assert answers[0]["audio_tokens"] == loaded.manifest.facts.dimensions.audio_tokens


@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (8000, 1), (48000, 3)])
def test_a_file_of_any_rate_and_channels_is_answered(
    loaded: Model, tmp_path: Path, rate: int, channels: int
) -> None:
    pcm = np.stack([noise(2 * rate, i) for i in range(channels)], axis=1)
    soundfile.write(tmp_path / "a.wav", pcm, rate)
    answer = loaded.generate(tmp_path / "a.wav", "transcribe", **GREEDY)
    assert answer.audio_seconds == pytest.approx(2, abs=1e-3)
    dropped = f"only the first of the {channels} channels"
    assert [note for note in uncut(answer) if dropped not in note] == []
    assert len(uncut(answer)) == (channels > 1)  # each has a noise of its own


@pytest.mark.parametrize("samples", [1, 400, 15_999, 16_000])
def test_a_short_clip_is_padded_and_that_is_noted(loaded: Model, samples: int) -> None:
    silence = np.zeros(samples, np.float32)
    answer = loaded.generate(silence, "transcribe", gate=False, **GREEDY)
    padded = np.zeros(RATE, np.float32)
    wanted = loaded.generate(padded, "transcribe", gate=False, **GREEDY)
    assert answer.token_ids == wanted.token_ids
    noted = [note for note in answer.notes if note.endswith("padded with silence to 1 s")]
    assert len(noted) == (samples < RATE) and answer.audio_seconds == round(samples / RATE, 4)


@pytest.mark.parametrize(
    ("samples", "windows"),
    [
        (WINDOW - 1, 1),
        (WINDOW, 1),
        (WINDOW + RATE // 40, 1),  # no part of a word is as short
        (WINDOW + RATE // 40 + 1, 2),
        (WINDOW + RATE, 2),
        (2 * WINDOW, 2),
        (10 * RATE, 3),
    ],
)
def test_a_long_clip_is_answered_in_as_few_windows_as_it_takes(
    loaded: Model, samples: int, windows: int
) -> None:
    answer = loaded.generate(noise(samples), "transcribe", **GREEDY)
    assert answer.windows == windows and windows < len(answer.token_ids) <= 8 * windows
    over = 0 < samples - WINDOW <= RATE // 40
    assert answer.audio_tokens == 11 * windows and len(uncut(answer)) == over


@pytest.mark.parametrize(("prompt", "separator"), [("transcribe", " "), ("What?", "\n")])
def test_what_is_said_to_windows_is_joined_as_the_prompt_asks(
    loaded: Model, prompt: str, separator: str
) -> None:
    pcm = noise(2 * WINDOW, 4)  # two full windows, so cut in the middle
    whole = loaded.generate(pcm, prompt, **GREEDY)
    halves = [loaded.generate(pcm[at : at + WINDOW], prompt, **GREEDY) for at in (0, WINDOW)]
    assert whole.text == separator.join(half.text for half in halves)
    assert whole.token_ids == halves[0].token_ids + halves[1].token_ids


def test_truncate_hears_only_the_first_window_and_notes_it(loaded: Model) -> None:
    pcm = noise(WINDOW + 20_000)
    cut = loaded.generate(pcm, "transcribe", truncate=True, **GREEDY)
    assert cut.token_ids == loaded.generate(pcm[:WINDOW], "transcribe", **GREEDY).token_ids
    assert cut.windows == 1 and uncut(cut) == ["only the first 4 s of 5.2 s were heard"]
    assert uncut(loaded.generate(pcm[:WINDOW], "transcribe", truncate=True, **GREEDY)) == []


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (np.zeros(0, np.float32), BadAudio),
        (np.array([0.0, np.nan]), BadAudio),
        ((np.zeros(99), 0), BadAudio),
        ("no such file.wav", MissingFile),
        (None, BadAudio),
    ],
    ids=["empty", "nan", "0 Hz", "missing", "None"],
)
def test_what_is_no_audio_is_refused(loaded: Model, source: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        loaded.generate(source, "describe")


def test_audio_beyond_the_bound_is_refused(loaded: Model) -> None:
    with pytest.raises(BadAudio, match="at most 1 s"):
        loaded.generate(noise(RATE + 1), "describe", max_audio_seconds=1)


# --- text as it comes


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("samples", [20_000, 2 * WINDOW + 5])
@pytest.mark.parametrize("prompt", ["transcribe", "describe"])
def test_the_pieces_of_a_stream_joined_are_the_text(
    loaded: Model, way: str, samples: int, prompt: str
) -> None:
    pieces = list(loaded.stream(noise(samples), prompt, **WAYS[way]))
    assert "".join(pieces) == loaded.generate(noise(samples), prompt, **WAYS[way]).text
    assert all(pieces) and (way == "beams" or len(pieces) > 1)


def test_a_stream_raises_what_went_wrong(loaded: Model) -> None:
    with pytest.raises(BadPrompt):
        next(loaded.stream(noise(9), ""))


def test_a_stream_that_is_left_early_does_no_more_work(loaded: Model) -> None:
    seconds: list[float] = []
    for most in (1, 10**6):
        start = time.process_time()
        stream: Any = loaded.stream(noise(20 * WINDOW), "x", **GREEDY)
        with closing(stream):
            assert list(islice(stream, most))
        seconds.append(time.process_time() - start)
    assert seconds[0] < seconds[1] / 2
    assert list(loaded.stream(noise(9), "describe", **GREEDY))
