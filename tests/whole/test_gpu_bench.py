"""bench/gpu.py on the processor: what fails is a row, and time that is used up is one too."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from bench import gpu
from bench.beside import gpu_pack, gpu_page
from bench.beside.gpu_steps import FAILED, OK, SKIPPED, WRONG, Row, Run

# --help of a script that finds nothing but what was unpacked and what is installed.
HELP = (
    "import runpy, sys; folder, script = sys.argv[1:]; sys.argv = [script, '--help'];"
    "sys.path[:0] = [folder + '/runtime', folder]; runpy.run_path(script, run_name='__main__')"
)


def run_of(tmp_path: Path, seconds: float = 120.0) -> Run:
    return Run(tmp_path / "r" / "here.json", seconds, tmp_path / "cache", told=lambda _: None)


def test_a_run_proves_times_and_says_what_failed(artifacts: Path, tmp_path: Path) -> None:
    there = tmp_path / "artifacts" / gpu.WAYS["cpu"].folder("salmonn-tiny")
    shutil.copytree(artifacts, there)
    words = ["--tiny", "--artifacts", str(there.parent), "--provider", "cpu"]
    words += ["--provider", "cuda", "--provider", "abacus"]
    run = run_of(tmp_path)
    gpu.measure(run, gpu.planned(words), tmp_path)
    ended = {(row.step, row.provider): row for row in run.rows}
    assert ended["doctor", "cpu"].verdict == OK and ended["bench", "cpu"].verdict == OK
    assert ended["doctor", "cuda"].verdict == FAILED and "cuda" in ended["doctor", "cuda"].why
    assert ended["bench", "cuda"].verdict == FAILED
    assert ended["export", "abacus"].verdict == SKIPPED
    kept = json.loads(run.out.read_text())
    assert [row["step"] for row in kept["rows"]] == [row.step for row in run.rows]
    page = gpu_page.page("here", run.machine, run.rows)
    assert "| salmonn-tiny | cpu | 4.0 | beats |" in page and "TTFT" in page
    assert "| salmonn-tiny | cpu, 1 threads | decoder | ok |" in page


def test_a_step_without_time_is_skipped_with_the_reason(tmp_path: Path) -> None:
    run = run_of(tmp_path, 1.0)
    assert not run.step(Row("export", "demo"), ["-c", "raise SystemExit(0)"], 60.0)
    [row] = run.rows
    assert row.verdict == SKIPPED and row.why.endswith("of 1 are left")


def test_a_step_that_is_too_slow_is_stopped_and_the_next_one_runs(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    assert not run.step(Row("slow"), ["-c", "import time; time.sleep(60)"], 5.0)
    assert run.step(Row("quick"), ["-c", "print('there')"], 30.0)
    assert [row.verdict for row in run.rows] == [FAILED, OK]
    assert run.rows[0].why == "stopped after 5 s" and run.rows[0].seconds < 15


def test_a_doctor_that_finds_something_wrong_is_told_from_one_that_dies(tmp_path: Path) -> None:
    run, data = run_of(tmp_path), tmp_path / "said.json"
    script = "import sys; open(sys.argv[1], 'w').write('{\"good\": false}'); sys.exit(1)"
    run.step(Row("doctor"), ["-c", script, str(data)], 30.0, data)
    run.step(Row("doctor"), ["-c", "raise SystemExit('no such device')"], 30.0)
    assert [row.verdict for row in run.rows] == [WRONG, FAILED]
    assert run.rows[1].why == "no such device"


def test_a_checkpoint_that_cannot_be_made_is_not_exported(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    maker = {"bad": lambda out: ["-c", "raise SystemExit('no room')"]}["bad"]
    for provider in ("cpu", "cuda"):
        out = tmp_path / provider
        assert not gpu.exported(run, "bad", maker, provider, out, tmp_path)
    assert [(row.step, row.verdict) for row in run.rows] == [("make", FAILED), ("export", SKIPPED)]


def test_the_archive_has_all_that_a_run_imports(artifacts: Path, tmp_path: Path) -> None:
    names = gpu_pack.pack(tmp_path / "gpu.tar", [artifacts])
    with tarfile.open(tmp_path / "gpu.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "alm-gpu"
    assert {"export.py", "requirements.txt", "demo/lamp.wav", "bench/gpu.py"} <= {*names}
    assert any(name.endswith(".whl") for name in names)
    assert (folder / "artifacts" / artifacts.name / "manifest.json").is_file()
    assert "onnxruntime-gpu[cuda,cudnn]" in (folder / "requirements.txt").read_text()
    for script in ("bench/gpu.py", "bench/real_hf.py", "export.py"):
        words = [sys.executable, "-I", "-c", HELP, str(folder), script]
        assert subprocess.run(words, cwd=folder, capture_output=True, timeout=120).returncode == 0


def test_an_archive_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"should end in \.tar, \.tar\.gz or \.zip"):
        gpu_pack.pack(tmp_path / "gpu.rar", [])
