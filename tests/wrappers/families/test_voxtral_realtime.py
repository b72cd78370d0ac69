"""Voxtral Realtime: whole clips and sound as it comes, as transformers answers the whole clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from alm.errors import BadOption, BadPrompt
from alm.facts import AudioFacts, LiveFacts, TokenFacts
from alm.generation.model import Model
from alm.live.state import carried
from alm.ports import SPARE
from tests.products import some
from tests.reference import LIBRISPEECH
from tests.runtime.cli.commands import ALM_RUN, process
from tests.whole.targets import check_fit, export_for, sized
from tests.wrappers.families import tiny_voxtral_realtime as tiny_family
from tests.wrappers.families.tiny_hf import noise
from tests.wrappers.families.tiny_qwen3_asr import alike
from tests.wrappers.families.tiny_voxtral_realtime import DELAY, RATE, Tiny
from wrappers import Wrapper, open_checkpoint
from wrappers.checkpoint.weights.hollow import filled

SIZES: dict[str, dict[str, Any]] = {
    "tied": {},
    "own head, one head of keys, short windows, steps of 40 ms": dict(
        tied=False, num_key_value_heads=1, head_dim=12, intermediate_size=52, sliding_window=17,
        left=3, stack=2, hidden_act="gelu", projector_hidden_act="relu",
        tower=dict(num_mel_bins=17, hidden_size=26, num_attention_heads=3, head_dim=6,
                   sliding_window=13, num_hidden_layers=1, hidden_act="relu"),
    ),
    "a floor of its own, other angles, more layers": dict(
        num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2, left=1,
        sliding_window=40, extractor=dict(global_log_mel_max=0.7),
        rope_parameters=dict(rope_type="default", rope_theta=300.0),
        tower=dict(rope_parameters=dict(rope_type="default", rope_theta=700.0),
                   sliding_window=2, rms_norm_eps=1e-3),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=sized(SIZES, 9))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tiny, Model]:
    """A checkpoint of each kind, each for another target and so in another dialect."""
    sizes, target = request.param
    folder = tmp_path_factory.mktemp(target)
    made = tiny_family.make(folder / "model", **SIZES[sizes])
    return made, export_for(target, folder / "model", folder)


@cache
def wanted_of(tiny: Tiny, seconds: float) -> list[int]:
    """transformers' answer to a clip of noise, computed once."""
    return tiny.answer(noise(int(seconds * RATE)))


# --- parts


def stateful(part: Wrapper, rows: int) -> Callable[..., Tensor]:
    """What the part makes of piece after piece, its state carried on."""
    state = [torch.from_numpy(p.empty({"batch": rows})) for p in carried(part.inputs).values()]

    @torch.no_grad()
    def run(piece: Tensor) -> Tensor:
        made, *state[:] = part(piece, *state)
        return made

    return run


@pytest.fixture(scope="module", params=SIZES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A checkpoint of each kind."""
    return tiny_family.make(tmp_path_factory.mktemp("made"), **SIZES[request.param])


def test_parts_hear_what_transformers_hears_in_pieces_of_any_size(made: Tiny) -> None:
    loaded = open_checkpoint(made.folder)
    mel, tower, projector = (
        filled(loaded.part(name, "ort")) for name in ("mel", "voxtral_realtime", "projector")
    )
    ahead, step = loaded.facts.live.ahead_samples, loaded.facts.live.step_samples
    for clip in (noise(1), noise(step), 30 * noise(step + 1), np.zeros(9000, np.float32)):
        pcm = torch.from_numpy(np.pad(made.padded(clip)[ahead:], (0, ahead)))[None]
        wanted, features = made.heard(clip), made.features(clip)
        for size in (1, 5, pcm.shape[1] // step):
            heard, encoded = stateful(mel, 1), stateful(tower, 1)
            log = [heard(piece) for piece in pcm.split(size * step, 1)]
            assert (torch.cat(log, 2) - features).abs().max() < 1e-5
            rows = torch.cat([projector(encoded(piece)) for piece in log], 1)[0]
            alike(rows, wanted)


def test_graphs_hear_what_transformers_hears(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    stepping = model.parts.stepping
    assert stepping
    speech = soundfile.read(LIBRISPEECH[0], dtype="float32")[0]
    for clip in (noise(1), 20 * noise(7 * RATE), speech):
        rows = model.parts.hear(stepping.padded(clip, DELAY))
        alike(torch.from_numpy(rows), tiny.heard(clip))


def test_rows_of_a_batch_are_heard_as_each_alone(made: Tiny) -> None:
    loaded = open_checkpoint(made.folder)
    mel, tower = (filled(loaded.part(name, "ort")) for name in ("mel", "voxtral_realtime"))
    pcm = torch.from_numpy(np.stack([noise(12_800), 5 * noise(12_800, 1), noise(12_800, 2)]))
    both = stateful(tower, 3), stateful(mel, 3)
    for piece in pcm.split(2560, 1):
        got = both[0](both[1](piece))
    for row in range(3):
        alone = stateful(tower, 1), stateful(mel, 1)
        for piece in pcm[row : row + 1].split(2560, 1):
            want = alone[0](alone[1](piece))
        assert (got[row] - want[0]).abs().max() < 1e-4  # pyright: ignore


# --- whole clips


@pytest.mark.parametrize("seconds", some([1 / RATE, 1, 5, 29.99, 31, 75], 1 / RATE, 1, 5, 31))
def test_a_clip_of_any_length_is_answered_as_transformers_does(
    pair: tuple[Tiny, Model], seconds: float
) -> None:
    tiny, model = pair
    clip = noise(int(seconds * RATE))
    wanted = wanted_of(tiny, seconds)
    answer = model.generate(clip, "transcribe")
    assert answer.token_ids == wanted and len(wanted) == -(-len(clip) // tiny.step) + 10
    assert answer.stop_reason == "audio" and not answer.notes and answer.windows == 1
    assert answer.audio_tokens == len(tiny.padded(clip)) // tiny.step
    assert answer.prompt_tokens == len(tiny.prompt())
    if seconds <= 5:  # transformers' own two ways are one
        assert tiny.streamed(clip)[: len(wanted)] == wanted


def test_clips_of_different_lengths_are_answered_together_as_alone(
    pair: tuple[Tiny, Model],
) -> None:
    tiny, model = pair
    speech = soundfile.read(LIBRISPEECH[1], dtype="float32")[0]
    clips = [noise(3 * RATE), speech, np.zeros(9000, np.float32)]
    wanted = [tiny.answer(clip) for clip in clips]
    answers = model.generate(clips, "transcribe")
    assert [answer.token_ids for answer in answers] == wanted
    short = model.generate(clips, "transcribe", max_new_tokens=7)
    assert [answer.token_ids for answer in short] == [ids[:7] for ids in wanted]
    assert short[0].stop_reason == "length"


def test_decoding_options_are_transformers(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    clip = noise(2 * RATE)
    cases: list[dict[str, Any]] = [dict(repetition_penalty=1.3), dict(num_beams=3)]
    cases.append(dict(no_repeat_ngram_size=2))
    for options in cases:
        answer = model.generate(clip, "transcribe", **options)
        assert answer.token_ids == tiny.answer(clip, **options), options


def test_words_follow_their_sound_by_the_delay_that_is_asked_for(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    clip, ms = noise(4 * RATE), 1000 * tiny.step // RATE
    for delay in (1, DELAY, 15):
        wanted = tiny.answer(clip, delay)
        assert model.generate(clip, "transcribe", delay=delay * ms).token_ids == wanted
        live = model.live(delay=delay * ms)
        live.feed(clip)
        live.finish()
        assert live.token_ids == wanted
    assert tiny.answer(clip, 1)[:20] != tiny.answer(clip, 15)[:20]


# --- sound as it comes


def pieces(clip: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The clip in pieces of so many samples; 0: of sizes at random, none among them."""
    random, at = np.random.default_rng(0), 0
    while at < len(clip):
        some = size or int(random.integers(0, 6000))
        yield clip[at : at + some]
        at += some


@pytest.mark.parametrize("seconds", some([1 / RATE, 1, 31, 75], 1 / RATE, 1, 31))
def test_sound_as_it_comes_is_answered_as_transformers_answers_the_whole(
    pair: tuple[Tiny, Model], seconds: float
) -> None:
    tiny, model = pair
    clip = noise(int(seconds * RATE))
    wanted, text = wanted_of(tiny, seconds), model.generate(clip, "transcribe").text
    for size in (1, 1280, RATE, 0, len(clip)) if seconds <= 1 else (1280, 0):
        live = model.live()
        said = "".join(live.follow(pieces(clip, size)))
        assert live.token_ids == wanted, size
        assert live.text == said.strip() == text
        assert live.samples == len(clip) and live.ended


def test_text_comes_while_the_sound_does(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    live, said, clip = model.live(), 0, noise(20 * RATE)
    for i, piece in enumerate(pieces(clip, tiny.step), 1):
        live.feed(piece)
        if i > 1 + DELAY:  # a step is heard when 2.5 ms of the next one are
            said += 1
            assert len(live.token_ids) in (said - 1, said)
    assert len(live.token_ids) > 200


def test_a_live_run_holds_as_much_after_a_minute_as_after_a_second(
    pair: tuple[Tiny, Model],
) -> None:
    _, model = pair
    live, sizes = model.live(), set()
    state: Any = live
    chain = state._hearing._run.__self__
    window = model.manifest.facts.live.window
    for piece in pieces(noise(60 * RATE), RATE):
        live.feed(piece)
        decoder = state._decoder
        cache = [decoder.session.fetch(kept).shape for kept in decoder.cache.kept.values()]
        assert decoder.held <= max(window, len(state._prompt)) + SPARE
        assert max(max(shape[1:]) for shape in cache) <= max(window, 64) + SPARE + 64
        assert len(state._rows) < len(state._prompt)
        sizes.add((sum(each.bytes for each in chain.states), state._hearing._buffer.nbytes))
    assert len(sizes) == 1
    assert len(live.token_ids) > 2 * SPARE  # the window was moved


def test_what_a_stream_cannot_be_is_refused(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    clip = noise(RATE)
    with pytest.raises(BadPrompt, match="writes down what it hears and is asked nothing"):
        model.generate(clip, "What is said?")
    with pytest.raises(BadPrompt, match="one clip at a time"):
        model.generate([[clip, clip]], "transcribe")
    for wrong in (7, 0, -80, 80_000_000, "80"):
        with pytest.raises(BadOption, match="delay"):
            model.live(delay=wrong)  # pyright: ignore
    with pytest.raises(BadOption, match="num_beams is 1"):
        model.live(num_beams=2)
    with pytest.raises(BadOption, match="forced_eos_token_id"):
        model.live(forced_eos_token_id=2)
    live = model.live()
    with pytest.raises(ValueError, match=r"one row of floats, not int16 \[5\]"):
        live.feed(np.zeros(5, np.int16))
    with pytest.raises(ValueError, match="not a finite number"):
        live.feed(np.array([0.0, np.nan]))
    live.finish()
    assert live.finish() == ""
    with pytest.raises(BadOption, match="the sound was ended"):
        live.feed(clip)


def test_raw_samples_of_a_pipe_are_written_down_as_the_file_is(
    pair: tuple[Tiny, Model], tmp_path: Path
) -> None:
    _, model = pair
    whole = (noise(6 * RATE) * 32768).round().astype("<i2")
    soundfile.write(tmp_path / "clip.wav", whole, RATE, subtype="PCM_16")
    wanted = model.generate(tmp_path / "clip.wav", "transcribe").text
    words = ("--engine", model.folder, "--provider", "cpu", "--live")
    for clip, given in ((tmp_path / "clip.wav", b""), ("-", whole.tobytes() + b"\0")):
        out, err = process(ALM_RUN, *words, clip).communicate(given)
        assert out.decode().strip() == wanted and not err, err


def test_utterances_of_a_stream_are_streams_of_their_own(pair: tuple[Tiny, Model]) -> None:
    _, model = pair
    still = 1e-4 * noise(RATE)
    sound = np.concatenate([still, noise(RATE), still, 0.7 * noise(RATE), still]).astype(np.float32)
    wanted: list[str] = []
    for size in (997, 16_000, len(sound)):
        listener, said = model.listen(), list[Any]()
        for piece in pieces(sound, size):
            said += listener.feed(piece)
        said += listener.finish()
        finals = [event for event in said if type(event).__name__ == "Final"]
        for event in finals:
            live = model.live()
            live.feed(sound[round(event.start * RATE) : round(event.end * RATE)])
            live.finish()
            assert event.text == live.text and event.answer.token_ids == live.token_ids
        wanted = wanted or [event.text for event in finals]
        assert [event.text for event in finals] == wanted and len(wanted) == 2
    with pytest.raises(BadOption, match="a stream is not listened to with stop"):
        model.listen(stop=["a"])
    with pytest.raises(BadPrompt, match="asked nothing"):
        model.listen("What is it?", verbatim=True)


# --- folders


def test_the_manifest_states_the_stream(pair: tuple[Tiny, Model]) -> None:
    tiny, model = pair
    facts, loaded = model.manifest.facts, open_checkpoint(tiny.folder)
    window = facts.live.window
    assert facts.live == LiveFacts(
        tiny.step, 40, tiny.left, 11, DELAY, "[STREAMING_PAD]", window
    ) == loaded.facts.live  # fmt: skip
    assert facts.audio == AudioFacts(RATE, "mean", 1, 30 * RATE, "joined")
    assert facts.tokens == TokenFacts(1, (2,), penalize_prompt=True)
    assert loaded.roles == {
        **{"mel": "frontend", "voxtral_realtime": "encoder"},
        **{"projector": "bridge", "decoder": "decoder"},
    }


def test_graphs_are_fit_for_their_target(pair: tuple[Tiny, Model]) -> None:
    check_fit(pair[1].folder)
