"""Which files are meant by paths, folders and patterns, and each of them once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from alm.batch.files import File, Mark, find, mark
from alm.errors import BadOption, MissingFile


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Audio and other things, in folders; the current one."""
    for name in ("b.wav", "a.WAV", "notes.txt", "in/c.flac", "in/deep/d.mp3", ".hidden.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "e.wav").touch()
    (tmp_path / "x.wav").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given(*words: str | Path) -> list[str]:
    return [file.given for file in find(map(str, words))]


def test_a_folder_is_read_to_its_bottom_in_order_audio_alone(folder: Path) -> None:
    assert given(".") == ["./a.WAV", "./b.wav", "./in/c.flac", "./in/deep/d.mp3"]
    assert given("in") == ["in/c.flac", "in/deep/d.mp3"]


def test_a_file_that_is_given_twice_under_any_name_is_there_once(folder: Path) -> None:
    found = find(["b.wav", "./b.wav", str(folder / "b.wav"), "in/../b.wav", "*.wav", "."])
    assert [file.given for file in found][0] == "b.wav"
    assert len({file.path for file in found}) == len(found) == 5
    assert found[0] == File("b.wav", str(folder.resolve() / "b.wav"))


def test_patterns_are_read_where_the_shell_did_not(folder: Path) -> None:
    assert given("*.wav") == ["b.wav", "x.wav"]
    assert given("**/*.mp3") == ["in/deep/d.mp3"]
    assert given("[ab].wav") == ["b.wav"]
    (folder / "[ab].wav").write_bytes(b"x")
    assert given("[ab].wav") == ["[ab].wav"]  # what is there is no pattern
    with pytest.raises(MissingFile, match=r"no file fits \*\.ogg"):
        find(["*.ogg"])


def test_a_path_that_is_given_is_kept_whatever_it_is(folder: Path) -> None:
    assert given("notes.txt", "none.wav", "x.wav") == ["notes.txt", "none.wav", "x.wav"]
    with pytest.raises(MissingFile, match="there is no file none.wav; wanted audio"):
        find(["none.wav"])
    with pytest.raises(MissingFile, match="there is no file n.wav, nor any other"):
        find(["n.wav", "m.wav"])
    (folder / "empty").mkdir()
    with pytest.raises(MissingFile, match="no audio in the folder empty; wanted files that end in"):
        find(["empty", "b.wav"])
    with pytest.raises(BadOption, match="stdin"):
        find(["-"])


def test_links_are_followed_and_no_circle_is_run_in(folder: Path, tmp_path: Path) -> None:
    (folder / "in" / "up").symlink_to(folder)
    (folder / "link.wav").symlink_to(folder / "b.wav")
    found = given("in")
    assert found[:2] == ["in/c.flac", "in/deep/d.mp3"]
    assert "in/up/b.wav" in found and len(found) == len(set(found)) < 10
    assert given("b.wav", "link.wav") == ["b.wav", "link.wav"]  # two names, two files


def test_a_folder_that_cannot_be_read_is_not_passed_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir  # root may read every folder, so the system's answer is stood in for

    def refused(path: Any = ".") -> Any:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(BadOption, match="deep cannot be read"):
        find(["in"])


def test_a_mark_tells_contents_apart_and_waits_for_no_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe.wav")
    assert mark("none.wav") == Mark()
    assert mark("pipe.wav").sha256 is None and mark("x.wav").sha256 is None
    assert mark("b.wav").sha256 == mark("a.WAV").sha256 != mark("notes.txt", read=False).sha256
    assert mark("b.wav", read=False).told == mark("b.wav").told
