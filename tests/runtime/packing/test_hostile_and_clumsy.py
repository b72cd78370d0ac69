"""Packed files among people: full disks, interruptions, links, odd names, files exchanged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

import alm
from alm.artifacts import manifest as manifests
from alm.cli import alm_commands, exit_status
from alm.errors import AlmError, BadArtifacts
from alm.host import archive, atomic, ziplayout
from alm.host.ziplayout import Member
from alm.packing import check, pack, signing, unpack
from tests import ROOT

LAMP = ROOT / "demo" / "lamp.wav"
POSIX = pytest.mark.skipif(os.name != "posix", reason="links, limits and names as POSIX has them")
ALM = "import sys; from alm.cli.alm_commands import main; sys.exit(main())"


@pytest.fixture(scope="module")
def packed(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as one file. Never to be changed."""
    file = tmp_path_factory.mktemp("packed") / "tiny.alm"
    pack.pack(artifacts, file, None)
    return file


def command(*words: str | Path, shell: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """A command of alm in a process of its own, behind what a shell does first."""
    line = f'{shell}\nexec "$@"'
    python = (sys.executable, "-c", ALM, *map(str, words))
    env = os.environ | {"PYTHONPATH": str(ROOT / "runtime")} | more
    return subprocess.run(
        ["bash", "-c", line, "bash", *python],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env=env,
        timeout=120,
    )


def last(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().splitlines()[-1]


def beside(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_places_that_cannot_be_written_are_seen_before_a_file_is_read(
    artifacts: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    (tmp_path / "folder.alm").mkdir()
    for out, says in (
        (tmp_path / "folder.alm", "is no regular file"),
        (tmp_path / "no" / "x.alm", "there is no folder"),
        (tmp_path / f"{'x' * 300}.alm", "File name too long"),
    ):
        with pytest.raises(AlmError, match=says):
            pack.pack(artifacts, out, None, told.append)
    assert told == []


@POSIX
def test_a_full_disk_and_a_limit_leave_nothing_behind(
    artifacts: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (("pack", artifacts, "x.alm"), ("unpack", packed, "x")):
        done = command(*words, shell=f"cd {tmp_path}; ulimit -f 100")
        assert (done.returncode, last(done)) == (
            1,
            f"error: {words[2]} cannot be written: File too large",
        )  # noqa: E501
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))  # pyright: ignore
    for work in (
        lambda: pack.pack(artifacts, tmp_path / "x.alm", None),
        lambda: unpack.unpack(packed, tmp_path / "x"),
    ):
        with pytest.raises(BadArtifacts, match="there is room for 0"):
            work()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing_behind_and_what_was_there(
    artifacts: Path, packed: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copyfile(packed, tmp_path / "x.alm"))

    def interrupt(line: str) -> None:
        if line.startswith(("writing embed", "checking embed")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack.pack(artifacts, out, None, interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpack.unpack(packed, tmp_path / "y", interrupt)
    assert out.read_bytes() == packed.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["x.alm"]


def test_what_a_killed_run_left_goes_later_and_what_another_is_writing_stays(
    artifacts: Path, packed: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / ".x.alm.00.new", tmp_path / ".x.alm.11.new"
    folder = tmp_path / ".y.22.new"
    folder.mkdir()
    for path in (old, new, folder / "weights"):
        path.write_bytes(b"half")
    past = time.time() - 2 * atomic.STALE
    for path in (old, folder / "weights", folder):
        os.utime(path, (past, past))
    pack.pack(artifacts, tmp_path / "x.alm", None)
    unpack.unpack(packed, tmp_path / "y")
    assert beside(tmp_path) == [new.name]


def test_two_runs_into_one_place_end_in_one_whole(
    artifacts: Path, packed: Path, tmp_path: Path
) -> None:
    """One begins while the other is half-way."""
    inner: list[str] = []

    def meanwhile(line: str) -> None:
        if line == "writing embed.npy" and not inner:
            inner.append(line)
            pack.pack(artifacts, tmp_path / "x.alm", None)

    pack.pack(artifacts, tmp_path / "x.alm", None, meanwhile)
    assert inner and (tmp_path / "x.alm").read_bytes() == packed.read_bytes()

    def unpacked(line: str) -> None:
        if line == "checking embed.npy" and not (tmp_path / "y").exists():
            unpack.unpack(packed, tmp_path / "y")

    with pytest.raises(BadArtifacts, match="y cannot be written"):
        unpack.unpack(packed, tmp_path / "y", unpacked)
    assert manifests.load(tmp_path / "y") == manifests.load(packed)
    assert beside(tmp_path) == []


def test_a_file_that_is_exchanged_while_it_is_unpacked_is_not_taken(
    packed: Path, tmp_path: Path
) -> None:
    file = Path(shutil.copyfile(packed, tmp_path / "x.alm"))

    def exchange(line: str) -> None:
        if line == "checking embed.npy":
            os.replace(shutil.copyfile(packed, tmp_path / "other"), file)

    with pytest.raises(BadArtifacts, match="changed while it was read"):
        unpack.unpack(file, tmp_path / "y", exchange)
    assert [path.name for path in tmp_path.iterdir()] == ["x.alm"]


def test_an_empty_folder_is_filled_where_it_stands(packed: Path, tmp_path: Path) -> None:
    """Whoever types `alm unpack model.alm .` stands in it."""
    done = command("unpack", packed, ".", shell=f"cd {tmp_path}")
    assert done.returncode == 0 and done.stdout.startswith(".: ")
    assert manifests.load(tmp_path) == manifests.load(packed) and beside(tmp_path) == []


@POSIX
def test_links_and_names_are_taken_or_refused_in_one_sentence(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "link.alm").symlink_to(packed)
    odd = Path(shutil.copyfile(packed, tmp_path / "a b ü\nc.alm"))
    for path in (tmp_path / "sub" / "link.alm", odd):
        assert alm.load(path, provider="cpu").generate(LAMP, "transcribe").token_ids
    wild = tmp_path / os.fsdecode(b"\xff.alm")
    shutil.copyfile(packed, wild)
    with pytest.raises(BadArtifacts, match="name that is not UTF-8; rename it"):
        alm.load(wild, provider="cpu")
    done = command("verify", wild)
    assert done.returncode == 0 and "unexpected" not in done.stderr
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = command("verify", odd, **ascii_only)
    assert done.returncode == 0 and "ü" in done.stdout


@POSIX
def test_stdout_may_be_closed_full_or_leave(packed: Path, tmp_path: Path) -> None:
    assert command("verify", packed, shell="exec >&-").returncode == 0
    assert command("verify", packed, shell="exec <&- >&- 2>&-").returncode == 0
    if Path("/dev/full").exists():
        done = command("verify", packed, shell="exec >/dev/full")
        assert (done.returncode, last(done)) == (
            1,
            "error: stdout cannot be written: No space left on device",
        )
    bare = command("inspect", packed, HOME="", ALM_CACHE="", XDG_CACHE_HOME=str(tmp_path / "x"))
    assert bare.returncode == 0


def test_ctrl_c_is_one_sentence(
    packed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(archive, "unchanged", interrupted)
    assert exit_status.run(alm_commands.app, ["verify", str(packed)]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_hashes_in_capitals_are_the_same_hashes(artifacts: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifacts, tmp_path / "copy"))
    plain = json.loads((folder / manifests.NAME).read_text("utf-8"))
    file = plain["parts"][0]["files"][0]
    file["sha256"] = file["sha256"].upper()
    (folder / manifests.NAME).write_text(json.dumps(plain), "utf-8")
    pack.pack(folder, tmp_path / "x.alm", None)
    assert check.check(tmp_path / "x.alm", None).members


def test_a_key_that_is_no_fingerprint_reaches_no_terminal(packed: Path, tmp_path: Path) -> None:
    said = {"algorithm": signing.ALGORITHM, "key": "\x1b[31m" * 9, "signature": "AA=="}
    pieces = [(name, archive.content(packed, name)) for name in archive.names(packed)]
    pieces.append((pack.SIGNATURE, json.dumps(said).encode()))
    layout = ziplayout.compose([Member(n, len(d), zlib.crc32(d)) for n, d in pieces])
    bodies = (header + data for header, (_, data) in zip(layout.headers, pieces, strict=True))
    (tmp_path / "x.alm").write_bytes(b"".join(bodies) + layout.tail)
    with pytest.raises(BadArtifacts, match="which is no key"):
        check.check(tmp_path / "x.alm", None)


def test_a_folder_is_no_packed_file(artifacts: Path) -> None:
    with pytest.raises(BadArtifacts, match="is a folder; alm pack"):
        check.check(artifacts, None)
