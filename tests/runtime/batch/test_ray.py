"""alm batch --ray on a Ray of this machine: the same rows, and none lost with an actor."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alm.batch import on_ray, rows
from alm.batch.files import File
from alm.batch.job import Job
from alm.batch.ray_actors import OPENINGS, Actor, Ledger
from alm.errors import BadOption, MissingPackage
from tests.products import LONG
from tests.runtime.batch.many import SHORT, batch, begun, lines, names, noises, rows_of, wait
from tests.runtime.batch.test_workers import under

RAY = ("--ray", "local", "--workers", "2")
KILLS = 20 if LONG else 1  # each starts Ray anew


def test_runs_and_an_actor_that_are_killed_lose_no_file_and_repeat_none(
    artifacts: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    if not sys.platform.startswith("linux"):
        pytest.skip("actors are looked for in /proc")
    clips, out = noises(tmp_path / "clips", 200 if LONG else 80), tmp_path / "rows.jsonl"
    clips[7].write_bytes(b"no audio")
    words = (artifacts, tmp_path / "clips", "--out", out, *SHORT)
    for at in np.linspace(1, len(clips) - 40, KILLS).astype(int):
        with begun(*words, *RAY, "--rows", "2", start_new_session=True) as run:
            wait(lambda at=at, run=run: lines(out) >= at or run.poll() is not None, 150)
            run.kill()
        assert run.returncode == -signal.SIGKILL
    before = out.read_bytes()
    before, have = before[: before.rindex(b"\n") + 1], before.count(b"\n")
    assert have < len(clips) - 20
    with begun(*words, *RAY, "--rows", "2") as run:
        try:
            wait(lambda: lines(out) > have + 1 or run.poll() is not None, 150)
            actors = under(run.pid, "MapWorker")
            assert actors, run.poll()
            os.kill(actors[0], signal.SIGKILL)
            said = run.communicate(timeout=150)[1]
        finally:
            run.kill()
    assert run.returncode == 1, said  # one file is no audio
    assert f"{have} of {len(clips)} files have their row, {len(clips) - have} to do" in said
    assert out.read_bytes().startswith(before)
    found = rows_of(out)  # which there is one of for each file
    assert sorted(found) == names(clips)
    assert [path for path in found if "error" in found[path]] == [str(clips[7])]
    whole = tmp_path / "whole.jsonl"
    assert batch(artifacts, tmp_path / "clips", "--out", whole, *SHORT) == 1
    assert rows_of(whole) == found


def test_addresses_that_can_be_none_are_refused_before_ray_is_asked() -> None:
    for address in ("clip.wav", "", "host", "host:port", "http://host:1", "--rows"):
        with pytest.raises(BadOption, match="--ray is local"):
            on_ray.check(address)


@pytest.mark.parametrize("address", ["local", "auto", "10.0.0.1:6379", "ray://head-node:10001"])
def test_other_addresses_want_the_package(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match=r"pip install 'alm-edge\[ray\]'"):
        on_ray.check(address)


def test_the_ledger_tells_what_was_begun_and_not_ended() -> None:
    ledger = Ledger()
    assert ledger.begin([1, 2]) == [(0, ""), (0, "")]
    ledger.end([1])
    assert ledger.begin([1]) == [(0, "")]
    assert ledger.begin([2, 3]) == [(1, ""), (0, "")]  # lost once: now each is begun alone
    ledger.again([2])
    ledger.keep(2, "row")
    ledger.again([3])
    assert ledger.begin([2, 3]) == [(2, "row"), (1, "")]
    ledger.again([3])
    assert ledger.begin([3]) == [(2, "")]


def test_a_model_that_never_opens_is_given_up() -> None:
    ledger = Ledger()
    assert [ledger.opening() for _ in range(OPENINGS + 1)] == [True] * OPENINGS + [False]
    ledger.opened()
    assert all(ledger.opening() for _ in range(2 * OPENINGS))


class Handle:
    """A Ledger as Ray hands it around, without Ray."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._ledger, name))


class Lost(BaseException):
    """An actor is no more."""


class Deadly(Actor):
    """It is lost with a file of this name."""

    def answer(self, files: Sequence[File]) -> list[rows.Row]:
        if any(file.path.endswith("deadly.wav") for file in files):
            raise Lost
        return super().answer(files)


def test_a_file_that_takes_its_actor_along_twice_gets_a_row_and_its_neighbours_their_answers(
    artifacts: Path, tmp_path: Path
) -> None:
    clips = [*noises(tmp_path / "clips", 2), tmp_path / "clips" / "deadly.wav"]
    clips[2].write_bytes(clips[0].read_bytes())
    table = [os.fsencode(clips[n]) for n in (0, 2, 1)]
    task = {"number": [4, 5, 6], "given": table, "path": table}
    options = {"do_sample": False, "num_beams": 1, "max_new_tokens": 2}
    job, handle = Job(str(artifacts), options=options), Handle(Ledger())
    for _ in range(2):
        with pytest.raises(Lost):
            Deadly(job, handle, get=lambda found: found)(task)
    answered = Deadly(job, handle, get=lambda found: found)(task)
    assert answered["number"] == [4, 5, 6] and answered["refused"] == [""] * 3
    made = [json.loads(row) for row in answered["row"]]
    assert [row["file"] for row in made] == [str(clips[n]) for n in (0, 2, 1)]
    assert "was lost 2 times" in made[1]["error"]
    assert all("text" in made[n] for n in (0, 2))


def test_an_actor_that_cannot_open_the_model_says_why(own: Path) -> None:
    (own / "tokenizer.json").unlink()
    actor = Actor(Job(str(own)), Handle(Ledger()), get=lambda found: found)
    said = actor({"number": [0, 1], "given": [b"a", b"b"], "path": [b"/a", b"/b"]})
    assert said["row"] == ["", ""]
    assert all("tokenizer.json" in why for why in said["refused"])
