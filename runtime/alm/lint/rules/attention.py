"""Rules about Attention: one output, no cache inside, a mask instead of a causal flag."""

from __future__ import annotations

from collections.abc import Iterator

from alm.lint.rule import Breach, Case, called, rule
from alm.onnxfile.graph_nodes import Node
from alm.target import Operator

QUERY, KEY, MASK = 0, 1, 3
FUSED = range(9, 257)  # numbers in a head for which 1.7.1 has a kernel in float16
DECOMPOSABLE = "TRT_decomposable"


@rule(
    "attention-cache",
    "Attention gets no past and gives no present: one output",
    "TensorRT#4738; onnx-tensorrt 10.15 docs/operators.md",
)
def attention_cache(case: Case) -> Iterator[Breach]:
    for node, limit in _attentions(case):
        used = [name for name in map(node.input, limit.absent) if name]
        # The parser counts outputs, also those that are left out as "".
        used += [name or "''" for name in node.outputs[limit.outputs or len(node.outputs) :]]
        if used:
            what = f"Attention with past or present: {', '.join(used)}"
            way = (
                f"export with --dialect {case.goal.DIALECT}, which writes the cache with "
                "TensorScatter in front of it"
            )
            yield Breach(called(node), what, way)


@rule(
    "attention-causal",
    "is_causal stands without a mask and without a cache",
    "TensorRT's IAttention: mask and causal exclude each other, and causal is upper left, which "
    "is wrong for a step that meets a cache",
)
def attention_causal(case: Case) -> Iterator[Breach]:
    for node, _ in _attentions(case):
        if not node.number("is_causal", 0):
            continue
        query, key = (case.graph.axes(node.input(number)) for number in (QUERY, KEY))
        cached = query and key and len(query) == len(key) and query[-2] != key[-2]
        if node.input(MASK) or cached:
            why = "a mask" if node.input(MASK) else "more keys than queries"
            what = f"is_causal=1 with {why}"
            yield Breach(called(node), what, "say all of it in a boolean mask")


@rule(
    "attention-fused",
    "Attention has a fused kernel, or may be taken apart",
    "TensorRT#4705: IAttention is not decomposable unless the network says so",
    refused=False,
)
def attention_fused(case: Case) -> Iterator[Breach]:
    for node, _ in _attentions(case):
        if not case.limits.fused_attention or node.number(DECOMPOSABLE, 0):
            continue
        axes = case.graph.axes(node.input(QUERY)) or ()
        dim = axes[-1] if len(axes) == 4 else ""  # of three axes the last is of all heads
        why = "in float32" if case.graph.dtype(node.input(QUERY)) == "float32" else ""
        if not why and isinstance(dim, int) and dim not in FUSED:
            why = f"with {dim} numbers in a head"
        if why:
            way = f"build with alm build, which allows several, or add {DECOMPOSABLE}=1"
            yield Breach(called(node), f"Attention {why} has no fused kernel", way)


def _attentions(case: Case) -> Iterator[tuple[Node, Operator]]:
    limit = (case.limits.operators or {}).get("Attention")
    return ((node, limit) for node in case.of("Attention") if limit is not None)
