"""What a checkpoint's config says is checked before memory or time is spent on it."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from alm.errors import AlmError, MissingFile
from demo.random_checkpoint import make
from tests import ROOT
from tests.wrappers.checkpoint.checkpoints import TINY, Copy, refused

SECONDS = 20.0  # more than reading the rest takes on a loaded machine, less than any absurd size


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("limits") / "model", TINY)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Copy:
    return Copy(tiny, tmp_path)


ODD: list[Any] = [-1, 0, "x", 1.5, True, [], {}, 10**9, 2**40, 10**400, float("nan"), float("inf")]
LLM = ("num_hidden_layers", "head_dim", "vocab_size", "hidden_size", "num_attention_heads")
WHISPER = ("encoder_layers", "d_model", "num_mel_bins", "max_source_positions")


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize(
    ("folder", "name"),
    [
        *(("llm", name) for name in LLM),
        *(("whisper", name) for name in (*WHISPER, "encoder_attention_heads")),
    ],
)
def test_an_absurd_size_is_named_at_once(copy: Copy, folder: str, name: str, value: Any) -> None:
    copy.json(f"{folder}/config.json", **{name: value})
    start = time.perf_counter()
    assert f"{folder}/config.json says {name} " in refused(copy)
    assert time.perf_counter() - start < SECONDS


ROPES: dict[str, dict[str, Any]] = {
    "a base that is a word": dict(rope_theta="x"),
    "a factor that is a word": dict(rope_scaling={"rope_type": "dynamic", "factor": "x"}),
    "no factor": dict(rope_scaling={"rope_type": "dynamic"}),
    "an unknown kind": dict(rope_scaling={"rope_type": "spiral", "factor": 2.0}),
    "a list": dict(rope_scaling=[1]),
    "factors of another head": dict(
        rope_scaling={
            "rope_type": "longrope",
            "factor": 2.0,
            "short_factor": [1.0, 1.0, 1.0],
            "long_factor": [1.0, 1.0, 1.0],
            "original_max_position_embeddings": 8,
        }
    ),
}


@pytest.mark.parametrize("case", ROPES)
def test_a_rope_that_cannot_be_computed_is_refused(copy: Copy, case: str) -> None:
    copy.json("llm/config.json", **ROPES[case])
    assert "rope" in refused(copy)


def test_more_layers_than_the_weights_have_are_said_in_a_short_sentence(copy: Copy) -> None:
    copy.json("llm/config.json", num_hidden_layers=900)
    said = refused(copy)
    assert "missing: model.layers." in said and " more" in said and len(said) < 3000


TEXTS = {
    "deep JSON": ("llm/config.json", "[" * 100_000, "nested too deeply"),
    "deep JSON of a Whisper": ("whisper/config.json", '{"a":' * 100_000, "nested too deeply"),
    "deep YAML": ("config.yaml", "model: " + "[" * 20_000, "nested too deeply"),
    "an endless number": ("llm/config.json", '{"a": ' + "9" * 5000 + "}", "is not JSON"),
    "an endless number in YAML": (
        "config.yaml",
        "model:\n  llama_path: llm\n  a: " + "9" * 5000,
        "is no readable YAML",
    ),
    "half a surrogate pair": (
        "llm/tokenizer_config.json",
        '{"bos_token": "\\ud800"}',
        "holds half a surrogate pair",
    ),
    "half a surrogate pair in YAML": (
        "config.yaml",
        'model:\n  llama_path: llm\n  "a": "\\uD800"',
        "holds half a surrogate pair",
    ),
    "a day that never was": (
        "config.yaml",
        "model:\n  llama_path: llm\n  a: 2024-13-45",
        "is no readable YAML",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_that_no_parser_takes_is_one_sentence(copy: Copy, case: str) -> None:
    name, text, said = TEXTS[case]
    if case == "deep YAML":
        text = "model:\n  llama_path: llm\n  a: " + "[" * 20_000
    (copy.folder / name).write_text(text)
    assert said in refused(copy)


@pytest.mark.parametrize(
    "name", ["x" * 5000, "a\0b", "~nobody-at-all/llm"], ids=["long", "nul", "~"]
)
def test_a_path_that_no_system_has_is_missing(copy: Copy, name: str) -> None:
    said = refused(copy.settings(llama_path=name), MissingFile)
    assert "says llama_path" in said and len(said) < 1500


def _quantized() -> torch.Tensor:
    with warnings.catch_warnings():  # torch means to drop such tensors, and old files have them
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)


PICKLED: dict[str, Any] = {
    "an integer for a name": {1: torch.zeros(2)},
    "quantized by torch": {"speech_query_tokens": _quantized()},
    "sparse": {"speech_query_tokens": torch.eye(3).to_sparse()},
    "one value for terabytes": {"speech_query_tokens": torch.zeros(1).expand(2**40)},
    "complex": {"speech_query_tokens": torch.zeros(1, 1, 48, dtype=torch.complex64)},
}


@pytest.mark.parametrize("case", PICKLED)
def test_tensors_that_are_no_weights_are_refused(copy: Copy, case: str) -> None:
    if case.startswith("an integer"):
        torch.save({"model": PICKLED[case]}, copy.folder / "salmonn.pth")
    else:
        copy.trained(lambda state: state.update(PICKLED[case]))
    assert "salmonn.pth" in refused(copy)


@pytest.mark.parametrize(
    "name",
    [
        *("llm/model.safetensors", "llm/tokenizer.json", "llm/config.json", "salmonn.pth"),
        *("whisper/model.safetensors", "beats.pt"),
    ],
)
def test_a_git_lfs_pointer_is_named_as_such(copy: Copy, name: str) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12\n"
    (copy.folder / name).write_text(pointer)
    said = refused(copy, MissingFile)
    assert f"{name} is a Git LFS pointer" in said and "git lfs pull" in said


@pytest.mark.parametrize("wrapped", ["state_dict", "module", "model"])
def test_a_state_dict_is_found_where_trainers_put_it(copy: Copy, wrapped: str) -> None:
    from wrappers import open_checkpoint

    file = copy.folder / "salmonn.pth"
    state = torch.load(file, weights_only=True)["model"]
    torch.save({"epoch": 3, wrapped: state}, file)
    assert open_checkpoint(copy.config).family == "salmonn"


def test_a_whisper_saved_by_transformers_5_says_its_window_in_processor_config(copy: Copy) -> None:
    from wrappers import open_checkpoint

    old = copy.folder / "whisper" / "preprocessor_config.json"
    said = json.loads(old.read_text())
    old.unlink()
    (old.parent / "processor_config.json").write_text(json.dumps({"feature_extractor": said}))
    window = open_checkpoint(copy.config).facts.audio.window_samples
    assert window == said["chunk_length"] * 16_000


def test_paths_may_be_relative_to_where_the_export_runs(
    copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wrappers import open_checkpoint

    (copy.folder / "configs").mkdir()
    config = copy.config.rename(copy.folder / "configs" / "config.yaml")
    monkeypatch.chdir(copy.folder)
    assert open_checkpoint(config).family == "salmonn"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AlmError, match="and none in"):
        open_checkpoint(config)


PANICS = ROOT / "tests" / "fuzz" / "cases"


@pytest.mark.parametrize("name", ["tokenizer-panic-load", "tokenizer-panic-encode"])
def test_a_tokenizer_that_makes_rust_panic_is_one_sentence(
    copy: Copy, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(PANICS / f"{name}.json", copy.folder / "llm" / "tokenizer.json")
    said = refused(copy)
    assert "llm/tokenizer.json " in said and "its parts do not fit together" in said
    assert "panicked" not in capfd.readouterr().err
