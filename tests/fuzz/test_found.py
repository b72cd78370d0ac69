"""Packed files and golden vectors that once ended in something else than one of our errors."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from alm import backends
from alm.artifacts import manifest, safetensors
from alm.cli import alm_commands, exit_status
from alm.doctor import answers, machine, vectors
from alm.doctor.vectors import Way
from alm.errors import BadArtifacts
from alm.golden import runs
from alm.golden import vectors as golden
from alm.onnxfile.relocate import relocated
from alm.parsing import File
from alm.ports import Port
from alm.session import BackendOptions

CASES = Path(__file__).resolve().parent / "cases"
PACKS = sorted(CASES.glob("*.alm"))
VECTORS = sorted(CASES.glob("*.safetensors"))
RUNS = sorted(CASES.glob("golden-runs-*.json"))
PORTS = {"x": Port("float32", ("n",)), "ids": Port("int64", ("n",))}
WAY = Way("cpu", 1)


@pytest.mark.parametrize("case", PACKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("words", [("verify",), ("inspect",), ("doctor",)], ids=" ".join)
def test_a_packed_file_that_broke_a_command_is_refused_by_all_of_them(
    case: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status.run(alm_commands.app, [*words, str(case)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("error: ") and "unexpected" not in said.err


@pytest.mark.parametrize("case", VECTORS, ids=lambda path: path.stem)
def test_golden_vectors_that_broke_doctor_are_refused(case: Path, tmp_path: Path) -> None:
    shutil.copy(case, tmp_path)
    data = case.read_bytes()
    file = File(case.name, len(data), hashlib.sha256(data).hexdigest())
    tracemalloc.start()
    try:
        with pytest.raises(BadArtifacts):
            golden.read(tmp_path, file, PORTS, ("y",))
        assert tracemalloc.get_traced_memory()[1] < 2**24  # sizes are looked at before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", RUNS, ids=lambda path: path.stem)
def test_golden_runs_that_broke_doctor_are_a_finding(case: Path, own: Path) -> None:
    data = case.read_bytes()
    (own / runs.NAME).write_bytes(data)
    said = manifest.load(own)
    listed = File(runs.NAME, len(data), hashlib.sha256(data).hexdigest())
    others = [file for file in said.golden if file.name != runs.NAME]
    changed = replace(said, golden=(listed, *others))
    (found,) = answers.check(own, changed, WAY, set(), lambda _: None)
    assert found.wrong and found.check == "runs" and "misshapen" in found.what


def test_tensors_that_share_bytes_are_refused() -> None:
    """64 bytes under 1000 names would be read a thousand times."""
    entry = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}
    head = json.dumps({f"t{i}": entry for i in range(1000)}).encode()
    data = len(head).to_bytes(8, "little") + head + bytes(64)
    with pytest.raises(BadArtifacts, match="more bytes together than there are"):
        safetensors.header(io.BytesIO(data), len(data), "it")


@pytest.mark.parametrize("inside", ["attribute", "subgraph"])
def test_weights_within_a_nested_graph_are_not_looked_for_beside_a_packed_file(
    inside: str,
) -> None:
    tensor = onnx.TensorProto(name="w", dims=[4], data_type=1, data_location="EXTERNAL")
    for key, value in (("location", "g.data"), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[tensor])
    places = {"g.data": ("model.alm", 4096)}

    def made(graph: onnx.GraphProto) -> bytes:
        opsets = [onnx.helper.make_opsetid("", 21)]
        return onnx.helper.make_model(graph, opset_imports=opsets).SerializeToString()

    moved = onnx.ModelProto.FromString(relocated(Path("model.alm"), "g.onnx", made(graph), places))
    said = {entry.key: entry.value for entry in moved.graph.initializer[0].external_data}
    assert said == {"location": "model.alm", "offset": "4096", "length": "16"}
    if inside == "attribute":
        node = onnx.helper.make_node("Constant", [], ["y"], value=tensor)
    else:
        node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=graph)
    nested = made(onnx.helper.make_graph([node], "g", [], []))
    with pytest.raises(BadArtifacts, match="a graph within the graph.*alm unpack"):
        relocated(Path("model.alm"), "g.onnx", nested, places)


def test_vectors_of_another_output_are_a_finding(own: Path) -> None:
    said = manifest.load(own)
    part = said.named("mel")
    assert part.golden
    data = (own / part.golden.name).read_bytes().replace(b"output.log_mel", b"output.log_mol")
    data = data.replace(b'\\"log_mel\\": {\\"shape', b'\\"log_mol\\": {\\"shape')
    (own / part.golden.name).write_bytes(data)
    listed = File(part.golden.name, len(data), hashlib.sha256(data).hexdigest())
    odd = replace(part, golden=listed)
    changed = replace(said, parts=(odd,))
    (found,) = vectors.check(own, changed, WAY, set(), lambda _: None)
    assert found.wrong and "holds no golden vectors" in found.what
    assert backends.open_session(part, own, BackendOptions("cpu", 1)).outputs.keys() == {"log_mel"}


def test_a_table_is_asked_for_a_few_rows(own: Path) -> None:
    said = manifest.load(own)
    (part,) = said.with_role("table")
    assert part.golden
    whole = (own / part.golden.name).read_bytes()
    data = whole.replace(b'\\"shape\\": [64]', b'\\"shape\\": [67108864]')
    data = (int.from_bytes(whole[:8], "little") + len(data) - len(whole)).to_bytes(
        8, "little"
    ) + data[8:]
    (own / part.golden.name).write_bytes(data)
    listed = File(part.golden.name, len(data), hashlib.sha256(data).hexdigest())
    changed = replace(said, parts=(replace(part, golden=listed),))
    (found,) = vectors.check(own, changed, WAY, set(), lambda _: None)
    assert found.wrong and "more than 4096 ids" in found.what


def test_a_cache_without_a_size_is_a_finding_of_doctors(tmp_path: Path) -> None:
    shutil.copy(CASES / "doctor-keyerror-batch.json", tmp_path / manifest.NAME)
    memory = [*machine.check(manifest.load(tmp_path), 1)][-1]
    assert memory.wrong and "the cache of part decoder has no size: 'BATCH'" in memory.what
