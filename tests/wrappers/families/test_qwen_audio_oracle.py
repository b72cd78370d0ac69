"""Qwen-Audio against what the authors' code answered, where its references lie beside the checkout.

Their README says how they were made. Without them test_qwen_audio.py holds what is needed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import alm
from alm.generation.model import Model
from tests.conftest import run_export
from tests.wrappers.families.tiny_qwen_audio import asked, restated
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled

SHARED = Path(__file__).resolve().parents[4] / "shared" / "oracle" / "qwen-audio"
THERE = SHARED.is_dir()
PLAIN: dict[str, Any] = json.loads((SHARED / "sequences.json").read_text()) if THERE else {}
SEQUENCES: dict[str, Any] = PLAIN.get("sequences", {})
DIALECTS = ("decomposed", "standard", "ort")


@pytest.fixture(scope="module")
def arrays() -> Any:
    return np.load(SHARED / "oracle.npz")


def clip(name: str, arrays: Any) -> np.ndarray:
    """A clip by its file's name, cut as the authors' code cuts it, or as it resampled it."""
    letter = name.removeprefix("audio_")[0]
    if f"{letter}.pcm" in arrays:
        return arrays[f"{letter}.pcm"]
    return soundfile.read(SHARED / name, dtype="float32")[0][: 30 * 16000]


@pytest.mark.parametrize("letter", sorted(PLAIN.get("clips", {})))
@torch.no_grad()
def test_a_clip_alone_is_heard_as_the_authors_code_hears_it(letter: str, arrays: Any) -> None:
    made = open_checkpoint(SHARED)
    mel, tower, bridge = (
        filled(made.part(name, "ort")) for name in ("mel", "qwen_audio", "projector")
    )
    pcm = torch.from_numpy(clip(PLAIN["clips"][letter], arrays))[None]
    log_mel = mel(pcm)
    speech, lengths = tower(log_mel, torch.tensor([pcm.shape[1]]))
    rows = bridge(speech, lengths)[0, : int(lengths[0])]
    wanted = torch.from_numpy(arrays[f"{letter}.encoded"])
    assert rows.shape == wanted.shape
    assert float((rows - wanted).abs().max()) < 1e-4
    if f"{letter}.mel" in arrays:
        mels = torch.from_numpy(arrays[f"{letter}.mel"])
        assert float((log_mel[0, :, : mels.shape[1]] - mels).abs().max()) < 1e-4


@pytest.mark.parametrize("dialect", DIALECTS)
@torch.no_grad()
def test_logits_are_those_of_the_authors_code(dialect: str, arrays: Any) -> None:
    decoder: Any = filled(open_checkpoint(SHARED).part("decoder", dialect))
    for name in [name for name in arrays if name.endswith(".inputs_embeds")]:
        embeds = torch.from_numpy(arrays[name])[None]
        seq = embeds.shape[1]
        *cache, _, _ = decoder.fresh(1, seq)
        whole = torch.tensor([seq])
        logits = decoder(embeds, torch.tensor([0]), whole, *cache, whole)[0][0, 0]
        wanted = torch.from_numpy(arrays[name.replace("inputs_embeds", "logits_first")])
        assert float((logits - wanted).abs().max()) < 1e-4, name


@pytest.fixture(scope="module", params=DIALECTS)
def models(request: pytest.FixtureRequest, tmp_path_factory: Any) -> dict[str, Model]:
    """The chat model, with an empty system text as well, and the same weights as a base model."""
    folder = tmp_path_factory.mktemp(request.param)
    words = ("--precision", "fp32", "--dialect", request.param, "--no-simplify")
    run_export("--model", SHARED, *words, "--out", folder / "chat")
    base = Path(shutil.copytree(SHARED, folder / "checkpoint"))
    settings = base / "generation_config.json"
    plain = json.loads(settings.read_text())
    settings.unlink()
    settings.write_text(json.dumps(plain | {"chat_format": "raw"}))
    for kind in ("quiet", "base"):
        shutil.copytree(folder / "chat", folder / kind)
    restated(folder / "quiet", start="<|im_start|>system\n<|im_end|>")
    restated(folder / "base", open_checkpoint(base).facts.to_json())
    return {kind: alm.load(folder / kind, "cpu") for kind in ("chat", "quiet", "base")}


@pytest.mark.parametrize("name", SEQUENCES)
def test_every_sequence_is_that_of_the_authors_code(
    name: str, models: dict[str, Model], arrays: Any
) -> None:
    said = SEQUENCES[name]
    kind = "quiet" if said.get("system") == "" else said["kind"]
    conversation = models[kind].chat(verbatim=True, do_sample=False, num_beams=1)
    for turn in said["turns"]:
        words, names = asked(turn["query"])
        clips = [clip(name, arrays) for name in names]
        most = PLAIN["max_new_tokens"][said["kind"]]
        answer = conversation.ask(words, *clips, max_new_tokens=most)
        assert answer.prompt_tokens == turn["prompt_tokens"]
        wanted = turn["greedy"]
        ended = len(wanted) < most
        assert answer.token_ids == (wanted[:-1] if ended else wanted)
