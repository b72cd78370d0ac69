"""A Hugging Face folder of the real size with random weights: python bench/real_hf.py --help

Names, shapes and dtype are those of transformers' own class, the tokenizer is as large as the
model's; weights are written tensor by tensor. It says nothing, as bench/real_size.py's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForMultimodalLM,
    PreTrainedConfig,
    Qwen2AudioConfig,
    VoxtralConfig,
    WhisperFeatureExtractor,
)

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from bench.beside import vocabulary  # noqa: E402
from bench.real_size import SHARD_BYTES, Slot, shards  # noqa: E402

# What the published config.json say besides the defaults of their classes.
QWEN = dict(
    model_type="qwen2",
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    max_position_embeddings=8192,
    rms_norm_eps=1e-5,
    vocab_size=156032,
)
SPECIALS = {
    "qwen2_audio": ("<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"),
    "voxtral": ("<s>", "</s>", "[INST]", "[/INST]", "[BEGIN_AUDIO]", "[AUDIO]", "[TRANSCRIBE]"),
}
AUDIO = {"qwen2_audio": "<|AUDIO|>", "voxtral": "[AUDIO]"}
END = {"qwen2_audio": "<|im_end|>", "voxtral": "</s>"}


def config(family: str, layers: int = 0) -> PreTrainedConfig:
    """The published shapes; with `layers`, so many in the tower and in the LLM."""
    audio: dict[str, Any] = {"model_type": f"{family}_encoder"}
    text: dict[str, Any] = dict(QWEN) if family == "qwen2_audio" else {"model_type": "llama"}
    if layers:
        text["num_hidden_layers"] = layers
        audio["encoder_layers" if family == "qwen2_audio" else "num_hidden_layers"] = layers
    kind = Qwen2AudioConfig if family == "qwen2_audio" else VoxtralConfig
    return kind(audio_config=audio, text_config=text)


def make(folder: Path, family: str, layers: int = 0, shard_bytes: int = SHARD_BYTES) -> Path:
    """Write the folder, beside and then renamed."""
    site = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    torch.manual_seed(0)
    said: Any = config(family, layers)
    words = vocabulary.tokenizer(said.text_config.vocab_size)
    told = json.loads(words.to_str())
    told["post_processor"] = None
    ids: dict[str, int] = {}
    for text, token in zip(SPECIALS[family], told["added_tokens"], strict=False):
        token["content"], ids[text] = text, token["id"]
    (site / "tokenizer.json").write_text(json.dumps(told))
    said.audio_token_id = ids[AUDIO[family]]
    if family == "qwen2_audio":
        said.audio_token_index = ids[AUDIO[family]]
    said.dtype = "bfloat16"
    said.save_pretrained(site)
    ends = {"eos_token_id": ids[END[family]], "pad_token_id": ids[END[family]]}
    (site / "generation_config.json").write_text(json.dumps(ends))
    WhisperFeatureExtractor(feature_size=128).save_pretrained(site)
    shards(site, slots(said), torch.bfloat16, shard_bytes)
    shutil.rmtree(folder, ignore_errors=True)
    site.rename(folder)
    return folder


def slots(said: PreTrainedConfig) -> Iterator[Slot]:
    """The tensors of the model that a config describes."""
    with torch.device("meta"):
        model: Any = AutoModelForMultimodalLM.from_config(said, trust_remote_code=False)
    for name, tensor in model.state_dict().items():
        norm = "norm" in name and name.endswith("weight")
        yield Slot(name, tuple(tensor.shape), "one" if norm else "normal")


def main() -> None:
    """Make one."""
    parser = argparse.ArgumentParser(description="a Hugging Face folder of the real size")
    parser.add_argument("--family", choices=SPECIALS, default="qwen2_audio")
    parser.add_argument("--layers", type=int, default=0, help="of tower and LLM; 0: all")
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    print(make(said.out, said.family, said.layers))


if __name__ == "__main__":
    main()
