"""A SALMONN checkpoint of the real size with random weights: python bench/real_size.py --help

Everything has the form and the dtype of the published files, and is written tensor by tensor, so
that what it takes to export a model of billions can be measured without having one. It says
nothing: weights are normal, norms are about one (of exactly one, runtimes drop the product, and
no longer know the norm), biases zero.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from bench.beside import vocabulary  # noqa: E402
from bench.beside.shapes import BEATS, LLMS, WHISPERS, Ears, Llm  # noqa: E402

STD = 0.02  # activations stay finite through 32 layers of 1280
SHARD_BYTES = 512 * 2**20
RANK = 8  # of the LoRA adapter
SETTINGS: dict[str, Any] = dict(
    llama_path="llm",
    whisper_path="whisper",
    beats_path="beats.pt",
    ckpt="salmonn.pth",
    use_speech_Qformer=True,
    window_level_Qformer=True,
    num_speech_query_token=1,
    second_per_window=0.333333,
    second_stride=0.333333,
    lora=True,
    lora_rank=RANK,
    lora_alpha=32,
    prompt_template="USER: {}\nASSISTANT:",
    end_sym="</s>",
)


@dataclass(frozen=True)
class Slot:
    """A tensor that is to be made."""

    name: str
    shape: tuple[int, ...]
    fill: str = "normal"  # or "one", "zero"
    dtype: torch.dtype | None = None  # where it is not the others'

    def make(self, dtype: torch.dtype) -> Tensor:
        """It is filled in its own dtype: the table in float32 would be twice a shard."""
        made = torch.empty(self.shape, dtype=self.dtype or dtype)
        return {"normal": lambda: made.normal_(0, STD), "one": lambda: made.normal_(1, STD)}.get(
            self.fill, made.zero_
        )()


def make(folder: Path, llm: str, whisper: str, shard_bytes: int = SHARD_BYTES) -> Path:
    """Write the checkpoint and return the path of its config.yaml; beside, then renamed."""
    site = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    torch.manual_seed(0)
    body, ears = LLMS[llm], WHISPERS[whisper]
    write_llm(site / "llm", body, shard_bytes)
    write_whisper(site / "whisper", ears, shard_bytes)
    cfg = BEATS | ears.beats
    beats = {slot.name: slot.make(torch.float32) for slot in beats_slots(cfg)}
    torch.save({"cfg": cfg, "model": beats}, site / "beats.pt")
    trained = {slot.name: slot.make(torch.float32) for slot in trained_slots(ears, body)}
    torch.save({"model": trained, "config": {}, "epoch": 0}, site / "salmonn.pth")
    own = {} if ears.bridge == 768 else {"qformer_heads": 12}
    said = {"model": SETTINGS | own, "generate": dict(max_new_tokens=64, num_beams=4)}
    (site / "config.yaml").write_text(yaml.safe_dump(said, sort_keys=False))
    shutil.rmtree(folder, ignore_errors=True)
    site.rename(folder)
    return folder / "config.yaml"


def write_llm(folder: Path, llm: Llm, shard_bytes: int) -> None:
    """A Hugging Face folder of a LlamaForCausalLM in bfloat16, with its tokenizer."""
    folder.mkdir()
    bos = llm.vocab - vocabulary.SPECIAL
    ids = dict(bos_token_id=bos, eos_token_id=bos + 1, pad_token_id=bos + 1)
    config = dict(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        hidden_size=llm.hidden,
        intermediate_size=llm.ffn,
        num_hidden_layers=llm.layers,
        num_attention_heads=llm.heads,
        num_key_value_heads=llm.kv_heads,
        head_dim=llm.head_dim,
        vocab_size=llm.vocab,
        max_position_embeddings=llm.context,
        rms_norm_eps=1e-5,
        rope_theta=500000.0,
        hidden_act="silu",
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        torch_dtype="bfloat16",
        **ids,
    )
    _json(folder / "config.json", config)
    _json(folder / "generation_config.json", ids)
    shards(folder, llm_slots(llm), torch.bfloat16, shard_bytes)
    vocabulary.tokenizer(llm.vocab).save(str(folder / "tokenizer.json"))
    names = dict(bos_token=vocabulary.BOS, eos_token=vocabulary.EOS, pad_token=vocabulary.EOS)
    _json(
        folder / "tokenizer_config.json", dict(tokenizer_class="PreTrainedTokenizerFast", **names)
    )


def llm_slots(llm: Llm) -> Iterator[Slot]:
    """The tensors of a LlamaForCausalLM whose head is its table."""
    hidden, ffn = llm.hidden, llm.ffn
    yield Slot("model.embed_tokens.weight", (llm.vocab, hidden))
    for i in range(llm.layers):
        layer = f"model.layers.{i}"
        yield Slot(f"{layer}.self_attn.q_proj.weight", (llm.queries, hidden))
        yield Slot(f"{layer}.self_attn.k_proj.weight", (llm.keys, hidden))
        yield Slot(f"{layer}.self_attn.v_proj.weight", (llm.keys, hidden))
        yield Slot(f"{layer}.self_attn.o_proj.weight", (hidden, llm.queries))
        yield Slot(f"{layer}.mlp.gate_proj.weight", (ffn, hidden))
        yield Slot(f"{layer}.mlp.up_proj.weight", (ffn, hidden))
        yield Slot(f"{layer}.mlp.down_proj.weight", (hidden, ffn))
        yield Slot(f"{layer}.input_layernorm.weight", (hidden,), "one")
        yield Slot(f"{layer}.post_attention_layernorm.weight", (hidden,), "one")
    yield Slot("model.norm.weight", (hidden,), "one")


def write_whisper(folder: Path, ears: Ears, shard_bytes: int) -> None:
    """Whisper's folder in float16, without the decoder: nothing here reads that."""
    folder.mkdir()
    config = dict(
        architectures=["WhisperForConditionalGeneration"],
        model_type="whisper",
        vocab_size=51866,
        num_mel_bins=ears.mels,
        d_model=ears.width,
        encoder_layers=ears.layers,
        encoder_attention_heads=ears.heads,
        encoder_ffn_dim=ears.ffn,
        max_source_positions=ears.positions,
        activation_function="gelu",
        decoder_layers=4,
        decoder_attention_heads=ears.heads,
        decoder_ffn_dim=ears.ffn,
        torch_dtype="float16",
    )
    _json(folder / "config.json", config)
    _json(folder / "preprocessor_config.json", dict(feature_size=ears.mels, chunk_length=30))
    shards(folder, whisper_slots(ears), torch.float16, shard_bytes)


def whisper_slots(ears: Ears) -> Iterator[Slot]:
    """The tensors of Whisper's encoder."""
    width, encoder = ears.width, "model.encoder"
    yield Slot(f"{encoder}.embed_positions.weight", (ears.positions, width))
    for name, source in (("conv1", ears.mels), ("conv2", width)):
        yield Slot(f"{encoder}.{name}.weight", (width, source, 3))
        yield Slot(f"{encoder}.{name}.bias", (width,), "zero")
    for i in range(ears.layers):
        layer = f"{encoder}.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            bias = name != "k_proj"
            yield from _linear(f"{layer}.self_attn.{name}", width, width, bias)
        yield from _norm(f"{layer}.self_attn_layer_norm", width)
        yield from _linear(f"{layer}.fc1", width, ears.ffn)
        yield from _linear(f"{layer}.fc2", ears.ffn, width)
        yield from _norm(f"{layer}.final_layer_norm", width)
    yield from _norm(f"{encoder}.layer_norm", width)


def beats_slots(cfg: dict[str, Any]) -> Iterator[Slot]:
    """The tensors of a BEATs checkpoint's `model`."""
    width, wide = cfg["encoder_embed_dim"], cfg["encoder_ffn_embed_dim"]
    embed, heads, patch = (
        cfg[key] for key in ("embed_dim", "encoder_attention_heads", "input_patch_size")
    )
    taps, conv = cfg["conv_pos"], "encoder.pos_conv.0"
    yield Slot("patch_embedding.weight", (embed, 1, patch, patch))
    yield from _norm("layer_norm", embed)
    yield from _linear("post_extract_proj", embed, width)
    yield Slot(f"{conv}.bias", (width,), "zero")
    yield Slot(f"{conv}.weight_g", (1, 1, taps), "one")
    yield Slot(f"{conv}.weight_v", (width, width // cfg["conv_pos_groups"], taps))
    yield from _norm("encoder.layer_norm", width)
    for i in range(cfg["encoder_layers"]):
        layer = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{name}", width, width)
        yield from _linear(f"{layer}.self_attn.grep_linear", width // heads, 8)
        yield Slot(f"{layer}.self_attn.grep_a", (1, heads, 1, 1), "one")
        table = f"{layer}.self_attn.relative_attention_bias.weight"
        yield Slot(table, (cfg["num_buckets"], heads))
        yield from _linear(f"{layer}.fc1", width, wide)
        yield from _linear(f"{layer}.fc2", wide, width)
        yield from _norm(f"{layer}.self_attn_layer_norm", width)
        yield from _norm(f"{layer}.final_layer_norm", width)


def trained_slots(ears: Ears, llm: Llm) -> Iterator[Slot]:
    """What SALMONN trains: norms, the Q-Former (a BERT of two layers), projection, LoRA."""
    audio, width = (BEATS | ears.beats)["encoder_embed_dim"], ears.bridge
    bert, source = "speech_Qformer.bert", ears.width + audio
    yield Slot("speech_query_tokens", (1, 1, width))
    yield from _norm("ln_speech", ears.width)
    yield from _norm("ln_audio", audio)
    yield from _norm(f"{bert}.embeddings.LayerNorm", width)
    for i in range(2):
        layer = f"{bert}.encoder.layer.{i}"
        for kind, inner in (("attention", width), ("crossattention", source)):
            yield from _linear(f"{layer}.{kind}.self.query", width, width)
            yield from _linear(f"{layer}.{kind}.self.key", inner, width)
            yield from _linear(f"{layer}.{kind}.self.value", inner, width)
            yield from _linear(f"{layer}.{kind}.output.dense", width, width)
            yield from _norm(f"{layer}.{kind}.output.LayerNorm", width)
        yield from _linear(f"{layer}.intermediate_query.dense", width, 4 * width)
        yield from _linear(f"{layer}.output_query.dense", 4 * width, width)
        yield from _norm(f"{layer}.output_query.LayerNorm", width)
    yield from _linear("speech_llama_proj", width, llm.hidden)
    for i in range(llm.layers):
        layer = f"llama_model.base_model.model.model.layers.{i}.self_attn"
        for name, out in (("q_proj", llm.queries), ("v_proj", llm.keys)):
            yield Slot(f"{layer}.{name}.lora_A.default.weight", (RANK, llm.hidden))
            yield Slot(f"{layer}.{name}.lora_B.default.weight", (out, RANK))


def _linear(name: str, source: int, width: int, bias: bool = True) -> Iterator[Slot]:
    yield Slot(f"{name}.weight", (width, source))
    if bias:
        yield Slot(f"{name}.bias", (width,), "zero")


def _norm(name: str, width: int) -> Iterator[Slot]:
    yield Slot(f"{name}.weight", (width,), "one")
    yield Slot(f"{name}.bias", (width,), "zero")


def shards(folder: Path, slots: Iterator[Slot], dtype: torch.dtype, most: int) -> None:
    """safetensors of at most `most` bytes (or of one tensor) each, and their index."""
    pending: dict[str, Tensor] = {}
    names: list[list[str]] = []
    held = total = 0

    def flush() -> None:
        file = folder / f"shard-{len(names):05}.safetensors"
        save_file(pending, file, metadata={"format": "pt"})
        names.append(list(pending))
        pending.clear()

    for slot in slots:
        tensor = slot.make(dtype)
        if pending and held + tensor.nbytes > most:
            flush()
            held = 0
        pending[slot.name] = tensor
        held, total = held + tensor.nbytes, total + tensor.nbytes
        del tensor  # or it would outlive its shard
    flush()
    places: dict[str, str] = {}
    for i, inside in enumerate(names):
        final = f"model-{i + 1:05}-of-{len(names):05}.safetensors"
        (folder / f"shard-{i:05}.safetensors").rename(folder / final)
        places |= dict.fromkeys(inside, final)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    _json(folder / "model.safetensors.index.json", index)


def _json(path: Path, said: dict[str, Any]) -> None:
    path.write_text(json.dumps(said, indent=1) + "\n")


def main() -> None:
    """Make one."""
    parser = argparse.ArgumentParser(description="a SALMONN of the real size, weights random")
    parser.add_argument("--llm", choices=LLMS, default="llama-3.2-1b")
    parser.add_argument("--whisper", choices=WHISPERS, default="large-v3-turbo")
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    print(make(said.out, said.llm, said.whisper))


if __name__ == "__main__":
    main()
