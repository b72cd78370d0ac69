"""alm batch --workers: the rows of one process, and none lost with a process that dies."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from alm.batch import workers
from alm.batch.files import File, find
from alm.batch.job import Job
from alm.errors import AlmError, BadArtifacts
from tests.runtime.batch.many import SHORT, batch, begun, lines, names, noises, read, rows_of, wait

OPTIONS = {"do_sample": False, "num_beams": 1, "max_new_tokens": 2}


@pytest.fixture(autouse=True)
def linux() -> None:
    """Processes are looked for in /proc."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("no /proc")


def under(parent: int, word: str) -> list[int]:
    """Living processes below `parent` whose command line holds `word`, the oldest first."""
    parents: dict[int, int] = {}
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            line = (folder / "cmdline").read_text("utf-8", "replace")
        except OSError:
            continue
        parents[int(folder.name)] = int(status[1])
        if word in line and status[0] != "Z":
            found.append(int(folder.name))
    return sorted(number for number in found if _below(number, parent, parents))


def _below(number: int, parent: int, parents: dict[int, int]) -> bool:
    while number > 1:
        number = parents.get(number, 0)
        if number == parent:
            return True
    return False


def processes(run: subprocess.Popen[str]) -> list[int]:
    return under(run.pid, "spawn_main")


def test_two_processes_give_the_rows_of_one_and_leave_none_behind(
    artifacts: Path, tmp_path: Path
) -> None:
    clips = noises(tmp_path / "clips", 12)
    clips[3].write_bytes(b"no audio")
    words = (artifacts, tmp_path / "clips", *SHORT, "--out")
    assert batch(*words, tmp_path / "one.jsonl") == 1
    assert batch(*words, tmp_path / "two.jsonl", "--workers", "2", "--rows", "2") == 1
    assert rows_of(tmp_path / "one.jsonl") == rows_of(tmp_path / "two.jsonl")
    assert under(os.getpid(), "spawn_main") == []
    sizes = {str(clip): clip.stat().st_size for clip in clips}
    order = [sizes[row["file"]] for row in read(tmp_path / "two.jsonl")]
    assert order[0] > order[-1]  # long files first


def test_a_process_that_dies_loses_no_file_and_another_takes_its_place(
    artifacts: Path, tmp_path: Path
) -> None:
    clips, out = noises(tmp_path / "clips", 60), tmp_path / "rows.jsonl"
    with begun(artifacts, tmp_path / "clips", "--out", out, *SHORT, "--workers", "2") as run:
        for rows in (2, 12):
            wait(lambda rows=rows: lines(out) >= rows)
            os.kill(wait(lambda: processes(run))[0], signal.SIGKILL)
        said = run.communicate(timeout=60)[1]
        assert run.returncode == 0, said
    found = rows_of(out)
    assert sorted(found) == names(clips) and all("text" in row for row in found.values())


def test_ctrl_c_and_a_killed_parent_leave_whole_rows_and_no_process(
    artifacts: Path, tmp_path: Path
) -> None:
    noises(tmp_path / "clips", 60)
    out = tmp_path / "rows.jsonl"
    words = (artifacts, tmp_path / "clips", "--out", out, *SHORT, "--workers", "2")
    for end, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        before = lines(out)
        with begun(*words, start_new_session=True) as run:
            wait(lambda before=before: lines(out) > before + 1)
            children = processes(run)
            assert children
            if end == signal.SIGINT:
                os.killpg(run.pid, end)  # as a terminal does
            else:
                os.kill(run.pid, end)
            said = run.communicate(timeout=30)[1]
            assert run.returncode == status
            assert "Traceback" not in said
        wait(lambda children=children: not any(map(alive, children)))
    assert 2 < len(rows_of(out)) == lines(out) < 60
    assert batch(artifacts, tmp_path / "clips", "--out", out, *SHORT) == 0
    assert len(rows_of(out)) == 60


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Deadly(workers.Workers):
    """Its processes die as they are given a file of this name."""

    def _give(self, worker: workers.Worker, group: list[File]) -> None:
        super()._give(worker, group)
        if any(file.path.endswith("deadly.wav") for file in group):
            worker.process.kill()


def test_a_file_that_takes_its_process_along_twice_gets_a_row_that_says_so(
    artifacts: Path, tmp_path: Path
) -> None:
    clips = noises(tmp_path / "clips", 4)
    (tmp_path / "clips" / "deadly.wav").write_bytes(clips[0].read_bytes())
    files = find([str(tmp_path / "clips")])
    groups = [files[:2], files[2:]]  # its neighbour is answered nevertheless
    with Deadly(Job(str(artifacts), options=OPTIONS), 1) as pool:
        rows = [row for made in pool.answer(groups) for row in made]
    found = {row["file"]: row for row in rows}
    assert len(rows) == len(found) == 5
    dead = found[str(tmp_path / "clips" / "deadly.wav")]
    assert dead["error"].startswith("the process that answered it was killed (SIGKILL;")
    assert dead["error"].endswith("twice")
    assert all("text" in found[name] for name in names(clips))


class Stillborn(workers.Workers):
    """Its processes die before the model is open."""

    def _start(self, place: int) -> workers.Worker:
        worker = super()._start(place)
        worker.process.kill()
        return worker


def test_processes_that_cannot_open_the_model_end_the_run_in_a_sentence(
    artifacts: Path, own: Path, tmp_path: Path
) -> None:
    files = find([str(clip) for clip in noises(tmp_path / "clips", 3)])
    groups: Sequence[list[File]] = [[file] for file in files]
    with (
        Stillborn(Job(str(artifacts)), 2) as pool,
        pytest.raises(AlmError, match="before its model was open; .* --workers 1"),
    ):
        list(pool.answer(groups))
    damaged = Job(str(own))
    with workers.Workers(damaged, 2) as pool, pytest.raises(BadArtifacts, match="decoder"):
        (own / "decoder.onnx").write_bytes(b"no graph")
        list(pool.answer(groups))


def test_the_cores_are_shared_out() -> None:
    cores = sorted(os.sched_getaffinity(0))
    assert [core for share in workers.shares(len(cores)) for core in share] == cores
    assert workers.shares(1) == [cores]
    assert [len(share) for share in workers.shares(3 * len(cores))] == [1] * 3 * len(cores)
