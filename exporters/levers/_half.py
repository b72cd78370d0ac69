"""Attention nodes in float16, for which TensorRT has fused kernels; for float32 it has none.

Between float16 products a float32 Attention also ends TensorRT-RTX 1.7's build in a segmentation
fault, for some shapes (2 heads of 32 over 1500 positions).
"""

from __future__ import annotations

import onnx_ir as ir

from exporters.matmuls import cast

HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT
HEAD_MULTIPLE = 8  # TensorRT builds no float16 Attention of other heads


def attention(graph: ir.Graph) -> None:
    """Queries, keys, values and a mask of numbers in float16; fused kernels add in float32."""
    for node in list(graph):
        if node.domain or node.op_type != "Attention":
            continue
        wide = [i for i, value in enumerate(node.inputs[:4]) if value and value.dtype == FLOAT]
        if 0 not in wide or not _regular(node):  # a decoder's are of its cache's type
            continue
        for i in wide:
            value = node.inputs[i]
            assert value is not None
            narrow = cast(value, HALF)
            graph.insert_before(node, narrow)
            node.replace_input_with(i, narrow.outputs[0])
        out = node.outputs[0]
        out.dtype = HALF
        back = cast(out, FLOAT)
        graph.insert_after(node, back)
        for user, i in list(out.uses()):
            if user is not back:
                user.replace_input_with(i, back.outputs[0])


def _regular(node: ir.Node) -> bool:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    width = shape[-1] if shape is not None else None
    return isinstance(width, int) and width % HEAD_MULTIPLE == 0
