"""Every form of an audio-llm loads alike; one that cannot be followed is refused in a sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

import wrappers
from alm.errors import AlmError, BadCheckpoint, MissingFile, UnknownName
from tests.wrappers.checkpoint.checkpoints import Copy, as_bin, in_shards, refused, without
from tests.wrappers.families import tiny_audio_llm
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled

Saved = dict[str, Any]
QUERY = "model.layers.0.self_attn.q_proj"


class Tiny(Copy):
    """A copy of a small audio-llm that a test may spoil."""

    def settings(self, **said: Any) -> Tiny:
        """Change the config's section; None takes a key out."""
        plain = yaml.safe_load(self.config.read_text())
        section = {k: v for k, v in (plain["audio_llm"] | said).items() if v is not None}
        self.config.write_text(yaml.safe_dump(plain | {"audio_llm": section}))
        return self

    def saved(self, change: Callable[[Saved], Any]) -> Tiny:
        """Change what training saved of the model."""
        file = self.folder / "checkpoint.pt"
        plain = torch.load(file, weights_only=True)
        change(plain["model"])
        torch.save(plain, file)
        return self


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_audio_llm.make(tmp_path_factory.mktemp("audio_llm") / "model")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Tiny:
    return Tiny(tiny, tmp_path)


# --- what is recognised


def test_its_config_and_the_folder_with_it_are_recognised_and_by_no_other_family(
    tiny: Path, checkpoint: Path
) -> None:
    for path in (tiny, tiny.parent):
        assert [
            name
            for name in wrappers.with_role("family")
            if wrappers.pick_role("family", name).recognises(path)
        ] == ["audio_llm"]
        assert open_checkpoint(path).family == "audio_llm"
    ours = wrappers.pick_role("family", "audio_llm")
    assert not ours.recognises(checkpoint) and not ours.recognises(tiny.parent / "checkpoint.pt")


def test_what_nobody_knows_is_answered_with_its_keys(copy: Tiny) -> None:
    copy.config.write_text("other: {}\n")
    said = refused(copy, UnknownName)
    assert "a config.yaml with a section `audio_llm` (llama_path, whisper_path" in said


def test_a_config_that_is_damaged_is_refused_with_its_line(copy: Tiny) -> None:
    copy.config.write_text("audio_llm:\n  llama_path: [llm\n  whisper_path: x\n")
    said = refused(copy)
    assert "config.yaml is no readable YAML" in said and "line 3" in said
    assert not wrappers.pick_role("family", "salmonn").recognises(copy.config)


# --- forms of the same checkpoint


def tensors(config: Path) -> dict[str, Tensor]:
    """All weights of what was trained and of what it was trained on."""
    made = open_checkpoint(config)
    parts = {n: filled(made.part(n, "ort")) for n in ("whisper", "projector", "decoder")}
    return {f"{n}.{k}": v for n, part in parts.items() for k, v in part.state_dict().items()}


def bare(copy: Tiny) -> None:
    """Only what the original's inference reads."""
    file = copy.folder / "checkpoint.pt"
    torch.save(torch.load(file, weights_only=True)["model"] | {"step": 3}, file)


def as_safetensors(copy: Tiny) -> None:
    """The same names, joined by dots."""
    held = torch.load(copy.folder / "checkpoint.pt", weights_only=True)["model"]
    flat = {f"projector.{n}": t for n, t in held["projector"].items()}
    for module, pair in held["lora_layers"].items():
        flat |= {f"lora_layers.{module}.{n}": t for n, t in pair.items()}
    save_file(flat, copy.folder / "trained.safetensors")
    copy.settings(checkpoint_path="trained.safetensors")


def absolute(copy: Tiny) -> None:
    paths = dict(llama_path="llm", whisper_path="whisper", checkpoint_path="checkpoint.pt")
    copy.settings(**{key: str(copy.folder / name) for key, name in paths.items()})


def sharded(copy: Tiny) -> None:
    in_shards(copy.folder / "llm")
    as_bin(copy.folder / "whisper")


@pytest.mark.parametrize("form", [bare, as_safetensors, absolute, sharded])
def test_every_form_loads_alike(copy: Tiny, tiny: Path, form: Callable[[Tiny], None]) -> None:
    form(copy)
    wanted, found = tensors(tiny), tensors(copy.config)
    assert found.keys() == wanted.keys()
    assert [n for n in wanted if not torch.equal(found[n], wanted[n])] == []


def test_convolutions_that_the_original_never_calls_are_left_out(copy: Tiny) -> None:
    copy.saved(lambda model: model["projector"].update({"conv1.weight": torch.ones(2)}))
    assert open_checkpoint(copy.config).family == "audio_llm"


def test_tensors_that_no_part_takes_are_refused_by_name(copy: Tiny) -> None:
    copy.saved(lambda model: model["projector"].update({"gate.weight": torch.ones(2)}))
    with pytest.raises(BadCheckpoint, match="no part of the model takes: projector.gate.weight"):
        open_checkpoint(copy.config)
    copy.saved(lambda model: model["projector"].pop("gate.weight"))
    copy.saved(lambda model: model.update({"soft_prompt": torch.ones(2)}))
    with pytest.raises(BadCheckpoint, match="not known beside .*: soft_prompt"):
        open_checkpoint(copy.config)


def test_keys_that_nothing_reads_are_refused_with_the_near_one(copy: Tiny) -> None:
    copy.settings(whisperpath="whisper", lora_alpha=32)
    with pytest.raises(
        BadCheckpoint, match="`whisperpath` .meant is perhaps `whisper_path`.*"
    ) as e:
        open_checkpoint(copy.config)
    assert "key `lora_alpha`" in str(e.value)


def notes(copy: Tiny) -> tuple[str, ...]:
    return open_checkpoint(copy.config).notes


def test_generation_is_what_the_config_and_the_llm_say(copy: Tiny) -> None:
    copy.json("llm/generation_config.json", top_k=7, temperature=0.2, eos_token_id=[2, 5])
    plain = yaml.safe_load(copy.config.read_text())
    copy.config.write_text(yaml.safe_dump(plain | {"generate": {"max_new_tokens": 9}}))
    made = open_checkpoint(copy.config)
    # The original gives its own temperature and end to `generate`, and no top_k.
    wanted = {"max_new_tokens": 9, "top_k": 7, "temperature": 0.7}
    assert wanted.items() <= made.facts.generation.items() and made.facts.tokens.eos == (2,)


def test_what_ends_an_answer_is_not_said_beside_the_llm(copy: Tiny) -> None:
    plain = yaml.safe_load(copy.config.read_text())
    copy.config.write_text(yaml.safe_dump(plain | {"generate": {"eos_token_id": 5}}))
    assert "section generate, says eos_token_id; what ends an answer" in refused(copy)


def test_a_tokenizer_without_an_end_leaves_it_to_the_llms_config(copy: Tiny) -> None:
    copy.json("llm/tokenizer_config.json", eos_token=None)
    made = open_checkpoint(copy.json("llm/config.json", eos_token_id=[2, 7]).config)
    assert made.facts.tokens.eos == (2, 7)
    assert "does not say eos_token_id" in refused(copy.json("llm/config.json", eos_token_id=None))


# --- faults


def test_all_that_is_wrong_with_the_weights_is_named_at_once_with_its_file(copy: Tiny) -> None:
    copy.weights("whisper", without("conv1.bias"))
    copy.weights("llm", without("layers.0.mlp.up_proj", "embed_tokens"))

    def spoil(model: Saved) -> None:
        del model["projector"]["layers.0.bias"]
        model["projector"]["layers.3.weight"] = torch.ones(3)
        del model["lora_layers"][QUERY]["lora_B"]
        model["lora_layers"]["model.layers.9.mlp.up_proj"] = {}
        model["lora_layers"]["model.layers.1.mlp.up_proj"]["lora_A"] = torch.ones(4, 5)

    said = refused(copy.saved(spoil))
    for file, wrong in {
        "whisper/model.safetensors": "missing: conv1.bias",
        "checkpoint.pt": "missing: layers.0.bias; misshapen: layers.3.weight is [3] and not [64]",
        "llm/model.safetensors": "missing: model.layers.0.mlp.up_proj.weight",
    }.items():
        assert f"{file} does not fit its config; {wrong}" in said
    assert "model.embed_tokens.weight is missing" in said
    assert f"{QUERY}.lora_B is missing" in said
    assert "model.layers.1.mlp.up_proj.lora_A is [4, 5] and not [4, 64]" in said


def test_files_that_are_not_there_are_named_at_once(copy: Tiny) -> None:
    copy.settings(llama_path="meta-llama/Llama-3.2-3B-Instruct", whisper_path=None)
    said = refused(copy.settings(checkpoint_path="gone.pt"), MissingFile)
    assert "says llama_path: meta-llama/Llama-3.2-3B-Instruct, but there is no" in said
    assert "does not say `whisper_path`" in said
    assert "says checkpoint_path: gone.pt, but there is no" in said


def test_faults_of_several_files_are_named_at_once(copy: Tiny) -> None:
    copy.json("llm/config.json", model_type="mamba")
    copy.json("whisper/preprocessor_config.json", chunk_length=30)
    torch.save({"step": 3}, copy.folder / "checkpoint.pt")
    said = refused(copy)
    assert "checkpoint.pt holds no `projector` and `lora_layers`" in said
    assert said.count("model_type: unknown llm 'mamba'") == 1
    assert "chunk_length 30 (s), which are 1500 frames" in said


def test_pieces_of_other_widths_are_named_in_words(copy: Tiny) -> None:
    state = tiny_audio_llm.projector(24, 40).state_dict()
    said = refused(copy.saved(lambda model: model["projector"].update(state)))
    where = copy.folder / "checkpoint.pt"
    assert f"whisper is 48 wide, but {where} was trained with a Whisper of 24" in said
    assert f"llm is 64 wide, but {where} was trained with an LLM of 40" in said
    assert "misshapen" not in said


def no_pair(model: Saved) -> None:
    model["lora_layers"][QUERY] = "text"


def no_matrix(model: Saved) -> None:
    model["lora_layers"][QUERY]["lora_A"] = torch.tensor(1.0)


def no_module(model: Saved) -> None:
    model["lora_layers"]["model.layers.0.router"] = model["lora_layers"].pop(QUERY)


def other_rank(model: Saved) -> None:
    model["lora_layers"][QUERY] = {"lora_A": torch.ones(2, 64), "lora_B": torch.ones(64, 2)}


SPOILT: dict[str, tuple[str, Callable[[Saved], None]]] = {
    "a LoRA that is text": (f"holds what is no tensor: lora_layers.{QUERY}", no_pair),
    "a LoRA that is a number": (f"{QUERY}.lora_A is no matrix", no_matrix),
    "a LoRA of nothing": ("changes what the model does not have: model.layers.0.router", no_module),
    "a LoRA of two ranks": ("adapter's weights are of rank 2, 4", other_rank),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_lora_that_does_not_fit_is_refused(copy: Tiny, case: str) -> None:
    said, change = SPOILT[case]
    found = refused(copy.saved(change))
    assert said in found and "checkpoint.pt" in found


class Code:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def test_code_in_a_checkpoint_is_refused_and_not_run(copy: Tiny) -> None:
    mark = copy.folder / "was_run"
    torch.save({"model": Code(mark)}, copy.folder / "checkpoint.pt")
    assert "checkpoint.pt holds more than tensors and plain data" in refused(copy)
    assert not mark.exists()


def test_a_tokenizer_that_reads_differently_behind_audio_is_refused(copy: Tiny) -> None:
    file = copy.folder / "llm" / "tokenizer.json"
    plain = json.loads(file.read_text())
    plain["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "first",
        "split": False,
    }
    plain["model"]["vocab"]["▁"] = len(plain["model"]["vocab"])
    file.write_text(json.dumps(plain))
    assert "behind </audio> in another way than alone" in refused(copy)


KINDS: tuple[type[AlmError], ...] = (BadCheckpoint, MissingFile)


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
@pytest.mark.parametrize("name", ["checkpoint.pt", "llm/model.safetensors", "whisper/config.json"])
def test_a_truncated_file_is_named(copy: Tiny, name: str, share: float) -> None:
    file = copy.folder / name
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(KINDS, match=name):
        open_checkpoint(copy.config)
