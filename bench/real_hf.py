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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForMultimodalLM,
    MossTranscribeDiarizeConfig,
    MossTranscribeDiarizeFeatureExtractor,
    PreTrainedConfig,
    Qwen2AudioConfig,
    Qwen3ASRConfig,
    Qwen3ASRFeatureExtractor,
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
QWEN3 = dict(
    model_type="qwen3",
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=65536,
    rms_norm_eps=1e-6,
    vocab_size=151936,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    tie_word_embeddings=True,
)
SMALL_TOWER = dict(
    d_model=896,
    encoder_layers=18,
    encoder_attention_heads=14,
    encoder_ffn_dim=3584,
    output_dim=1024,
)


@dataclass(frozen=True)
class Published:
    """A model whose shapes are known: what its config.json says besides its class's defaults."""

    kind: type[Any]  # transformers' config
    family: str
    specials: tuple[str, ...]  # tokens of its prompts
    audio: str  # the one that stands for a clip's embeddings
    end: str
    text: dict[str, Any]
    tower: dict[str, Any] = field(default_factory=dict)
    layers: str = "encoder_layers"  # of the tower, by its key
    extractor: type[Any] = WhisperFeatureExtractor

    def config(self, layers: int = 0) -> PreTrainedConfig:
        """The published shapes; with `layers`, so many in the tower and in the LLM."""
        audio = {"model_type": f"{self.family}_encoder"} | self.tower
        text = dict(self.text)
        if layers:
            text["num_hidden_layers"] = audio[self.layers] = layers
        return self.kind(audio_config=audio, text_config=text)


CHATML = ("<|im_start|>", "<|im_end|>")
ASR = (*CHATML, "<|audio_start|>", "<|audio_pad|>", "<|audio_end|>", "<asr_text>")
MODELS = {
    "qwen2_audio": Published(
        Qwen2AudioConfig,
        "qwen2_audio",
        (*CHATML, "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"),
        "<|AUDIO|>",
        "<|im_end|>",
        QWEN,
    ),
    "voxtral": Published(
        VoxtralConfig,
        "voxtral",
        ("<s>", "</s>", "[INST]", "[/INST]", "[BEGIN_AUDIO]", "[AUDIO]", "[TRANSCRIBE]"),
        "[AUDIO]",
        "</s>",
        {"model_type": "llama"},
        layers="num_hidden_layers",
    ),
    "qwen3_asr_0.6b": Published(
        Qwen3ASRConfig,
        "qwen3_asr",
        ASR,
        "<|audio_pad|>",
        "<|im_end|>",
        QWEN3 | dict(hidden_size=1024, intermediate_size=3072),
        SMALL_TOWER,
        extractor=Qwen3ASRFeatureExtractor,
    ),
    "qwen3_asr_1.7b": Published(
        Qwen3ASRConfig,
        "qwen3_asr",
        ASR,
        "<|audio_pad|>",
        "<|im_end|>",
        QWEN3 | dict(hidden_size=2048, intermediate_size=6144),
        dict(output_dim=2048),
        extractor=Qwen3ASRFeatureExtractor,
    ),
    "moss_transcribe_diarize": Published(
        MossTranscribeDiarizeConfig,
        "moss_transcribe_diarize",
        ASR[:-1],
        "<|audio_pad|>",
        "<|im_end|>",
        QWEN3 | dict(hidden_size=1024, intermediate_size=3072, max_position_embeddings=131_072),
        dict(model_type="moss_transcribe_diarize_audio"),
        layers="num_hidden_layers",
        extractor=MossTranscribeDiarizeFeatureExtractor,
    ),
}


def make(folder: Path, family: str, layers: int = 0, shard_bytes: int = SHARD_BYTES) -> Path:
    """Write the folder, beside and then renamed."""
    site = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    torch.manual_seed(0)
    model = MODELS[family]
    said: Any = model.config(layers)
    words = vocabulary.tokenizer(said.text_config.vocab_size)
    told = json.loads(words.to_str())
    told["post_processor"] = None
    ids: dict[str, int] = {}
    for text, token in zip(model.specials, told["added_tokens"], strict=False):
        token["content"], ids[text] = text, token["id"]
    (site / "tokenizer.json").write_text(json.dumps(told))
    for name in ("audio_token_id", "audio_token_index"):
        if hasattr(said, name):
            setattr(said, name, ids[model.audio])
    said.dtype = "bfloat16"
    said.save_pretrained(site)
    ends = {"eos_token_id": ids[model.end], "pad_token_id": ids[model.end]}
    (site / "generation_config.json").write_text(json.dumps(ends))
    model.extractor(feature_size=said.audio_config.num_mel_bins).save_pretrained(site)
    shards(site, slots(said), torch.bfloat16, shard_bytes)
    shutil.rmtree(folder, ignore_errors=True)
    site.rename(folder)
    return folder


def slots(said: PreTrainedConfig) -> Iterator[Slot]:
    """The tensors of the model that a config describes."""
    with torch.device("meta"):
        model: Any = AutoModelForMultimodalLM.from_config(said, trust_remote_code=False)
    tied = {*model.all_tied_weights_keys} if hasattr(model, "all_tied_weights_keys") else set()
    for name, tensor in model.state_dict().items():
        if name in tied:  # transformers writes its source alone
            continue
        norm = "norm" in name and name.endswith("weight")
        yield Slot(name, tuple(tensor.shape), "one" if norm else "normal")


def main() -> None:
    """Make one."""
    parser = argparse.ArgumentParser(description="a Hugging Face folder of the real size")
    parser.add_argument("--family", choices=MODELS, default="qwen2_audio")
    parser.add_argument("--layers", type=int, default=0, help="of tower and LLM; 0: all")
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    print(make(said.out, said.family, said.layers))


if __name__ == "__main__":
    main()
