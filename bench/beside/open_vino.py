"""OpenVINO: int4 decoder by optimum and NNCF, Whisper's encoder in fp32 and int8."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from bench.beside import ort_encoder
from bench.beside.base import Decoder, Encoder, Peer, Place, log_mel, prompt_ids

ENVIRONMENT = "openvino"
REQUIREMENTS = [
    "torch==2.13.0",
    "optimum-intel[openvino]",
    "nncf",
    "openvino",
    "openvino-genai",
]
# optimum asks for it; the one that pip finds does not fit a CPU build of torch, and transformers
# cannot be imported beside it. Nothing here uses it.
UNWANTED = ["torchvision"]
PRODUCTS = ("openvino_int4", "openvino_encoder_int8")
NEEDS = {"openvino_encoder_int8": "encoder_fp32"}
INT4 = ("--weight-format", "int4", "--group-size", "128", "--sym", "--ratio", "1.0")


def prepare(product: str, place: Place, out: Path) -> None:
    """optimum's command for the decoder, NNCF's int8 weights for the encoder."""
    if product == "openvino_int4":
        command = [str(Path(sys.executable).with_name("optimum-cli")), "export", "openvino"]
        command += ["-m", str(place.model / "llm"), "--task", "text-generation-with-past"]
        if status := subprocess.run([*command, *INT4, str(out)], check=False).returncode:
            sys.exit(status)  # what it wrote says why
        return
    nncf, openvino = import_module("nncf"), import_module("openvino")
    model = openvino.Core().read_model(place.product("encoder_fp32") / ort_encoder.GRAPH)
    model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(model, out / "encoder.xml", compress_to_fp16=False)


class _OpenVino(Peer):
    def imports(self) -> None:
        self.openvino: Any = import_module("openvino")

    def versions(self) -> str:
        return f"openvino {self.openvino.__version__.split('-')[0]}"

    @property
    def settings(self) -> dict[str, Any]:
        return {"INFERENCE_NUM_THREADS": self.place.threads, "PERFORMANCE_HINT": "LATENCY"}

    def compiled(self, graph: Path, **more: Any) -> Any:
        core = self.openvino.Core()
        said = self.settings | {"NUM_STREAMS": 1} | more
        return core.compile_model(core.read_model(graph), "CPU", said)


class OpenVinoInt4(_OpenVino, Decoder):
    """The stateful graph in its plain runtime."""

    label, product = "OpenVINO int4, groups of 128", "openvino_int4"

    def load(self) -> None:
        compiled = self.compiled(self.folder / "openvino_model.xml")
        self.request = compiled.create_infer_request()
        self.names = {name for port in compiled.inputs for name in port.get_names()}

    def forward(self, ids: Any) -> None:
        count = len(ids)
        feeds = dict(
            input_ids=np.asarray(ids, np.int64)[None],
            attention_mask=np.ones((1, self.past + count), np.int64),
            position_ids=np.arange(self.past, self.past + count, dtype=np.int64)[None],
            beam_idx=np.zeros(1, np.int32),
        )
        self.past += count
        given = {name: value for name, value in feeds.items() if name in self.names}
        said = self.request.infer(given, share_inputs=True, share_outputs=True)
        self.last = int(said[0][0, -1].argmax())

    def prefill(self, count: int) -> None:
        self.past = 0
        self.request.reset_state()
        self.forward(prompt_ids(self.place, count))

    def step(self) -> None:
        self.forward([self.last])

    def files(self) -> list[Path]:
        return [self.folder / f"openvino_model.{kind}" for kind in ("xml", "bin")]

    @property
    def step_megabytes(self) -> float:
        """The table is the head, so all of it is read."""
        return (self.folder / "openvino_model.bin").stat().st_size / 1e6


class OpenVinoGenai(OpenVinoInt4):
    """The same files in openvino-genai, which trims the prompt's logits; its own times."""

    label = "OpenVINO-GenAI int4, groups of 128"

    def imports(self) -> None:
        self.openvino = import_module("openvino")
        self.genai: Any = import_module("openvino_genai")

    def versions(self) -> str:
        return f"openvino-genai {self.genai.__version__.split('-')[0]}"

    def load(self) -> None:
        said = self.settings | {"ATTENTION_BACKEND": "SDPA"}
        self.pipe = self.genai.LLMPipeline(str(self.folder), "CPU", **said)

    def measure(self, prompt: int, steps: int) -> tuple[float, float]:
        """See `Decoder.measure`; the pipeline is asked once for both."""
        ids = self.openvino.Tensor(prompt_ids(self.place, prompt).astype(np.int64)[None])
        wanted = self.genai.GenerationConfig(
            max_new_tokens=steps + 1, ignore_eos=True, do_sample=False
        )
        times = self.pipe.generate(ids, wanted).perf_metrics
        return times.get_ttft().mean, times.get_tpot().mean


class OpenVinoEncoderFp32(_OpenVino, Encoder):
    label, product = "OpenVINO fp32", "encoder_fp32"
    graph = ort_encoder.GRAPH

    def load(self) -> None:
        compiled = self.compiled(self.folder / self.graph, **self.more)
        self.request, self.mel = compiled.create_infer_request(), [log_mel(self.place)]

    @property
    def more(self) -> dict[str, Any]:
        return {"INFERENCE_PRECISION_HINT": "f32"}

    def encode(self) -> Any:
        return self.request.infer(self.mel, share_inputs=True, share_outputs=True)[0]

    def files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{Path(self.graph).stem}.*"))


class OpenVinoEncoderInt8(OpenVinoEncoderFp32):
    label, product, graph = "OpenVINO int8", "openvino_encoder_int8", "encoder.xml"
    note = "NNCF's int8 weights, activations in groups of 128 while it runs"

    @property
    def more(self) -> dict[str, Any]:
        return super().more | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 128}


ROWS: list[type[Peer]] = [OpenVinoGenai, OpenVinoInt4, OpenVinoEncoderInt8, OpenVinoEncoderFp32]
