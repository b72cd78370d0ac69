"""Tiny random Kimi-Audios as the hub lays one out, with their Whisper and tokenizer of sound.

tests/data/kimi_audio holds one of them and what the authors' code computed of it; `made` makes more
out of a seed, the same on every machine, of which it holds that and the code book, whose rows lie
among what the tokenizer makes of clips.
"""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.reference import DATA
from tests.wrappers.families.tiny_qwen_audio import RATE, ranks
from wrappers.checkpoint.text import kimi_tokens

GOLDEN = DATA / "kimi_audio"
MODEL, WHISPER, CODES = "model", "model/whisper-large-v3", "glm-4-voice-tokenizer"
# Settings in the place of GOLDEN's: of the LLM, of the Whisper and of the tokenizer of sound.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "odd": (
        dict(hidden_size=60, num_attention_heads=5, num_key_value_heads=1, intermediate_size=100,
             num_hidden_layers=2, rope_theta=50_000.0, rms_norm_eps=1e-5, kimia_mimo_layers=1,
             kimia_mimo_transformer_from_layer_index=0),
        dict(d_model=36, encoder_layers=3, encoder_attention_heads=3, encoder_ffn_dim=52),
        dict(d_model=28, encoder_layers=5, encoder_attention_heads=2, encoder_ffn_dim=50,
             pooling_position=2, quantize_position=4, quantize_vocab_size=150,
             quantize_causal_block_size=90),
    ),
    "tied": (
        dict(hidden_size=44, num_attention_heads=2, num_key_value_heads=2, intermediate_size=70,
             num_hidden_layers=4, tie_word_embeddings=True, kimia_mimo_layers=1),
        dict(d_model=20, encoder_layers=1, encoder_attention_heads=5, encoder_ffn_dim=90),
        dict(d_model=30, encoder_layers=3, encoder_attention_heads=3, encoder_ffn_dim=34,
             pooling_position=1, quantize_position=1, quantize_vocab_size=97,
             quantize_causal_block_size=53),
    ),
}  # fmt: skip
SPARE = 7  # rows of the LLM behind the last code
# Clips of the variants: samples and seed.
CLIPS = {
    **{"one": (1, 1), "short": (4_321, 2), "s1": (RATE, 3), "s5": (80_001, 4)},
    **{"s29": (int(29.99 * RATE), 5), "s31": (31 * RATE, 6), "s61": (981_283, 7)},
}


def make(folder: Path) -> Path:
    """A copy in `folder`; gives that of the model, beside which the tokenizer of sound lies."""
    for name in (MODEL, CODES):
        shutil.copytree(GOLDEN / name, folder / name, copy_function=shutil.copyfile)
    return folder / MODEL


def said(folder: Path, where: str, **changes: Any) -> Path:
    """The model's folder, the config.json in `where` having other values; None takes one out."""
    file = folder / where / "config.json"
    plain = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in plain.items() if value is not None}))
    return folder / MODEL


def made(folder: Path, variant: str) -> Path:
    """A checkpoint of other sizes out of a seed; gives the folder of the model."""
    llm, ears, voice = VARIANTS[variant]
    known = len(ranks())
    offset = known + kimi_tokens.COUNT
    llm = llm | dict(
        vocab_size=offset + voice["quantize_vocab_size"] + SPARE,
        kimia_token_offset=offset,
        kimia_text_output_vocab=offset,
        kimia_adaptor_input_dim=4 * ears["d_model"],
        kimia_media_begin=known + 18,
        kimia_media_end=known + 20,
        bos_token_id=known,
        eos_token_ids=[known + 1, known + 2],
        pad_token_id=offset - 1,
        num_base_tokens=known,
    )
    noise = np.random.RandomState(11)
    for where, changes, weights in (
        (MODEL, llm, _llm),
        (WHISPER, ears, _whisper),
        (CODES, voice, _voice),
    ):
        (folder / where).mkdir(parents=True)
        plain = json.loads((GOLDEN / where / "config.json").read_text()) | changes
        (folder / where / "config.json").write_text(json.dumps(plain, indent=1))
        held = weights(plain, noise)
        if where == CODES:
            held["codebook.weight"] = torch.from_numpy(np.load(GOLDEN / f"{variant}_codebook.npy"))
        save_file(held, folder / where / "model.safetensors", {"format": "pt"})
    settings = "preprocessor_config.json"
    shutil.copyfile(GOLDEN / CODES / settings, folder / CODES / settings)
    settings = "tokenizer_config.json"
    shutil.copyfile(GOLDEN / MODEL / settings, folder / MODEL / settings)
    lines = [f"{base64.b64encode(p).decode()} {rank}\n" for p, rank in ranks().items()]
    (folder / MODEL / "tiktoken.model").write_text("".join(lines))
    return folder / MODEL


def clip(name: str) -> np.ndarray:
    """A clip of the variants [samples] by its name: a tone and noise, other ones every 0.19 s."""
    samples, seed = CLIPS[name]
    noise, step = np.random.RandomState(seed), np.arange(samples) // 3_000
    pitch = noise.uniform(80, 3_500, step[-1] + 1)[step]
    loud = 10 ** noise.uniform(-2.5, -0.5, step[-1] + 1)[step]
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
    pcm = loud * (tone + 0.3 * noise.standard_normal(samples))
    return (np.clip(np.rint(pcm * 32768), -32768, 32767) / 32768).astype(np.float32)


class _Drawn(dict[str, Tensor]):
    """Weights by name, large enough that every clip is answered otherwise."""

    def __init__(self, noise: np.random.RandomState) -> None:
        super().__init__()
        self.noise = noise

    def put(self, name: str, *shape: int, spread: float = 0.0, mean: float = 0.0) -> None:
        values = self.noise.standard_normal(shape)
        wide = int(np.prod(shape[1:]))
        spread = spread or (0.3 if len(shape) == 1 else 1.4 / np.sqrt(wide))
        self[name] = torch.from_numpy((values * spread + mean).astype(np.float32))

    def linear(self, name: str, out: int, wide: int, bias: bool = True) -> None:
        self.put(f"{name}.weight", out, wide)
        if bias:
            self.put(f"{name}.bias", out)

    def norm(self, name: str, width: int, bias: bool = True) -> None:
        self.put(f"{name}.weight", width, mean=1.0)
        if bias:
            self.put(f"{name}.bias", width)


def _llm(plain: dict[str, Any], noise: np.random.RandomState) -> dict[str, Tensor]:
    drawn, hidden, vocab = _Drawn(noise), plain["hidden_size"], plain["vocab_size"]
    head = hidden // plain["num_attention_heads"]
    shared, ffn = head * plain["num_key_value_heads"], plain["intermediate_size"]
    counts = dict(layers=plain["num_hidden_layers"], mimo_layers=plain["kimia_mimo_layers"])
    for at in [f"model.{name}.{i}" for name, count in counts.items() for i in range(count)]:
        drawn.norm(f"{at}.input_layernorm", hidden, bias=False)
        drawn.norm(f"{at}.post_attention_layernorm", hidden, bias=False)
        for name, out in (("q_proj", hidden), ("k_proj", shared), ("v_proj", shared)):
            drawn.linear(f"{at}.self_attn.{name}", out, hidden)
            if name != "v_proj":  # so that long prompts are not all alike
                drawn[f"{at}.self_attn.{name}.weight"] *= 2
        drawn.linear(f"{at}.self_attn.o_proj", hidden, hidden, bias=False)
        for name, out, wide in (("gate", ffn, hidden), ("up", ffn, hidden), ("down", hidden, ffn)):
            drawn.linear(f"{at}.mlp.{name}_proj", out, wide, bias=False)
    for name in ("norm", "mimo_norm"):
        drawn.norm(f"model.{name}", hidden, bias=False)
    for place, wide in ((0, plain["kimia_adaptor_input_dim"]), (3, hidden)):
        drawn.linear(f"model.vq_adaptor.layers.{place}", hidden, wide)
    drawn.norm("model.vq_adaptor.layers.4", hidden)
    drawn.put("model.embed_tokens.weight", vocab, hidden, spread=0.2)
    rows = ["model.embed_tokens.weight"]
    if not plain["tie_word_embeddings"]:
        rows = ["lm_head.weight", "mimo_output.weight"]
        for name in rows:
            drawn.put(name, vocab, hidden)
    for name in rows:  # answers are mostly words
        drawn[name][plain["num_base_tokens"] :] *= 0.6
    return drawn


def _layers(drawn: _Drawn, plain: dict[str, Any], prefix: str) -> None:
    width, ffn = plain["d_model"], plain["encoder_ffn_dim"]
    for name, wide in (("conv1", plain["num_mel_bins"]), ("conv2", width)):
        drawn.put(f"{prefix}{name}.weight", width, wide, 3)
        drawn.put(f"{prefix}{name}.bias", width)
    drawn.put(f"{prefix}embed_positions.weight", plain["max_source_positions"], width, spread=0.5)
    for at in [f"{prefix}layers.{i}" for i in range(plain["encoder_layers"])]:
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            drawn.linear(f"{at}.self_attn.{name}", width, width, bias=name != "k_proj")
        drawn.linear(f"{at}.fc1", ffn, width)
        drawn.linear(f"{at}.fc2", width, ffn)
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            drawn.norm(f"{at}.{name}", width)


def _whisper(plain: dict[str, Any], noise: np.random.RandomState) -> dict[str, Tensor]:
    drawn = _Drawn(noise)
    _layers(drawn, plain, "model.encoder.")
    drawn.norm("model.encoder.layer_norm", plain["d_model"])
    return drawn


def _voice(plain: dict[str, Any], noise: np.random.RandomState) -> dict[str, Tensor]:
    drawn, sizes = _Drawn(noise), (plain["quantize_vocab_size"], plain["d_model"])
    _layers(drawn, plain, "")
    drawn.put("embed_positions2.weight", 375, plain["d_model"])
    drawn.put("ema_count", sizes[0])
    drawn.put("ema_weight", *sizes)
    return drawn
