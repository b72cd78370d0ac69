"""OpenVINO says what ONNX Runtime says, and the faster of the two is found and remembered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from onnx import TensorProto, helper, numpy_helper

import alm
from alm import backends
from alm.artifacts import manifest
from alm.artifacts.embedding_table import Table
from alm.artifacts.part import Part
from alm.backends import open_session
from alm.decoder.decoder import Decoder
from alm.decoder.fastest import Fastest
from alm.errors import BadArtifacts
from alm.parsing import File
from alm.session import BackendOptions, Session
from demo.clips import EXAMPLES, FOLDER
from tests.conftest import run_export

pytest.importorskip("openvino", reason="this engine is optional: pip install 'alm-edge[openvino]'")

OURS, THEIRS = BackendOptions("openvino", 1), BackendOptions("cpu", 1)


@pytest.fixture(scope="module")
def tiny(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in float32 and the one dialect that OpenVINO reads."""
    out = tmp_path_factory.mktemp("tiny") / "fp32"
    run_export("--model", checkpoint, "--out", out, "--dynamic-batch", "--dialect", "decomposed")
    return out


@pytest.fixture(scope="module", params=["fp32", "fp16", "int4"])
def exported(
    request: pytest.FixtureRequest,
    checkpoint: Path,
    tiny: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with a decoder and its table."""
    if request.param == "fp32":
        return tiny
    out = tmp_path_factory.mktemp("decoder")
    words = ("--part", "decoder", "--part", "embed", "--out", out, "--dynamic-batch")
    precision = f"decoder={request.param}"
    run_export("--model", checkpoint, *words, "--dialect", "decomposed", "--precision", precision)
    return out


def decoder(folder: Path, options: BackendOptions) -> Decoder:
    said = manifest.load(folder)
    part, table = said.with_role("decoder")[0], said.with_role("table")[0]
    return Decoder(open_session(part, folder, options), part, Table(folder / table.files[0].name))


def talk(of: Decoder) -> Iterator[np.ndarray]:
    """Logits of three ragged rows, reordered twice, that become four and then two."""
    embeds = of.table(np.arange(3 * 17).reshape(3, 17) % of.table.shape[0])
    of.start(3, 17 + 12)
    yield of.feed(embeds, np.array([17, 9, 13]))
    for step in range(12):
        yield of.step(np.arange(len(of.lengths)) * 7 + step)
        if step in (3, 7):
            of.reorder(np.array([2, 0, 0, 1] if step == 3 else [1, 3]))


def distance(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """Root of the mean square of what differs, over all steps."""
    return float(np.sqrt(np.mean(np.square(np.concatenate(some) - np.concatenate(others)))))


def test_a_decoder_is_as_near_to_the_exact_one_as_in_onnx_runtime(
    exported: Path, tiny: Path
) -> None:
    exact = list(talk(decoder(tiny, THEIRS)))
    ours, theirs = (list(talk(decoder(exported, options))) for options in (OURS, THEIRS))
    # Each rounds in its own way where products are not done in float32.
    assert distance(ours, exact) <= 1e-4 + 1.2 * distance(theirs, exact)


def test_rows_of_a_batch_do_not_see_each_other(exported: Path) -> None:
    of = decoder(exported, OURS)
    embeds = of.table(np.arange(2 * 11).reshape(2, 11))
    of.start(2, 16)
    together = [of.feed(embeds, np.array([4, 11])), of.step(np.array([5, 6]))]
    of.start(1, 16)
    alone = [of.feed(embeds[:1, :4], np.array([4])), of.step(np.array([5]))]
    for one, both in zip(alone, together, strict=True):
        assert np.abs(one[0] - both[0]).max() <= 1e-2 * np.abs(one).max()


def test_a_model_answers_as_in_onnx_runtime(tiny: Path, clip: Path) -> None:
    ours, theirs = (alm.load(tiny, provider=name) for name in ("openvino", "cpu"))
    pcm, rate = soundfile.read(clip, dtype="float32")
    clips: Any = [(pcm, rate), (pcm[: len(pcm) // 2], rate)]
    for beams in (1, 3):
        said, wanted = (
            model.generate(clips, "transcribe", max_new_tokens=8, num_beams=beams)
            for model in (ours, theirs)
        )
        assert [each.token_ids for each in said] == [each.token_ids for each in wanted]
        assert said[0].provider == "openvino"


def test_the_demo_in_int4_says_what_it_says_in_onnx_runtime(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    out = tmp_path_factory.mktemp("demo") / "int4"
    run_export("--out", out, "--dialect", "decomposed", "--precision", "int4")
    ours, theirs = (alm.load(out, provider=name) for name in ("openvino", "cpu"))
    for example in EXAMPLES:
        said = ours.generate(FOLDER / example.file, example.task)
        assert said.token_ids == theirs.generate(FOLDER / example.file, example.task).token_ids


# --- single graphs


def graph(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
) -> Path:
    made = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(weights))
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    path = folder / "graph.onnx"
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=11), path)
    return path


def opened(path: Path, options: BackendOptions) -> Session:
    part = Part("graph", "decoder", (File(path.name, 0, ""),))
    return open_session(part, path.parent, options, trusted=True)


def floats(name: str, *axes: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)


def refused(path: Path) -> str:
    with pytest.raises(BadArtifacts) as caught:
        opened(path, OURS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("middle", [0, 128])
def test_products_with_inputs_rounded_on_the_way_are_read_as_products_with_small_weights(
    tmp_path: Path, middle: int
) -> None:
    random = np.random.default_rng(0)
    codes = random.integers(-127, 128, (256, 64), np.int8)
    scales = random.uniform(1e-3, 2e-3, 64).astype(np.float32)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z", *["m"] * bool(middle)], ["sums"]),
        helper.make_node("Cast", ["sums"], ["exact"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "scales"], ["factor"]),
        helper.make_node("Mul", ["exact", "factor"], ["y"]),
    ]
    stored = (codes + np.int16(middle)).astype(np.uint8) if middle else codes
    weights = [numpy_helper.from_array(stored, "w"), numpy_helper.from_array(scales, "scales")]
    weights.append(numpy_helper.from_array(np.array(middle, np.uint8), "m"))
    path = graph(tmp_path, nodes, [floats("x", "n", 256)], [floats("y", "n", 64)], weights)
    x = random.standard_normal((5, 256)).astype(np.float32)
    exact = x @ (codes * scales)
    # ONNX Runtime's products of int8 weights overflow on x86 without VNNI.
    for options in (OURS, THEIRS) if middle else (OURS,):
        y = opened(path, options).run({"x": x})["y"]
        assert np.abs(y - exact).max() < 0.01 * np.abs(exact).max()


def adder(folder: Path) -> Session:
    node = helper.make_node("Concat", ["past", "x"], ["present"], axis=1)
    ends = [floats("past", "n", "past"), floats("x", "n", 2)]
    return opened(graph(folder, [node], ends, [floats("present", "n", "t")]), OURS)


def test_what_a_run_has_kept_is_not_changed_by_the_next(tmp_path: Path) -> None:
    session = adder(tmp_path)
    assert session.inputs["past"].axes == ("n", "past") and session.inputs["x"].axes == ("n", 2)
    kept: Any = session.hold(np.zeros((1, 0), np.float32))
    handles = []
    for number in (1, 2, 3):
        x = np.full((1, 2), number, np.float32)
        kept = session.run({"past": kept, "x": x}, {"present": None})["present"]
        handles.append(kept)
    assert [session.fetch(each).tolist() for each in handles] == [
        [[1, 1]],
        [[1, 1, 2, 2]],
        [[1, 1, 2, 2, 3, 3]],
    ]
    arrays = [
        session.run({"past": np.zeros((1, 0), "f"), "x": np.full((1, 2), n, "f")})["present"]
        for n in (4, 5)
    ]
    assert [each.tolist() for each in arrays] == [[[4, 4]], [[5, 5]]]


def test_memory_that_may_only_be_read_is_a_feed_too(tmp_path: Path) -> None:
    x = np.ones((1, 2), np.float32)
    x.flags.writeable = False
    fed = {"past": np.zeros((1, 0), np.float32), "x": x}
    assert adder(tmp_path).run(fed)["present"].tolist() == [[1, 1]]


def test_a_feed_that_does_not_fit_is_answered_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadArtifacts, match="OpenVINO failed: ") as caught:
        adder(tmp_path).run({"past": np.zeros((1, 0), "f"), "x": np.zeros((1, 3), "f")})
    assert "\n" not in str(caught.value)


def test_onnx_runtimes_own_attention_is_refused_with_the_export_that_works(tmp_path: Path) -> None:
    names = ["q", "k", "v", "past", "past", "lengths", "total"]
    node = helper.make_node(
        "GroupQueryAttention", names, ["y"], domain="com.microsoft", num_heads=1, kv_num_heads=1
    )
    path = graph(tmp_path, [node], [floats(name, "n", 8) for name in names], [floats("y", "n", 8)])
    sentence = refused(path)
    assert "OpenVINO cannot read com.microsoft::GroupQueryAttention" in sentence
    assert sentence.endswith("export with: --dialect decomposed")


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Nonsense", ["x"], ["y"])
    sentence = refused(graph(tmp_path, [node], [floats("x", 1)], [floats("y", 1)]))
    assert "Nonsense" in sentence and "--dialect decomposed" in sentence


def test_a_decoder_of_the_dialect_standard_is_refused_with_the_one_that_works(
    artifacts: Path,
) -> None:
    sentence = refused(artifacts / "decoder.onnx")
    assert "OpenVINO cannot read TensorScatter-24" in sentence
    assert sentence.endswith("export with: --dialect decomposed")


# --- the fastest


def remembered(folder: Path) -> dict[str, str]:
    return json.loads((folder / "fastest.json").read_text("utf-8"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_judge_is_asked_about_engines_for_the_processor_alone() -> None:
    asked: list[str] = []

    def judge(names: Any) -> str:
        asked.extend(names)
        return asked[-1]

    if backends.choose("auto") == "cpu":
        assert backends.choose("auto", judge) == "openvino" and asked == ["cpu", "openvino"]
    assert backends.choose("cpu", judge) == "cpu"


def test_engines_are_tried_once_and_the_fastest_is_remembered(tiny: Path, cache: Path) -> None:
    judge = Fastest(tiny, manifest.load(tiny), 1)
    best = judge(["cpu", "openvino"])
    ((key, name),) = remembered(cache).items()
    assert name == best
    for other in ("openvino", "cpu"):  # what is remembered is believed, so nothing was tried
        (cache / "fastest.json").write_text(json.dumps({key: other}))
        assert judge(["cpu", "openvino"]) == other
    more = iter(["cpu", "openvino"])
    assert judge(more) == "cpu" and list(more) == ["openvino"]
    assert Fastest(tiny, manifest.load(tiny), 2)(["cpu"]) == "cpu"
    assert len(remembered(cache)) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 5000, b'{"a": 1}'])
def test_a_broken_memory_is_no_error(tiny: Path, cache: Path, content: bytes) -> None:
    cache.mkdir()
    (cache / "fastest.json").write_bytes(content)
    judge = Fastest(tiny, manifest.load(tiny), 1)
    assert judge(["cpu", "openvino"]) in remembered(cache).values()


def test_a_memory_that_cannot_be_written_is_no_error(tiny: Path, cache: Path) -> None:
    cache.write_text("a file, not a folder")
    judge = Fastest(tiny, manifest.load(tiny), 1)
    assert judge(["cpu", "openvino"]) in ("cpu", "openvino")


def test_an_engine_that_cannot_read_the_decoder_is_not_the_fastest(
    artifacts: Path, cache: Path
) -> None:
    assert Fastest(artifacts, manifest.load(artifacts), 1)(["openvino", "cpu"]) == "cpu"
    assert list(remembered(cache).values()) == ["cpu"]


def test_where_no_engine_can_run_the_decoder_the_first_may_say_why(own: Path, cache: Path) -> None:
    said = manifest.load(own)
    (own / "decoder.onnx.data").unlink()
    assert Fastest(own, said, 1)(["openvino", "cpu"]) == "openvino"
    assert not (cache / "fastest.json").exists()
