"""SpeechGPT against what the authors' code answered, where its references lie beside the checkout.

Their README says how they were made. Without them test_speechgpt.py holds what is needed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import alm
from alm.generation.model import Model
from alm.text.units import Units
from tests.conftest import run_export
from tests.wrappers.families.tiny_speechgpt import config
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled
from wrappers.families import speechgpt

SHARED = Path(__file__).resolve().parents[4] / "shared" / "oracle" / "speechgpt"
THERE = SHARED.is_dir()
PLAIN: dict[str, Any] = json.loads((SHARED / "sequences.json").read_text()) if THERE else {}
SEQUENCES: dict[str, Any] = PLAIN.get("sequences", {})
DIALECTS = ("decomposed", "standard", "ort")


@pytest.fixture(scope="module")
def arrays() -> Any:
    return np.load(SHARED / "oracle.npz")


def written(folder: Path, lora: bool) -> Path:
    """A config.yaml that names the references' folders."""
    return config(
        folder,
        llama_path=SHARED / "llm",
        hubert_path=SHARED / "speech2unit" / "hubert",
        km_path=SHARED / "speech2unit" / "km_centers.npy",
        lora_path=SHARED / "lora" if lora else None,
    )


def clip(letter: str, arrays: Any) -> np.ndarray:
    """A clip as the authors' code heard it, which resampled one of them."""
    if f"{letter}.pcm" in arrays:
        return arrays[f"{letter}.pcm"][0]
    return soundfile.read(SHARED / PLAIN["clips"][letter], dtype="float32")[0]


@pytest.mark.parametrize("dialect", DIALECTS)
@torch.no_grad()
def test_a_clip_becomes_the_units_of_the_authors_code(
    dialect: str, arrays: Any, tmp_path: Path
) -> None:
    made = open_checkpoint(written(tmp_path, lora=True))
    tower, nearest = (filled(made.part(name, dialect)) for name in ("hubert", "kmeans"))
    units = Units(made.facts.units)
    for letter in PLAIN["clips"]:
        pcm = torch.from_numpy(clip(letter, arrays))[None]
        speech, lengths = tower(pcm, torch.tensor([pcm.shape[1]]))
        wanted = torch.from_numpy(arrays[f"{letter}.features"])
        assert float((speech[0] - wanted).abs().max()) < 1e-4
        frames = nearest(speech, lengths)[0].numpy()
        assert (frames == arrays[f"{letter}.frames"]).all()
        assert (units.ids(frames) - units.first == arrays[f"{letter}.units"]).all()


@pytest.mark.parametrize("kind", ["base", "lora"])
@torch.no_grad()
def test_embeddings_and_logits_are_those_of_the_authors_code(
    kind: str, arrays: Any, tmp_path: Path
) -> None:
    made = open_checkpoint(written(tmp_path, lora=kind == "lora"))
    decoder: Any = filled(made.part("decoder", "ort"))
    table = made.embedding()
    for name in SEQUENCES:
        embeds = torch.from_numpy(arrays[f"{name}.inputs_embeds"])
        assert (table[torch.from_numpy(arrays[f"{name}.input_ids"])] == embeds).all()
        seq = len(embeds)
        cache = decoder.fresh(1, seq)
        whole = torch.tensor([seq])
        given = (embeds[None], torch.tensor([0]), whole, *cache)
        logits = decoder(*given)[0][0, 0]
        wanted = torch.from_numpy(arrays[f"{name}.{kind}.logits_first"])
        assert float((logits - wanted).abs().max()) < 1e-4, name


# test_speechgpt_sizes.py has the answers of the other dialects, on other sizes.
@pytest.fixture(scope="module", params=["ort"])
def models(request: pytest.FixtureRequest, tmp_path_factory: Any) -> dict[str, Model]:
    """The LLM alone, and with its adapter."""
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:  # export tries the longest clip, slow at 60 s
        patch.setattr(speechgpt, "MOST_SAMPLES", 12 * 16000)
        return {kind: _exported(folder, kind, request.param) for kind in ("base", "lora")}


def _exported(folder: Path, kind: str, dialect: str) -> Model:
    words = ("--precision", "fp32", "--dialect", dialect, "--no-simplify")
    given = written(folder / f"{kind}_model", lora=kind == "lora")
    run_export("--model", given, *words, "--out", folder / kind)
    return alm.load(folder / kind, "cpu")


@pytest.mark.parametrize("kind", ["base", "lora"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_every_sequence_is_that_of_the_authors_code(
    name: str, kind: str, models: dict[str, Model], arrays: Any
) -> None:
    said = SEQUENCES[name]
    letters = re.findall(r"\{(\w)\}", said["message"])
    words = re.sub(r" ?\{\w\}", "<audio>", said["message"])
    settings: dict[str, Any] = dict(verbatim=True, do_sample=False, min_new_tokens=0)
    conversation = models[kind].chat(max_new_tokens=PLAIN["max_new_tokens"], **settings)
    answer = conversation.ask(words, *(clip(letter, arrays) for letter in letters))
    assert answer.prompt_tokens == len(arrays[f"{name}.input_ids"])
    assert answer.token_ids == said[kind]["greedy"]
