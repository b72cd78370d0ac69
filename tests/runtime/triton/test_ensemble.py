"""Embeddings by way of Triton's models are those of alm, and what cannot be an ensemble says so."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import alm
from alm.artifacts import manifest
from alm.artifacts.manifest import Manifest, Part
from alm.errors import BadArtifacts, BadOption
from alm.ports import Port, Span
from alm.timings import Stages
from alm.triton import ensemble
from alm.triton.front import Front
from tests.runtime.triton.conftest import packed
from tests.runtime.triton.stand_in import Server

PCM = Port("float32", ("batch", "samples"))
LENGTHS = Port("int64", ("batch",), counts="samples")


def check_embeddings(folder: Path, repository: Path, clips: list[np.ndarray]) -> Server:
    """Every clip's, of alm and of the server with the models of this repository."""
    server = Server(repository, on_gpu=True)
    inner = repository / "alm" / "1" / "model"
    front = Front(server.utils(), "alm_audio", manifest.load(inner), 8)
    ours, theirs = alm.load(folder, "cpu", 1), alm.load(inner, "cpu", 1, front=front)
    wanted, _ = ours.parts.audio_encoder.encode(clips, Stages())
    stages = Stages()
    given, _ = theirs.parts.audio_encoder.encode(clips, stages)
    for mine, its in zip(wanted, given, strict=True):
        np.testing.assert_array_equal(mine, its)
        assert mine.size and mine.dtype == its.dtype
    assert stages.ms["alm_audio"] > 0
    asked = ours.manifest.facts.prompt.tasks
    prompt = next(iter(asked), "What?")
    greedy = {"max_new_tokens": 3, "do_sample": False}
    first, second = (m.generate(clips[0], prompt, **greedy) for m in (ours, theirs))
    assert first.token_ids == second.token_ids
    return server


def test_the_demos_two_encoders_and_bridge_follow_the_maps(
    demo: Path, demo_repository: Path, clips: list[np.ndarray]
) -> None:
    server = check_embeddings(demo, demo_repository, clips)
    rows = {model: n for model, n in server.asked if n > 1}
    assert rows == dict.fromkeys(
        ["alm_audio", "alm_mel", "alm_whisper", "alm_fbank", "alm_beats", "alm_qformer"], 3
    )


def test_small_families_do_too(family: Path, tmp_path: Path, clips: list[np.ndarray]) -> None:
    check_embeddings(family, packed(family, tmp_path / "models"), clips)


def test_more_rows_than_a_model_takes_are_several_requests(
    demo: Path, tmp_path: Path, clips: list[np.ndarray]
) -> None:
    repository = packed(demo, tmp_path / "models", batch=2)
    server = Server(repository)
    front = Front(server.utils(), "alm_audio", manifest.load(demo), 2)
    pcm = np.stack([clip[:9_000] for clip in clips])
    front.forward({"pcm": pcm, "pcm_lengths": np.full(3, 9_000)})
    assert [rows for model, rows in server.asked if model == "alm_audio"] == [2, 1]


def test_what_triton_says_is_our_error(demo: Path, demo_repository: Path) -> None:
    front = Front(Server(demo_repository).utils(), "alm_audio", manifest.load(demo), 64)
    pcm = np.zeros((9, 9_000), np.float32)  # the models take 8
    with pytest.raises(BadArtifacts, match="Triton's model alm_audio: failed"):
        front.forward({"pcm": pcm, "pcm_lengths": np.full(9, 9_000)})


# --- what is no ensemble


def of(*parts: Part, long: str = "", most: int | None = None) -> Manifest:
    """A manifest of these parts alone, whose clips are heard as `long` says."""
    from alm.facts import Facts

    facts = Facts()
    facts = replace(facts, audio=replace(facts.audio, long=long))
    facts = replace(facts, dimensions=replace(facts.dimensions, audio_tokens=most))
    return Manifest("any", parts, None, facts)


def part(inputs: dict[str, Port], outputs: dict[str, Port], **more: object) -> Part:
    return Part("tower", "encoder", (), inputs, outputs, **more)  # pyright: ignore


def embeds(*axes: int | str) -> dict[str, Port]:
    return {"audio_embeds": Port("float32", axes)}


MEL = Part("mel", "frontend", (), {"pcm": PCM}, {"mel": Port("float32", ("batch", 80, "frames"))})
OPEN = {"mel": Port("float32", ("batch", 80, "frames"))}
ROWS = {"frames": Span(1, 100, 1500)}


def test_parts_of_one_length_follow_each_other() -> None:
    assert ensemble.why_not(of(MEL, part(OPEN, embeds("batch", "rows", 8)))) == ""


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (part({"mel": Port("float32", ("batch", 80, 3000))}, {}), "windows of a fixed size"),
        (part(OPEN | {"past_key_values.a": Port("float32", ("batch", 2))}, {}), "carries a state"),
        (part(OPEN | {"lora.tower.q.down": Port("float32", (1, 8, "rank"))}, {}), "a batch"),
        (part(OPEN, embeds("batch", "rows", 8), spans=ROWS, pieces="frames"), "in pieces along"),
        (part({"mel": Port("float32", (1, 80, "frames"))}, embeds(1, 9, 8)), "others one row"),
        (part({"mel": Port("float32", ("frames", 80))}, {}), "do not begin with a batch"),
        (part({"other": PCM}, {}), "nothing makes other"),
    ],
)
def test_what_only_our_pipeline_does_is_named(wrong: Part, reason: str) -> None:
    assert reason in ensemble.why_not(of(MEL, wrong))


def test_pieces_that_a_window_never_fills_are_no_hindrance() -> None:
    bridge = part(OPEN, embeds("batch", "frames", 8), spans=ROWS, pieces="frames")
    assert ensemble.why_not(of(MEL, bridge, most=750)) == ""
    assert "pieces" in ensemble.why_not(of(MEL, bridge, most=1501))
    assert "pieces" in ensemble.why_not(of(MEL, bridge, most=750, long="joined"))


def test_a_stream_takes_no_front(demo: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(demo, tmp_path / "own"))
    plain = manifest.load(own)
    live = replace(plain.facts.live, step_samples=1280)
    replace(plain, facts=replace(plain.facts, live=live)).save(own)
    front = Front(None, "alm_audio", plain, 8)
    with pytest.raises(BadOption, match="piece by piece, so it takes no `front`"):
        alm.load(own, "cpu", 1, front=front)
