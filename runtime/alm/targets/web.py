"""ONNX Runtime Web: a page of a browser, on WebAssembly or WebGPU; web/ is what runs there.

A page downloads what it runs, and WebAssembly holds 4 GiB: so bytes come first.
"""

from __future__ import annotations

from dataclasses import replace

from alm.precision import Wanted
from alm.targets import cpu

DIALECT = "decomposed"  # runs on both: WebGPU lacks what dialect ort asks of attention
PRECISION = Wanted()
BACKENDS = ("onnxruntime",)  # whose own operators may be used
AUTO = {
    "frontend": Wanted(),
    "encoder": Wanted(8),
    "bridge": Wanted(8),
    "decoder": Wanted(4, head=8),
    "table": Wanted(8),
}
LIMITS = replace(  # the same operators, of the same sources
    cpu.LIMITS,
    backend="ONNX Runtime Web",
    source="what onnxruntime-web 1.30 ran in Chromium 150: docs/web.md",
)
BUILD = None
