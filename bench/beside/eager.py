"""transformers with torch in eager mode."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.beside.base import Decoder, Encoder, Peer, Place, log_mel, prompt_ids

ENVIRONMENT = "transformers"
REQUIREMENTS = ["torch==2.13.0", "transformers>=5,<6", "numpy"]
PRODUCTS = ()  # it reads the checkpoint as it is


def prepare(product: str, place: Place, out: Path) -> None:
    """There is nothing to make."""


class _Eager(Peer):
    dtype: str
    product = ""

    def imports(self) -> None:
        self.torch: Any = import_module("torch")
        self.transformers: Any = import_module("transformers")
        self.torch.set_num_threads(self.place.threads)

    def versions(self) -> str:
        return f"torch {self.torch.__version__}, transformers {self.transformers.__version__}"


class DecoderFp32(_Eager, Decoder):
    label, dtype = "transformers fp32", "float32"
    note = "its files are bfloat16"

    def load(self) -> None:
        auto = import_module("transformers").AutoModelForCausalLM
        dtype = getattr(self.torch, self.dtype)
        folder = str(self.place.model / "llm")
        self.model = auto.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
        ).eval()

    def prefill(self, count: int) -> None:
        with self.torch.inference_mode():
            ids = self.torch.from_numpy(prompt_ids(self.place, count))[None]
            embeds = self.model.get_input_embeddings()(ids)
            self.cache = self.transformers.DynamicCache(config=self.model.config)
            self.last = self._next(None, embeds, logits_to_keep=1)

    def step(self) -> None:
        with self.torch.inference_mode():
            self.last = self._next(self.last, None)

    def _next(self, ids: Any, embeds: Any, **options: Any) -> Any:
        """The likeliest token; the cache stands at its place since its name has changed."""
        said = self.model(ids, None, None, self.cache, embeds, use_cache=True, **options)
        return said.logits[:, -1:].argmax(-1)

    def files(self) -> list[Path]:
        return sorted((self.place.model / "llm").glob("*.safetensors"))

    @property
    def step_megabytes(self) -> float:
        return self.place.llm.weights * (2 if self.dtype == "bfloat16" else 4) / 1e6


class DecoderBf16(DecoderFp32):
    label, dtype, note = "transformers bf16", "bfloat16", ""


class EncoderFp32(_Eager, Encoder):
    label, dtype = "transformers fp32", "float32"
    note = "its files are float16"

    def load(self) -> None:
        self.model = encoder(self.place.model / "whisper", getattr(self.torch, self.dtype))
        mel = self.torch.from_numpy(log_mel(self.place))
        self.mel = mel.to(getattr(self.torch, self.dtype))

    def encode(self) -> Any:
        with self.torch.inference_mode():
            return self.model(self.mel).last_hidden_state

    def heard(self) -> Any:
        return self.encode().float().numpy()

    def files(self) -> list[Path]:
        return sorted((self.place.model / "whisper").glob("*.safetensors"))


class EncoderBf16(EncoderFp32):
    label, dtype = "transformers bf16", "bfloat16"


def encoder(folder: Path, dtype: Any) -> Any:
    """transformers' WhisperEncoder; the folder has no decoder, which from_pretrained would want."""
    torch, transformers = import_module("torch"), import_module("transformers")
    load_file = import_module("safetensors.torch").load_file
    config = transformers.WhisperConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    config._attn_implementation = "sdpa"
    whisper = import_module("transformers.models.whisper.modeling_whisper")
    with torch.device("meta"):
        model = whisper.WhisperEncoder(config)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    state: dict[str, Any] = {}
    for shard in sorted(set(index["weight_map"].values())):
        for name, tensor in load_file(folder / shard).items():
            state[name.removeprefix("model.encoder.")] = tensor.to(dtype)
    model.load_state_dict(state, assign=True)
    return model.eval()


ROWS: list[type[Peer]] = [DecoderBf16, DecoderFp32, EncoderFp32, EncoderBf16]
