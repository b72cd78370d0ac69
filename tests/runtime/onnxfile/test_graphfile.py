"""What a graph file says, against the onnx package, and against bytes that are no graph."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from alm.errors import BadArtifacts, MissingFile
from alm.onnxfile import summary
from alm.onnxfile.summary import External, GraphFile
from alm.ports import Port

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def outside(name: str, location: str, **numbers: int) -> TensorProto:
    """Four floats in another file."""
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **numbers}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def value(name: str, shape: list | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def plain() -> ModelProto:
    weight = helper.make_tensor("w", FLOAT, [2, 3], np.arange(6, dtype=np.float32).tobytes(), True)
    listed = helper.make_tensor("n", INT64, [300], range(300))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"], domain="ai.onnx"),
        helper.make_node("Relu", ["r"], ["y"]),
        helper.make_node("MatMulNBits", ["y"], ["z"], domain="com.microsoft", K=32, bits=4),
        helper.make_node("Constant", [], ["c"], value=helper.make_tensor("c", INT64, [1], [-1])),
    ]
    inputs = [value("x", ["batch", None, 2]), value("w", [2, 3]), value("any", None, INT64)]
    outputs = [value("y", ["batch", 7, 3], TensorProto.BFLOAT16), value("z", [], TensorProto.BOOL)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight, listed])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, producer_name="us", ir_version=10)


def hiding() -> ModelProto:
    """Tensors from outside at every place that may hold one."""

    def constant(name: str, location: str) -> NodeProto:
        return helper.make_node("Constant", [], [name], value=outside(name, location))

    def branch(location: str) -> GraphProto:
        kept = helper.make_node("Identity", ["k"], ["out"])
        return helper.make_graph(
            [kept, constant("c", location + ".node")], "b", [], [value("out", [4])],
            [outside("k", location, offset=16, length=16)],
        )  # fmt: skip

    deep = helper.make_node("If", ["p"], ["q"], then_branch=branch("a"), else_branch=branch("b"))
    body = helper.make_graph([deep], "body", [], [value("q", [4])])
    top = helper.make_node("If", ["p"], ["y"], then_branch=body, else_branch=branch("d"))
    many = helper.make_node("Own", [], ["m"], domain="own")
    tensors = AttributeProto(name="ts", type=AttributeProto.TENSORS)
    tensors.tensors.extend([outside("t", "e"), outside("u", "f")])
    graphs = AttributeProto(name="gs", type=AttributeProto.GRAPHS)
    graphs.graphs.append(branch("g"))
    sparse = AttributeProto(name="s", type=AttributeProto.SPARSE_TENSOR)
    sparse.sparse_tensor.values.CopyFrom(outside("sv", "h"))
    sparse.sparse_tensor.indices.CopyFrom(outside("si", "i"))
    sparses = AttributeProto(name="ss", type=AttributeProto.SPARSE_TENSORS)
    sparses.sparse_tensors.add().values.CopyFrom(outside("sw", "j"))
    many.attribute.extend([tensors, graphs, sparse, sparses])
    graph = helper.make_graph([top, many], "g", [value("p", [], TensorProto.BOOL)], [])
    graph.initializer.append(outside("k", "l", offset=4096))
    graph.sparse_initializer.add().values.CopyFrom(outside("z", "m"))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    function = helper.make_function(
        "own", "Own", [], ["m"], [constant("m", "n")], opsets,
        attribute_protos=[helper.make_attribute("t", outside("t", "o"))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=opsets, functions=[function])
    model.training_info.add().algorithm.CopyFrom(branch("r"))
    return model


def messages(message: object) -> Iterator[object]:
    """Every message within a message, by protobuf's own reflection."""
    yield message
    for described, found in message.ListFields():  # type: ignore[attr-defined]
        if described.message_type is not None:
            for one in [found] if hasattr(found, "ListFields") else found:
                yield from messages(one)


def truth(model: ModelProto) -> tuple[Counter[str], set[str]]:
    """Operators and locations, as the onnx package finds them."""
    kinds: Counter[str] = Counter()
    locations: set[str] = set()
    for message in messages(model):
        if isinstance(message, NodeProto):
            default = message.domain in ("", "ai.onnx")
            kinds[message.op_type if default else f"{message.domain}::{message.op_type}"] += 1
        elif isinstance(message, TensorProto):
            locations |= {e.value for e in message.external_data if e.key == "location"}
    return kinds, locations


def write(path: Path, model: ModelProto | bytes) -> GraphFile:
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return summary.read(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.onnx"


def test_a_graph_says_its_versions_ports_and_operators(path: Path) -> None:
    said = write(path, plain())
    assert (said.ir_version, said.producer) == (10, "us")
    assert said.opsets == {"": 21, "com.microsoft": 1}
    assert said.nodes == {"MatMul": 1, "Relu": 2, "com.microsoft::MatMulNBits": 1, "Constant": 1}
    assert said.inputs == {
        "x": Port("float32", ("batch", "", 2)),
        "any": Port("int64", ("...",)),  # w is an initializer
    }
    assert said.outputs == {"y": Port("bfloat16", ("batch", 7, 3)), "z": Port("bool", ())}
    assert said.initializers == 2 and not said.tensors
    assert 24 + 300 < said.inline_bytes <= 24 + 8 * 301


@pytest.mark.parametrize("model", [plain(), hiding()], ids=["plain", "hiding"])
def test_operators_and_outside_files_are_those_the_onnx_package_finds(
    path: Path, model: ModelProto
) -> None:
    said = write(path, model)
    assert (said.nodes, said.external) == truth(model)
    assert said.opsets == {o.domain: o.version for o in model.opset_import}


def test_a_tensor_is_found_wherever_it_hides(path: Path) -> None:
    said = write(path, hiding())
    assert said.external == {*"abdefghijlmnor", "a.node", "b.node", "d.node", "g.node", "r.node"}
    assert External("a", 16, 16) in said.tensors
    assert External("l", 4096, 16) in said.tensors  # its length is its size


def test_external_data_that_the_onnx_package_saved_is_found(path: Path) -> None:
    onnx.save(
        plain(), path, save_as_external_data=True, location="weights.data", size_threshold=0,
        convert_attribute=True,
    )  # fmt: skip
    said = summary.read(path)
    assert said.external == {"weights.data"}  # what is raw moves out, lists of numbers stay
    assert said.inline_bytes == write(path.parent / "inline.onnx", plain()).inline_bytes - 24
    end = max(tensor.offset + tensor.length for tensor in said.tensors)
    assert end == (path.parent / "weights.data").stat().st_size


@pytest.mark.parametrize(
    "kind", [k for k in TensorProto.DataType.values() if k != TensorProto.UNDEFINED]
)
def test_every_element_type_has_numpys_name_and_its_size(path: Path, kind: int) -> None:
    expected = helper.tensor_dtype_to_np_dtype(kind)
    tensor = outside("w", "f")
    tensor.data_type, tensor.dims[:] = kind, [3, 8]
    model = plain()
    model.graph.initializer.append(tensor)
    model.graph.input.append(value("typed", [1], kind))
    said = write(path, model)
    assert said.inputs["typed"].dtype == expected.name
    if kind != TensorProto.STRING:
        packed = 24 * summary.BITS[expected.name] // 8
        assert {t.length for t in said.tensors} == {packed}
        whole = expected.itemsize * 24
        assert packed == whole or (expected.itemsize == 1 and packed < whole)  # below a byte


def test_ports_that_are_no_tensors_say_what_they_are(path: Path) -> None:
    model = plain()
    inner = helper.make_tensor_type_proto(FLOAT, [1])
    sequence = helper.make_sequence_type_proto(inner)
    model.graph.input.append(helper.make_value_info("s", sequence))
    model.graph.input.append(helper.make_value_info("o", helper.make_optional_type_proto(inner)))
    said = write(path, model)
    assert (said.inputs["s"].dtype, said.inputs["o"].dtype) == ("sequence", "optional")


def number(value: int) -> bytes:
    """A varint."""
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def sized(key: int, inner: bytes) -> bytes:
    """A field that holds bytes."""
    return bytes([key]) + number(len(inner)) + inner


def refused(path: Path, data: ModelProto | bytes) -> str:
    with pytest.raises(BadArtifacts, match="is not a readable ONNX graph: ") as caught:
        write(path, data)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\x08\x0a",
        b"these are words, and no graph\n" * 9,
        b"PK\x03\x04" + bytes(100),
        b"\xff" * 1000,
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x3a\xff\xff\xff\x7f" + bytes(9),
    ],
    ids=repr,
)
def test_what_is_no_graph_is_told_in_one_sentence(path: Path, data: bytes) -> None:
    refused(path, data)


def test_every_cut_of_a_graph_is_refused_or_still_a_graph(path: Path) -> None:
    data = plain().SerializeToString()
    read = 0
    for length in range(0, len(data), 7):
        try:
            write(path, data[:length])
            read += 1
        except BadArtifacts:
            pass
    assert read <= 2  # between the last fields of the model


def test_graphs_too_deep_in_each_other_are_refused(path: Path) -> None:
    graph = helper.make_graph([], "g", [], [])
    for _ in range(30):
        node = helper.make_node("If", [], [], then_branch=graph)
        graph = helper.make_graph([node], "g", [], [])
    opsets = [helper.make_opsetid("", 21)]
    assert write(path, helper.make_model(graph, opset_imports=opsets)).nodes == {"If": 30}
    data = b""
    for _ in range(3000):  # graph > node > attribute > graph, deeper than onnx could build
        data = sized(0x0A, sized(0x2A, sized(0x32, data)))
    assert "deep" in refused(path, b"\x08\x0a" + sized(0x3A, data) + b"\x42\x02\x10\x15")


def test_a_tensor_that_does_not_say_truly_where_it_lies_is_refused(path: Path) -> None:
    def having(**entries: str) -> ModelProto:
        model = plain()
        tensor = model.graph.initializer.add(name="t", data_location=TensorProto.EXTERNAL)
        for key, said in entries.items():
            tensor.external_data.add(key=key.rstrip("_"), value=said)
        return model

    assert "in which" in refused(path, having())
    assert "in which" in refused(path, having(location=""))
    assert "twice" in refused(path, having(location="a", location_="b"))
    for said in ("-1", "1e3", "", " 1", "٣", "9" * 5000):
        assert "offset" in refused(path, having(location="a", offset=said))
        assert "length" in refused(path, having(location="a", length=said))
    assert "longer than" in refused(path, having(location="a" * 70_000))


def test_a_graph_of_more_fields_than_any_graph_has_is_refused(path: Path) -> None:
    tensor = sized(0x0A, bytes(11_000_000))  # dims
    assert "fields" in refused(path, sized(0x3A, sized(0x2A, tensor)))


def test_a_message_said_in_two_halves_is_refused(path: Path) -> None:
    data = plain().SerializeToString()
    assert "twice" in refused(path, data + data)


def test_a_graph_is_read_without_its_payload(path: Path) -> None:
    model = plain()
    tensor = b"\x4a" + number(2**30)  # raw_data, and its bytes are a hole in the file
    inner = model.graph.SerializeToString() + b"\x2a" + number(len(tensor) + 2**30) + tensor
    model.ClearField("graph")
    data = model.SerializeToString() + b"\x3a" + number(len(inner) + 2**30) + inner
    path.write_bytes(data)
    os.truncate(path, len(data) + 2**30)
    assert summary.read(path).inline_bytes > 2**30


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="there is no graph"):
        summary.read(tmp_path / "none.onnx")
    with pytest.raises(BadArtifacts, match="not a regular file"):
        summary.read(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(BadArtifacts, match="not a regular file"):
            summary.read(tmp_path / "pipe")


@pytest.mark.parametrize("model", [plain(), hiding()], ids=["plain", "hiding"])
def test_broken_bytes_are_read_or_refused_and_hide_nothing(path: Path, model: ModelProto) -> None:
    rng = np.random.default_rng(3)
    data = model.SerializeToString()
    for _ in range(600):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            broken[at] ^= 1 << rng.integers(8)
        if rng.integers(4) == 0:
            broken = broken[: rng.integers(len(broken))]
        try:
            said = write(path, bytes(broken))
        except BadArtifacts as error:
            assert str(path) in str(error)
            continue
        try:
            parsed = ModelProto.FromString(bytes(broken))
        except Exception:  # the onnx package refuses it, then nobody loads it
            continue
        kinds, locations = truth(parsed)
        assert locations <= said.external and kinds == said.nodes
