"""The folder for the artifacts: two exports at once, a full disk, one that may not be written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from alm.errors import BadArtifacts
from exporters.bundle import Bundle

FULL = """
import resource, signal, sys
from pathlib import Path
from exporters.bundle import Bundle
from alm.errors import BadArtifacts
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with Bundle(Path(sys.argv[1])) as bundle:
        (bundle.folder / "mel.onnx").write_bytes(bytes(5000))
except BadArtifacts as error:
    print(error)
"""


def test_two_exports_into_one_folder_are_one_and_a_sentence(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Bundle(out) as first:
        with pytest.raises(BadArtifacts, match="another export is writing"), Bundle(out):
            pass
        assert first.folder.is_dir()  # the second took nothing away
    with Bundle(out):
        pass
    assert not list(tmp_path.iterdir())  # and nothing is left of either


def test_what_a_killed_export_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".out.0123abcd.new"
    left.mkdir()
    with Bundle(tmp_path / "out"):
        assert not left.exists()


def test_a_full_disk_is_one_sentence_and_nothing_is_left(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "out"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
    )
    assert "there is no room for the artifacts" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that nobody may write, seen as somebody who is not root: root may write it."""
    root = os.geteuid() == 0
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    folder.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
        folder.rmdir()


def test_a_folder_that_may_not_be_written_is_one_sentence(read_only: Path) -> None:
    with pytest.raises(BadArtifacts, match="cannot be written"), Bundle(read_only / "out"):
        pass


def test_a_place_that_no_system_has_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadArtifacts, match="cannot be written"), Bundle(tmp_path / ("x" * 300)):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(BadArtifacts, match="cannot be written"), Bundle(tmp_path / "file" / "out"):
        pass


def test_a_fifo_is_no_folder_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(BadArtifacts, match="is no folder; --out wants a folder"):
        Bundle(tmp_path / "fifo")
