"""Tiny random Qwen-Audio folders as the authors lay theirs out, the same on every machine.

tests/data/qwen_audio holds what the authors' code computed of them.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.reference import DATA

RATE = 16_000
GOLDEN = DATA / "qwen_audio"
# Clips of what lies there: samples and seed.
CLIPS = {
    **{"s1": (16000, 1), "s5": (80001, 2), "s3": (47999, 3), "tiny": (480, 4)},
    **{"odd": (16161, 5), "s31": (31 * RATE, 6), "s29": (int(29.99 * RATE), 7)},
}
QUIET = "<|im_start|>system\n<|im_end|>"  # an empty system text still has its block
PIECES = (
    *("th", "the", " t", " the", "he", "in", "ing", "er", "re", "is", "hat", "what", " s", " sp"),
    *("ee", "ea", "ch", " speech", "speech", "au", "Au", "Aud", "Audio", "\n\n", "  ", "   "),
    *("as", "sist", "ant", "assistant", "us", "user", "sy", "st", "sys", "tem", "system", "ou"),
    *("you", " you", "aa", "aaa", "aaaa", "语", "音", "语音", "é", "'s", "..", "?\n", " 1", " ing"),
)
CONTROLS, TOKENS = 208, 3522  # special tokens of text, and all of them
# Settings of the variants; `audio` changes the tower's section.
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "short": dict(
        hidden_size=60, num_attention_heads=3, kv_channels=20, intermediate_size=104,
        num_hidden_layers=3, no_bias=False, seq_length=60, rotary_emb_base=500,
        layer_norm_epsilon=1e-5, audio=dict(n_state=36, n_head=3, n_layer=1, n_ctx=1600),
    ),
    "tied": dict(
        hidden_size=44, num_attention_heads=2, kv_channels=22, intermediate_size=70,
        num_hidden_layers=1, seq_length=100, use_logn_attn=False, tie_word_embeddings=True,
        audio=dict(n_state=28, n_head=2, n_layer=3, n_ctx=400),
    ),
    "unpooled": dict(
        seq_length=50, use_dynamic_ntk=False, audio=dict(avg_pool=False, n_state=20, n_head=5),
    ),
}  # fmt: skip


def ranks() -> dict[bytes, int]:
    """The pieces of the vocabulary: every byte, then a few words."""
    pieces = [bytes([byte]) for byte in range(256)] + [piece.encode() for piece in PIECES]
    return {piece: rank for rank, piece in enumerate(dict.fromkeys(pieces))}


def config(**settings: Any) -> dict[str, Any]:
    """A config.json with these settings in the place of the usual ones."""
    known = len(ranks())
    audio = dict(n_mels=80, n_ctx=1500, n_state=48, n_head=4, n_layer=2, avg_pool=True)
    audio |= dict(add_audio_bos_eos_token=True, audio_start_id=known + CONTROLS + 3312)
    plain: dict[str, Any] = {
        "architectures": ["QWenLMHeadModel"],
        "auto_map": {
            "AutoConfig": "configuration_qwen.QWenConfig",
            "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
        },
        "model_type": "qwen",
        "attn_dropout_prob": 0.0,
        "bf16": False,
        "fp16": False,
        "fp32": True,
        "emb_dropout_prob": 0.0,
        "hidden_size": 48,
        "intermediate_size": 128,
        "initializer_range": 0.02,
        "kv_channels": 12,
        "layer_norm_epsilon": 1e-6,
        "max_position_embeddings": 8192,
        "no_bias": True,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "onnx_safe": None,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "scale_attn_weights": True,
        "seq_length": 2048,
        "tie_word_embeddings": False,
        "tokenizer_type": "QWenTokenizer",
        "use_cache": True,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "vocab_size": -(-(known + TOKENS) // 64) * 64,
    }
    tower = audio | settings.pop("audio", {})
    plain |= settings
    return plain | {"audio": {"output_dim": plain["hidden_size"]} | tower}


def make(folder: Path, form: str = "chatml", **settings: Any) -> Path:
    """A folder of these settings; `form` is its chat_format."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = config(**settings)
    generation = dict(chat_format=form, eos_token_id=len(ranks()), pad_token_id=len(ranks()))
    generation |= dict(max_window_size=6144, max_new_tokens=32, do_sample=False)
    tokenizer = dict(model_max_length=8192, tokenizer_class="QWenTokenizer")
    for name, content in (
        ("config.json", plain),
        ("generation_config.json", generation),
        ("tokenizer_config.json", tokenizer),
    ):
        (folder / name).write_text(json.dumps(content, indent=1))
    lines = [f"{base64.b64encode(p).decode()} {rank}\n" for p, rank in ranks().items()]
    (folder / "qwen.tiktoken").write_text("".join(lines))
    save_file(weights(plain), folder / "model.safetensors", {"format": "pt"})
    return folder


def weights(plain: dict[str, Any]) -> dict[str, Tensor]:
    """Random weights under the authors' names, large enough that every clip is answered otherwise.

    Of numpy's RandomState, whose numbers are the same in every version.
    """
    noise = np.random.RandomState(7)
    made: dict[str, Tensor] = {}

    def put(name: str, *shape: int, norm: bool = False) -> None:
        values = noise.standard_normal(shape).astype(np.float32)
        spread = 0.3 if len(shape) == 1 else 1.4 / np.sqrt(shape[1] * (shape[2:] or (1,))[0])
        made[name] = torch.from_numpy(values * np.float32(spread) + np.float32(norm))

    def linear(name: str, out: int, wide: int, bias: bool = True) -> None:
        put(f"{name}.weight", out, wide)
        if bias:
            put(f"{name}.bias", out)

    def layer_norm(name: str, width: int) -> None:
        put(f"{name}.weight", width, norm=True)
        put(f"{name}.bias", width)

    hidden, half = plain["hidden_size"], plain["intermediate_size"] // 2
    biased = not plain["no_bias"]
    put("transformer.wte.weight", plain["vocab_size"], hidden)
    tied = plain["tie_word_embeddings"]
    head = "transformer.wte.weight" if tied else "lm_head.weight"
    for i in range(plain["num_hidden_layers"]):
        at = f"transformer.h.{i}"
        put(f"{at}.ln_1.weight", hidden, norm=True)
        linear(f"{at}.attn.c_attn", 3 * hidden, hidden)
        linear(f"{at}.attn.c_proj", hidden, hidden, biased)
        put(f"{at}.ln_2.weight", hidden, norm=True)
        linear(f"{at}.mlp.w1", half, hidden, biased)
        linear(f"{at}.mlp.w2", half, hidden, biased)
        linear(f"{at}.mlp.c_proj", hidden, half, biased)
    put("transformer.ln_f.weight", hidden, norm=True)
    if not tied:
        put(head, plain["vocab_size"], hidden)
    # Answers are words, sometimes a tag of audio, and never a token that no tokenizer knows.
    known = len(ranks())
    made[head][known + CONTROLS :] *= 0.6
    made[head][known + 1 : known + 3] *= 1.3
    made[head][known + 3 : known + CONTROLS] *= 0.5
    made[head][known + TOKENS :] = 0
    audio, at = plain["audio"], "transformer.audio"
    width = audio["n_state"]
    for name, wide in (("conv1", audio["n_mels"]), ("conv2", width)):
        put(f"{at}.{name}.weight", width, wide, 3)
        put(f"{at}.{name}.bias", width)
    put(f"{at}.positional_embedding", audio["n_ctx"], width)
    for i in range(audio["n_layer"]):
        block = f"{at}.blocks.{i}"
        for name in ("query", "key", "value", "out"):
            linear(f"{block}.attn.{name}", width, width, name != "key")
        layer_norm(f"{block}.attn_ln", width)
        linear(f"{block}.mlp.0", 4 * width, width)
        linear(f"{block}.mlp.2", width, 4 * width)
        layer_norm(f"{block}.mlp_ln", width)
    layer_norm(f"{at}.ln_post", width)
    linear(f"{at}.proj", audio["output_dim"], width)
    put(f"{at}.audio_bos_eos_token.weight", 2, audio["output_dim"])
    return made


def sound(samples: int, seed: int) -> np.ndarray:
    """Noise in a band that moves, in steps of a 16-bit file: float32 [samples]."""
    noise = np.random.RandomState(seed)
    at = np.arange(samples) / RATE
    pcm = 0.2 * np.sin(2 * np.pi * (200 + 90 * seed + 40 * np.sin(3 * at)) * at)
    pcm += noise.standard_normal(samples) * 0.05 * (1 + np.sin(7 * at))
    return (np.clip(np.rint(pcm * 32768), -32768, 32767) / 32768).astype(np.float32)


def asked(query: str) -> tuple[str, list[str]]:
    """A query of the authors' form -> its words with `<audio>` for each clip, and their names."""
    names = re.findall("<audio>(.*?)</audio>", query)
    return re.sub(r"(?:Audio \d+:)?<audio>.*?</audio>\n?", "<audio>", query), names


def restated(artifacts: Path, facts: dict[str, Any] | None = None, **prompt: Any) -> None:
    """Artifacts that state other facts, or another prompt."""
    file = artifacts / "manifest.json"
    plain = json.loads(file.read_text()) | (facts or {})
    plain["prompt"] |= prompt
    file.write_text(json.dumps(plain))


def clip(name: str) -> np.ndarray:
    """A clip [samples] by its name."""
    return sound(*CLIPS[name])


def said(variant: str) -> dict[str, Any]:
    """What the authors' code was asked and answered, by name."""
    return json.loads((GOLDEN / f"{variant}.json").read_text())
