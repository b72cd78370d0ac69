"""The page of a model on the hub says what its manifest says, and means nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from alm.artifacts.manifest import Manifest
from alm.errors import BadOption, MissingFile
from alm.hub import card
from alm.hub.card import Said
from alm.hub.names import Repo
from tests import ROOT
from tests.runtime.hub import models

REPO = Repo("org/ears")


def front(text: str) -> dict[str, Any]:
    _, facts, _ = text.split("---\n", 2)
    return yaml.safe_load(facts)


def listing(**more: Any) -> Manifest:
    return models.manifest(models.files(), **more)


def licensed(**licence: str) -> Manifest:
    return listing(facts=replace(models.FACTS, licence=licence))


def test_a_card_says_parts_hashes_and_how_to_run_it() -> None:
    made = listing()
    text = card.text(made, REPO)
    assert "| decoder | decoder | fp32 | 54,000 | 1.5e-06 | 1.0e-07 | exact |" in text
    for file in made.files():
        assert f"| {file.bytes:,} | `{file.sha256}` |" in text
    assert 'alm-run --engine hub:org/ears clip.wav "transcribe"' in text
    assert 'alm.load("hub:org/ears")' in text and "- llm: llama" in text
    assert front(text) == {
        "library_name": "alm-edge",
        "pipeline_tag": "audio-text-to-text",
        "tags": ["alm-edge", "onnx", "audio", "speech", "salmonn"],
    }


def test_base_models_and_what_was_done_to_them_are_for_the_hub() -> None:
    said = Said(base_models=("org/base", "org/llm"))
    assert front(card.text(listing(), REPO, said))["base_model"] == ["org/base", "org/llm"]
    made = listing()
    smaller = replace(made, parts=tuple(replace(part, precision="int4") for part in made.parts))
    assert front(card.text(smaller, REPO, said))["base_model_relation"] == "quantized"


@pytest.mark.parametrize(
    ("manifest", "said", "name", "sentence"),
    [
        (listing(), Said(), None, "it has the base model's licence."),
        (licensed(model="MIT"), Said(), "mit", "The checkpoint states: model: MIT."),
        (licensed(model="Ours 1.0"), Said(), "other", "The checkpoint states: model: Ours 1.0."),
        (licensed(a="MIT", b="Apache-2.0"), Said(), "other", "a: MIT, b: Apache-2.0"),
        (licensed(model="MIT"), Said(licence="llama3.2"), "llama3.2", "llama3.2."),
    ],
)
def test_the_licence_is_the_checkpoints_where_it_states_one(
    manifest: Manifest, said: Said, name: str | None, sentence: str
) -> None:
    text = card.text(manifest, REPO, said)
    assert front(text).get("license") == name and sentence in text.split("## Licence")[1]


def test_word_errors_stand_by_precision() -> None:
    rows = card.read_errors(ROOT / "bench" / "results" / "accuracy.json")
    text = card.text(listing(), REPO, Said(errors=rows))
    assert "| precision | voices | takes | stranger | over | captions | hard |" in text
    data = json.loads((ROOT / "bench" / "results" / "accuracy.json").read_text("utf-8"))["rows"]
    (int4,) = (row["errors"] for row in data if row["precision"] == "int4")
    assert f"| int4 | {' | '.join(f'{error:g}' for error in int4.values())} |" in text
    assert "Word errors" not in card.text(listing(), REPO)


@pytest.mark.parametrize(
    "plain",
    [
        [],
        {"rows": []},
        {"rows": [{"precision": "fp32"}]},
        {"rows": [{"precision": 4, "errors": {}}]},
        {"rows": [{"precision": "fp32", "errors": {"voices": "few"}}]},
    ],
)
def test_other_files_are_no_word_errors(plain: Any, tmp_path: Path) -> None:
    path = tmp_path / "wer.json"
    path.write_text(json.dumps(plain))
    with pytest.raises(BadOption, match="is no file of word errors"):
        card.read_errors(path)
    with pytest.raises(MissingFile, match="there is no file"):
        card.read_errors(tmp_path / "none.json")


def test_a_manifests_text_is_neither_yaml_nor_markdown_nor_html() -> None:
    evil = 'x"\n---\n# [a](b) <script>|`'
    facts = replace(models.FACTS, source={"llm": evil}, licence={"model": evil})
    text = card.text(listing(facts=facts, family=evil, tools={evil: evil}), REPO)
    assert front(text)["tags"][-1] == evil and front(text)["license"] == "other"
    _, _, page = text.split("---\n", 2)
    assert "<script" not in page.replace("\\<script", "") and "\n---" not in page
    assert "](b)" not in page.replace("\\](b)", "")
