"""Graph -> leaner graph: onnxsim, with the weights taken out so that size does not matter."""

from __future__ import annotations

import onnx_ir as ir

# These write ONNX Runtime's own operators, or older spellings of what the dialect chose on purpose.
SKIPPED = [
    "fuse_attention",
    "fuse_qkv",
    "fuse_gqa",
    "fuse_rope",
    "fuse_rms_norm",
    "rewrite_tensor_scatter_to_scatter_elements",
]
HEAVY_BYTES = 64 * 2**10  # initializers above this wait outside while the graph is simplified


def simplify(model: ir.Model) -> ir.Model:
    """The same graph with constants folded and dead nodes gone.

    Large weights become inputs for the time of the work: onnxsim needs twice their memory and
    fails above 2 GB. Whether the result is still right is for parity to check: onnxsim is known to
    corrupt some graphs and to report success.

    Raises:
        Exception: whatever onnxsim raises; the caller keeps the graph it has.
    """
    try:
        import onnxsim
    except ImportError as error:
        raise RuntimeError("onnxsim is not installed (it wants Python >= 3.11)") from error

    heavy = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > HEAVY_BYTES
    }
    shell = model.clone()
    for name in heavy:
        value = shell.graph.initializers.pop(name)
        value.const_value = None
        shell.graph.inputs.append(value)
    simplified, ok = onnxsim.simplify(ir.to_proto(shell), skipped_optimizers=SKIPPED)
    if not ok:
        raise RuntimeError("onnxsim's own check failed")
    leaner = ir.from_proto(simplified)
    if dict(leaner.opset_imports) != dict(model.opset_imports):
        raise RuntimeError(f"onnxsim changed the operator sets to {dict(leaner.opset_imports)}")
    for value in [v for v in leaner.graph.inputs if v.name in heavy]:
        leaner.graph.inputs.remove(value)
        if not value.uses():
            continue
        value.const_value = heavy[str(value.name)]
        leaner.graph.register_initializer(value)
    leaner.producer_name, leaner.producer_version = model.producer_name, model.producer_version
    return leaner


def node_count(model: ir.Model) -> int:
    """Nodes of the graph and its subgraphs."""
    return sum(1 for _ in model.graph.all_nodes())
