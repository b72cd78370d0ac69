"""A Hugging Face folder of the real size with random weights: python bench/real_hf.py --help

Names, shapes and dtype are those of transformers' own class, the tokenizer is as large as the
model's; weights are written tensor by tensor. It says nothing, as bench/real_size.py's.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AudioFlamingo3ForConditionalGeneration,
    AutoModelForMultimodalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi4MultimodalForCausalLM,
    PreTrainedConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from bench.beside import vocabulary  # noqa: E402
from bench.published import MODELS, Published, beside  # noqa: E402
from bench.real_size import SHARD_BYTES, Slot, shards  # noqa: E402
from tests.wrappers.families import tiny_ultravox  # noqa: E402

# Classes that are not what AutoModelForMultimodalLM makes of their config.
CLASSES: dict[str, Any] = {
    "audioflamingo3": AudioFlamingo3ForConditionalGeneration,
    "phi4_multimodal": Phi4MultimodalForCausalLM,
    "qwen2_5_omni_thinker": Qwen2_5OmniThinkerForConditionalGeneration,
}
ULTRAVOX = "ultravox_1b"


def make(
    folder: Path,
    family: str,
    layers: int = 0,
    llm_layers: int = 0,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write the folder, beside and then renamed; `layers` of its tower and LLM, 0 is all."""
    site = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    torch.manual_seed(0)
    if family == ULTRAVOX:
        ultravox(site, layers, llm_layers, shard_bytes)
    else:
        said = MODELS[family].config(layers, llm_layers)
        transformers_own(site, MODELS[family], said, shard_bytes)
    shutil.rmtree(folder, ignore_errors=True)
    site.rename(folder)
    return folder


def transformers_own(site: Path, model: Published, said: Any, shard_bytes: int) -> None:
    """A model of transformers: its config, what is beside it, and its tensors."""
    ids = tokenizer(site, model.specials, said.get_text_config().vocab_size)
    for section in (said, getattr(said, "audio_config", said)):
        for name in ("audio_token_id", "audio_token_index"):
            if hasattr(section, name):
                setattr(section, name, ids.get(model.audio, 0))
    said.dtype = "bfloat16"
    said.save_pretrained(site)
    end = ids.get(model.end, 2)
    ends = {"eos_token_id": end, "pad_token_id": end}
    (site / "generation_config.json").write_text(json.dumps(ends))
    beside(site, model, said)
    shards(site, slots(said), torch.bfloat16, shard_bytes)
    if model.lora:
        speech_lora(site / "speech-lora", said, model.lora, shard_bytes)


def tokenizer(site: Path, specials: tuple[str, ...], vocab: int) -> dict[str, int]:
    """Write a tokenizer of that many entries with these tokens; the numbers that they have."""
    if not specials:
        return {}
    told = json.loads(vocabulary.tokenizer(vocab).to_str())
    told["post_processor"] = None
    ids: dict[str, int] = {}
    for text, token in zip(specials, told["added_tokens"], strict=False):
        ids[text] = token["id"]
        token["content"] = text
    (site / "tokenizer.json").write_text(json.dumps(told))
    return ids


def slots(said: PreTrainedConfig) -> Iterator[Slot]:
    """The tensors of the model that a config describes."""
    with torch.device("meta"):
        own = CLASSES.get(said.model_type)
        if own:
            model: Any = own(copy.deepcopy(said))
        else:
            model = AutoModelForMultimodalLM.from_config(said, trust_remote_code=False)
    yield from tensors(model)


def tensors(model: Any, prefix: str = "") -> Iterator[Slot]:
    """Those of a model, as transformers writes them."""
    tied = {*model.all_tied_weights_keys} if hasattr(model, "all_tied_weights_keys") else set()
    for name, tensor in model.state_dict().items():
        if name in tied:  # transformers writes its source alone
            continue
        norm = "norm" in name and name.endswith("weight")
        one = norm or name.endswith(("running_var", "global_invstd"))
        fill = "one" if one else "normal" if tensor.is_floating_point() else "zero"
        dtype = None if tensor.is_floating_point() else tensor.dtype
        yield Slot(prefix + name, tuple(tensor.shape), fill, dtype)


def speech_lora(folder: Path, said: Any, rank: int, shard_bytes: int) -> None:
    """Phi-4's adapter for speech: of all products of its LLM's layers."""
    folder.mkdir()
    hidden, ffn = said.hidden_size, said.intermediate_size
    keys = said.num_key_value_heads * (hidden // said.num_attention_heads)
    sizes = {
        "self_attn.qkv_proj": (hidden, hidden + 2 * keys),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_up_proj": (hidden, 2 * ffn),
        "mlp.down_proj": (ffn, hidden),
    }
    settings = dict(
        peft_type="LORA", r=rank, lora_alpha=2 * rank, lora_dropout=0.01, task_type="CAUSAL_LM",
        target_modules=r"model.layers.\d+.((self_attn.(qkv|o)_proj)|(mlp.(gate_up|down)_proj))",
    )  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    made = (
        Slot(f"model.layers.{i}.{name}.lora_{half}.weight", shape)
        for i in range(said.num_hidden_layers)
        for name, (source, out) in sizes.items()
        for half, shape in (("A", (rank, source)), ("B", (out, rank)))
    )
    shards(folder, made, torch.bfloat16, 64 * shard_bytes)
    [only] = folder.glob("model-*.safetensors")
    only.rename(folder / "adapter_model.safetensors")
    (folder / "model.safetensors.index.json").unlink()


# --- Ultravox, which is no class of transformers


def ultravox(site: Path, layers: int, llm_layers: int, shard_bytes: int) -> None:
    """ultravox-v0_5-llama-3_2-1b: Whisper-large-v3-turbo's encoder and Llama-3.2-1B, all in one.

    Its config.json has these settings; the published folder names the LLM's instead of holding it.
    """
    tower = WhisperConfig(
        d_model=1280, encoder_layers=layers or 32, encoder_attention_heads=20,
        encoder_ffn_dim=5120, num_mel_bins=128, decoder_layers=4, decoder_attention_heads=20,
        decoder_ffn_dim=5120, vocab_size=51866,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=128256, hidden_size=2048, intermediate_size=8192,
        num_hidden_layers=llm_layers or 16, num_attention_heads=32, num_key_value_heads=8,
        head_dim=64, max_position_embeddings=131072, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters=dict(
            rope_type="llama3", rope_theta=500000.0, factor=32.0, low_freq_factor=1.0,
            high_freq_factor=4.0, original_max_position_embeddings=8192,
        ),
    )  # fmt: skip
    bridge = dict(hidden_size=4096, stack_factor=8, projector_act="swiglu", projector_ln_mid=True)
    specials = (*tiny_ultravox.TOKENS, tiny_ultravox.CLIP)
    ids = tokenizer(site, specials, text.vocab_size)
    text.bos_token_id, text.eos_token_id = ids[tiny_ultravox.BOS], ids[tiny_ultravox.TURN]
    names = dict(bos_token=tiny_ultravox.BOS, eos_token=tiny_ultravox.TURN)
    files: dict[str, Any] = {
        "config.json": dict(
            model_type="ultravox", architectures=["UltravoxModel"], audio_config=tower.to_dict(),
            text_config=text.to_dict(), audio_token_index=ids[tiny_ultravox.CLIP], **bridge,
        ),
        "generation_config.json": {"eos_token_id": ids[tiny_ultravox.TURN]},
        "tokenizer_config.json": names | {"chat_template": tiny_ultravox.TEMPLATE},
    }  # fmt: skip
    for name, inside in files.items():
        (site / name).write_text(json.dumps(inside, default=str))
    WhisperFeatureExtractor(feature_size=128).save_pretrained(site)
    with torch.device("meta"):
        speech = WhisperModel(tower).encoder
        llm = LlamaForCausalLM(text)
        projector = tiny_ultravox.Projector(tower.d_model, 2048, bridge)

    def every() -> Iterator[Slot]:
        yield from tensors(speech, "audio_tower.")
        for slot in tensors(projector, "multi_modal_projector."):
            norm = ".ln_" in slot.name
            yield replace(slot, fill="one") if norm else slot
        yield from tensors(llm, "language_model.")

    shards(site, every(), torch.bfloat16, shard_bytes)


def main() -> None:
    """Make one."""
    parser = argparse.ArgumentParser(description="a Hugging Face folder of the real size")
    parser.add_argument("--family", choices=[*MODELS, ULTRAVOX], default="qwen2_audio")
    parser.add_argument("--layers", type=int, default=0, help="of the tower; 0: all")
    parser.add_argument("--llm-layers", type=int, default=0, help="of the LLM; 0: all")
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    print(make(said.out, said.family, said.layers, said.llm_layers))


if __name__ == "__main__":
    main()
