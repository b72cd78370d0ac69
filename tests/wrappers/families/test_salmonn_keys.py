"""SALMONN's config.yaml: settings of adapters count, and a key that nobody reads is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
import yaml
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from demo.random_checkpoint import make
from tests.wrappers.checkpoint.checkpoints import TINY, Copy, in_peft, refused
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import weight
from wrappers.families.salmonn import Salmonn

QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("keys") / "model", TINY)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Copy:
    return Copy(tiny, tmp_path)


def delta(copy: Copy) -> torch.Tensor:
    """What the adapter adds to the first query projection."""
    checkpoint = Salmonn(copy.config)
    return weight(checkpoint.decoder(), QUERY) - checkpoint.llm_weights[QUERY]


@pytest.mark.parametrize(
    "said, factor",
    [
        (dict(use_rslora=True), 2.0),  # the rank is 4: 16 / 2 and not 16 / 4
        (dict(lora_alpha_pattern={"q_proj": 48}), 3.0),
        (dict(lora_alpha_pattern={"layers.1.self_attn.q_proj": 48}), 1.0),
        (dict(lora_rank=2, lora_rank_pattern={"q_proj": 4, "v_proj": 4}), 1.0),
    ],
)
def test_settings_that_tensors_do_not_show_scale_the_lora(
    copy: Copy, said: dict[str, Any], factor: float
) -> None:
    plain = delta(copy)
    torch.testing.assert_close(delta(copy.settings(**said)), factor * plain)


def test_targets_that_are_not_those_of_the_tensors_are_refused(copy: Copy) -> None:
    said = refused(copy.settings(lora_target_modules=["q_proj"]))
    assert "holds tensors of" in said and "v_proj" in said


def test_an_adapter_config_beside_the_pth_may_not_contradict(copy: Copy) -> None:
    copy.json("adapter_config.json", peft_type="LORA", r=4, lora_alpha=32)
    assert "config.yaml and" in refused(copy) and "differ in lora_alpha" in refused(copy)
    plain = delta(copy.settings(lora_alpha=32))
    copy.json("adapter_config.json", use_rslora=True)
    torch.testing.assert_close(delta(copy), 2 * plain)


@torch.no_grad()
def test_a_lora_on_whisper_is_merged_as_peft_applies_it(copy: Copy) -> None:
    checkpoint = Salmonn(copy.config)
    config = transformers.WhisperConfig.from_pretrained(copy.folder / "whisper")
    truth = WhisperEncoder(config).eval()
    truth.load_state_dict(checkpoint.whisper_weights.take())
    rule = peft.LoraConfig(r=2, lora_alpha=12, target_modules=["q_proj", "fc1"])
    tuned = in_peft(truth, rule)
    for name, each in tuned.named_parameters():
        if "lora_" in name:
            each.normal_(0, 0.3)
    state = {n: t.clone() for n, t in tuned.state_dict().items() if "lora_" in n}
    copy.trained(lambda model: model.update({f"speech_encoder.{n}": t for n, t in state.items()}))
    assert "does not say `whisper_lora_alpha`" in refused(copy)
    copy.settings(whisper_lora=True, whisper_lora_alpha=12)
    part = open_checkpoint(copy.config).part("whisper", "decomposed")
    mel = torch.randn(1, config.num_mel_bins, 2 * config.max_source_positions)
    wanted = tuned(mel).last_hidden_state
    torch.testing.assert_close(part(mel), wanted, rtol=1e-4, atol=1e-4)
    assert "whisper_lora: False" in refused(copy.settings(whisper_lora=False))


def test_keys_that_nobody_reads_are_refused_with_the_near_one(copy: Copy) -> None:
    said = refused(copy.settings(lora_alfa=32, second_per_windows=0.5, speech_gate=True))
    assert "key `lora_alfa` (meant is perhaps `lora_alpha`)" in said
    assert "`second_per_window`" in said and "key `speech_gate` (take it out" in said


def test_a_backbone_that_the_forks_code_prunes_is_refused(copy: Copy) -> None:
    assert "`prune: True` (name the folder of the pruned LLM" in refused(copy.settings(prune=True))
    assert open_checkpoint(copy.settings(prune=False).config).family == "salmonn"


def test_keys_of_training_change_nothing(copy: Copy) -> None:
    copy.settings(freeze_whisper=True, lora_dropout=0.1, multi_prompt=True, low_resource=True)
    plain = yaml.safe_load(copy.config.read_text())
    copy.config.write_text(
        yaml.safe_dump(plain | {"run": {"seed": 1}, "datasets": {"prefix": "x"}})
    )
    assert open_checkpoint(copy.config).family == "salmonn"
    copy.config.write_text(yaml.safe_dump(plain | {"generation": {"num_beams": 1}}))
    assert "section `generation` (meant is perhaps `generate`)" in refused(copy)


def test_an_adapter_in_whispers_folder_is_refused(copy: Copy) -> None:
    copy.json("whisper/adapter_config.json", peft_type="LORA")
    assert "is not applied to Whisper here" in refused(copy)
