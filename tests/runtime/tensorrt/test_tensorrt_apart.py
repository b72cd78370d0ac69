"""A build that takes its process with it: what is said, what stays, and that memory goes back."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alm.artifacts import manifest
from alm.errors import BadArtifacts, BadOption
from alm.host.processor import memory
from alm.tensorrt import api, build, build_job
from alm.tensorrt.child_process import apart
from tests.runtime.tensorrt.built import RTX, quiet

SUBJECT = "building part decoder"
Say = Callable[[str], None]

on_posix = pytest.mark.skipif(os.name == "nt", reason="signals are told of by POSIX alone")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")


def told(work: Callable[..., Any], *words: Any, say: Say = quiet) -> Any:
    return apart(work, *words, say=say, subject=SUBJECT)


# --- what a child may do


def answer(left: int, right: int, say: Say) -> dict[str, int]:
    say("half")
    print("what a library prints is no word of ours")
    os.write(1, b"nor is what it writes past Python\n")
    say("whole")
    return {"sum": left + right, "process": os.getpid()}


def abort(say: Say) -> None:
    say("about to")
    os.write(2, b"noise\nterminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


def read_nowhere(say: Say) -> None:
    import ctypes

    ctypes.string_at(0)


def be_killed(say: Say) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(say: Say) -> None:
    os._exit(3)


def refuse(say: Say) -> None:
    raise BadOption("the cup is full; take a larger one")


def stumble(say: Say) -> None:
    raise MemoryError("no room\nfor this")


def hold(size: int, say: Say) -> int:
    held = bytearray(size)
    held[::4096] = b"x" * len(held[::4096])
    own = memory()["resident"] or 0
    return own


def eagerness(say: Say) -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


def test_the_answer_and_the_progress_come_through_and_prints_do_not(capfd: Any) -> None:
    words: list[str] = []
    found = told(answer, 2, 3, say=words.append)
    assert found["sum"] == 5 and found["process"] != os.getpid()
    assert words == ["half", "whole"]
    assert capfd.readouterr() == ("", "")


@on_posix
@pytest.mark.parametrize(
    "work, sentence",
    [
        (abort, "crashed (SIGABRT): terminate called after throwing .*'std::bad_alloc'"),
        (read_nowhere, "crashed (SIGSEGV)"),
        (be_killed, "was ended from outside, as the system does when memory runs out"),
        (leave, "crashed (exit status 3)"),
    ],
)
def test_a_child_that_ends_without_a_word_is_answered_with_one_sentence(
    work: Callable[..., Any], sentence: str
) -> None:
    pattern = sentence.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(BadArtifacts, match=f"^{SUBJECT} {pattern}$") as caught:
        told(work)
    assert "\n" not in str(caught.value)


def test_what_was_said_before_a_crash_was_heard() -> None:
    words: list[str] = []
    with pytest.raises(BadArtifacts):
        told(abort, say=words.append)
    assert words == ["about to"]


def test_an_error_of_ours_comes_back_as_it_was_raised_and_any_other_with_its_kind() -> None:
    with pytest.raises(BadOption, match="^the cup is full; take a larger one$") as ours:
        told(refuse)
    assert "in refuse" in str(ours.value.__cause__)  # where it happened, for --debug
    with pytest.raises(BadArtifacts, match=f"^{SUBJECT} failed: MemoryError: no room for this$"):
        told(stumble)


@on_linux
def test_what_a_child_took_goes_back_and_memorys_end_would_choose_the_child() -> None:
    size = 256 * 2**20
    before = memory()["resident"] or 0
    assert told(hold, size) > size
    assert (memory()["resident"] or 0) - before < size / 8
    assert told(eagerness) == 1000


# --- what stays of a build whose last part crashes


@pytest.mark.tensorrt
@on_linux
def test_a_part_that_is_killed_leaves_the_engines_before_it_and_nothing_half_written(
    own: Path,
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="it is optional: pip install tensorrt-rtx")
    settings = build.Settings(RTX, ("mel", "fbank"))
    ended: list[str] = []
    others = _children()  # a browser's driver, say, which other tests go on with

    def end_the_second(progress: str) -> None:
        if progress.startswith("[2/2]") and not ended:
            ended.append(progress)
            for child in _children() - others:
                os.kill(child, signal.SIGKILL)

    with pytest.raises(BadArtifacts, match="building part fbank was ended from outside"):
        build.build(own, settings, end_the_second, quiet)
    assert [engine.part for engine in manifest.load(own).engines] == ["mel"]
    assert [path.name for path in own.glob("*.engine")] == [f"mel.{RTX}.engine"]
    assert not list(own.glob(".*"))
    again = build.build(own, settings, quiet, quiet)
    assert [engine.part for engine in again] == ["mel", "fbank"]


def _children() -> set[int]:
    """The processes that this one started."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(each) for each in listed.split()}


@pytest.mark.tensorrt
def test_what_a_crash_left_half_written_is_removed(own: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="it is optional: pip install tensorrt-rtx")
    said = manifest.load(own)
    (job,) = build.jobs(own, said, build.Settings(RTX, ("mel",)))
    half = own / f".{job.target}.0123456789abcdef.new"
    half.write_bytes(b"half")
    missing = replace(job, part=replace(job.part, files=()))  # fails before it writes
    with pytest.raises(BadArtifacts):
        build_job.built(own, missing, api.maker(RTX), api.Limits(), quiet)
    assert not half.exists()
    assert json.loads((own / manifest.NAME).read_text())["parts"]
