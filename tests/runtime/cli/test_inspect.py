"""What is in an artifact folder is shown whole, and what is wrong with it is said."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

import export
from alm.artifacts import manifest
from alm.cli import alm_commands, exit_status, terminal
from alm.onnxfile import summary
from tests import ROOT

Capture = pytest.CaptureFixture[str]
ALM = "import sys; from alm.cli.alm_commands import main; sys.exit(main())"
RUNTIME = ROOT / "runtime"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes are remembered beside the test."""
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(RUNTIME))


def inspect(*words: str | Path) -> int:
    return exit_status.run(alm_commands.app, ["inspect", *map(str, words)])


def shown(capture: Capture, *words: str | Path) -> str:
    assert inspect(*words) == 0
    said = capture.readouterr()
    assert said.err == ""
    return said.out


def edit(folder: Path, **changes: Any) -> None:
    path = folder / manifest.NAME
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def test_all_parts_files_ports_operators_and_tasks_are_shown(
    artifacts: Path, capsys: Capture
) -> None:
    said = shown(capsys, artifacts)
    model = manifest.load(artifacts)
    assert "salmonn" in said and model.created in said
    for part in model.parts:
        assert f"\n{part.name} " in said
    for file in model.files():
        assert f"{file.bytes}  {file.sha256[:12]}  ok" in said
    for name, prompt in model.facts.prompt.tasks.items():
        assert name in said and prompt in said
    span = model.part("mel").spans["samples"]  # pyright: ignore
    assert f"samples {span.least}/{span.usual}/{span.most}" in said
    layers = model.facts.dimensions.layers
    assert f"Attention:{layers}" in said and "24 standard" in said
    assert f"past_key_values.{{0..{layers - 1}}}.key" in said and "inputs_embeds" in said


def test_nothing_is_folded_cut_or_padded_in_a_file(artifacts: Path, capsys: Capture) -> None:
    lines = shown(capsys, artifacts).splitlines()
    alm_commands = manifest.load(artifacts).tools
    assert "tools" in lines[9] and all(version in lines[9] for version in alm_commands.values())
    assert all(line == line.rstrip() and "…" not in line for line in lines)


def test_a_terminal_of_80_columns_gets_lines_of_80_columns(artifacts: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    line = [sys.executable, "-c", ALM, "inspect", str(artifacts)]
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    env |= {"TERM": "dumb"}
    with subprocess.Popen(line, stdin=theirs, stdout=theirs, env=env) as run:
        os.close(theirs)
        said = b""
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not block:
                break
            said += block
    os.close(ours)
    lines = said.decode().splitlines()
    assert run.returncode == 0
    assert max(map(len, lines)) <= 80
    assert not any("…" in text for text in lines)
    assert any("onnxruntime=" in text for text in lines)


def test_one_part_is_shown_alone(artifacts: Path, capsys: Capture) -> None:
    said = shown(capsys, artifacts, "--part", "mel")
    assert "log_mel" in said and "mel.onnx" in said
    assert "whisper" not in said and "TASKS" not in said


def test_json_is_the_manifest_with_operators_and_verdicts(artifacts: Path, capsys: Capture) -> None:
    said = json.loads(shown(capsys, artifacts, "--json"))
    model = manifest.load(artifacts)
    assert said["family"] == "salmonn" and said["verified"] and said["wrong"] == []
    assert said["verdicts"] == {file.name: "ok" for file in model.files()}
    for plain, part in zip(said["parts"], model.parts, strict=True):
        assert plain["bytes"] == part.bytes
        assert plain["files"][0]["sha256"] == part.files[0].sha256
        if part.role != "table":
            graph = summary.read(artifacts / part.files[0].name)
            assert plain["histogram"] == dict(graph.nodes)


def test_an_unknown_part_is_answered_with_the_right_ones(artifacts: Path, capsys: Capture) -> None:
    for word in ("--part", "--netron"):
        assert inspect(artifacts, word, "ear") == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "unknown part 'ear'; there is: mel, " in said.err


def test_a_changed_file_is_shown_as_wrong_with_its_reason_on_stderr(
    own: Path, capsys: Capture
) -> None:
    with (own / "mel.onnx").open("r+b") as graph:
        graph.seek(-1, os.SEEK_END)
        graph.write(b"\x01")
    assert inspect(own) == 1
    said = capsys.readouterr()
    assert f"{manifest.load(own).parts[0].files[0].sha256[:12]}  wrong\n" in said.out
    assert "TASKS" in said.out
    assert said.err.startswith("error: 'mel.onnx'") and "sha256" in said.err
    assert inspect(own, "--json") == 1
    assert json.loads(capsys.readouterr().out)["verdicts"]["mel.onnx"] == "wrong"
    assert inspect(own, "--no-verify") == 0
    assert f"{'mel.onnx':17}" in capsys.readouterr().out


def test_a_missing_or_linked_file_is_wrong_even_when_hashes_are_not_asked_for(
    own: Path, capsys: Capture
) -> None:
    (own / "mel.onnx").rename(own.parent / "mel.onnx")
    (own / "mel.onnx").symlink_to(own.parent / "mel.onnx")
    (own / "embed.npy").unlink()
    assert inspect(own, "--no-verify") == 1
    said = capsys.readouterr()
    assert "symbolic link" in said.err and "there is no 'embed.npy'" in said.err
    assert said.err.count("error: ") == 2


def test_ports_that_are_not_the_graphs_are_wrong(own: Path, capsys: Capture) -> None:
    parts = json.loads((own / manifest.NAME).read_text("utf-8"))["parts"]
    parts[0]["outputs"]["noise"] = parts[0]["outputs"]["log_mel"]
    edit(own, parts=parts)
    assert inspect(own) == 1
    said = capsys.readouterr().err
    assert "has other outputs than the manifest: noise is not in the graph" in said


def test_what_is_no_artifact_folder_is_refused(own: Path, tmp_path: Path, capsys: Capture) -> None:
    assert inspect(tmp_path) == 1
    assert "it holds no manifest.json" in capsys.readouterr().err
    edit(own, format_version=3)
    assert inspect(own) == 1
    assert "is of format 3" in capsys.readouterr().err


def test_a_manifests_text_is_shown_and_not_obeyed(own: Path, capsys: Capture) -> None:
    edit(own, family="\x1b[2J[bold]:smile:")
    said = shown(capsys, own)
    assert "\N{REPLACEMENT CHARACTER}[2J[bold]:smile:" in said and "\x1b" not in said


def test_export_shows_the_same(artifacts: Path, own: Path, capsys: Capture) -> None:
    said = shown(capsys, artifacts)
    assert exit_status.run(export.app, ["--out", str(artifacts), "--inspect"]) == 0
    assert capsys.readouterr().out == said
    (own / "mel.onnx").unlink()
    assert exit_status.run(export.app, ["--out", str(own), "--inspect"]) == 1


def test_sizes_are_for_people() -> None:
    sizes = [terminal.size(count) for count in (950, 1000, 1_234_567, 3_400_000_000)]
    assert sizes == ["950 B", "1.0 kB", "1.2 MB", "3.4 GB"]
