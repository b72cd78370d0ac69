"""Qwen3's forced aligner: the times of words as transformers finds them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import alm
from alm.align.aligner import Aligner
from alm.errors import BadArtifacts, BadCheckpoint
from alm.text.segments import words_of
from tests.conftest import run_export
from tests.products import some
from tests.reference import LIBRISPEECH
from tests.wrappers.checkpoint.checkpoints import Copy, refused, renamed, without
from tests.wrappers.families import tiny_qwen3_asr
from tests.wrappers.families.tiny_hf import noise
from tests.wrappers.families.tiny_qwen3_asr import RATE, Tiny, authors
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled

GREEDY: dict[str, Any] = dict(max_new_tokens=24, do_sample=False, num_beams=1)
TEXTS = (
    "Mister Quilter is the apostle of the middle classes.",
    "It's a well-known fact: 3.5 times, l'été 你好 wörld…",
    "one",
)
WORDS = " ".join(f"word{i}" for i in range(60))
KINDS: dict[str, dict[str, Any]] = {
    "decomposed": {},
    "standard": dict(bias=True, labels=131, head_dim=10, num_key_value_heads=1),
    "ort": dict(labels=70, step_ms=100, num_attention_heads=2, head_dim=24),
}


@pytest.fixture(scope="module", params=some([*KINDS], "standard", "ort"))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tiny, Aligner]:
    """A checkpoint in a dialect of its own, as transformers and as we run it."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny = tiny_qwen3_asr.aligner(folder / "model", **KINDS[request.param])
    words = ("--precision", "fp32", "--dialect", request.param, "--no-simplify")
    run_export("--model", folder / "model", *words, "--out", folder / "artifacts")
    return tiny, Aligner(folder / "artifacts", "cpu")


@torch.no_grad()
def wanted(tiny: Tiny, clip: np.ndarray, text: str) -> list[dict[str, Any]]:
    """Words and times of transformers' processor and model."""
    processor = tiny.processor
    inputs, words = processor.prepare_forced_aligner_inputs([clip], text)
    logits = tiny.truth(**inputs).logits
    mark = tiny.truth.config.timestamp_token_id
    return processor.decode_forced_alignment(logits, inputs["input_ids"], words, mark)[0]


@pytest.mark.parametrize("text", [*TEXTS, WORDS])
@pytest.mark.parametrize("seconds", [0.3, 1, 5.01, 30])
def test_words_are_timed_as_transformers_times_them(
    pair: tuple[Tiny, Aligner], text: str, seconds: float
) -> None:
    tiny, aligner = pair
    clip = noise(int(seconds * RATE))
    timed = aligner.align(clip, text)
    want = wanted(tiny, clip, text)
    assert [place.word for place, _ in timed] == [entry["text"] for entry in want]
    got = [(word.start, word.end) for _, word in timed]
    assert got == [(entry["start_time"], entry["end_time"]) for entry in want]
    times = [time for pair_of_times in got for time in pair_of_times]
    assert times == sorted(times)


def test_speech_is_timed_as_transformers_times_it(pair: tuple[Tiny, Aligner]) -> None:
    tiny, aligner = pair
    clip = soundfile.read(LIBRISPEECH[0], dtype="float32")[0]
    got = [word.start for _, word in aligner.align(clip, TEXTS[0])]
    assert got == [entry["start_time"] for entry in wanted(tiny, clip, TEXTS[0])]


def test_no_words_have_no_times(pair: tuple[Tiny, Aligner]) -> None:
    assert pair[1].align(noise(RATE), " ... ") == []


# --- beside a model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A Qwen3-ASR and an aligner, exported."""
    folder = tmp_path_factory.mktemp("beside")
    tiny_qwen3_asr.make(folder / "model")
    tiny_qwen3_asr.aligner(folder / "times", labels=140)
    for name in ("model", "times"):
        words = ("--precision", "fp32", "--no-simplify", "--out", folder / f"{name}-artifacts")
        run_export("--model", folder / name, *words)
    return folder / "model-artifacts", folder / "times-artifacts"


@pytest.mark.parametrize("seconds", [30, 600])
def test_an_answers_words_follow_each_other(folders: tuple[Path, Path], seconds: int) -> None:
    """The aligner's 140 labels are 11.12 s, so that longer clips are answered in pieces."""
    model = alm.load(folders[0], "cpu", align=folders[1])
    answer = model.generate(noise(seconds * RATE), "transcribe", **GREEDY)
    assert answer.windows == math.ceil(seconds / 11.12)
    times = [time for word in words_of(answer.segments) for time in (word.start, word.end)]
    assert times and times == sorted(times) and times[-1] <= seconds
    spoken = "".join(word.text for word in words_of(answer.segments))
    assert [c for c in spoken if c.isalpha()] == [c for c in answer.text if c.isalpha()]


def test_without_an_aligner_segments_are_the_windows(folders: tuple[Path, Path]) -> None:
    answer = alm.load(folders[0], "cpu").generate(noise(3 * RATE), "transcribe", **GREEDY)
    [segment] = answer.segments
    assert (segment.start, segment.end, segment.text) == (0, 3, answer.text)


def test_the_folders_are_not_taken_for_each_other(folders: tuple[Path, Path]) -> None:
    with pytest.raises(BadArtifacts, match="is an aligner, which times words"):
        alm.load(folders[1], "cpu")
    with pytest.raises(BadArtifacts, match="answers with text, and --align wants"):
        alm.load(folders[0], "cpu", align=folders[0])


# --- folders


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    tiny = tiny_qwen3_asr.aligner(tmp_path / "aligner")
    return Copy(tiny.folder / "config.json", tmp_path)


def test_the_manifest_states_marks_and_steps(copy: Copy) -> None:
    made = open_checkpoint(copy.config)
    assert made.family == "qwen3_aligner"
    assert (made.facts.align.mark, made.facts.align.step_ms) == ("<timestamp>", 80)
    assert (made.facts.dimensions.vocab, made.facts.dimensions.table) == (90, 300)
    assert made.facts.audio.window_samples == 89 * 80 * 16


def test_a_folder_in_the_authors_layout_is_the_same_model(copy: Copy) -> None:
    ours = open_checkpoint(copy.config)
    head = filled(ours.part("decoder", "ort")).state_dict()["lm_head.weight"].clone()
    authors(copy, "qwen3_forced_aligner", classify_num=90, timestamp_segment_time=80)
    copy.json("config.json", architectures=["Qwen3ASRForConditionalGeneration"])
    (copy.folder / "processor_config.json").unlink()
    copy.weights("", renamed(lambda key: key.replace("score.", "thinker.lm_head.")))
    theirs = open_checkpoint(copy.config)
    assert theirs.family == "qwen3_aligner"
    assert (theirs.facts.align, theirs.facts.audio) == (ours.facts.align, ours.facts.audio)
    assert torch.equal(filled(theirs.part("decoder", "ort")).state_dict()["lm_head.weight"], head)


def changed(copy: Copy, file: str, **values: Any) -> None:
    plain = json.loads((copy.folder / file).read_text())
    (copy.folder / file).write_text(json.dumps(plain | values))


def other_template(copy: Copy) -> None:
    file = copy.folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("<timestamp><timestamp>", " <timestamp>"))


CASES: dict[str, tuple[str, Callable[[Copy], Any]]] = {
    "steps that are no milliseconds": (
        "timestamp_segment_time 12.5; it must be whole milliseconds",
        lambda c: changed(c, "processor_config.json", timestamp_segment_time=12.5),
    ),
    "no head": ("language_model.lm_head.weight", lambda c: c.weights("", without("score"))),
    "another chat template": ("its chat template is not the one that is known", other_template),
    "a mark that no tokenizer has": (
        "says that token 5000 stands for a word's time",
        lambda c: changed(c, "config.json", timestamp_token_id=5000),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    sentence, change = CASES[case]
    change(copy)
    assert sentence in refused(copy, BadCheckpoint)
