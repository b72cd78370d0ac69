"""A SALMONN checkpoint that cannot be read or followed is refused in one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import export
from alm.cli import exit_status
from alm.errors import AlmError, BadCheckpoint, MissingFile, UnknownName
from demo.random_checkpoint import make
from tests.wrappers.checkpoint.checkpoints import TINY, Copy, in_shards, refused
from wrappers import open_checkpoint, with_role
from wrappers.families.salmonn import Salmonn

Said = Callable[[Copy], Any]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("salmonn") / "model", TINY)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Copy:
    return Copy(tiny, tmp_path)


# --- files that are no weights


class Code:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
def test_code_in_a_checkpoint_is_refused_and_not_run(copy: Copy, new: bool) -> None:
    mark, file = copy.folder / "was_run", copy.folder / "salmonn.pth"
    torch.save({"model": Code(mark)}, file, _use_new_zipfile_serialization=new)
    said = refused(copy)
    assert "salmonn.pth holds more than tensors and plain data" in said
    assert not mark.exists()


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.99])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("name", ["salmonn.pth", "beats.pt"])
def test_a_truncated_torch_file_is_refused(copy: Copy, name: str, new: bool, share: float) -> None:
    file = copy.folder / name
    plain = torch.load(file, weights_only=True)
    torch.save(plain, file, _use_new_zipfile_serialization=new)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert f"{name} " in refused(copy)


@pytest.mark.parametrize("share", [0, 0.01, 0.5])
@pytest.mark.parametrize("folder", ["whisper", "llm"])
def test_a_truncated_safetensors_file_is_refused(copy: Copy, folder: str, share: float) -> None:
    file = copy.folder / folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert f"{folder}/model.safetensors is no readable safetensors file" in refused(copy)


@pytest.mark.parametrize("held", [[1, 2], {"model": [1]}, {"epoch": 3}, "text", torch.ones(2)])
def test_a_torch_file_that_is_no_checkpoint_is_refused(copy: Copy, held: Any) -> None:
    torch.save(held, copy.folder / "salmonn.pth")
    assert "salmonn.pth holds no state dict under `model`" in refused(copy)
    torch.save(held, copy.folder / "beats.pt")
    with pytest.raises(BadCheckpoint, match="beats.pt is no BEATs checkpoint"):
        _ = Salmonn(copy.config).beats_file


@pytest.mark.parametrize("name", ["../../other.safetensors", "/etc/passwd", "sub/x.safetensors"])
def test_an_index_may_not_point_out_of_its_folder(copy: Copy, name: str) -> None:
    in_shards(copy.folder / "llm")
    index = copy.folder / "llm" / "model.safetensors.index.json"
    said = json.loads(index.read_text())
    said["weight_map"]["model.norm.weight"] = name
    index.write_text(json.dumps(said))
    assert f"names the shard {name!r}, which is not beside it" in refused(copy)


def test_an_index_without_its_shards_or_its_map_is_refused(copy: Copy) -> None:
    in_shards(copy.folder / "llm")
    (copy.folder / "llm" / "model-00002-of-00002.safetensors").unlink()
    assert "shards that are not there: model-00002-of" in refused(copy, MissingFile)
    (copy.folder / "llm" / "model.safetensors.index.json").write_text("{}")
    assert "index.json has no weight_map" in refused(copy)


# --- configs


CONFIGS: dict[str, tuple[type[AlmError], str, Said]] = {
    "no BEATs file": (
        MissingFile,
        "says beats_path: gone.pt, but there is no",
        lambda c: c.settings(beats_path="gone.pt"),
    ),
    "no Whisper folder": (
        MissingFile,
        "says whisper_path: openai/whisper-large-v2, but there is no",
        lambda c: c.settings(whisper_path="openai/whisper-large-v2"),
    ),
    "a checkpoint that is a folder": (
        MissingFile,
        "there is no file",
        lambda c: c.settings(ckpt="llm"),
    ),
    "an LLM that is a file": (
        MissingFile,
        "there is no",
        lambda c: c.settings(llama_path="beats.pt"),
    ),
    "a projection that is not there": (
        MissingFile,
        "there is no file",
        lambda c: c.settings(speech_llama_proj_model="gone.safetensors"),
    ),
    "no llama_path": (
        BadCheckpoint,
        "does not say `llama_path`",
        lambda c: c.settings(llama_path=None),
    ),
    "no whisper_path": (
        BadCheckpoint,
        "does not say `whisper_path`",
        lambda c: c.settings(whisper_path=None),
    ),
    "no ckpt": (BadCheckpoint, "does not say `ckpt`", lambda c: c.settings(ckpt=None)),
    "no Q-Former": (
        BadCheckpoint,
        "says use_speech_Qformer: False",
        lambda c: c.settings(use_speech_Qformer=False),
    ),
    "a number that is none": (
        BadCheckpoint,
        "says second_stride: 'often'; it must be above zero",
        lambda c: c.settings(second_stride="often"),
    ),
    "a rank of zero": (BadCheckpoint, "says lora_rank: 0", lambda c: c.settings(lora_rank=0)),
    "an endless rank": (
        BadCheckpoint,
        "says lora_rank: inf",
        lambda c: c.settings(lora_rank=float("inf")),
    ),
    "an endless window": (
        BadCheckpoint,
        "says second_per_window: inf",
        lambda c: c.settings(second_per_window=float("inf")),
    ),
    "a window longer than Whisper's": (
        BadCheckpoint,
        "says windows of 250 frames every 17; there are 200",
        lambda c: c.settings(second_per_window=5),
    ),
    "a stride of no frame": (
        BadCheckpoint,
        "says windows of 17 frames every 0; there are 200",
        lambda c: c.settings(second_stride=0.001),
    ),
    "another number of queries": (
        BadCheckpoint,
        "says num_speech_query_token: 2, but",
        lambda c: c.settings(num_speech_query_token=2),
    ),
    "heads that do not divide the bridge": (
        BadCheckpoint,
        "a Q-Former of width 48 cannot have 5 heads",
        lambda c: c.settings(qformer_heads=5),
    ),
    "a template without a place": (
        BadCheckpoint,
        "prompt_template: 'USER:'; it must hold one {}",
        lambda c: c.settings(prompt_template="USER:"),
    ),
    "another window than the positions": (
        BadCheckpoint,
        "chunk_length 30 (s), which are 1500 frames, but Whisper's config.json beside it says "
        "max_source_positions 200",
        lambda c: c.json("whisper/preprocessor_config.json", chunk_length=30),
    ),
    "a window of no number": (
        BadCheckpoint,
        "says chunk_length '4'",
        lambda c: c.json("whisper/preprocessor_config.json", chunk_length="4"),
    ),
    "an LLM nobody knows": (
        BadCheckpoint,
        "llm/config.json says model_type: unknown llm 'mamba'; there is: "
        + ", ".join(with_role("llm")),
        lambda c: c.json("llm/config.json", model_type="mamba"),
    ),
    "an LLM that is quantised": (
        BadCheckpoint,
        "describes quantised weights",
        lambda c: c.json("llm/config.json", quantization_config=dict(load_in_4bit=True)),
    ),
    "an LLM whose config contradicts itself": (
        BadCheckpoint,
        "llm/config.json says hidden_size 'wide'",
        lambda c: c.json("llm/config.json", hidden_size="wide"),
    ),
    "an LLM of another activation": (
        BadCheckpoint,
        "unknown activation 'mish'",
        lambda c: c.json("llm/config.json", hidden_act="mish"),
    ),
    "a Whisper of another activation": (
        BadCheckpoint,
        "activation_function 'mish' is unknown",
        lambda c: c.json("whisper/config.json", activation_function="mish"),
    ),
    "no tokenizer": (
        MissingFile,
        "no tokenizer.json and no tokenizer.model",
        lambda c: (c.folder / "llm" / "tokenizer.json").unlink(),
    ),
    "no weights of the LLM": (
        MissingFile,
        "holds no weights; looked for model.safetensors",
        lambda c: (c.folder / "llm" / "model.safetensors").unlink(),
    ),
    "no config of the LLM": (
        MissingFile,
        "there is no file",
        lambda c: (c.folder / "llm" / "config.json").unlink(),
    ),
    "a damaged config of Whisper": (
        BadCheckpoint,
        "whisper/config.json is not JSON",
        lambda c: (c.folder / "whisper" / "config.json").write_text("{"),
    ),
    "a config of Whisper that is a list": (
        BadCheckpoint,
        "whisper/config.json holds no JSON object",
        lambda c: (c.folder / "whisper" / "config.json").write_text("[]"),
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    kind, said, change = CONFIGS[case]
    change(copy)
    assert said in refused(copy, kind)


def test_a_config_that_is_no_yaml_is_refused_with_its_line(copy: Copy) -> None:
    copy.config.write_text("model:\n  llama_path: [llm\n  ckpt: x\n")
    said = refused(copy)
    assert "config.yaml is no readable YAML" in said and "line 3" in said


@pytest.mark.parametrize("text", ["", "[]", "model: 3", "model:", "other: {a: 1}", "\0"])
def test_what_is_no_salmonn_config_is_answered_with_what_is(copy: Copy, text: str) -> None:
    copy.config.write_text(text)
    assert "salmonn: the original's config.yaml" in refused(copy, UnknownName)


def test_a_section_that_is_none_is_refused(copy: Copy) -> None:
    plain = yaml.safe_load(copy.config.read_text())
    copy.config.write_text(yaml.safe_dump(plain | {"generate": "greedy"}))
    assert "`generate` is 'greedy' and not a section" in refused(copy)


@pytest.mark.parametrize("given", [{"eos_token_id": 5}, {"stop_strings": ["."]}])
def test_what_ends_an_answer_is_not_said_beside_the_llm(copy: Copy, given: dict[str, Any]) -> None:
    plain = yaml.safe_load(copy.config.read_text())
    copy.config.write_text(yaml.safe_dump(plain | {"generate": given}))
    said = refused(copy)
    assert f"section generate, says {[*given][0]}; what ends an answer" in said


def test_no_such_path_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="there is no .*nowhere"):
        open_checkpoint(tmp_path / "nowhere")


def test_the_command_says_the_sentence_and_fails(
    copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    copy.trained(lambda model: model.update({"ln_speech.weight": torch.ones(32)}))
    words = ["--model", str(copy.config), "--out", str(copy.folder / "artifacts")]
    assert exit_status.run(export.app, words) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and "was trained with a Whisper of 32" in said
    assert not (copy.folder / "artifacts").exists()
