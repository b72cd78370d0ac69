"""The machine's two ceilings: bytes that it reads and products that it makes a second."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.beside.base import pin

BYTES = 2**30  # an array well past any cache
PRODUCT = (1500, 1280, 5120)  # of Whisper-large's feed-forward layer


def seconds(work: Callable[[], Any], times: int = 7) -> float:
    """The median of so many runs after one to warm up."""
    work()
    took: list[float] = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def integers(threads: int) -> Callable[[], Any]:
    """The product by ONNX Runtime, uint8 by int8: torch's is slow on processors without VNNI."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rows, inner, columns = PRODUCT
    left, right = np.ones((rows, inner), np.uint8), np.ones((inner, columns), np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, left.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, (rows, columns))],
        [numpy_helper.from_array(right, "w")],
    )
    imports = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, settings, ["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": left})


def measure(threads: int) -> dict[str, float]:
    """GB/s read, and GFLOP/s in float32 and int8."""
    import torch

    torch.set_num_threads(threads)
    matrix, vector = torch.ones(BYTES // 4 // 8192, 8192), torch.ones(8192)
    # Two ways to read all of it once: neither is fastest everywhere.
    read = min(seconds(lambda: torch.mv(matrix, vector)), seconds(matrix.sum))
    rows, inner, columns = PRODUCT
    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    small = [t.clamp(-1, 1).mul(127).to(torch.int8) for t in (left, right)]
    work = 2 * rows * inner * columns / 1e9

    def by_torch() -> Any:
        return torch._int_mm(*small)  # pyright: ignore

    return {
        "read_gbs": BYTES / 1e9 / read,
        "fp32_gflops": work / seconds(lambda: left @ right),
        "int8_gflops": work / min(seconds(by_torch, 3), seconds(integers(threads))),
    }


def main() -> None:
    """Measure, and write the numbers as JSON."""
    parser = argparse.ArgumentParser(description="bandwidth and products a second")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    pin(said.threads)
    said.out.write_text(json.dumps(measure(said.threads)))


if __name__ == "__main__":
    main()
