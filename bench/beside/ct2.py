"""CTranslate2's Whisper encoder."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bench.beside.base import Encoder, Peer, Place, log_mel

ENVIRONMENT = "ctranslate2"
REQUIREMENTS = ["ctranslate2", "numpy", "setuptools"]
PRODUCTS = ("ct2_int8", "ct2_float32")
SYNTHETIC = True  # its files are not made from the checkpoint: what that costs says nothing
DECODER_LAYERS, VOCABULARY, POSITIONS = 4, 51866, 448  # its format wants a decoder too


def prepare(product: str, place: Place, out: Path) -> None:
    """Its own specification, filled with random weights."""
    specs: Any = import_module("ctranslate2.specs")
    ears = place.ears
    spec = specs.WhisperSpec(ears.layers, ears.heads, DECODER_LAYERS, ears.heads)
    fill = _Fill(ears.width, ears.ffn)
    encoder, decoder = spec.encoder, spec.decoder
    for conv, source in ((encoder.conv1, ears.mels), (encoder.conv2, ears.width)):
        conv.weight, conv.bias = fill.normal(ears.width, source, 3), fill.zeros(ears.width)
    encoder.position_encodings.encodings = fill.normal(ears.positions, ears.width)
    decoder.position_encodings.encodings = fill.normal(POSITIONS, ears.width)
    fill.norm(encoder.layer_norm)
    fill.norm(decoder.layer_norm)
    for layer in encoder.layer:
        fill.layer(layer)
    for layer in decoder.layer:
        fill.layer(layer)
        fill.cross(layer.attention)
    decoder.embeddings.weight = fill.normal(VOCABULARY, ears.width)
    decoder.projection.weight = decoder.embeddings.weight
    words = [f"w{i}" for i in range(VOCABULARY - 2)]
    spec.register_vocabulary(["<|endoftext|>", "<|startoftranscript|>", *words])
    spec.config.suppress_ids, spec.config.suppress_ids_begin = [], []
    spec.config.lang_ids, spec.config.alignment_heads = [2], [(0, 0)]
    spec.validate()
    kind = product.removeprefix("ct2_")
    spec.optimize(quantization=None if kind == "float32" else kind)
    spec.save(str(out))


class _Fill:
    """Random weights for pieces of a specification."""

    def __init__(self, width: int, ffn: int) -> None:
        self.width, self.ffn, self.chance = width, ffn, np.random.default_rng(0)

    def normal(self, *shape: int) -> np.ndarray:
        return self.chance.standard_normal(shape, np.float32) * np.float32(0.02)

    def zeros(self, width: int) -> np.ndarray:
        return np.zeros(width, np.float32)

    def norm(self, spec: Any) -> None:
        spec.gamma, spec.beta = np.ones(self.width, np.float32), self.zeros(self.width)

    def linear(self, spec: Any, out: int, source: int) -> None:
        spec.weight, spec.bias = self.normal(out, source), self.zeros(out)

    def layer(self, spec: Any) -> None:
        self.norm(spec.self_attention.layer_norm)
        self.linear(spec.self_attention.linear[0], 3 * self.width, self.width)
        self.linear(spec.self_attention.linear[1], self.width, self.width)
        self.norm(spec.ffn.layer_norm)
        self.linear(spec.ffn.linear_0, self.ffn, self.width)
        self.linear(spec.ffn.linear_1, self.width, self.ffn)

    def cross(self, spec: Any) -> None:
        self.norm(spec.layer_norm)
        for i, times in enumerate((1, 2, 1)):
            self.linear(spec.linear[i], times * self.width, self.width)


class Ct2Int8(Encoder):
    label, product, kind_of_numbers = "CTranslate2 int8", "ct2_int8", "int8"
    note = "its files hold a 4-layer decoder too"

    def imports(self) -> None:
        self.library: Any = import_module("ctranslate2")

    def versions(self) -> str:
        return f"ctranslate2 {self.library.__version__}"

    def load(self) -> None:
        self.model = self.library.models.Whisper(
            str(self.folder),
            device="cpu",
            compute_type=self.kind_of_numbers,
            intra_threads=self.place.threads,
            inter_threads=1,
        )
        self.mel = self.library.StorageView.from_array(log_mel(self.place))

    def encode(self) -> Any:
        return np.array(self.model.encode(self.mel, to_cpu=True))

    def files(self) -> list[Path]:
        return [f for f in sorted(self.folder.iterdir()) if f.name != "made.json"]


class Ct2Float32(Ct2Int8):
    label, product, kind_of_numbers = "CTranslate2 fp32", "ct2_float32", "float32"


ROWS: list[type[Peer]] = [Ct2Int8, Ct2Float32]
