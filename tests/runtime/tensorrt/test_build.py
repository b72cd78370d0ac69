"""alm build: what is printed, what is refused, and the words of the documentation."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import typer

import export
from alm import targets
from alm.artifacts import manifest
from alm.cli import alm_commands, run_command
from alm.errors import BadArtifacts, MissingPackage
from alm.tensorrt import api
from alm.tensorrt.graph import fitted
from alm.tensorrt.profiles import Sizes, fit
from tests import ROOT
from tests.runtime.cli.commands import Capture
from tests.runtime.tensorrt.built import RTX, alm_build


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes and timings are remembered beside the test."""
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "cache"))


# --- what would be done


def test_a_dry_run_prints_a_command_for_every_part_and_writes_nothing(
    own: Path, capfd: Capture
) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in own.iterdir())
    assert alm_build(own, "--dry-run", "--workspace", "512") == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in own.iterdir()) == before
    said = capfd.readouterr()
    out = said.out.replace("\\\n", " ")  # which a shell reads so, and shlex does not
    commands = [shlex.split(line) for line in out.splitlines() if line.startswith("trtexec ")]
    parts = [part.name for part in manifest.load(own).parts if part.role != "table"]
    changed = ("whisper", "beats", "decoder")  # they hold Attention
    names = [f"{n}.tensorrt.onnx" if n in changed else f"{n}.onnx" for n in parts]
    assert [words[1] for words in commands] == [f"--onnx={own / name}" for name in names]
    assert said.out.count(f"is written by: alm build {own} --graphs") == len(changed)
    for words in commands:
        assert {"--stronglyTyped", "--skipInference", "--memPoolSize=workspace:512M"} <= set(words)
        assert all(re.fullmatch(r"--[A-Za-z]+(=\S+)?", word) for word in words[1:])
    assert said.err == ""


def test_the_decoders_command_has_a_prompt_and_a_single_token(own: Path, capfd: Capture) -> None:
    words = ("--part", "decoder", "--context", "200", "--prompt", "100", "--backend", RTX)
    assert alm_build(own, "--dry-run", *words) == 0
    said = shlex.split(capfd.readouterr().out)
    assert said[0] == "tensorrt_rtx" and "--stronglyTyped" not in said
    assert [word for word in said if word.startswith("--profile")] == ["--profile=0", "--profile=1"]
    most = [word for word in said if word.startswith("--maxShapes")]
    hidden = manifest.load(own).facts.dimensions.hidden
    assert f"inputs_embeds:1x100x{hidden}," in most[0]
    assert f"inputs_embeds:1x2x{hidden}," in most[1]
    assert all("x256x" in each for each in most)  # the cache comes in steps of 64


def test_the_graphs_that_trtexec_takes_differ_in_two_things_alone(
    own: Path, capfd: Capture
) -> None:
    before = {path.name: path.read_bytes() for path in own.iterdir() if path.is_file()}
    assert alm_build(own, "--graphs", "--context", "100") == 0
    assert all((own / name).read_bytes() == content for name, content in before.items())
    capfd.readouterr()
    ours, theirs = onnx.load(own / "decoder.tensorrt.onnx"), onnx.load(own / "decoder.onnx")
    for value in (*theirs.graph.input, *theirs.graph.output, *theirs.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == "capacity":
                axis.dim_value = 128
    attentions = [node for node in theirs.graph.node if node.op_type == "Attention"]
    for node in attentions:
        node.attribute.append(onnx.helper.make_attribute("TRT_decomposable", 1))
    assert attentions and ours == theirs


def test_a_graph_that_is_none_is_refused() -> None:
    with pytest.raises(BadArtifacts, match="the graph: "):
        fitted(b"\xff" * 40, {})


def test_profiles_hold_what_the_ports_say(own: Path) -> None:
    parts = {part.name: part for part in manifest.load(own).parts}
    ((mel,), _) = fit(parts["mel"], Sizes(batch=3))
    span = parts["mel"].spans["samples"]
    assert mel == {"pcm": ((1, span.least), (3, span.usual), (3, span.most))}
    whisper = parts["whisper"]
    fixed = replace(whisper, inputs={n: p.fix(batch=1) for n, p in whisper.inputs.items()})
    assert fit(fixed, Sizes()) == ((), {})
    both, sizes = fit(parts["decoder"], Sizes(context=70))
    assert sizes == {"capacity": 128} and len(both) == 2
    assert {r[i][2] for p in both for n, r in p.items() for i in range(3) if "key" in n} == {128}


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("--backend", "npu"), "unknown backend 'npu'; there is: tensorrt, tensorrt-rtx"),
        (("--part", "ears"), "unknown part 'ears'; there is: mel, "),
        (("--context", "8", "--prompt", "9"), "a prompt of 9 and a context of 8 were wanted"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(
    artifacts: Path, words: tuple[str, ...], sentence: str, capfd: Capture
) -> None:
    assert alm_build(artifacts, "--dry-run", *words) == 2
    assert capfd.readouterr().err.startswith(f"error: {sentence}")


def test_onnx_runtimes_own_operators_are_refused_with_the_export_that_works(
    own: Path, capfd: Capture
) -> None:
    model = onnx.load(own / "mel.onnx")
    model.graph.node[0].domain = "com.microsoft"
    onnx.save(model, own / "mel.onnx")
    assert alm_build(own, "--dry-run") == 1
    said = capfd.readouterr().err
    assert said.startswith("error: part mel holds com.microsoft::")
    assert "--dialect standard --precision fp16" in said


def test_tensorrt_that_is_not_there_is_answered_with_where_to_get_it(
    artifacts: Path, capfd: Capture
) -> None:
    try:
        api.load("tensorrt")
    except MissingPackage as error:
        assert "docs/jetson.md" in str(error)
        assert alm_build(artifacts) == 1
        assert capfd.readouterr().err == f"error: {error}\n"
    else:
        pytest.skip("TensorRT is installed here")


DOCS = ROOT / "docs"
WITH_OPTIONS = re.compile(r"(alm-run|alm build|alm bench|export\.py) (.*)")


def known(tool: str) -> set[str]:
    """The options of a command."""
    app, _, name = tool.partition(" ")
    group = typer.main.get_command(
        {"alm-run": run_command.running, "alm": alm_commands.app}.get(app, export.app)
    )
    found: Any = group.commands[name] if name else group  # pyright: ignore
    return {word for each in found.params for word in (*each.opts, *each.secondary_opts)}


@pytest.mark.parametrize("name", ["jetson.md", "gpu.md"])
def test_every_command_in_the_documentation_has_options_that_there_are(name: str) -> None:
    lines = [x.strip() for x in (DOCS / name).read_text("utf-8").splitlines() if x[:4] == "    "]
    commands = [found.groups() for line in lines if (found := WITH_OPTIONS.search(line))]
    assert len(commands) > 5
    for tool, rest in commands:
        words = shlex.split(rest, comments=True)
        assert {word for word in words if word.startswith("-")} <= known(tool), (tool, rest)
        if "--target" in words:
            assert words[words.index("--target") + 1] in targets.names()
