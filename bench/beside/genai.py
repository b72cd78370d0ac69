"""onnxruntime-genai's int4 decoders: under its own runtime, and under plain ONNX Runtime."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bench.beside.base import MADE, Decoder, Peer, Place, prompt_ids
from bench.beside.shapes import CAPACITY

ENVIRONMENT = "ort"
REQUIREMENTS = [
    "torch==2.13.0",
    "transformers>=5,<6",
    "onnx",
    "onnxruntime",
    "onnxruntime-genai",
    "onnxscript",
]
# With embeddings as input, as an audio model needs it; logits of the last position alone.
EMBEDS = ("exclude_embeds=true", "prune_lm_head=true")
OPTIONS = {
    "genai_b32": (),
    "genai_b128": ("block_size=128",),
    "genai_embeds_b32": EMBEDS,
    "genai_embeds_b128": (*EMBEDS, "block_size=128"),
}
PRODUCTS = tuple(OPTIONS)


def prepare(product: str, place: Place, out: Path) -> None:
    """Run the builder that comes with the wheel."""
    builder: Any = import_module("onnxruntime_genai.models.builder")
    source, cache = str(place.model / "llm"), str(out / "cache")
    said = [*OPTIONS[product], "accuracy_level=4"]  # which is its default on a CPU
    extra = builder.parse_extra_options(None, source, str(out), "int4", "cpu", cache, said)
    builder.create_model(None, source, str(out), "int4", "cpu", cache, **extra)
    if product.startswith("genai_embeds"):
        _table(place, out / "embed.f16")
    (out / MADE).write_text(json.dumps({"step_megabytes": _matrices(out / "model.onnx")}))


def _table(place: Place, path: Path) -> None:
    """The embedding table, which the graph has not."""
    torch, safetensors = import_module("torch"), import_module("safetensors")
    name, folder = "model.embed_tokens.weight", place.model / "llm"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    with safetensors.safe_open(folder / index["weight_map"][name], "pt") as file:
        file.get_tensor(name).to(torch.float16).numpy().tofile(path)


def _matrices(graph: Path) -> float:
    """Megabytes of the initializers that go into matrix products."""
    onnx: Any = import_module("onnx")
    plain = onnx.load(graph, load_external_data=False).graph
    size: dict[str, int] = {}
    for tensor in plain.initializer:
        outside = {entry.key: entry.value for entry in tensor.external_data}
        size[tensor.name] = int(outside.get("length", len(tensor.raw_data)))
    products = [n for n in plain.node if n.op_type in ("MatMul", "MatMulNBits", "Gemm")]
    return sum(size.get(name, 0) for name in {i for n in products for i in n.input}) / 1e6


class GenaiB32(Decoder):
    """Token ids in, its own loop."""

    label, product = "ORT-GenAI int4, blocks of 32", "genai_b32"

    def imports(self) -> None:
        self.genai: Any = import_module("onnxruntime_genai")
        self.ort: Any = import_module("onnxruntime")

    def versions(self) -> str:
        return f"onnxruntime-genai {self.genai.__version__}, onnxruntime {self.ort.__version__}"

    def load(self) -> None:
        config = self.genai.Config(str(self.folder))
        session = {"session_options": {"intra_op_num_threads": self.place.threads}}
        config.overlay(json.dumps({"model": {"decoder": session}}))
        self.model = self.genai.Model(config)

    def prefill(self, count: int) -> None:
        params = self.genai.GeneratorParams(self.model)
        params.set_search_options(max_length=CAPACITY, do_sample=False)
        self.generator = self.genai.Generator(self.model, params)
        self.generator.append_tokens(prompt_ids(self.place, count).astype(np.int32))
        self.generator.generate_next_token()

    def step(self) -> None:
        self.generator.generate_next_token()

    def files(self) -> list[Path]:
        return [self.folder / "model.onnx", self.folder / "model.onnx.data"]

    @property
    def step_megabytes(self) -> float:
        return self.place.facts(self.product)["step_megabytes"]


class GenaiB128(GenaiB32):
    label, product = "ORT-GenAI int4, blocks of 128", "genai_b128"


class OrtB32(Decoder):
    """Embeddings in; one cache of fixed capacity that goes in and comes out in place."""

    label, product = "ORT over the builder's graph, int4, blocks of 32", "genai_embeds_b32"
    note = "its size includes a float16 embedding table"

    def imports(self) -> None:
        self.ort: Any = import_module("onnxruntime")

    def versions(self) -> str:
        return f"onnxruntime {self.ort.__version__}"

    def load(self) -> None:
        llm, graph = self.place.llm, str(self.folder / "model.onnx")
        settings = self.ort.SessionOptions()
        settings.intra_op_num_threads = self.place.threads
        self.session = self.ort.InferenceSession(graph, settings, ["CPUExecutionProvider"])
        table = np.memmap(self.folder / "embed.f16", np.float16, "r")
        self.table = table.reshape(llm.vocab, llm.hidden)
        empty = np.zeros((1, llm.kv_heads, CAPACITY, llm.head_dim), np.float32)
        self.cache = {
            f"{i}.{kind}": self.ort.OrtValue.ortvalue_from_numpy(empty)
            for i in range(llm.layers)
            for kind in ("key", "value")
        }

    def forward(self, ids: np.ndarray) -> None:
        embeds = self.table[ids].astype(np.float32)[None]
        self.past += len(ids)
        binding = self.session.io_binding()
        binding.bind_cpu_input("inputs_embeds", embeds)
        binding.bind_cpu_input("attention_mask", np.ones((1, self.past), np.int64))
        for name, value in self.cache.items():
            binding.bind_ortvalue_input(f"past_key_values.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
        binding.bind_output("logits", "cpu")
        self.session.run_with_iobinding(binding)
        self.last = int(binding.get_outputs()[-1].numpy()[0, -1].argmax())

    def prefill(self, count: int) -> None:
        self.past = 0
        self.forward(prompt_ids(self.place, count))

    def step(self) -> None:
        self.forward(np.array([self.last]))

    def files(self) -> list[Path]:
        return [self.folder / f for f in ("model.onnx", "model.onnx.data", "embed.f16")]

    @property
    def step_megabytes(self) -> float:
        return self.place.facts(self.product)["step_megabytes"]


class OrtB128(OrtB32):
    label, product = "ORT over the builder's graph, int4, blocks of 128", "genai_embeds_b128"


ROWS: list[type[Peer]] = [GenaiB32, GenaiB128, OrtB32, OrtB128]
