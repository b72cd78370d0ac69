"""The demo model: it hears, and on the device it says what its torch modules say."""

from __future__ import annotations

from pathlib import Path

import pytest

import alm
from alm.audio import reader
from alm.generation.model import Model
from demo.clips import EXAMPLES, FOLDER, Example
from demo.reference import Reference

CHECKPOINT = FOLDER / "checkpoint"


@pytest.fixture(scope="module")
def model(demo: Path) -> Model:
    return alm.load(demo, provider="cpu")


def test_it_is_small() -> None:
    stored = sum(path.stat().st_size for path in CHECKPOINT.rglob("*") if path.is_file())
    assert stored <= 12e6


def test_it_says_on_the_device_what_torch_says(model: Model) -> None:
    reference = Reference(CHECKPOINT / "config.yaml")
    for example in EXAMPLES:
        pcm = reader.read(FOLDER / example.file, 16000).pcm
        assert model.generate(pcm, example.task).text == reference.answer(pcm, example.task)


def test_its_adapter_matters(model: Model) -> None:
    decoder = model.manifest.part("decoder")
    assert decoder and decoder.measured["merge_error"] < 1e-3
    assert model.manifest.facts.source["adapter"] == "LoRA"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.file)
def test_it_hears_most_of_what_was_said(model: Model, example: Example) -> None:
    said = model.generate(FOLDER / example.file, example.task).text.split()
    words = example.right.split()
    assert len(said) == len(words)
    assert sum(a != b for a, b in zip(said, words, strict=True)) <= 1


def test_it_tells_a_sound_from_speech(model: Model) -> None:
    assert "siren" in model.generate(FOLDER / "siren.wav", "describe").text
    assert "person speaking" in model.generate(FOLDER / "lamp.wav", "describe").text
