"""Artifacts are taken from inside their folder only, and only as the manifest knows them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from alm.artifacts import verify
from alm.errors import BadArtifacts, MissingFile
from alm.host import containment
from alm.onnxfile.summary import External, GraphFile
from alm.parsing import check_name


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where hashes are remembered: nothing of the tester's own is touched."""
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sha256.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "a.onnx").write_bytes(b"graph")
    (tmp_path / "root" / "sub" / "b.data").write_bytes(b"weights")
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("//server/share", "absolute"),
        ("\\\\server\\share", "backslash"),
        ("sub\\b.data", "backslash"),
        ("C:/a", "colon"),
        ("c:a", "colon"),
        ("a.onnx:stream", "colon"),
        ("a\0b", "NUL"),
        ("..", "'..'"),
        ("../secret", "'..'"),
        ("sub/../a.onnx", "'..'"),
        (".", "'.'"),
        ("./a.onnx", "'.'"),
        ("sub/./b.data", "'.'"),
        ("sub//b.data", "empty"),
        ("sub/", "empty"),
    ],
)
def test_a_name_that_could_lead_outside_is_refused_with_its_rule(
    root: Path, name: str, rule: str
) -> None:
    for refuse in (check_name, lambda name: containment.contained(root, name)):
        with pytest.raises(BadArtifacts, match="is refused") as caught:
            refuse(name)
        assert rule in str(caught.value) and repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["a.onnx", "sub/b.data", "..a", "a..", "a b", "ä", "...", "-"])
def test_a_name_inside_is_fine(name: str) -> None:
    check_name(name)


def test_a_file_inside_is_found_also_when_the_root_is_a_link(root: Path) -> None:
    assert containment.contained(root, "sub/b.data") == root / "sub" / "b.data"
    link = root.parent / "link"
    link.symlink_to(root)
    assert containment.contained(link, "a.onnx").read_bytes() == b"graph"


def test_a_symbolic_link_is_refused_in_every_part(root: Path) -> None:
    (root / "link").symlink_to(root.parent / "secret")
    (root / "inside").symlink_to(root / "a.onnx")
    (root / "folder").symlink_to(root / "sub")
    (root / "nowhere").symlink_to(root / "none")
    for name in ("link", "inside", "folder/b.data", "nowhere"):
        with pytest.raises(BadArtifacts, match="symbolic link") as caught:
            containment.contained(root, name)
        assert repr(name) in str(caught.value)


def test_a_hard_link_is_refused(root: Path) -> None:
    os.link(root.parent / "secret", root / "hard")
    with pytest.raises(BadArtifacts, match="'hard' .* 2 hard links and 1 was wanted"):
        containment.contained(root, "hard")


def test_what_is_no_regular_file_is_refused(root: Path) -> None:
    with pytest.raises(BadArtifacts, match="not a regular file"):
        containment.contained(root, "sub")
    with pytest.raises(BadArtifacts, match="'a.onnx' is not a folder"):
        containment.contained(root, "a.onnx/b")
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "pipe")
        with pytest.raises(BadArtifacts, match="not a regular file"):
            containment.contained(root, "pipe")


def test_a_file_that_is_not_there_is_named_with_its_folder(root: Path) -> None:
    for name in ("none", "sub/none", "none/b"):
        with pytest.raises(MissingFile) as caught:
            containment.contained(root, name)
        assert repr(name) in str(caught.value) and str(root) in str(caught.value)


@pytest.mark.parametrize("name", ["a" * 5000, "a/" * 3000 + "a", "\ud800"], ids=["a", "b", "c"])
def test_a_name_that_no_file_can_have_is_refused(root: Path, name: str) -> None:
    with pytest.raises((BadArtifacts, MissingFile)):
        containment.contained(root, name)


def settle(path: Path) -> None:
    """Wait until the file's last change is old enough to be remembered."""
    while time.time_ns() - path.stat().st_ctime_ns <= 2 * verify.TICK:
        time.sleep(0.01)


def test_a_hash_is_made_once_and_again_after_a_change(root: Path, cache: Path) -> None:
    path = root / "big"
    path.write_bytes(bytes(3 * verify.CHUNK + 5))
    settle(path)
    calls: list[int] = []
    for _ in range(2):
        expected = hashlib.sha256(path.read_bytes()).hexdigest()
        assert verify.sha256(path, calls.append) == expected
    assert calls == [*[verify.CHUNK] * 3, 5, 3 * verify.CHUNK + 5]  # the second time at once
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"\1" + bytes(3 * verify.CHUNK + 4))  # as long, and as old as before
    os.utime(path, ns=times)
    assert verify.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert list(json.loads(cache.read_text())) == [str(path)]
    assert [p.name for p in cache.parent.iterdir()] == [cache.name]


def test_two_files_and_two_names_are_kept_apart(root: Path) -> None:
    settle(root / "a.onnx")
    for _ in range(2):
        assert verify.sha256(root / "a.onnx") == hashlib.sha256(b"graph").hexdigest()
        assert verify.sha256(root / "sub/b.data") == hashlib.sha256(b"weights").hexdigest()


def test_a_file_that_changed_this_instant_is_not_remembered(root: Path) -> None:
    path = root / "new"
    for content in (b"1", b"2", b"3"):  # within one tick of the clock
        path.write_bytes(content)
        assert verify.sha256(path) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", "null", "\ufeff", "[" * 100_000, '{"PATH": 3}', '{"PATH": []}',
     '{"PATH": [1, 2, 3, 4, 5, "x"]}'],
    ids=range(10),
)  # fmt: skip
def test_a_broken_cache_is_as_good_as_none(root: Path, cache: Path, content: str) -> None:
    path = root / "a.onnx"
    settle(path)
    cache.parent.mkdir()
    cache.write_text(content.replace("PATH", str(path)))
    assert verify.sha256(path) == hashlib.sha256(b"graph").hexdigest()
    assert json.loads(cache.read_text())[str(path)][-1] == verify.sha256(path)


def test_a_remembered_hash_that_is_no_hash_is_made_anew(root: Path, cache: Path) -> None:
    path = root / "a.onnx"
    settle(path)
    expected = verify.sha256(path)
    for broken in (None, "", "0" * 63, 5, [expected]):
        known = json.loads(cache.read_text())
        known[str(path)][-1] = broken
        cache.write_text(json.dumps(known))
        assert verify.sha256(path) == expected


def test_a_cache_that_cannot_be_written_only_costs_time(root: Path, cache: Path) -> None:
    settle(root / "a.onnx")
    cache.parent.write_text("a file where the folder should be")
    assert verify.sha256(root / "a.onnx") == hashlib.sha256(b"graph").hexdigest()
    cache.parent.unlink()
    cache.mkdir(parents=True)  # a folder where the file should be
    assert verify.sha256(root / "a.onnx") == hashlib.sha256(b"graph").hexdigest()
    assert list(cache.parent.iterdir()) == [cache]


def test_the_cache_lies_where_the_user_keeps_caches(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(root / "a.onnx")
    monkeypatch.delenv("ALM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    verify.sha256(root / "a.onnx")
    assert (tmp_path / "xdg" / "alm-edge" / "sha256.json").is_file()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    verify.sha256(root / "a.onnx")
    assert (tmp_path / "home" / ".cache" / "alm-edge" / "sha256.json").is_file()


def test_a_file_that_cannot_be_hashed_is_told(root: Path) -> None:
    with pytest.raises(MissingFile, match="there is no file"):
        verify.sha256(root / "none")
    with pytest.raises(BadArtifacts, match="cannot be read"):
        verify.sha256(root)


def test_a_file_is_checked_by_length_and_hash(root: Path) -> None:
    good = hashlib.sha256(b"weights").hexdigest()
    path = root / "sub" / "b.data"
    assert verify.check_file(root, "sub/b.data", 7, good) == path
    assert verify.check_file(root, "sub/b.data", 7, good.upper()) == path
    with pytest.raises(BadArtifacts, match="'sub/b.data' .* has 7 bytes and the manifest says 8"):
        verify.check_file(root, "sub/b.data", 8, good)
    with pytest.raises(BadArtifacts, match=f"has sha256 {good} and the manifest says 000"):
        verify.check_file(root, "sub/b.data", 7, "0" * 64)
    with pytest.raises(BadArtifacts, match="'..'"):
        verify.check_file(root, "../secret", 6, hashlib.sha256(b"secret").hexdigest())


def graph(*tensors: External) -> GraphFile:
    return GraphFile(Path("g.onnx"), tensors=frozenset(tensors))


def test_a_graph_may_use_the_listed_files_of_its_own_folder(root: Path) -> None:
    whole = graph(External("b.data", 0, 7), External("b.data", 7, 0), External("b.data", 3, 2))
    verify.check_external(root, whole, "sub/b.onnx", {"sub/b.onnx", "sub/b.data"})
    verify.check_external(root, graph(External("sub/b.data", 0, 7)), "a.onnx", ["sub/b.data"])
    verify.check_external(root, graph(), "a.onnx", set())


def test_a_graph_may_not_use_other_files(root: Path) -> None:
    with pytest.raises(BadArtifacts, match="'sub/b.data', which the manifest does not list"):
        verify.check_external(root, graph(External("b.data", 0, 7)), "sub/b.onnx", {"b.data"})
    for location in ("../a.onnx", "../../secret", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"):
        with pytest.raises(BadArtifacts):
            verify.check_external(root, graph(External(location, 0, 1)), "sub/b.onnx", {"a.onnx"})
    (root / "link").symlink_to(root.parent / "secret")
    with pytest.raises(BadArtifacts, match="symbolic link"):
        verify.check_external(root, graph(External("link", 0, 1)), "a.onnx", {"link"})
    with pytest.raises(MissingFile):
        verify.check_external(root, graph(External("none", 0, 1)), "a.onnx", {"none"})


@pytest.mark.parametrize(("offset", "length"), [(0, 8), (7, 1), (8, 0), (10**18, 10**18)])
def test_a_graph_may_not_read_past_the_end_of_a_file(root: Path, offset: int, length: int) -> None:
    said = f"wants bytes {offset} to {offset + length} of 'b.data', which has 7"
    with pytest.raises(BadArtifacts, match=said):
        external = graph(External("b.data", offset, length))
        verify.check_external(root, external, "sub/b.onnx", {"sub/b.data"})
