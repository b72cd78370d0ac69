"""The lint: every rule by a smallest graph, against TensorRT-RTX itself, and our own graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

import export
from alm import lint, targets
from alm.artifacts.manifest import File, Part
from alm.cli import alm_commands, exit_status
from alm.cli.reports import lint_report
from alm.errors import UnknownName
from alm.lint.rule import Case
from alm.onnxfile import graph_nodes
from alm.ports import Span
from alm.tensorrt.graph import fitted
from exporters import precisions
from tests.conftest import run_export
from tests.runtime.cli.commands import Capture
from tests.runtime.lint.smallest import (
    ALL,
    FLOAT,
    INT64,
    JETPACK6,
    JETPACK7,
    RTX,
    SMALLEST,
    Small,
    graph,
)

DEMO = Path(export.__file__).parent / "demo" / "checkpoint" / "config.yaml"

every = pytest.mark.parametrize("small", SMALLEST.values(), ids=SMALLEST)


def findings(
    model: onnx.ModelProto, target: str, folder: Path, spans: dict[str, Span] | None = None
) -> list[lint.Finding]:
    """What the rules of a target say of a model."""
    path = folder / "part.onnx"
    onnx.save(model, path)
    part = Part("part", "encoder", (File(path.name, 0, ""),), spans=spans or {})
    read, goal = graph_nodes.read(path), targets.find(target)
    case = Case(part, path, read, target, goal, precisions.declared())
    return list(lint.examine(case))


def rules(*words: Any) -> set[str]:
    return {found.rule for found in findings(*words)}


@every
@pytest.mark.parametrize("target", ALL)
def test_the_smallest_graph_breaks_its_rule_where_the_rule_holds(
    small: Small, target: str, tmp_path: Path
) -> None:
    found = rules(small.broken, target, tmp_path, small.stated)
    if target in small.targets:
        assert found == {small.rule}
    else:
        assert small.rule not in found


@every
def test_the_mended_graph_breaks_no_rule(small: Small, tmp_path: Path) -> None:
    for target in small.targets:
        assert not rules(small.mended, target, tmp_path, small.spans)


def test_every_rule_has_a_graph_that_breaks_it() -> None:
    names = [rule.name for rule in lint.all_rules()]
    assert len(set(names)) == len(names)
    assert {small.rule for small in SMALLEST.values()} == set(names)


def test_every_rule_says_what_it_wants_and_where_that_stands() -> None:
    for rule in lint.all_rules():
        assert rule.requirement and rule.source, rule.name


@every
def test_the_answer_names_the_node_the_way_out_and_the_source(small: Small, tmp_path: Path) -> None:
    names = {node.name for node in small.broken.graph.node}
    names |= {port.name for port in small.broken.graph.input} | {""}
    for found in findings(small.broken, small.targets[-1], tmp_path, small.stated):
        assert found.part == "part" and found.node in names
        assert found.what and found.way_out and found.source


@pytest.mark.parametrize(
    ("op", "domain", "way"),
    [
        ("MatMulNBits", "com.microsoft", "--precision part=int4dq"),
        ("DynamicQuantizeLinear", "", "--precision part=int8dq"),
        ("GroupQueryAttention", "com.microsoft", "--dialect decomposed"),
        ("TensorScatter", "", "--dialect decomposed"),
        ("Unheard", "elsewhere", "--target trt-jetpack6"),
    ],
)
def test_a_foreign_operator_is_answered_with_the_lever_or_dialect_to_take(
    op: str, domain: str, way: str, tmp_path: Path
) -> None:
    made = onnx.helper.make_node(op, ["x"], ["y"], domain=domain)
    model = graph([made, made], [("x", FLOAT, [2])], [("y", FLOAT, [2])])
    (found,) = findings(model, JETPACK6, tmp_path)
    assert found.rule == "operator" and way in found.way_out
    assert found.what.startswith("TensorRT 10.3 has no ") and found.nodes == 2


def test_the_table_counts_nodes_and_not_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = [
        onnx.helper.make_node("Unheard", ["x"], [f"y{i}"], f"n{i}", domain="elsewhere")
        for i in range(3)
    ]
    cubes = [onnx.helper.make_node("Pow", ["i", "i"], [f"z{i}"], f"p{i}") for i in range(2)]
    outputs = [(f"y{i}", FLOAT, [2]) for i in range(3)] + [(f"z{i}", INT64, [2]) for i in range(2)]
    model = graph([*foreign, *cubes], [("x", FLOAT, [2]), ("i", INT64, [2])], outputs)
    found = tuple(findings(model, JETPACK6, tmp_path))
    lint_report.table(lint.Verdict(JETPACK6, "TensorRT 10.3", ("part",), 5, found))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    counts = {row[3]: (row[1], row[2]) for row in rows if len(row) > 3 and row[2].isdigit()}
    assert counts["operator"] == ("node0", "3") and counts["dtype"] == ("node3", "2")


def test_what_a_later_tensorrt_lifted_is_asked_of_the_earlier_alone(tmp_path: Path) -> None:
    power = onnx.helper.make_node("Pow", ["x", "x"], ["y"])
    model = graph(power, [("x", INT64, [2])], [("y", INT64, [2])])
    (found,) = findings(model, JETPACK6, tmp_path)
    assert (found.rule, found.source) == ("dtype", "Changelog.md of 10.12: integer bases for Pow")
    assert not findings(model, JETPACK7, tmp_path)


# --- TensorRT-RTX itself, whose parser and builder want no GPU


@pytest.fixture(scope="module")
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="try: pip install tensorrt-rtx")


def refusal(rtx: Any, model: onnx.ModelProto, spans: dict[str, Span]) -> str:
    """What TensorRT-RTX says against a graph; "" when it builds it."""

    class Log(rtx.ILogger):
        def __init__(self) -> None:
            rtx.ILogger.__init__(self)
            self.said: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (rtx.ILogger.ERROR, rtx.ILogger.INTERNAL_ERROR):
                self.said.append(message)

    log = Log()
    builder = rtx.Builder(log)
    network = builder.create_network(0)
    parser = rtx.OnnxParser(network, log)
    if not parser.parse(model.SerializeToString()):
        return "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors)) or "parser"
    config = builder.create_builder_config()
    if spans:
        profile = builder.create_optimization_profile()
        for port in model.graph.input:
            axes = port.type.tensor_type.shape.dim
            if not any(axis.dim_param for axis in axes):
                continue
            ranges = [spans.get(axis.dim_param, Span(*[axis.dim_value] * 3)) for axis in axes]
            shapes = ([getattr(r, end) for r in ranges] for end in ("least", "usual", "most"))
            profile.set_shape(port.name, *shapes)
        config.add_optimization_profile(profile)
    built = builder.build_serialized_network(network, config)
    return "" if built is not None else "; ".join(log.said) or "builder"


@pytest.mark.tensorrt
@pytest.mark.parametrize("name", [name for name in SMALLEST if RTX in SMALLEST[name].targets])
def test_tensorrt_rtx_refuses_the_same_graph(rtx: Any, name: str) -> None:
    small = SMALLEST[name]
    said = refusal(rtx, small.broken, small.stated)
    assert bool(said) == small.refused, said


@pytest.mark.tensorrt
@pytest.mark.parametrize("name", [name for name in SMALLEST if RTX in SMALLEST[name].targets])
def test_tensorrt_rtx_builds_the_mended_graph(rtx: Any, name: str) -> None:
    small = SMALLEST[name]
    assert refusal(rtx, small.mended, small.spans) == ""


# --- our own graphs


@pytest.fixture(scope="module", params=[(JETPACK6,), (JETPACK7, RTX)], ids=["jetpack6", "newer"])
def demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[str, ...]]:
    """The trained demo model as the first of these targets has it, and targets that take it."""
    if not DEMO.is_file():
        pytest.skip(f"no demo checkpoint at {DEMO}")
    out = tmp_path_factory.mktemp("demo") / "out"
    words = ("--target", request.param[0], "--precision", "auto", "--out", out)
    run_export("--model", DEMO, *words)
    return out, request.param


Demo = tuple[Path, tuple[str, ...]]


def test_every_part_of_the_demo_passes_in_the_targets_own_precision(demo: Demo) -> None:
    folder, goals = demo
    for target in goals:
        verdict = lint.lint(folder, target)
        assert {"mel", "whisper", "fbank", "beats", "qformer", "decoder"} == set(verdict.parts)
        assert not verdict.refused, verdict.findings
        assert verdict.nodes > 300


@pytest.mark.tensorrt
def test_tensorrt_rtx_reads_what_passes(demo: Demo, rtx: Any) -> None:
    folder, goals = demo
    for name in lint.lint(folder, goals[0]).parts:
        path = folder / f"{name}.onnx"
        log = rtx.Logger(rtx.Logger.INTERNAL_ERROR)
        network = rtx.Builder(log).create_network(0)
        parser = rtx.OnnxParser(network, log)
        read = parser.parse(fitted(path.read_bytes(), {"capacity": 128}), str(path))
        assert read, (name, [parser.get_error(i).desc() for i in range(parser.num_errors)])


# --- the commands


def alm(capsys: Capture, *words: str | Path) -> tuple[int, str, str]:
    status = exit_status.run(alm_commands.app, [str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_documentation_lists_every_rule() -> None:
    page = (Path(export.__file__).parent / "docs" / "lint.md").read_text("utf-8")
    rows = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert {rule.name for rule in lint.all_rules()} | set(targets.names()) == rows


def test_graphs_of_another_dialect_are_answered_with_theirs(
    artifacts: Path, capsys: Capture
) -> None:
    status, out, err = alm(capsys, "lint", artifacts, "--target", JETPACK6)
    assert status == 1
    assert "has no Attention" in out and "export with --dialect decomposed" in out
    assert "do not keep the rules of trt-jetpack6 (TensorRT 10.3)" in err


def test_graphs_that_pass_say_so_in_one_line(artifacts: Path, capsys: Capture) -> None:
    status, out, err = alm(capsys, "lint", artifacts, "--target", "cpu")
    assert (status, out) == (0, "")
    assert err.endswith("nodes of 6 parts keep the rules of cpu (ONNX Runtime)\n")


def test_the_report_as_data(artifacts: Path, capsys: Capture) -> None:
    words = ("--target", JETPACK6, "--part", "decoder", "--json")
    status, out, err = alm(capsys, "lint", artifacts, *words)
    plain = json.loads(out)
    assert (status, err) == (1, "")
    assert plain["format"] == "alm-lint" and plain["refused"] and plain["parts"] == ["decoder"]
    first = plain["findings"][0]
    assert first["part"] == "decoder" and first["rule"] and first["way_out"] and first["source"]


def test_wrong_names_are_answered_with_the_right_ones(artifacts: Path) -> None:
    with pytest.raises(UnknownName, match="unknown target 'toaster'; there is: cpu, portable, trt"):
        lint.lint(artifacts, "toaster")
    with pytest.raises(UnknownName, match="unknown part 'ears'; there is: mel, "):
        lint.lint(artifacts, "cpu", ["ears"])


def test_an_export_that_would_not_build_ends_with_status_1(
    checkpoint: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out"
    words = ("--target", JETPACK6, "--dialect", "ort", "--part", "qformer", "--part", "whisper")
    line = ["--model", str(checkpoint), *words, "--precision", "fp32", "--out", str(out)]
    assert exit_status.run(export.app, line) == 1
    said = capsys.readouterr()
    assert "has no com.microsoft::MultiHeadAttention" in said.out
    assert "export with --dialect decomposed" in said.out


def test_a_precision_that_is_not_the_targets_is_refused_before_the_export(
    checkpoint: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["--model", str(checkpoint), "--target", RTX, "--out", str(tmp_path / "out")]
    assert exit_status.run(export.app, [*words, "--precision", "decoder=int4"]) == 2
    assert "precision int4 of part decoder" in capsys.readouterr().err
