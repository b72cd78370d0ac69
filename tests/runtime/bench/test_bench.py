"""`alm bench`: figures that are finite and add up, a picture that parses, what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from alm.artifacts import manifest
from alm.artifacts.manifest import Part
from alm.bench import drawing
from alm.bench.roofline import bound, cache_bytes
from alm.bench.timed_run import spread
from alm.cli import alm_commands, exit_status
from alm.host import processor
from alm.onnxfile import flops
from alm.ports import Port
from bench import contest
from tests.runtime.cli.commands import Capture, sound

FEW = ("--seconds", "0.5,2", "--contexts", "8,16,999999", "--new-tokens", "4", "--threads", "1")
ONCE = ("--warmup", "0", "--repeats", "2")
MADE = {"prompt", "decode_audio", "resample", "windows", "prefill", "steps", "choose", "detokenise"}


def bench(*words: str | Path) -> int:
    return exit_status.run(alm_commands.app, ["bench", *map(str, words)])


@pytest.fixture(scope="module")
def measured(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """The JSON and the SVG of a short run."""
    out = tmp_path_factory.mktemp("bench")
    files = ("--out", out / "a.json", "--picture", out / "a.svg")
    assert bench(artifacts, *FEW, *ONCE, *files) == 0
    return json.loads((out / "a.json").read_text("utf-8")), (out / "a.svg").read_text("utf-8")


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


# --- what is measured


def test_every_stage_of_every_clip_is_measured(measured: tuple[Any, str], artifacts: Path) -> None:
    found, _ = measured
    said = manifest.load(artifacts)
    parts = [part.name for part in said.parts if part.role not in ("table", "decoder")]
    assert [clip["clip"] for clip in found["clips"]] == ["0.5 s", "2 s"]
    for clip in (found["cold"], *found["clips"]):
        assert clip["stages"].keys() == MADE | set(parts)
        assert clip["new_tokens"] == 4 and clip["windows"] == 1
    assert [clip["parts"] for clip in found["clips"]] == [parts, parts]
    assert found["cold"]["clip"] == "0.5 s" and found["load_ms"] > 0


def test_every_figure_is_finite_and_none_is_negative(measured: tuple[Any, str]) -> None:
    found, _ = measured
    numbers = [leaf for leaf in leaves(found) if isinstance(leaf, int | float)]
    assert len(numbers) > 200 and all(math.isfinite(number) for number in numbers)
    # Running side by side may cost more than it saves.
    runs = (found["cold"], *found["clips"])
    saved = [run["overlap_ms"] for run in runs]
    assert all(number >= 0 or number in saved for number in numbers)


def test_the_stages_add_up_to_the_total(measured: tuple[Any, str]) -> None:
    clips = measured[0]["clips"]
    stages = sum(each["mean"] for clip in clips for each in clip["stages"].values())
    stages -= sum(clip["overlap_ms"] for clip in clips)
    assert stages == pytest.approx(sum(clip["total"]["mean"] for clip in clips), rel=0.2)
    for clip in clips:
        assert clip["total"]["p50"] <= clip["total"]["p90"]
        assert clip["real_time_factor"] == pytest.approx(
            clip["total"]["p50"] / clip["seconds"] / 1e3
        )


def test_contexts_beyond_the_models_are_left_out_and_that_is_noted(
    measured: tuple[Any, str],
) -> None:
    found, _ = measured
    assert [each["context"] for each in found["contexts"]] == [8, 16]
    assert [each["prompt_tokens"] for each in found["contexts"]] == [4, 8]
    assert any(note.startswith("contexts beyond the model's") for note in found["notes"])


def test_each_stage_is_held_against_the_machine(measured: tuple[Any, str], artifacts: Path) -> None:
    found, _ = measured
    rows = {row["stage"]: row for row in found["roofline"]}
    parts = {part.name: part for part in manifest.load(artifacts).parts}
    assert [*rows] == [*found["clips"][0]["parts"], "prefill", "per_token"]
    for name in found["clips"][0]["parts"]:
        assert rows[name]["bytes"] == parts[name].bytes and rows[name]["operations"] > 0
    assert rows["per_token"]["bytes"] > rows["prefill"]["bytes"] == parts["decoder"].bytes
    assert rows["per_token"]["operations"] < rows["prefill"]["operations"]


def test_memory_is_read_before_and_after_loading_and_after_the_runs(
    measured: tuple[Any, str],
) -> None:
    memory = measured[0]["memory"]
    assert [*memory] == ["before_load", "after_load", "after_runs"]
    for held in memory.values():
        assert held.keys() == {"resident", "own", "of_files", "peak"}
        assert held["resident"] is None or held["peak"] * 1.1 > held["resident"] > 2**20


def test_the_contests_protocol_counts_one_token_and_stands_beside_the_honest_one(
    artifacts: Path, capfd: Capture
) -> None:
    words = ("--warmup", "0", "--repeats", "2", "--new-tokens", "4", "--threads", "1")
    contest.main([str(artifacts), *words, "--json"])
    measured = json.loads(capfd.readouterr().out)
    theirs, honest = measured["contest"], measured["honest"]
    assert measured["task"] == "asr" and (measured["warmup"], measured["repeats"]) == (0, 2)
    assert theirs["latency_ms"] == pytest.approx(theirs["ttft_ms"] + theirs["tpot_ms"])
    assert theirs["ttft_ms"] > 0 and theirs["tpot_ms"] > 0
    assert measured["seconds"] == 4  # the window of this model; the contest's clip lasts 10 s
    assert "mel" in honest["stages"] and honest["new_tokens"] == 4
    assert "log-mel" in measured["difference"] and "{" not in measured["difference"]
    contest.show(measured)
    assert "FIRST TOKEN" in capfd.readouterr().out.upper()


def test_the_picture_is_xml_with_a_bar_for_each_clip(measured: tuple[Any, str]) -> None:
    found, svg = measured
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"0.5 s", "2 s"} <= set(texts)
    titles = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}title")]
    for stage in found["clips"][0]["stages"]:
        assert sum(title.startswith(f"{stage}: ") for title in titles) == 2


# --- what is heard and printed


def test_a_file_is_heard_as_it_is_and_at_each_length(
    artifacts: Path, tmp_path: Path, capfd: Capture
) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(8000)
    path = sound(tmp_path / "eight.wav", noise, rate=8000)
    words = ("--seconds", "0.3,5", "--contexts", "8", "--new-tokens", "2", "--threads", "1")
    out = tmp_path / "a.json"
    assert bench(artifacts, path, *words, "--warmup", "0", "--repeats", "1", "--out", out) == 0
    clips = json.loads(out.read_text("utf-8"))["clips"]
    assert [(clip["clip"], clip["seconds"]) for clip in clips] == [
        ("as it is", 1.0),
        ("0.3 s", 0.3),
        ("5 s", 5.0),
    ]
    assert [clip["windows"] for clip in clips] == [1, 1, 2]  # the window is 4 s
    assert all("resample" in clip["stages"] for clip in clips)
    said = capfd.readouterr()
    for word in ("MILLISECONDS BY STAGE", "qformer", "real time factor", "AGAINST THIS MACHINE"):
        assert word in said.out
    assert "loading the model" in said.err and "loading the model" not in said.out


# --- what is refused


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("--seconds", "1,x"), 2, "--seconds wants numbers from 0.01"),
        (("--seconds", "nan"), 2, "--seconds wants numbers"),
        (("--seconds", ""), 2, "--seconds wants numbers"),
        (("--contexts", "1"), 2, "--contexts wants numbers from 2"),
        (("--contexts", "8.5"), 2, "--contexts wants numbers"),
        (("--new-tokens", "0"), 2, "'--new-tokens'"),
        (("--repeats", "0"), 2, "'--repeats'"),
        (("--provider", "abacus"), 2, "unknown provider 'abacus'"),
        (("no such.wav",), 1, "there is no file no such.wav"),
        (("--out", "no such folder/a.json"), 1, "there is no folder no such folder"),
        (("--picture", "no such folder/a.svg"), 1, "there is no folder no such folder"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(
    artifacts: Path, capfd: Capture, words: tuple[str, ...], status: int, sentence: str
) -> None:
    assert bench(artifacts, *words) == status
    said = capfd.readouterr()
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert said.out == "" and len(errors) == 1 and sentence in errors[0]


def test_a_folder_without_a_model_is_refused(tmp_path: Path, capfd: Capture) -> None:
    assert bench(tmp_path) == 1
    assert "it holds no manifest.json" in capfd.readouterr().err


# --- the pieces


def test_axes_are_numbers_names_or_formulas_of_names() -> None:
    sizes = {"samples": 16000, "frames": 33}
    assert flops.size(7, {}) == 7 and flops.size("samples", sizes) == 16000
    assert flops.size("(((samples - 400)//160)) + 1", sizes) == 98
    assert flops.size("8*((frames//16)) + 1", sizes) == 17
    for strange in (
        "",
        "tokens",
        "frames**2",
        "frames//0",
        "f(1)",
        "'a'*9",
        "(" * 400,
        "True",
        "1-2",
    ):
        assert flops.size(strange, sizes) is None


def test_operations_are_those_of_the_products(tmp_path: Path) -> None:
    def weights(name: str, *dims: int) -> TensorProto:
        return helper.make_tensor(name, TensorProto.FLOAT, dims, np.ones(dims, np.float32).ravel())

    def value(name: str, *axes: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)

    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"]),
        helper.make_node("MatMul", ["c", "m"], ["d"]),
        helper.make_node("Gemm", ["g", "t"], ["e"], transB=1),
        helper.make_node("MatMulNBits", ["g", "q"], ["f"], domain="com.microsoft", N=5, K=6),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("MatMul", ["h", "m"], ["u"]),
        helper.make_node("MatMul", ["r", "r"], ["nowhere"]),
    ]
    constants = [weights("k", 4, 2, 3), weights("m", 7, 9), weights("t", 5, 6), weights("q", 5, 3)]
    graph = helper.make_graph(
        nodes, "g", [value("x", 1, 2, "n"), value("g", 8, 6)],
        [value("d", 1, 4, 9), value("e", 8, 5)], constants,
        value_info=[value("c", 1, 4, "n - 2"), value("h", "unk", 7), value("u", "unk", 9)],
    )  # fmt: skip
    path = tmp_path / "a.onnx"
    onnx.save(helper.make_model(graph), path)
    each = (4 * 7) * (2 * 3), (4 * 9) * 7, (8 * 5) * 6, (8 * 5) * 6
    guessed = (4 * 9) * 7  # as many rows as d has
    assert flops.operations(path, {"n": 9}) == (2 * (sum(each) + guessed), 2)


def test_a_bound_is_the_slower_of_reading_and_computing() -> None:
    machine = {"bytes_per_second": 1e9, "operations_per_second": 1e10}
    reading = bound("a", 10**6, 10**6, machine, 2.0)
    assert reading["bound"] == "memory" and reading["reached"] == pytest.approx(0.5)
    computing = bound("a", 10**6, 10**8, machine, 20.0)
    assert computing["bound"] == "compute" and computing["reached"] == pytest.approx(0.5)
    assert bound("a", 1, 1, machine, 0.0)["reached"] is None


def test_a_cache_has_the_bytes_of_its_ports() -> None:
    ports = {
        "inputs_embeds": Port("float32", ("batch", "seq", 8)),
        "past_key_values.0.key": Port("float16", ("batch", 2, "capacity", 4)),
        "past_key_values.0.value": Port("int8", ("batch", 2, "past", 4)),
    }
    assert cache_bytes(Part("decoder", "decoder", (), ports), 10) == 2 * 10 * 4 * (2 + 1)


def test_a_spread_is_mean_median_and_ninetieth_percentile() -> None:
    assert spread([1.0] * 8 + [2.0, 12.0]) == {"mean": 2.2, "p50": 1.0, "p90": pytest.approx(3.0)}


def test_the_machine_is_told_as_far_as_it_can_be() -> None:
    facts = processor.facts()
    assert facts["processor"] and facts["usable_cores"] >= 1
    assert processor.bandwidth() > 1e6 and processor.peak() > 1e6
    assert isinstance(processor.forget_peak(), bool)


def test_bars_say_what_they_are_also_where_names_are_strange() -> None:
    svg = drawing.bars('<a & "b">', [("x<y", {"s&t": 1.0, "u": 0.0}), ("none", {})])
    root = ElementTree.fromstring(svg)
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {'<a & "b">', "x<y", "none", "s&t", "u"} <= texts
    ElementTree.fromstring(drawing.bars("empty", []))
