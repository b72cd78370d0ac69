"""The package's surface: what a strict type checker accepts of a client, and what it must not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import alm
from alm import errors
from tests import ROOT
from tests.runtime import typed_client

RIGHT = Path(typed_client.__file__)

# Lines after `model = alm.load(...)`, and the rule of pyright that each must break.
WRONG = {
    'a: str = model.generate("a.wav", "transcribe")': "reportAssignmentType",
    'b: alm.Answer = model.generate(["a.wav"], "transcribe")': "reportAssignmentType",
    'c: list[alm.Answer] = model.generate("a.wav", "transcribe")': "reportAssignmentType",
    'model.generate("a.wav", "transcribe", beams=4)': "reportCallIssue",
    'model.generate("a.wav", "transcribe", num_beams="4")': "reportArgumentType",
    'model.generate(7, "transcribe")': "reportArgumentType",
    'model.stream("a.wav", "transcribe", beams=4)': "reportCallIssue",
    'model.stream(["a.wav"], "transcribe")': "reportArgumentType",
    'd: list[bytes] = list(model.stream("a.wav", "transcribe"))': "reportAssignmentType",
    'model.chat(truncated=True).ask("Who?")': "reportCallIssue",
    'model.chat().ask("Who?", truncate=True)': "reportCallIssue",
    'e: str = model.chat().ask("Who?")': "reportAssignmentType",
    "model.options(top_p=None, top_q=1)": "reportCallIssue",
    'alm.load("artifacts", thread=1)': "reportCallIssue",
    "f: alm.Chat": "reportAttributeAccessIssue",
}


def complaints(folder: Path, source: str) -> list[dict[str, Any]]:
    """What pyright, strict and of Python 3.10, says of a client beside the installed package."""
    pytest.importorskip("pyright")
    (folder / "client.py").write_text(source, "utf-8")
    config = {"typeCheckingMode": "strict", "pythonVersion": "3.10", "include": ["client.py"]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config), "utf-8")
    words = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*words, "-p", str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "runtime")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = json.loads(done.stdout)
    assert said["summary"]["filesAnalyzed"] == 1, done.stderr
    return said["generalDiagnostics"]


def test_a_right_client_is_accepted(tmp_path: Path) -> None:
    assert complaints(tmp_path, RIGHT.read_text("utf-8")) == []


def test_a_wrong_client_is_refused_line_by_line(tmp_path: Path) -> None:
    head = 'import alm\n\nmodel = alm.load("artifacts")\n'
    found = complaints(tmp_path, head + "\n".join(WRONG) + "\n")
    first = head.count("\n")
    rules: dict[int, set[str]] = {}
    for each in found:
        rules.setdefault(each["range"]["start"]["line"] - first, set()).add(each["rule"])
    missed = {
        line: rules.get(at)
        for at, (line, rule) in enumerate(WRONG.items())
        if rule not in rules.get(at, set())
    }
    assert missed == {}


def test_the_right_client_runs(
    artifacts: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed_client.main(str(artifacts), str(clip))
    assert capsys.readouterr().out.startswith("BadPrompt False\n")


def test_the_package_gives_these_names_and_no_others() -> None:
    theirs = {n for n, kind in vars(errors).items() if isinstance(kind, type) and n[0] != "_"}
    assert set(alm.__all__) == {"load", "Model", "Conversation", "Answer", "Options"} | theirs
    assert all(getattr(alm, name).__name__ == name for name in alm.__all__)
    assert set(alm.__all__) <= set(dir(alm))
    with pytest.raises(AttributeError, match="module 'alm' has no attribute 'Chat'"):
        alm.Chat  # noqa: B018  # pyright: ignore
