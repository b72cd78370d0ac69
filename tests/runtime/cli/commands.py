"""Commands as tests run them: inside this process with their output caught, or as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from alm.cli import exit_status, run_command
from tests import ROOT

ALM_RUN = "import sys; from alm.cli.run_command import run; sys.exit(run())"
RUNTIME = ROOT / "runtime"

Capture = pytest.CaptureFixture[str]


def alm_run(*words: str | Path) -> int:
    return exit_status.run(run_command.running, [str(word) for word in words])


def answer(capture: Capture, *words: str | Path) -> dict[str, Any]:
    """The object that --json prints, alone."""
    assert alm_run(*words, "--json") == 0
    said = capture.readouterr()
    assert said.err == ""
    return json.loads(said.out)


def refused(capture: Capture, *words: str | Path) -> tuple[int, str]:
    """Exit status and sentence of a command that prints no text."""
    status = alm_run(*words)
    said = capture.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    return status, said.err


def process(code: str, *words: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    line = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(line, **pipes | options)  # pyright: ignore


def sound(path: Path, samples: Any, rate: int = 16000, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, np.asarray(samples, np.float32), rate, subtype=subtype)
    return path
