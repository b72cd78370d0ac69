"""A part as an ONNX graph that runs: traced at one set of sizes, fed with others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from wrappers import Wrapper


@dataclass(frozen=True)
class Traced:
    """A graph: what nodes it has, and what it computes."""

    nodes: Counter[str]
    run: Callable[..., list[np.ndarray]]


def traced(part: Wrapper, args: tuple[Tensor, ...], folder: Path, opset: int = 20) -> Traced:
    """`part` exported at the sizes of `args`, every named axis dynamic."""
    ports = zip(part.inputs.items(), args, strict=True)
    axes = {
        name: {
            i: torch.export.Dim.DYNAMIC for i in range(arg.ndim) if isinstance(port.axes[i], str)
        }
        for (name, port), arg in ports
    }
    path = folder / f"{type(part).__name__}.onnx"
    torch.onnx.export(
        part.eval(),
        args,
        path,
        dynamo=True,
        dynamic_shapes=tuple(axes.values()),
        input_names=list(part.inputs),
        output_names=list(part.outputs),
        opset_version=opset,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*feeds: Tensor) -> list[np.ndarray]:
        return session.run(  # pyright: ignore[reportReturnType]
            list(part.outputs),
            {name: feed.numpy() for name, feed in zip(part.inputs, feeds, strict=True)},
        )

    return Traced(Counter(node.op_type for node in onnx.load(path).graph.node), run)
