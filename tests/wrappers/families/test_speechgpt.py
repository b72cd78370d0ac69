"""SpeechGPT on tiny random checkpoints: units, prompts and answers are those of the original."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import alm
from alm.errors import AlmError, BadArtifacts, BadPrompt
from alm.facts import UnitFacts
from alm.generation.model import Model
from alm.text.units import Units
from alm.timings import Stages
from tests.conftest import run_export
from tests.products import some
from tests.wrappers.families import tiny_speechgpt
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled
from wrappers.families import speechgpt

LARGE: dict[str, Any] = dict(
    do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True, num_conv_pos_embeddings=19
)
MADE: dict[str, dict[str, Any]] = {
    "decomposed": dict(lora=True),
    "standard": dict(
        kind="wavlm",
        lora=False,
        normalize=True,
        layer=3,
        seed=1,
        llm=dict(tie_word_embeddings=True),
    ),
    "ort": dict(
        kind="wav2vec2",
        hubert=LARGE,
        layer=1,
        seed=2,
        llm=dict(num_key_value_heads=6, head_dim=10),
    ),
}
WORDS = "please transcribe the speech. This is input:<audio>"


@dataclass
class Asked:
    original: tiny_speechgpt.Original
    model: Model


@pytest.fixture(scope="module", params=some([*MADE], "ort"))
def asked(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Asked:
    folder = tmp_path_factory.mktemp(request.param)
    path = tiny_speechgpt.make(folder / "model", **MADE[request.param])
    words = ("--precision", "fp32", "--dialect", request.param, "--dynamic-batch", "--no-simplify")
    with pytest.MonkeyPatch.context() as patch:  # export tries the longest clip, slow at 60 s
        patch.setattr(speechgpt, "MOST_SAMPLES", 12 * 16000)
        run_export("--model", path, *words, "--out", folder / "out")
    return Asked(tiny_speechgpt.Original(path), alm.load(folder / "out", "cpu"))


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    samples = int(seconds * 16000)
    loud = np.repeat(draw.uniform(0.01, 0.4, samples // 1600 + 1), 1600)[:samples]
    return (loud * draw.normal(size=samples)).astype(np.float32)


def told(model: Model, words: str, *clips: np.ndarray) -> list[int]:
    settings: dict[str, Any] = dict(do_sample=False, min_new_tokens=0, max_new_tokens=32)
    answer = model.chat(verbatim=True, **settings).ask(words, *((c, 16000) for c in clips))
    return answer.token_ids


@pytest.mark.parametrize("seconds", [0.025, 1, 5, 11.99])
def test_an_answer_about_a_clip_is_the_originals(asked: Asked, seconds: float) -> None:
    pcm = sound(seconds)
    ids = told(asked.model, WORDS, pcm)
    wanted = asked.original.answer(WORDS, pcm)
    assert ids == wanted


@pytest.mark.parametrize(
    "words", ["what is it?", "<audio>", "is input:<audio> and is input: <audio>x"]
)
def test_any_number_of_clips_may_be_asked_about(asked: Asked, words: str) -> None:
    clips = [sound(1 + i, seed=i) for i in range(words.count("<audio>"))]
    wanted = asked.original.answer(words, *clips)
    assert told(asked.model, words, *clips) == wanted


def test_near_silence_is_heard_as_the_original_hears_it(asked: Asked) -> None:
    pcm = 1e-3 * sound(0.5)
    assert told(asked.model, WORDS, pcm) == asked.original.answer(WORDS, pcm)


def test_silence_is_answered(asked: Asked) -> None:
    """HuBERT's first norm divides silence by nothing: its units are those of rounding errors."""
    assert told(asked.model, WORDS, np.zeros(8000, np.float32))


def test_a_batch_is_answered_as_each_of_it_alone(asked: Asked) -> None:
    clips = [sound(seconds, seed=7) for seconds in (0.1, 3.3, 1)]
    settings: dict[str, Any] = dict(do_sample=False, min_new_tokens=0, max_new_tokens=32)
    words = WORDS.replace("<audio>", "")
    given = [(clip, 16000) for clip in clips]
    answers = asked.model.generate(given, words, verbatim=True, **settings)
    for answer, clip in zip(answers, clips, strict=True):  # pyright: ignore
        wanted = asked.original.answer(WORDS, clip)
        assert answer.token_ids == wanted


def test_penalties_see_a_clips_units(asked: Asked) -> None:
    parts, pcm = asked.model.parts, sound(1)
    prompt = parts.prompter.build(WORDS, 1)
    clips, _ = parts.audio_encoder.encode([pcm], Stages())
    assert parts.prompter.ids(prompt, clips) == asked.original.ids(WORDS, pcm)


def test_a_second_turn_is_refused(asked: Asked) -> None:
    conversation = asked.model.chat(max_new_tokens=2, min_new_tokens=0)
    conversation.ask("what is it?")
    with pytest.raises(BadPrompt, match="answers one turn; begin a new conversation"):
        conversation.ask("and now?")


def test_units_become_tokens() -> None:
    units = np.array([3, 3, 0, 3, -1, -1])
    assert Units(UnitFacts(4, 10, merged=True)).ids(units).tolist() == [13, 10, 13]
    assert Units(UnitFacts(4, 10)).ids(units).tolist() == [13, 13, 10, 13]
    assert Units(UnitFacts(4, 10, merged=True)).ids(units[4:]).tolist() == []
    with pytest.raises(BadArtifacts, match="unit 3, and the manifest counts 3"):
        Units(UnitFacts(3, 10)).ids(units)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: Any) -> Path:
    return tiny_speechgpt.make(tmp_path_factory.mktemp("plain") / "model")


def test_centres_may_be_safetensors(plain: Path, tmp_path: Path) -> None:
    centres = torch.from_numpy(np.load(plain / "km.npy"))
    save_file({"any": centres}, tmp_path / "km.safetensors")
    made = open_checkpoint(said(plain, tmp_path, km_path=str(tmp_path / "km.safetensors")))
    assert (filled(made.part("kmeans", "ort")).state_dict()["centres"] == centres).all()


def said(plain: Path, folder: Path, **changed: Any) -> Path:
    """A config of its own for the folders of `plain`."""
    section = yaml.safe_load((plain / "config.yaml").read_text())["speechgpt"]
    paths = {k: str(plain / v) if k.endswith("_path") else v for k, v in section.items()}
    return tiny_speechgpt.config(folder / "said", **paths | changed)


def _json(folder: str, name: str, **changed: Any) -> Callable[[Path, Path], dict[str, Any]]:
    """A copy of a folder of the checkpoint with a JSON file changed; what the config then says."""

    def change(plain: Path, to: Path) -> dict[str, Any]:
        copy = Path(shutil.copytree(plain / folder, to / folder))
        held = json.loads((copy / name).read_text()) | changed
        (copy / name).write_text(json.dumps({k: v for k, v in held.items() if v is not None}))
        return {"llama_path" if folder == "llm" else f"{folder}_path": str(copy)}

    return change


def _tokens(renamed: dict[str, str]) -> Callable[[Path, Path], dict[str, Any]]:
    """added_tokens.json with other names for some ids."""

    def change(plain: Path, to: Path) -> dict[str, Any]:
        copy = Path(shutil.copytree(plain / "llm", to / "llm"))
        held = json.loads((copy / "added_tokens.json").read_text())
        held = {renamed.get(name, name): number for name, number in held.items()}
        (copy / "added_tokens.json").write_text(json.dumps(held))
        return {"llama_path": str(copy)}

    return change


def _centres(name: str, values: Any) -> Callable[[Path, Path], dict[str, Any]]:
    def change(_: Path, to: Path) -> dict[str, Any]:
        if values is None:
            (to / name).write_bytes(b"no array")
        else:
            np.save(to / name, values)
        return {"km_path": str(to / name)}

    return change


CASES: dict[str, tuple[Any, str]] = {
    "a path that is not there": (dict(km_path="no.npy"), "km_path: no.npy, but there is no"),
    "a key nobody knows": (dict(km_paht="a"), "`km_paht` .meant is perhaps `km_path`"),
    "a layer that is not there": (dict(layer=9), "layer 9 of HuBERT is asked for, which has 3"),
    "no number": (dict(layer="last"), "layer: 'last'"),
    "another encoder": (_json("hubert", "config.json", model_type="unispeech"), "'unispeech'"),
    "another rate": (_json("hubert", "preprocessor_config.json", sampling_rate=8000), "8000"),
    "not yes or no": (_json("hubert", "preprocessor_config.json", do_normalize=2), "do_normalize"),
    "other sizes": (_json("hubert", "config.json", intermediate_size=44), "misshapen"),
    "another tokenizer": (_json("llm", "tokenizer_config.json", legacy=False), "legacy: False"),
    "units apart": (_tokens({"<3>": "<4>", "<4>": "<3>"}), "<3> the id .* follow each other"),
    "a gap": (_json("llm", "added_tokens.json", **{"<19>": None}), "do not follow each other"),
    "a unit that is no token": (_tokens({"<19>": "<20>"}), "no token <19>"),
    "no start of units": (_tokens({"<sosp>": "<sop>"}), "no token <sosp>"),
    "no text in front": (_json("llm", "added_tokens.json", **{"<eoh>": "x"}), "'<eoh>' the id 'x'"),
    "a pickle": (_centres("km.bin", None), "joblib is code .* joblib.load"),
    "no array": (_centres("km.npy", None), "is no array"),
    "whole numbers": (_centres("km.npy", np.zeros((20, 24), int)), r"int64 \[20, 24\]"),
    "other widths": (_centres("km.npy", np.zeros((20, 23), np.float32)), "24 wide, but .* of 23"),
    "no finite centres": (_centres("km.npy", np.full((20, 24), np.nan)), "finite centres"),
    "no adapter": (lambda plain, _: dict(lora_path=str(plain / "llm")), "no adapter_config.json"),
    "fairseq's file": (lambda plain, _: dict(hubert_path=str(plain / "km.npy")), "is no folder"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_refused(case: str, plain: Path, tmp_path: Path) -> None:
    change, words = CASES[case]
    changed: Any = change(plain, tmp_path) if callable(change) else change
    with pytest.raises(AlmError, match=words):
        open_checkpoint(said(plain, tmp_path, **changed))
