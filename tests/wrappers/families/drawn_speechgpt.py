"""SpeechGPTs out of a seed, the same on every machine, in the forms that the original's code reads.

tests/data/speechgpt holds what that code computed of them, the pieces of their tokenizer, and the
centres, which lie among the features of clips.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.reference import DATA
from tests.wrappers.families.tiny_speechgpt import NAMED, config

GOLDEN = DATA / "speechgpt"
PIECES = 320  # of its tokenizer.model
RATE = 16_000
LARGE: dict[str, Any] = dict(
    do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True, num_conv_pos_embeddings=19
)
# Settings: of HuBERT, of the LLaMA, of the LoRA; of which layer units are, and normalized.
VARIANTS: dict[str, dict[str, Any]] = {
    "base": dict(
        hubert=dict(hidden_size=28, intermediate_size=46, num_hidden_layers=7,
                    num_attention_heads=4, conv_dim=[14] * 7, num_conv_pos_embedding_groups=7),
        llm=dict(hidden_size=36, intermediate_size=52, num_hidden_layers=4,
                 num_attention_heads=6, num_key_value_heads=6),
        lora=dict(r=5, lora_alpha=9, target_modules=["q_proj", "v_proj", "o_proj"]),
        layer=5, normalize=False,
    ),
    "large": dict(
        hubert=LARGE | dict(hidden_size=30, intermediate_size=34, num_hidden_layers=4,
                            num_attention_heads=3, conv_dim=[10] * 7,
                            num_conv_pos_embedding_groups=5),
        llm=dict(hidden_size=44, intermediate_size=70, num_hidden_layers=2,
                 num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-5,
                 rope_theta=500.0),
        lora=None, layer=3, normalize=True,
    ),
}  # fmt: skip
# Clips: samples and seed.
CLIPS = {"shortest": (400, 1), "s1": (RATE, 2), "odd": (26_011, 3), "s5": (80_001, 4)}
CLIPS |= {"s12": (11 * RATE + 15_999, 5)}


def make(folder: Path, variant: str) -> Path:
    """A checkpoint of folders `hubert`, `llm` and `lora`, and the file `km_centers.npy`."""
    said = VARIANTS[variant]
    noise = np.random.RandomState(5)
    folder.mkdir(parents=True)
    _hubert(folder / "hubert", said, noise)
    shutil.copyfile(GOLDEN / f"{variant}_centres.npy", folder / "km_centers.npy")
    units = len(np.load(folder / "km_centers.npy"))
    plain = _llm(folder / "llm", said, units, noise)
    if said["lora"]:
        _lora(folder / "lora", said["lora"], plain, noise)
    paths = dict(llama_path="llm", hubert_path="hubert", km_path="km_centers.npy")
    lora = "lora" if said["lora"] else None
    return config(folder, **paths, layer=said["layer"], lora_path=lora)


def clip(name: str) -> np.ndarray:
    """A clip [samples] by its name: noise under a tone, other ones every 0.1 s."""
    samples, seed = CLIPS[name]
    noise, step = np.random.RandomState(seed), np.arange(samples) // 1_600
    pitch = noise.uniform(80, 3_500, step[-1] + 1)[step]
    loud = 10 ** noise.uniform(-2, -0.5, step[-1] + 1)[step]
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
    pcm = loud * (tone + noise.standard_normal(samples))
    return (np.clip(np.rint(pcm * 32768), -32768, 32767) / 32768).astype(np.float32)


def _put(
    made: dict[str, Tensor], noise: np.random.RandomState, name: str, *shape: int, mean: float = 0.0
) -> None:
    spread = 0.3 if len(shape) == 1 else 1.4 / np.sqrt(np.prod(shape[1:]))
    values = noise.standard_normal(shape) * spread + mean
    made[name] = torch.from_numpy(values.astype(np.float32))


def _hubert(folder: Path, said: dict[str, Any], noise: np.random.RandomState) -> None:
    folder.mkdir()
    plain: dict[str, Any] = dict(
        model_type="hubert", architectures=["HubertModel"], feat_extract_norm="group",
        do_stable_layer_norm=False, conv_bias=False, num_conv_pos_embeddings=16,
        conv_kernel=[10, 3, 3, 3, 3, 2, 2], conv_stride=[5, 2, 2, 2, 2, 2, 2], layerdrop=0.0,
        num_feat_extract_layers=7,
    ) | said["hubert"]  # fmt: skip
    (folder / "config.json").write_text(json.dumps(plain))
    extractor = dict(sampling_rate=RATE, do_normalize=said["normalize"])
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    made: dict[str, Tensor] = {}

    def put(name: str, *shape: int) -> None:
        mean = float("norm" in name and name.endswith("weight"))
        _put(made, noise, name, *shape, mean=mean)

    def both(name: str, *shape: int) -> None:
        put(f"{name}.weight", *shape)
        put(f"{name}.bias", shape[0])

    width, ffn, before = plain["hidden_size"], plain["intermediate_size"], 1
    for i, (size, kernel) in enumerate(zip(plain["conv_dim"], plain["conv_kernel"], strict=True)):
        at = f"feature_extractor.conv_layers.{i}"
        put(f"{at}.conv.weight", size, before, kernel)
        if plain["conv_bias"]:
            put(f"{at}.conv.bias", size)
        if plain["feat_extract_norm"] == "layer" or not i:
            both(f"{at}.layer_norm", size)
        before = size
    both("feature_projection.layer_norm", before)
    both("feature_projection.projection", width, before)
    groups, taps = plain["num_conv_pos_embedding_groups"], plain["num_conv_pos_embeddings"]
    at = "encoder.pos_conv_embed.conv"
    made[f"{at}.weight_g"] = torch.from_numpy(noise.uniform(0.3, 1.5, (1, 1, taps)).astype("f4"))
    put(f"{at}.weight_v", width, width // groups, taps)
    put(f"{at}.bias", width)
    both("encoder.layer_norm", width)
    for at in [f"encoder.layers.{i}" for i in range(plain["num_hidden_layers"])]:
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            both(f"{at}.attention.{name}", width, width)
        both(f"{at}.layer_norm", width)
        both(f"{at}.feed_forward.intermediate_dense", ffn, width)
        both(f"{at}.feed_forward.output_dense", width, ffn)
        both(f"{at}.final_layer_norm", width)
    put("masked_spec_embed", width)
    save_file(made, folder / "model.safetensors", {"format": "pt"})


def _llm(
    folder: Path, said: dict[str, Any], units: int, noise: np.random.RandomState
) -> dict[str, Any]:
    folder.mkdir()
    shutil.copyfile(GOLDEN / "tokenizer.model", folder / "tokenizer.model")
    names = [*(f"<{i}>" for i in range(units)), *NAMED]
    added = {name: PIECES + i for i, name in enumerate(names)}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    settings = dict(tokenizer_class="LlamaTokenizer", legacy=None, bos_token="<s>")
    settings |= dict(eos_token="</s>", unk_token="<unk>")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    plain: dict[str, Any] = dict(
        model_type="llama", architectures=["LlamaForCausalLM"], bos_token_id=1, eos_token_id=2,
        pad_token_id=0, hidden_act="silu", max_position_embeddings=2048, rms_norm_eps=1e-6,
        rope_theta=10_000.0, tie_word_embeddings=False, vocab_size=PIECES + len(names),
        torch_dtype="float32",
    ) | said["llm"]  # fmt: skip
    (folder / "config.json").write_text(json.dumps(plain))
    ends = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    (folder / "generation_config.json").write_text(json.dumps(ends))
    made: dict[str, Tensor] = {}
    width, ffn, vocab = plain["hidden_size"], plain["intermediate_size"], plain["vocab_size"]
    shared = width // plain["num_attention_heads"] * plain["num_key_value_heads"]
    shapes = {"q_proj": (width, width), "k_proj": (shared, width), "v_proj": (shared, width)}
    shapes |= {"o_proj": (width, width)}
    _put(made, noise, "model.embed_tokens.weight", vocab, width)
    for at in [f"model.layers.{i}" for i in range(plain["num_hidden_layers"])]:
        for name, shape in shapes.items():
            _put(made, noise, f"{at}.self_attn.{name}.weight", *shape)
        for name, *shape in (("gate", ffn, width), ("up", ffn, width), ("down", width, ffn)):
            _put(made, noise, f"{at}.mlp.{name}_proj.weight", *shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            _put(made, noise, f"{at}.{name}.weight", width, mean=1.0)
    _put(made, noise, "model.norm.weight", width, mean=1.0)
    _put(made, noise, "lm_head.weight", vocab, width)
    torch.save(made, folder / "pytorch_model.bin")  # the form of the original's
    return plain


def _lora(
    folder: Path, said: dict[str, Any], plain: dict[str, Any], noise: np.random.RandomState
) -> None:
    folder.mkdir()
    rest = dict(peft_type="LORA", task_type="CAUSAL_LM", bias="none", fan_in_fan_out=False)
    rest |= dict(base_model_name_or_path="llm", inference_mode=True, lora_dropout=0.05)
    (folder / "adapter_config.json").write_text(json.dumps(said | rest))
    made: dict[str, Tensor] = {}
    rank, width = said["r"], plain["hidden_size"]
    for i in range(plain["num_hidden_layers"]):
        for name in said["target_modules"]:
            at = f"base_model.model.model.layers.{i}.self_attn.{name}"
            _put(made, noise, f"{at}.lora_A.weight", rank, width)
            _put(made, noise, f"{at}.lora_B.weight", width, rank)
    torch.save(made, folder / "adapter_model.bin")
