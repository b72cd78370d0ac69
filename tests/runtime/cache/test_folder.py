"""A folder of arrays: what comes out is what went in, or nothing."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from alm.cache.folder import Folder, packed, unpacked

ARRAYS = {
    "embeds": np.arange(12, dtype=np.float32).reshape(3, 4),
    "half": np.ones((2, 0, 5), np.float16),
    "codes": np.arange(-4, 4, dtype=np.int8),
    "ids": np.array(7, np.int64),
}


def same(found: Mapping[str, np.ndarray] | None, wanted: Mapping[str, np.ndarray]) -> bool:
    return found is not None and [*found] == [*wanted] and all(
        (found[n].dtype, found[n].shape) == (a.dtype, a.shape) and (found[n] == a).all()
        for n, a in wanted.items()
    )  # fmt: skip


def test_arrays_come_back_under_their_kind_key_and_model_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a" / "b", b"model")
    folder.put("audio", b"key", ARRAYS)
    assert same(folder.get("audio", b"key"), ARRAYS)
    assert same(Folder(tmp_path / "a" / "b", b"model").get("audio", b"key"), ARRAYS)
    assert folder.get("prefix", b"key") is None and folder.get("audio", b"ke") is None
    for other in (b"modelk", b"model ", b""):
        assert Folder(folder.path, other).get("audio", b"key") is None
    assert Folder(folder.path, b"modelk").get("audio", b"ey") is None


def test_any_byte_that_changed_makes_it_nothing() -> None:
    content = packed(ARRAYS)
    assert same(unpacked(content), ARRAYS)
    for at in range(len(content)):
        assert unpacked(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]) is None
        assert unpacked(content[:at]) is None
    assert unpacked(content + b"\0") is None


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[]",
        b'{"a": 3}',
        b'{"a": ["object", [1]]}',
        b'{"a": ["float32", [-1]]}',
        b'{"a": ["float32", ["x"]]}',
        b'{"a": ["float32", [99999999999, 99999999999]]}',
        b'{"a": ["float32", [2]]}',
        b"{}",
        b"[" * 100_000,
    ],
)
def test_a_header_that_lies_is_nothing(header: bytes) -> None:
    """Whoever writes a file can write its digest."""
    import hashlib

    body = len(header).to_bytes(4, "little") + header + b"1234"
    assert unpacked(hashlib.sha256(body).digest() + body) is None


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    row = {"embeds": np.zeros(256, np.float32)}
    folder = Folder(tmp_path, b"", 3 * len(packed(row)))
    (tmp_path / "mine.alm").write_bytes(bytes(10_000))  # not ours to count or to remove
    for i, key in enumerate((b"a", b"b", b"c")):
        folder.put("audio", key, row)
        os.utime(tmp_path / folder._name("audio", key), (i, i))
    assert folder.get("audio", b"a")
    folder.put("audio", b"d", row)
    assert folder.get("audio", b"b") is None
    assert all(folder.get("audio", key) for key in (b"a", b"c", b"d"))
    folder.put("audio", b"e", {"embeds": np.zeros(2000, np.float32)})  # more than all
    assert folder.get("audio", b"e") is None and folder.get("audio", b"d")
    assert (tmp_path / "mine.alm").exists()


def test_a_link_in_a_files_place_is_not_followed(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "kept", b"")
    folder.put("audio", b"a", ARRAYS)
    place = folder.path / folder._name("audio", b"a")
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    assert folder.get("audio", b"a") is None
    place.unlink()
    os.mkfifo(place)
    assert folder.get("audio", b"a") is None


def test_a_folder_that_cannot_be_written_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(tmp_path / "kept", b"")
    folder.path.rmdir()
    folder.path.touch()
    with caplog.at_level(logging.WARNING, "alm"):
        for key in (b"a", b"b"):
            folder.put("audio", key, ARRAYS)
            assert folder.get("audio", key) is None
    assert len(caplog.messages) == 1 and "nothing more is kept in" in caplog.messages[0]
