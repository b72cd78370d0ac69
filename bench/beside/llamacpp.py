"""llama.cpp as the xllamacpp wheel brings it; the times are its server's own."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench.beside.base import Decoder, Peer, Place, prompt_ids

ENVIRONMENT = "llamacpp"
REQUIREMENTS = ["xllamacpp", "gguf", "numpy"]
FILE_TYPES = {"q4_0": 2, "q4_k_m": 15}  # llama.cpp's numbers of them
PRODUCTS = tuple(f"gguf_{name}" for name in FILE_TYPES)
SYNTHETIC = True  # its files are not made from the checkpoint: what that costs says nothing
GRAPH = "model.gguf"


def prepare(product: str, place: Place, out: Path) -> None:
    """Real layouts and the real quantizer's choice of types by tensor, random codes: speed only."""
    gguf: Any = import_module("gguf")
    types, llm = gguf.GGMLQuantizationType, place.llm
    small = types.Q4_0 if product == "gguf_q4_0" else types.Q4_K
    large = small if product == "gguf_q4_0" else types.Q6_K
    writer = _header(gguf, place, FILE_TYPES[product.removeprefix("gguf_")], out / GRAPH)
    chance = np.random.default_rng(0)

    def put(name: str, rows: int, columns: int, kind: Any) -> None:
        blocks = _blocks(chance, rows, columns, kind, gguf)
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=kind)

    def ones(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(llm.hidden, np.float32))

    put("token_embd", llm.vocab, llm.hidden, types.Q6_K)  # the head too, so it is kept finer
    ones("output_norm")
    for i in range(llm.layers):
        # Q4_K_M keeps two kinds of matrices of half of its layers at 6 bits.
        eighth = llm.layers // 8
        finer = i < eighth or i >= 7 * llm.layers // 8 or (i - eighth) % 3 == 2
        best = large if finer else small
        ones(f"blk.{i}.attn_norm")
        ones(f"blk.{i}.ffn_norm")
        put(f"blk.{i}.attn_q", llm.queries, llm.hidden, small)
        put(f"blk.{i}.attn_k", llm.keys, llm.hidden, small)
        put(f"blk.{i}.attn_v", llm.keys, llm.hidden, best)
        put(f"blk.{i}.attn_output", llm.hidden, llm.queries, small)
        put(f"blk.{i}.ffn_gate", llm.ffn, llm.hidden, small)
        put(f"blk.{i}.ffn_up", llm.ffn, llm.hidden, small)
        put(f"blk.{i}.ffn_down", llm.hidden, llm.ffn, best)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _blocks(chance: Any, rows: int, columns: int, kind: Any, gguf: Any) -> np.ndarray:
    """A quantized matrix as bytes: random codes under scales that keep activations finite."""
    per, size = gguf.GGML_QUANT_SIZES[kind]
    made = chance.integers(0, 256, (rows * columns // per, size), np.uint8)
    if kind == gguf.GGMLQuantizationType.Q6_K:
        made[:, -2:] = _half(1e-5)
    else:
        made[:, :2] = _half(0.002)  # Q4_0's scale, or Q4_K's scale of scales
    if kind == gguf.GGMLQuantizationType.Q4_K:
        made[:, 2:4] = 0  # its scale of minimums
    return made.reshape(rows, columns // per * size)


def _half(value: float) -> np.ndarray:
    return np.frombuffer(np.float16(value).tobytes(), np.uint8)


def _header(gguf: Any, place: Place, file_type: int, path: Path) -> Any:
    llm = place.llm
    said = json.loads((place.model / "llm" / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(place.shape)
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    writer.add_context_length(llm.context)
    writer.add_embedding_length(llm.hidden)
    writer.add_block_count(llm.layers)
    writer.add_feed_forward_length(llm.ffn)
    writer.add_head_count(llm.heads)
    writer.add_head_count_kv(llm.kv_heads)
    writer.add_layer_norm_rms_eps(said["rms_norm_eps"])
    writer.add_rope_freq_base(said["rope_theta"])
    writer.add_rope_dimension_count(llm.head_dim)
    writer.add_key_length(llm.head_dim)
    writer.add_value_length(llm.head_dim)
    writer.add_vocab_size(llm.vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    # Token ids go in and come out: the words only have to be there.
    writer.add_token_list(["<s>", "</s>", "<unk>"] + [f"w{i}" for i in range(3, llm.vocab)])
    writer.add_token_types([3, 3, 2] + [1] * (llm.vocab - 3))
    writer.add_token_merges(["w 3"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    return writer


class LlamaCppQ4KM(Decoder):
    label, product = "llama.cpp Q4_K_M (wheel)", "gguf_q4_k_m"
    note = "its codes are random; layouts and types are the quantizer's"

    def imports(self) -> None:
        self.library: Any = import_module("xllamacpp")

    def versions(self) -> str:
        return f"xllamacpp {version('xllamacpp')} ({self.library.get_system_info().strip()})"

    def load(self) -> None:
        said = self.library.CommonParams()
        said.model.path = str(self.folder / GRAPH)
        said.n_ctx, said.n_parallel, said.n_batch, said.n_ubatch = 512, 1, 512, 512
        said.cpuparams.n_threads = said.cpuparams_batch.n_threads = self.place.threads
        said.warmup, said.ui, said.port, said.verbosity = False, False, 0, 0
        self.server = self.library.Server(said)

    def measure(self, prompt: int, steps: int) -> tuple[float, float]:
        """See `Decoder.measure`; the server is asked once for both."""
        ids = [int(i) for i in prompt_ids(self.place, prompt)]
        wanted = dict(prompt=ids, n_predict=steps + 1, temperature=0.0, top_k=1)
        wanted |= dict(ignore_eos=True, cache_prompt=False, stream=False, return_tokens=True)
        said = self.server.handle_completions(wanted)
        times = (json.loads(said) if isinstance(said, str) else said)["timings"]
        if times["prompt_n"] != prompt or times["predicted_n"] < steps:
            raise RuntimeError(f"it did other work than it was asked for: {times}")
        return times["prompt_ms"], times["predicted_per_token_ms"]

    def prefill(self, count: int) -> None:
        raise NotImplementedError("it is measured whole")

    def step(self) -> None:
        raise NotImplementedError("it is measured whole")

    def files(self) -> list[Path]:
        return [self.folder / GRAPH]

    @property
    def step_megabytes(self) -> float:
        return self.megabytes


class LlamaCppQ40(LlamaCppQ4KM):
    label, product = "llama.cpp Q4_0 (wheel)", "gguf_q4_0"


ROWS: list[type[Peer]] = [LlamaCppQ4KM, LlamaCppQ40]
