"""Layouts: the files of other runtimes, run here by their names and ports, answer as ours do.

Their own packages are no dependency; bench/layouts.py has them answer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import WhisperFeatureExtractor

import alm
from alm.artifacts import manifest
from alm.artifacts.embedding_table import Table
from alm.artifacts.part import Part
from alm.audio import reader
from alm.errors import BadArtifacts, BadOption, MissingFile, UnknownName
from alm.parsing import File
from exporters import embedding_table, layouts
from exporters.bundle import Bundle
from exporters.layouts import _graphs, genai, transformers_js
from tests import ROOT
from tests.conftest import made_once, run_export
from tests.wrappers.families import tiny_hf

GREEDY: dict[str, Any] = dict(num_beams=1, do_sample=False, repetition_penalty=1.0, gate=False)
STEPS = 12
LAMP = ROOT / "demo" / "lamp.wav"


@pytest.fixture(scope="module")
def for_genai(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's artifacts with genai's files beside them."""
    out = Path(shutil.copytree(demo, tmp_path_factory.mktemp("layout") / "demo"))
    layouts.write(["genai"], out, ROOT / "demo")
    return out


@pytest.fixture(scope="module")
def voxtral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Voxtral in `checkpoint`, and exported with the layout in `out`."""

    def make(folder: Path) -> None:
        tiny_hf.voxtral(folder / "checkpoint")
        words = ("--dynamic-batch", "--no-golden", "--layout", "transformers.js")
        run_export("--model", folder / "checkpoint", *words, "--out", folder / "out")

    return made_once(tmp_path_factory, "voxtral-layout", make)


def opened(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def ports(session: Any) -> tuple[list[str], list[str]]:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    return [port.name for port in inputs], [port.name for port in outputs]


def greedy(decode: Any, embed: Any, embeds: np.ndarray) -> list[int]:
    """Tokens by attention mask and growing cache, as both runtimes feed it."""
    names, _ = ports(decode)
    cache = {
        port.name: np.zeros((1, port.shape[1], 0, port.shape[3]), np.float32)
        for port in decode.get_inputs()[2:]
    }
    tokens: list[int] = []
    held = 0
    while len(tokens) < STEPS:
        held += embeds.shape[1]
        given = {names[0]: embeds, "attention_mask": np.ones((1, held), np.int64)}
        logits, *present = decode.run(None, {**given, **cache})
        assert logits.shape[1] == 1 and present[0].shape[2] == held
        cache = dict(zip(cache, present, strict=True))
        tokens.append(int(logits[0, -1].argmax()))
        embeds = embed(np.array([tokens[-1:]]))
    return tokens


def until_end(tokens: list[int], ends: tuple[int, ...]) -> list[int]:
    last = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: last + 1]


def test_genais_graphs_answer_as_ours(for_genai: Path) -> None:
    told = json.loads((for_genai / "genai_prompts.json").read_text())
    hear, embed, decode = (
        opened(for_genai / name) for name in (genai.SPEECH, genai.EMBEDDING, genai.DECODER)
    )
    assert ports(hear) == (["audio_embeds"], ["audio_features"])
    assert ports(embed) == (["input_ids", "audio_features"], ["inputs_embeds"])
    model = alm.load(for_genai, "cpu")
    pcm = reader.read(LAMP, told["rate"], "first").pcm
    ours = model.generate((pcm, told["rate"]), "transcribe", max_new_tokens=STEPS, **GREEDY)
    [features] = hear.run(None, {"audio_embeds": pcm[None]})
    features = np.asarray(features)
    assert features.shape == (told["audio_tokens"], model.manifest.facts.dimensions.hidden)
    task = told["tasks"]["transcribe"]
    sound = [told["audio_token_id"]] * len(features)
    ids = np.array([task["before"] + sound + task["behind"]])

    def embedded(ids: np.ndarray, features: np.ndarray = features[:0]) -> np.ndarray:
        return np.asarray(embed.run(None, {"input_ids": ids, "audio_features": features})[0])

    whole = embedded(ids, features)
    assert np.array_equal(whole[0, len(task["before"]) :][: len(features)], features)
    tokens = greedy(decode, embedded, whole)
    assert until_end(tokens, model.manifest.facts.tokens.eos) == ours.token_ids
    assert ours.text == "turn on the lamp in the kitchen"


def test_genais_config_names_what_is_there(for_genai: Path) -> None:
    said = json.loads((for_genai / "genai_config.json").read_text())["model"]
    sessions = {name: opened(for_genai / said[name]["filename"]) for name in ("decoder", "speech")}
    sessions["embedding"] = opened(for_genai / said["embedding"]["filename"])
    for name, session in sessions.items():
        inputs, outputs = ports(session)
        assert {*_named(said[name]["inputs"])} >= {*inputs}
        assert {*_named(said[name]["outputs"])} >= {*outputs}
    cache = sessions["decoder"].get_inputs()[2].shape
    assert [said["decoder"][k] for k in ("num_key_value_heads", "head_size")] == [
        cache[1],
        cache[3],
    ]


def _named(names: dict[str, str]) -> list[str]:
    return [name % i if "%d" in name else name for name in names.values() for i in range(64)]


def test_genais_decoder_shares_the_weights_of_ours(for_genai: Path) -> None:
    decoder = manifest.load(for_genai).part("decoder")
    assert decoder is not None
    ours = [file.name for file in decoder.files]
    assert (for_genai / genai.DECODER).stat().st_size < 200_000
    assert not (for_genai / f"{genai.DECODER}.data").exists() and len(ours) == 2


def test_transformers_js_graphs_answer_as_ours(voxtral: Path) -> None:
    folder = voxtral / "out" / "transformers.js"
    names = (transformers_js.EMBED, transformers_js.HEAR, transformers_js.DECODE)
    embed, hear, decode = (opened(folder / "onnx" / f"{name}.onnx") for name in names)
    assert ports(embed) == (["input_ids"], ["inputs_embeds"])
    assert ports(hear) == (["audio_values"], ["audio_features"])
    assert ports(decode)[0][:3] == ["inputs_embeds", "attention_mask", "past_key_values.0.key"]
    model = alm.load(voxtral / "out", "cpu")
    pcm = tiny_hf.noise(50_000)
    ours = model.generate((pcm, tiny_hf.RATE), "describe", max_new_tokens=STEPS, **GREEDY)
    extractor = WhisperFeatureExtractor.from_pretrained(folder)
    heard: Any = extractor(pcm, sampling_rate=tiny_hf.RATE, return_tensors="np")
    [features] = hear.run(None, {"audio_values": heard.input_features})
    prompt = model.parts.prompter.build("describe").pieces

    def embedded(ids: np.ndarray) -> np.ndarray:
        return np.asarray(embed.run(None, {"input_ids": ids})[0])

    flat = np.asarray(features).reshape(1, -1, embedded(np.array([[0]])).shape[-1])
    before, behind = (embedded(np.array([piece])) for piece in prompt)
    tokens = greedy(decode, embedded, np.concatenate([before, flat, behind], 1))
    assert until_end(tokens, model.manifest.facts.tokens.eos) == ours.token_ids


def test_transformers_js_finds_every_file_by_its_name(voxtral: Path) -> None:
    folder = voxtral / "out" / "transformers.js"
    assert {path.name for path in folder.iterdir()} == {*transformers_js.OWN}
    config = json.loads((folder / "config.json").read_text())
    external = config["transformers.js_config"]["use_external_data_format"]
    assert external == {"embed_tokens": 1, "decoder_model_merged": 1}
    for name in external:
        assert (folder / "onnx" / f"{name}.onnx_data").is_file()
    features = json.loads((folder / "preprocessor_config.json").read_text())
    assert features["processor_class"] == "VoxtralProcessor"


def test_a_checkpoint_without_a_config_of_its_is_refused(voxtral: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(voxtral / "out", tmp_path / "out"))
    with pytest.raises(MissingFile, match=r"wants .*config\.json, which is not there"):
        layouts.write(["transformers.js"], own, tmp_path)
    assert not [path for path in own.iterdir() if path.name.endswith(".new")]


@pytest.mark.parametrize(
    ("names", "family", "dialect", "error", "sentence"),
    [
        (["ggml"], "salmonn", "ort", UnknownName, "unknown layout 'ggml'; there is: genai, tr"),
        (["genai"], "kimi_audio", "ort", BadOption, r"kimi_audio; it knows .*salmonn"),
        (["transformers.js"], "salmonn", "ort", BadOption, "salmonn; it knows voxtral"),
        (["genai"], "salmonn", "standard", BadOption, "say --dialect ort"),
    ],
)
def test_what_a_layout_does_not_know_is_refused_in_a_sentence(
    names: list[str], family: str, dialect: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        layouts.check(names, family, dialect)
    layouts.check(["genai"], "salmonn", "ort")


def test_a_decoder_of_another_dialect_is_refused_and_nothing_is_left(own: Path) -> None:
    before = {path.name for path in own.iterdir()}
    with pytest.raises(BadArtifacts, match="the dialect ort, and part decoder is of standard"):
        layouts.write(["genai"], own, own)
    assert {path.name for path in own.iterdir()} == before


def test_a_layout_wants_all_parts(own: Path) -> None:
    said = manifest.load(own)
    [table] = [part for part in said.parts if part.role == "table"]
    kept = tuple(part for part in said.parts if part is not table)
    manifest.Manifest(**{**vars(said), "parts": kept}).save(own)
    with pytest.raises(BadArtifacts, match="wants all parts, and there is no table"):
        layouts.write(["genai"], own, own)


def test_an_export_leaves_no_layout_of_an_older_one(own: Path) -> None:
    (own / genai.CONFIG).write_text("{}")
    (own / "transformers.js").mkdir()
    (own / "transformers.js" / "config.json").write_text("{}")
    (own / "notes.txt").write_text("mine")
    with Bundle(own) as bundle:
        assert bundle.old is not None
        bundle.publish(bundle.old)
    assert not (own / genai.CONFIG).exists() and not (own / "transformers.js").exists()
    assert (own / "notes.txt").is_file() and (own / "decoder.onnx").is_file()


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_the_table_is_read_where_it_lies(dtype: str, tmp_path: Path) -> None:
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32))
    _, paths, _ = embedding_table.write(rows, tmp_path / "embed.npy", dtype)
    part = Part("embed", "table", tuple(File(path.name, 0, "") for path in paths))
    site = _graphs.Site()
    ids = _graphs.port("ids", genai.INT64, 1, "seq")
    found = _graphs.embedded(site, tmp_path, part, ids)
    axes = (1, "seq", 8)
    model = site.model([ids], [_graphs.named(found, "embeds", genai.FLOAT, *axes)])
    _graphs.Files(tmp_path, tmp_path, beside=True).save(model, "embed.onnx")
    asked = np.array([[3, 39, 0, 3]])
    [given] = opened(tmp_path / "embed.onnx").run(None, {"ids": asked})
    assert np.array_equal(given, Table(*paths)(asked))
