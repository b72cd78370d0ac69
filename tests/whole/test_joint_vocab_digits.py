"""A tiny joint vocabulary that was trained: it names the digit that is said, and who says it.

`demo/joint_vocab.py` made tests/data/joint_vocab; none of the clips there was heard in training.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import alm
from alm.audio import reader
from alm.generation.model import Model
from demo.joint_vocab import TASKS, Clip
from tests.conftest import run_export
from tests.reference import DATA
from tests.wrappers.families.tiny_joint_vocab import Original

FOLDER = DATA / "joint_vocab"
CLIPS = [Clip(path) for path in sorted((FOLDER / "clips").glob("*.wav"))]
MOST_WRONG = 1 / 10


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    out = tmp_path_factory.mktemp("digits") / "out"
    words = ("--precision", "fp32", "--dialect", "ort", "--dynamic-batch")
    run_export("--model", FOLDER, *words, "--out", out)
    return alm.load(out, "cpu")


@pytest.fixture(scope="module")
def said(model: Model) -> Callable[[str], list[Any]]:
    """The answers about all clips, by task."""
    paths = [clip.path for clip in CLIPS]
    return cache(lambda task: model.generate(paths, task, max_new_tokens=16))


@pytest.mark.parametrize("task", TASKS)
def test_what_was_never_heard_is_named_right(said: Callable[[str], list[Any]], task: str) -> None:
    answers = said(task)
    wrong = [
        (clip.path.name, answer.text)
        for clip, answer in zip(CLIPS, answers, strict=True)
        if answer.text != clip.answers[task]
    ]
    assert len(CLIPS) == 40 and len(wrong) <= MOST_WRONG * len(CLIPS), wrong


@pytest.mark.parametrize("task", TASKS)
def test_answers_are_those_of_transformers(said: Callable[[str], list[Any]], task: str) -> None:
    original, answers = Original(FOLDER), said(task)
    for i in range(0, len(CLIPS), 4):
        pcm = reader.read(CLIPS[i].path, 16_000, "mean").pcm
        wanted = original.answer((TASKS[task], [pcm], []), most=16)
        assert answers[i].token_ids == wanted, CLIPS[i].path.name


def test_the_same_clip_has_the_same_units_under_both_prefixes(model: Model) -> None:
    first, second = (model.generate(CLIPS[0].path, task, max_new_tokens=1) for task in TASKS)
    assert second.audio_cached == 1  # nothing was heard anew
    assert first.audio_tokens == second.audio_tokens > 0
    assert first.token_ids != second.token_ids


def test_the_files_are_small() -> None:
    held = [file for file in FOLDER.rglob("*") if file.is_file() and file.suffix != ".wav"]
    assert sum(file.stat().st_size for file in held) < 1_500_000
    assert {Path(file).suffix for file in held} <= {".json", ".npy", ".safetensors", ".yaml"}
