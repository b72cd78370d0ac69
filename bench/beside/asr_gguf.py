"""A folder of Qwen3-ASR as GGUF, in the layouts of two runtimes that do not know each other.

Both have tower and head in Q8_0 and the decoder's layers in Q4_0. Names and keys are those of
transcribe.cpp's `scripts/convert-qwen3_asr.py` and CrispASR's `models/convert-qwen3-asr-to-gguf.py`
(August 2026). CrispASR wants the tied embedding a second time, as a head.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

ARCHITECTURES = {"transcribe": "qwen3_asr", "crispasr": "qwen3asr"}
MEL = "mel.npy"  # float32 [mels, bins], beside the GGUF files
EMBEDDING = "model.language_model.embed_tokens.weight"
ROLES = ("system", "user", "assistant")  # transcribe.cpp wants each to be one token

# By the checkpoint's name: transcribe.cpp's, CrispASR's. Norms and biases stay float32.
NAMES = {
    r"model\.audio_tower\.conv2d(\d)\.": ("enc.conv.{less}.", "audio.conv.{0}."),
    r"model\.audio_tower\.(conv_out|ln_post)\.": ("enc.{0}.", "audio.{0}."),
    r"model\.multi_modal_projector\.linear_(\d)\.": ("enc.proj{0}.", "audio.proj{0}."),
    r"model\.audio_tower\.layers\.(\d+)\.": ("enc.blocks.{0}.", "audio.blk.{0}."),
    r"model\.language_model\.layers\.(\d+)\.": ("dec.blocks.{0}.", "blk.{0}."),
    r"model\.language_model\.embed_tokens\.": ("dec.token_embd.", "token_embd."),
    r"model\.language_model\.norm\.": ("dec.output_norm.", "output_norm."),
}
PARTS = {
    "self_attn_layer_norm": ("norm_attn", "attn_norm"),
    "input_layernorm": ("norm_attn", "attn_norm"),
    "final_layer_norm": ("norm_ffn", "ffn_norm"),
    "post_attention_layernorm": ("norm_ffn", "ffn_norm"),
    "self_attn.q_proj": ("attn.q", "attn_q"),
    "self_attn.k_proj": ("attn.k", "attn_k"),
    "self_attn.v_proj": ("attn.v", "attn_v"),
    "self_attn.out_proj": ("attn.out", "attn_out"),
    "self_attn.o_proj": ("attn.o", "attn_output"),
    "self_attn.q_norm": ("attn.q_norm", "attn_q_norm"),
    "self_attn.k_norm": ("attn.k_norm", "attn_k_norm"),
    "fc1": ("ffn.fc1", "ffn_up"),
    "fc2": ("ffn.fc2", "ffn_down"),
    "mlp.gate_proj": ("ffn.gate", "ffn_gate"),
    "mlp.up_proj": ("ffn.up", "ffn_up"),
    "mlp.down_proj": ("ffn.down", "ffn_down"),
}


@dataclass(frozen=True)
class Checkpoint:
    """What the folder says."""

    folder: Path
    config: dict[str, Any]
    tokens: list[str]
    special: dict[str, int]

    @property
    def end(self) -> int:
        return self.special["<|im_end|>"]

    def words(self, mode: Literal["r", "r+"] = "r") -> Iterator[tuple[str, np.ndarray]]:
        """Each tensor's bfloat16 numbers as uint16; "r+" to change them in the file."""
        for file in sorted(self.folder.glob("*.safetensors")):
            data = np.memmap(file, np.uint8, mode)
            size = int(data[:8].view("<u8")[0])
            for name, said in json.loads(bytes(data[8 : 8 + size])).items():
                if name != "__metadata__":
                    begin, end = (8 + size + each for each in said["data_offsets"])
                    yield name, data[begin:end].view("<u2").reshape(said["shape"])

    def tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each as float32."""
        for name, bits in self.words():
            yield name, (bits.astype(np.uint32) << 16).view(np.float32)


def read(folder: Path) -> Checkpoint:
    """Read the config and the tokenizer.

    Other tokens than single bytes are called by their number, so that answers can be counted.
    """
    told = json.loads((folder / "tokenizer.json").read_text())
    special = {each["content"]: each["id"] for each in told["added_tokens"]}
    words = {**told["model"]["vocab"]} | special
    tokens = [word for word, _ in sorted(words.items(), key=lambda pair: pair[1])]
    tokens = [
        word if len(word) == 1 or word in special else f"Ġw{i}" for i, word in enumerate(tokens)
    ]
    tokens[-len(ROLES) :] = ROLES  # the last of those that are reserved
    special = {word: i for word, i in special.items() if i < len(tokens) - len(ROLES)}
    config = json.loads((folder / "config.json").read_text())
    return Checkpoint(folder, config, tokens, special)


def named(name: str, layout: str) -> str:
    """A tensor's name in a layout."""
    which = list(ARCHITECTURES).index(layout)
    for pattern, forms in NAMES.items():
        if found := re.match(pattern, name):
            number = found[1] if found.groups() else ""
            less = str(int(number) - 1) if number.isdigit() else ""
            part, _, kind = name[found.end() :].rpartition(".")
            middle = f"{PARTS[part][which]}." if part else ""
            return forms[which].format(number, less=less) + middle + kind
    raise KeyError(name)


def write(model: Checkpoint, mel: np.ndarray, layout: str, out: Path) -> None:
    """Write a GGUF file."""
    gguf: Any = import_module("gguf")
    types = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(out, ARCHITECTURES[layout], use_temp_file=True)
    {"transcribe": _transcribe, "crispasr": _crispasr}[layout](writer, model)
    ids = set(model.special.values())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(model.tokens)
    writer.add_token_types([3 if i in ids else 1 for i in range(len(model.tokens))])
    writer.add_token_merges(["Ġ w"])  # the key has to be there
    writer.add_eos_token_id(model.end)
    writer.add_add_bos_token(False)
    own = layout == "crispasr"
    writer.add_tensor(
        "audio.mel_filters" if own else "frontend.mel_filterbank",
        np.ascontiguousarray(mel.T if own else mel),
    )
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    writer.add_tensor("audio.mel_window" if own else "frontend.window", hann.astype(np.float32))
    for name, made in model.tensors():
        if made.ndim == 1:
            kind = types.F32
        elif made.ndim == 4:
            kind = types.F16
        else:
            fine = name == EMBEDDING or not name.startswith("model.language_model")
            kind = types.Q8_0 if fine else types.Q4_0
        packed = made.astype(np.float16) if kind == types.F16 else gguf.quants.quantize(made, kind)
        writer.add_tensor(named(name, layout), packed, raw_dtype=kind)
        if own and name == EMBEDDING:
            writer.add_tensor("output.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _numbers(writer: Any, prefix: str, said: dict[str, Any]) -> None:
    for key, value in said.items():
        if isinstance(value, bool):
            writer.add_bool(prefix + key, value)
        elif isinstance(value, int):
            writer.add_uint32(prefix + key, value)
        elif isinstance(value, float):
            writer.add_float32(prefix + key, value)
        else:
            writer.add_string(prefix + key, value)


def _transcribe(writer: Any, model: Checkpoint) -> None:
    tower, text = model.config["audio_config"], model.config["text_config"]
    writer.add_name("Qwen3-ASR 0.6B")
    writer.add_string("stt.variant", "qwen3-asr-0.6b")
    writer.add_bool("stt.capability.lang_detect", True)
    encoder = dict(
        n_layers=tower["encoder_layers"], d_model=tower["d_model"],
        n_heads=tower["encoder_attention_heads"], ffn_dim=tower["encoder_ffn_dim"],
        num_mel_bins=tower["num_mel_bins"], downsample_hidden=tower["downsample_hidden_size"],
        output_dim=tower["output_dim"], max_source_positions=1500, n_window=tower["n_window"],
        n_window_infer=tower["n_window_infer"], conv_chunksize=500, activation="gelu",
    )  # fmt: skip
    decoder = dict(
        n_layers=text["num_hidden_layers"], hidden_size=text["hidden_size"],
        intermediate_size=text["intermediate_size"], n_heads=text["num_attention_heads"],
        n_kv_heads=text["num_key_value_heads"], head_dim=text["head_dim"], hidden_act="silu",
        rms_norm_eps=text["rms_norm_eps"], rope_theta=text["rope_parameters"]["rope_theta"],
        rope_mrope_section_t=24, rope_mrope_section_h=20, rope_mrope_section_w=20,
        rope_mrope_interleaved=True, max_position_embeddings=text["max_position_embeddings"],
        tie_word_embeddings=True, vocab_size=text["vocab_size"],
    )  # fmt: skip
    frontend = dict(
        type="mel", num_mels=tower["num_mel_bins"], sample_rate=16000, n_fft=400, win_length=400,
        hop_length=160, window="hann_periodic", normalize="per_utterance", dither=0.0,
        pre_emphasis=0.0, f_min=0.0, f_max=8000.0, pad_mode="reflect", center=True,
        mel_norm="slaney", chunk_length=30, n_samples=480000, nb_max_frames=3000,
    )  # fmt: skip
    _numbers(writer, "stt.qwen3_asr.encoder.", encoder)
    _numbers(writer, "stt.qwen3_asr.decoder.", decoder)
    _numbers(writer, "stt.frontend.", frontend)
    _numbers(writer, "stt.qwen3_asr.", _audio_tokens(model, "audio_token_id"))


def _audio_tokens(model: Checkpoint, pad: str) -> dict[str, int]:
    ids = model.special
    return {
        pad: ids["<|audio_pad|>"],
        "audio_start_token_id": ids["<|audio_start|>"],
        "audio_end_token_id": ids["<|audio_end|>"],
    }


def _crispasr(writer: Any, model: Checkpoint) -> None:
    tower, text = model.config["audio_config"], model.config["text_config"]
    heads = tower["encoder_attention_heads"]
    audio = dict(
        n_layers=tower["encoder_layers"], d_model=tower["d_model"], n_heads=heads,
        head_dim=tower["d_model"] // heads, ff_dim=tower["encoder_ffn_dim"],
        conv_channels=tower["downsample_hidden_size"], proj_dim=tower["output_dim"],
        max_source_pos=1500,
    )  # fmt: skip
    llm = dict(
        n_layers=text["num_hidden_layers"], d_model=text["hidden_size"],
        n_heads=text["num_attention_heads"], n_kv_heads=text["num_key_value_heads"],
        head_dim=text["head_dim"], ff_dim=text["intermediate_size"],
        rope_theta=text["rope_parameters"]["rope_theta"], rms_norm_eps=text["rms_norm_eps"],
        vocab_size=text["vocab_size"], max_pos=text["max_position_embeddings"],
    )  # fmt: skip
    sound = dict(sample_rate=16000, n_mels=tower["num_mel_bins"], n_fft=400, win_length=400)
    sound |= dict(hop_length=160, eos_token_id=model.end, pad_token_id=model.end)
    _numbers(writer, "qwen3asr.", sound | _audio_tokens(model, "audio_pad_token_id"))
    _numbers(writer, "qwen3asr.audio.", audio)
    _numbers(writer, "qwen3asr.llm.", llm)


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(description="a folder of Qwen3-ASR as GGUF")
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path, help="the file; mel.npy lies beside it")
    parser.add_argument("--layout", choices=ARCHITECTURES, required=True)
    said = parser.parse_args()
    mel = np.load(said.out.parent / MEL)
    write(read(said.model), mel, said.layout, said.out)


if __name__ == "__main__":
    main()
