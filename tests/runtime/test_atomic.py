"""Files are written whole or not at all, in their own folder, whatever was prepared there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from alm.errors import BadArtifacts
from alm.host import atomic

POSIX = pytest.mark.skipif(os.name == "nt", reason="links and modes of POSIX")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_bytes(b"precious")
    return tmp_path / "root"


@pytest.fixture(params=[True, False], ids=["by-handle", "by-path"])
def way(request: pytest.FixtureRequest) -> bool:
    """How files are named: as on Linux, and as on Windows, whose system has no handles for that."""
    if request.param and not atomic.BY_HANDLE:
        pytest.skip("this system names no files relative to an open folder")
    return request.param


def test_a_file_is_written_whole_and_nothing_lies_beside_it(root: Path, way: bool) -> None:
    for content in (b"old", b"new and longer"):
        atomic.write(root, "sub/deep/a.bin", content, by_handle=way)
        assert (root / "sub/deep/a.bin").read_bytes() == content
        assert [path.name for path in (root / "sub/deep").iterdir()] == ["a.bin"]


def test_a_block_that_fails_leaves_the_old_file_alone(root: Path, way: bool) -> None:
    atomic.write(root, "a.bin", b"old", by_handle=way)
    with pytest.raises(ZeroDivisionError), atomic.replacing(root, "a.bin", by_handle=way) as file:
        file.write(b"half")
        print(1 // 0)
    assert {path.name: path.read_bytes() for path in root.iterdir()} == {"a.bin": b"old"}


@POSIX
def test_a_link_loses_its_place_and_the_file_behind_it_stays(root: Path, way: bool) -> None:
    (root / "a.bin").symlink_to(root.parent / "secret")
    atomic.write(root, "a.bin", b"new", by_handle=way)
    assert (root.parent / "secret").read_bytes() == b"precious"
    assert not (root / "a.bin").is_symlink() and (root / "a.bin").read_bytes() == b"new"


@POSIX
def test_no_folder_that_is_a_link_is_written_through(root: Path, way: bool) -> None:
    (root.parent / "other").mkdir()
    (root / "sub").symlink_to(root.parent / "other")
    (root / "file").touch()
    for name in ("sub/a.bin", "file/a.bin"):
        with pytest.raises(BadArtifacts, match="is a link or no folder"):
            atomic.write(root, name, b"new", by_handle=way)
    assert not list((root.parent / "other").iterdir())


@POSIX
def test_the_root_itself_may_be_a_link(root: Path, way: bool) -> None:
    (root.parent / "alias").symlink_to(root)
    atomic.write(root.parent / "alias", "a.bin", b"new", by_handle=way)
    assert (root / "a.bin").read_bytes() == b"new"


@POSIX
def test_what_is_no_file_is_left_alone(root: Path, way: bool) -> None:
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(BadArtifacts, match=f"{name} is not a regular file"):
            atomic.write(root, name, b"new", by_handle=way)
    assert sorted(path.name for path in root.iterdir()) == ["folder", "pipe"]


@pytest.mark.parametrize("name", ["", "..", "../secret", "/etc/passwd", "a\\b", "c:a", "a//b"])
def test_a_name_that_leads_outside_is_refused(root: Path, name: str) -> None:
    with pytest.raises(BadArtifacts, match="is refused"):
        atomic.write(root, name, b"new")
    assert not list(root.iterdir())


def test_a_place_that_is_not_there_is_one_sentence(root: Path, way: bool) -> None:
    with pytest.raises(BadArtifacts, match="cannot be written: No such file"):
        atomic.write(root / "none", "a.bin", b"new", by_handle=way)


@POSIX
def test_names_cannot_be_guessed_and_modes_follow_the_umask(root: Path) -> None:
    names = set()
    for private, mode in ((False, 0o666), (True, 0o600)):
        old = os.umask(0o022)
        try:
            with atomic.replacing(root, "a.bin", private):
                (new,) = atomic.leftovers(root / "a.bin")
                names.add(new.name)
        finally:
            os.umask(old)
        assert stat.S_IMODE((root / "a.bin").stat().st_mode) == mode & ~0o022
    assert len(names) == 2
    assert atomic.leftovers(root / "a.bin") == []


FULL = """
import resource, signal, sys
from pathlib import Path
from alm.host import atomic
from alm.errors import BadArtifacts
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    atomic.write(Path(sys.argv[1]), "a.bin", bytes(5000))
except BadArtifacts as error:
    print(error)
"""


@POSIX
def test_a_disk_without_room_is_one_sentence_and_leaves_nothing(root: Path) -> None:
    words = [sys.executable, "-c", FULL, str(root)]
    env = os.environ | {"PYTHONPATH": str(Path(atomic.__file__).parents[2])}
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.stdout.startswith(f"{root / 'a.bin'} cannot be written: ") and done.stderr == ""
    assert not list(root.iterdir())


def test_a_new_folder_is_one_of_its_own(root: Path) -> None:
    first, second = atomic.new_folder(root), atomic.new_folder(root)
    assert first != second and first.parent == root.parent
    assert sorted(atomic.leftovers(root)) == sorted([first, second])
