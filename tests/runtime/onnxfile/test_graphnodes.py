"""Every node of a graph file with its attributes and constants, against the onnx package."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from alm.errors import BadArtifacts, MissingFile
from alm.onnxfile import constants, graph_nodes, summary
from tests.runtime.onnxfile.test_graphfile import hiding, outside, plain, value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.onnx"


def nodes_of(path: Path, model: ModelProto) -> graph_nodes.Graph:
    path.write_bytes(model.SerializeToString())
    return graph_nodes.read(path)


def test_nodes_say_their_names_inputs_outputs_and_attributes(path: Path) -> None:
    model = plain()
    made = helper.make_node(
        "Pool", ["x", "", "w"], ["a", ""], name="pool", domain="own",
        many=[3, -1], one=-(2**63), scale=0.5, scales=[0.25, -2.0], mode="linear",
    )  # fmt: skip
    model.graph.node.append(made)
    found = nodes_of(path, model).nodes[-1]
    assert (found.op, found.name) == ("own::Pool", "pool")
    assert (found.inputs, found.outputs) == (("x", "", "w"), ("a", ""))
    assert found.attributes == {
        "many": (3, -1), "one": -(2**63), "scale": 0.5, "scales": (0.25, -2.0), "mode": "linear",
    }  # fmt: skip
    assert (found.input(1), found.input(2), found.input(3)) == ("", "w", "")
    assert (found.number("one", 7), found.number("none", 7), found.number("mode", 7)) == (
        -(2**63), 7, 7,
    )  # fmt: skip


def test_nodes_are_as_many_as_are_counted_also_in_subgraphs(path: Path) -> None:
    for model in (plain(), hiding()):
        said = nodes_of(path, model)
        assert Counter(node.op for node in said.nodes) == said.file.nodes
        assert said.file == summary.read(path)


def test_types_and_constants_are_known_by_name(path: Path) -> None:
    model = plain()
    model.graph.value_info.append(value("h", ["batch", 7, 3]))
    said = nodes_of(path, model)
    assert (said.dtype("h"), said.axes("h")) == ("float32", ("batch", 7, 3))
    assert (said.dtype("w"), said.axes("w")) == ("float32", (2, 3))
    assert (said.dtype("c"), said.constants["c"].dims) == ("int64", (1,))
    assert (said.dtype("r"), said.axes("r")) == ("", None)
    assert said.axes("any") is None and said.dtype("any") == "int64"


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    "kind", ["FLOAT", "FLOAT16", "DOUBLE", "INT8", "UINT8", "INT32", "INT64", "INT4", "UINT4"]
)
def test_values_of_constants_are_those_the_onnx_package_reads(
    path: Path, kind: str, raw: bool
) -> None:
    number = getattr(TensorProto, kind)
    array = np.array([1, 0, 3, 5, 2, 7, 6], helper.tensor_dtype_to_np_dtype(number))
    if not kind.startswith("U"):
        array[2] = -array[2]
    tensor = onnx.numpy_helper.from_array(array, "t")
    if not raw:
        tensor = helper.make_tensor("t", number, array.shape, array.astype(np.float64).tolist())
    model = plain()
    model.graph.initializer.append(tensor)
    found = constants.read(path, nodes_of(path, model).constants["t"])
    assert found is not None and found.tolist() == array.astype(np.float64).tolist()


def test_values_beside_the_graph_are_read_and_contained(path: Path) -> None:
    array = np.arange(6, dtype=np.float32)
    (path.parent / "weights.data").write_bytes(bytes(8) + array.tobytes())
    model = plain()
    for name, location in (("t", "weights.data"), ("bad", "../weights.data")):
        model.graph.initializer.append(outside(name, location, offset=8, length=24))
        model.graph.initializer[-1].dims[:] = [6]
    said = nodes_of(path, model)
    found = constants.read(path, said.constants["t"])
    assert found is not None and (found == array).all()
    with pytest.raises(BadArtifacts, match="must not go up"):
        constants.read(path, said.constants["bad"])


def test_values_that_are_fewer_than_the_shape_says_are_refused(path: Path) -> None:
    model = plain()
    model.graph.initializer[0].dims[:] = [2, 4]
    said = nodes_of(path, model)
    with pytest.raises(BadArtifacts, match="has 6 values and its shape says 8"):
        constants.read(path, said.constants["w"])
    assert constants.read(path, dataclasses.replace(said.constants["w"], dtype="string")) is None


def test_tensors_of_absurd_rank_are_refused(path: Path) -> None:
    model = plain()
    model.graph.initializer[0].dims[:] = [1] * 65
    with pytest.raises(BadArtifacts, match="more than 64 axes"):
        nodes_of(path, model)


@pytest.mark.parametrize("model", [plain(), hiding()], ids=["plain", "hiding"])
def test_broken_bytes_give_nodes_or_are_refused(path: Path, model: ModelProto) -> None:
    rng = np.random.default_rng(4)
    data = model.SerializeToString()
    for _ in range(400):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            broken[at] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(broken))
        try:
            said = graph_nodes.read(path)
            for tensor in said.constants.values():
                constants.read(path, tensor)
        except (BadArtifacts, MissingFile) as error:
            assert "\n" not in str(error)
            continue
        assert Counter(node.op for node in said.nodes) == summary.read(path).nodes
