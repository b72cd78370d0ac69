"""Windows heard before: no encoder runs for them again, and what is remembered has its bounds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import alm
from alm.artifacts.manifest import File, Part
from alm.cache.audio import AudioEncoder, key
from alm.cache.memory import Arrays, Memory
from alm.errors import BadOption
from alm.facts import Facts, PromptFacts, UnitFacts
from alm.generation.answers import Answer
from alm.generation.model import Model
from alm.generation.parts import Parts
from alm.generation.pipeline import Pipeline, Stages
from alm.ports import Port
from tests.runtime.generation.test_model import GREEDY, RATE, WINDOW, core, noise
from tests.runtime.generation.test_pipeline import Fake

ENCODERS = {"mel", "whisper", "fbank", "beats", "qformer"}


@pytest.fixture
def loaded(artifacts: Path) -> Model:
    return alm.load(artifacts, provider="cpu", threads=1)


def embeds(value: float, kib: int) -> Arrays:
    return {"embeds": np.full((kib, 256), value, np.float32)}


def ear(most_bytes: int = 2**20) -> tuple[AudioEncoder, Fake]:
    """Its embeddings are two copies of a window's sum and its length."""

    def make(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        pair = np.stack([feeds["pcm"].sum(axis=1), feeds["pcm_lengths"]], axis=1)
        return {"audio_embeds": np.repeat(pair[:, None], 2, axis=1).astype(np.float32)}

    given = {name: Port("float32", ("batch",)) for name in ("pcm", "pcm_lengths")}
    part = Part("encoder", "encoder", (File("x", 1, ""),), given, {"audio_embeds": given["pcm"]})
    session = Fake(make)
    memory = Memory("audio", most_bytes)
    return AudioEncoder(Pipeline([part], {"encoder": session}), memory), session


# --- what is remembered


def test_what_was_asked_for_last_is_forgotten_last() -> None:
    memory = Memory("audio", 3 * 1024)
    for name in (b"a", b"b", b"c"):
        memory.put(name, embeds(1, 1))
    assert memory.get(b"a") is not None
    memory.put(b"d", embeds(1, 1))
    assert memory.get(b"b") is None and len(memory) == 3 and memory.bytes == 3 * 1024
    memory.put(b"e", embeds(1, 3))
    assert memory.get(b"e") is not None and len(memory) == 1


def test_a_key_put_twice_counts_once_and_what_is_too_large_is_not_remembered() -> None:
    memory = Memory("audio", 2 * 1024)
    for value in (1, 2):
        memory.put(b"a", embeds(value, 1))
    found = memory.get(b"a")
    assert found is not None and found["embeds"][0, 0] == 2 and memory.bytes == 1024
    memory.put(b"b", embeds(1, 3))
    assert memory.get(b"b") is None and memory.get(b"a") is not None


def test_a_remembered_row_does_not_hold_its_batch() -> None:
    memory, batch = Memory("audio", 2**20), np.zeros((8, 4, 4), np.float32)
    memory.put(b"a", {"embeds": batch[3]})
    found = memory.get(b"a")
    assert found is not None and not np.shares_memory(found["embeds"], batch)


def test_windows_are_told_apart_by_every_sample_and_their_length() -> None:
    pcm = noise(100)
    others = [pcm[:-1], np.append(pcm, np.float32(0)), pcm * np.float32(1.0001), pcm[::-1]]
    assert key(pcm) == key(pcm.copy()) == key(pcm.astype(np.float64))
    assert len({key(each) for each in (pcm, *others)}) == 5


# --- the ear


def test_a_batch_of_known_and_unknown_windows_computes_the_unknown_once() -> None:
    listener, session = ear()
    a, b, c = noise(5, 1), noise(9, 2), noise(7, 3)
    first, known = listener.encode([a], Stages())
    assert known == [False]
    stages = Stages()
    found, known = listener.encode([b, a, c, b], stages)
    assert known == [False, True, False, False] and "encoder" in stages.ms
    assert [len(feeds["pcm"]) for feeds in session.fed] == [1, 2]
    assert session.fed[1]["pcm_lengths"].tolist() == [9, 7]
    assert found[1] is not first[0] and found[1].tolist() == first[0].tolist()
    wanted = [[each.sum(), len(each)] for each in (b, a, c, b)]
    np.testing.assert_allclose([each[0] for each in found], wanted, rtol=1e-5)
    stages = Stages()
    assert listener.encode([c, a, b], stages)[1] == [True] * 3
    assert len(session.fed) == 2 and "encoder" not in stages.ms


def test_an_ear_without_memory_computes_everything_every_time() -> None:
    listener, session = ear(0)
    for _ in range(2):
        assert listener.encode([noise(5)] * 2, Stages())[1] == [False] * 2
    assert [len(feeds["pcm"]) for feeds in session.fed] == [2, 2] and not len(listener.memory)


# --- the model


def test_a_second_question_about_a_clip_runs_no_encoder(loaded: Model) -> None:
    pcm = noise(WINDOW + RATE)
    first = loaded.generate(pcm, "describe", **GREEDY)
    again = loaded.generate(pcm, "describe", **GREEDY)
    assert (first.audio_cached, again.audio_cached, again.windows) == (0, 2, 2)
    assert first.timings_ms.keys() >= ENCODERS and not again.timings_ms.keys() & ENCODERS
    assert core(first) == core(again)
    other = loaded.generate(pcm, "transcribe", num_beams=3, max_new_tokens=8)
    assert other.audio_cached == 2


def test_a_batch_says_which_of_its_clips_were_known(loaded: Model) -> None:
    clips: list[Any] = [noise(20_000 + i, i) for i in range(3)]
    alone = loaded.generate(clips[1], "describe", **GREEDY)
    together = loaded.generate(clips, "describe", **GREEDY)
    assert [answer.audio_cached for answer in together] == [0, 1, 0]
    assert core(together[1]) == core(alone)


def test_a_folder_remembers_for_later_runs(artifacts: Path, tmp_path: Path) -> None:
    def ask(**more: Any) -> list[Answer]:
        model = alm.load(artifacts, provider="cpu", threads=1, **more)
        return [model.generate(noise(WINDOW + RATE), "describe", **GREEDY)]

    (alone,) = ask()
    (first,) = ask(cache=tmp_path / "kept")
    (again,) = ask(cache=tmp_path / "kept")
    (leaner,) = ask(cache=tmp_path / "kept", audio_cache=0)
    assert [each.audio_cached for each in (alone, first, again, leaner)] == [0, 0, 2, 2]
    assert [each.prefix_tokens > 0 for each in (alone, again, leaner)] == [True] * 3
    assert again.prefix_tokens == leaner.prefix_tokens == 2 * alone.prefix_tokens
    assert core(alone) == core(first) == core(again) == core(leaner)
    for path in (tmp_path / "kept").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"\0\1")
    (damaged,) = ask(cache=tmp_path / "kept")
    assert damaged.audio_cached == 0 and core(damaged) == core(alone)


def test_what_can_be_no_folder_is_refused(artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for wrong in ("file", "file/in", "a" * 300):
        with pytest.raises(BadOption, match="the cache .* can be no folder: "):
            alm.load(artifacts, cache=tmp_path / wrong)


def test_a_share_of_a_clip_is_given_to_the_decoder(loaded: Model) -> None:
    pcm = noise(WINDOW + RATE)
    whole = loaded.generate(pcm, "describe", **GREEDY)
    half = loaded.generate(pcm, "describe", merge_audio=50, **GREEDY)
    assert (whole.audio_merged, whole.merge_cosine) == (0, None)
    assert half.audio_tokens + half.audio_merged == whole.audio_tokens
    assert whole.windows == 2 and half.audio_cached == 2
    assert half.audio_tokens == 2 * -(-whole.audio_tokens // 2 // 2)
    assert half.prompt_tokens == whole.prompt_tokens - half.audio_merged
    assert half.merge_cosine is not None and half.merge_cosine < 1
    again = loaded.generate(pcm, "describe", **GREEDY)
    assert core(again) == core(whole)  # what is remembered is whole
    with pytest.raises(BadOption, match="merge_audio is the percentage"):
        loaded.generate(pcm, "describe", merge_audio=0)


@pytest.mark.parametrize(
    "facts, stepping, why",
    [
        (Facts(units=UnitFacts(count=5)), None, "hears tokens"),
        (Facts(prompt=PromptFacts(marker_seconds=5)), None, "to tell the time"),
        (Facts(), object(), "a token for each step of sound"),
    ],
)
def test_a_model_whose_embeddings_are_counted_is_given_all(
    facts: Facts, stepping: Any, why: str
) -> None:
    parts: Any = SimpleNamespace(manifest=SimpleNamespace(facts=facts), stepping=stepping)
    Parts.check_merging(parts, 100)
    with pytest.raises(BadOption, match=f"merge_audio is not for this model, which .*{why}"):
        Parts.check_merging(parts, 50)


def test_the_memory_can_be_switched_off(artifacts: Path) -> None:
    model = alm.load(artifacts, threads=1, audio_cache=0)
    answers = [model.generate(noise(9), "describe", **GREEDY) for _ in range(2)]
    assert [answer.audio_cached for answer in answers] == [0, 0]
    assert all(answer.timings_ms.keys() >= ENCODERS for answer in answers)
    with pytest.raises(BadOption, match="audio_cache is bytes, 0 or more, not -1"):
        alm.load(artifacts, audio_cache=-1)
