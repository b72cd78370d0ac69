"""200 clips in a run that is killed 20 times: one row each, the same as of a run that was not."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime.batch.many import SHORT, batch, noises, rows_of
from tests.runtime.cli.commands import RUNTIME

CLIPS, KILLS = 200, 20

# Everything is imported once; each run is a process of its own, forked before any model is open,
# which is killed as soon as its file has so many rows and, at times, torn in its last row.
RUNS = """
import json, os, signal, sys, time
from alm.cli import alm_commands, exit_status
import alm.backends.ort, alm.batch.running, onnxruntime

words, out, kills = json.loads(sys.argv[1])

def rows():
    try:
        with open(out, "rb") as file:
            return file.read().count(b"\\n")
    except FileNotFoundError:
        return 0

def run():
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os._exit(exit_status.run(alm_commands.app, words))
    return child

for at, wait, torn in kills:
    child = run()
    while rows() < at:
        ended, status = os.waitpid(child, os.WNOHANG)
        assert not ended, (at, status)
        time.sleep(0.002)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
    if torn:
        os.truncate(out, os.path.getsize(out) - torn)
    print(rows(), flush=True)
_, status = os.waitpid(run(), 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_run_that_is_killed_twenty_times_ends_with_the_rows_of_one_that_was_not(
    artifacts: Path, tmp_path: Path
) -> None:
    clips = noises(tmp_path / "clips", CLIPS)
    clips[50].write_bytes(b"no audio")
    out, dice = tmp_path / "killed.jsonl", random.Random(5)
    points = sorted(dice.sample(range(1, CLIPS - 10), KILLS))
    kills = [(at, dice.uniform(0, 0.02), dice.choice((0, 1, 40, 300))) for at in points]
    words = ["batch", str(artifacts), str(tmp_path / "clips"), "--out", str(out), *SHORT]
    done = subprocess.run(
        [sys.executable, "-c", RUNS, json.dumps([words, str(out), kills])],
        env=os.environ | {"PYTHONPATH": str(RUNTIME)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr  # one file is no audio
    counts = [int(line) for line in done.stdout.split()]
    assert len(counts) == KILLS and counts[-1] < CLIPS
    words = (artifacts, tmp_path / "clips", "--out", tmp_path / "whole.jsonl")
    assert batch(*words, *SHORT, "--rows", "8") == 1
    assert len(rows_of(out)) == CLIPS
    assert rows_of(out) == rows_of(tmp_path / "whole.jsonl")
    assert not (tmp_path / "killed.jsonl.lock").exists()
