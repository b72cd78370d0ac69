"""Artifacts before they are loaded: inside their folder, as long as stated, and unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from alm.errors import BadArtifacts, MissingFile
from alm.host import archive, containment, user_cache
from alm.onnxfile.summary import GraphFile
from alm.parsing import File, check_name, printable

CHUNK = 2**20  # bytes hashed at a time
TICK = 50_000_000  # ns; within a clock's tick a file can change twice and keep its time
MOST_CACHED = 4096  # files whose hash is remembered
# {resolved path: [device, inode, size, mtime, ctime, sha256]}
HASHES = "sha256.json"
GRAPH = ".onnx"
DOMAINS = ("", "ai.onnx.ml", "com.microsoft")
EXECUTED = ("EPContext", "PythonOp", "PythonOpGrad")


def check_file(
    root: Path,
    name: str,
    size: int,
    digest: str,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """The contained file `name`, of `size` bytes and sha256 `digest` (hexadecimal).

    Raises MissingFile, or BadArtifacts with what was expected and what there is.
    """
    opened(root, File(name, size, digest), progress).close()
    return Path(root) / name


def opened(root: Path, file: File, progress: Callable[[int], None] | None = None) -> IO[bytes]:
    """The contained file, open at its beginning: what was hashed is what will be read.

    Raises MissingFile, or BadArtifacts with what was expected and what there is.
    """
    path = containment.contained(root, file.name)
    stream = _open(root, file.name, path)
    try:
        there = containment.size(root, file.name)
        if there != file.bytes:
            raise BadArtifacts(
                f"{file.name!r} in {root} has {there} bytes and the manifest says {file.bytes}; "
                "copy or export it again"
            )
        actual = _sha256(stream, path, progress)
        if actual != file.sha256.lower():
            raise BadArtifacts(
                f"{file.name!r} in {root} has sha256 {actual} and the manifest says "
                f"{file.sha256:.80}; copy or export it again"
            )
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return stream


def _open(root: Path, name: str, path: Path) -> IO[bytes]:
    if archive.is_one(root):
        return archive.section(root, name)
    try:
        return open(path, "rb", opener=_unfollowed)
    except FileNotFoundError:
        raise MissingFile(f"there is no {name!r} in {root}; copy or export it again") from None
    except OSError as error:
        raise BadArtifacts(f"{path} cannot be read: {error.strerror or error}") from None


def content(root: Path, file: File, most: int) -> bytes:
    """The bytes of a contained file, read once: they are what was hashed.

    Raises MissingFile, or BadArtifacts; a file of more than `most` bytes is not read.
    """
    if file.bytes > most:
        raise BadArtifacts(f"{file.name!r} has {file.bytes} bytes in the manifest, {most} at most")
    with opened(root, file) as stream:
        data = stream.read(file.bytes + 1)
    if hashlib.sha256(data).hexdigest() != file.sha256.lower():
        raise BadArtifacts(f"{file.name!r} in {root} changed while it was read; try again")
    return data


@contextlib.contextmanager
def unchanged(root: Path, files: Sequence[File]) -> Iterator[list[Path]]:
    """Paths of verified files for a backend that opens them itself, and nobody changed them since.

    ONNX Runtime and OpenVINO take the path of a graph and find its weights beside it; handing them
    bytes or /proc/self/fd would break that, or hold gigabytes twice. So the files are looked at
    again when the block ends, when all has been read: whoever wrote to one or exchanged it, also if
    he put the old one back, has changed its time of change (ctime), which no program can set. What
    is left open: a folder that is exchanged as a whole and put back within the block, by someone
    who may write to the folder above it.

    Raises MissingFile, BadArtifacts: before, as `check_file`; after, a file that was changed.
    """
    paths: list[Path] = []
    keys: list[list[int]] = []
    for file in files:
        with opened(root, file) as stream:
            paths.append(Path(root) / file.name)
            keys.append(archive.key(os.fstat(stream.fileno())))
    yield paths
    for file, path, key in zip(files, paths, keys, strict=True):
        whole = root if archive.is_one(root) else containment.contained(root, file.name)
        if archive.key(whole.stat()) != key:
            raise BadArtifacts(f"{path} changed while it was opened; nothing of it is used")


def check_graph(root: Path, graph: GraphFile, graph_name: str, listed: Collection[str]) -> None:
    """Refuse a graph that a backend must not be given: see `check_operators`, `check_external`."""
    if not graph_name.endswith(GRAPH):  # by other endings ONNX Runtime reads other formats
        raise BadArtifacts(
            f"{graph_name!r:.200} in {root} is refused: a graph's name ends in .onnx"
        )
    check_operators(root, graph, graph_name)
    check_external(root, graph, graph_name, listed)


def check_operators(root: Path, graph: GraphFile, graph_name: str) -> None:
    """Refuse, with BadArtifacts, a graph with operators that are code from outside.

    An EPContext node holds, or names a file with, an engine that a provider executes unread. An
    operator of a domain that neither ONNX nor ONNX Runtime defines, nor a function of the graph
    itself, wants a library of its own. Nodes of subgraphs and functions are looked at too.
    """
    for name in sorted(graph.nodes):
        domain, _, kind = name.rpartition("::")
        if kind in EXECUTED:
            why = "it holds a compiled engine, which cannot be looked into"
        elif domain not in DOMAINS and name not in graph.functions:
            why = "it needs a library of operators, and none is loaded"
        else:
            continue
        raise BadArtifacts(
            f"{graph_name!r} in {root} is refused for its operator {printable(name, 100)}: {why}; "
            "export it again"
        )


def check_external(root: Path, graph: GraphFile, graph_name: str, listed: Collection[str]) -> None:
    """Refuse a graph whose tensors lie in a file that is not its own.

    `graph_name` is the graph's name below `root`, `listed` are the names, below `root` too, that
    the manifest gives for its part. Each location is relative to the graph's folder; it must be
    listed and contained, and long enough. Raises MissingFile or BadArtifacts.
    """
    folder = PurePosixPath(graph_name).parent
    sizes: dict[str, int] = {}
    for tensor in sorted(graph.tensors):
        location = tensor.location
        if location not in sizes:
            check_name(location)  # before it is joined: "a/../../b" must not become "../b"
            name = str(folder / location)
            if name not in listed:
                raise BadArtifacts(
                    f"{graph_name!r} in {root} keeps weights in {name!r}, which the manifest does "
                    "not list for this part"
                )
            sizes[location] = containment.size(root, name)
        end = tensor.offset + tensor.length
        if end > sizes[location]:
            raise BadArtifacts(
                f"{graph_name!r} in {root} wants bytes {tensor.offset} to {end} of {location!r}, "
                f"which has {sizes[location]}; copy or export it again"
            )


def sha256(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """The file's sha256 in hexadecimal, remembered for as long as the file does not change.

    `progress` is called with the number of bytes done since its last call: all of them at once
    when the answer was remembered. Raises MissingFile, or BadArtifacts when it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return _sha256(file, path, progress)
    except FileNotFoundError:
        raise MissingFile(f"there is no file {path}") from None
    except OSError as error:
        raise BadArtifacts(f"{path} cannot be read: {error.strerror or error}") from None


def _sha256(file: IO[bytes], path: Path, progress: Callable[[int], None] | None) -> str:
    """Of an open file: the one that was opened, whatever the path leads to by now."""
    try:
        now, before = time.time_ns(), os.fstat(file.fileno())
        key, place = archive.key(before), str(Path(path).resolve())
        remembered = user_cache.recall(HASHES).get(place)
        if isinstance(remembered, list) and remembered[:-1] == key:
            hexdigest = str(remembered[-1])
            if re.fullmatch("[0-9a-f]{64}", hexdigest):
                (progress or _quiet)(before.st_size)
                return hexdigest
        hexdigest = digest(file, progress)
        if archive.key(os.fstat(file.fileno())) != key:
            raise BadArtifacts(f"{path} changed while it was read; try again")
    except OSError as error:
        raise BadArtifacts(f"{path} cannot be read: {error.strerror or error}") from None
    if max(before.st_mtime_ns, before.st_ctime_ns) < now - TICK:
        user_cache.remember(HASHES, place, [*key, hexdigest], MOST_CACHED)
    return hexdigest


def _unfollowed(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def digest(file: IO[bytes], progress: Callable[[int], None] | None = None) -> str:
    """sha256, in hexadecimal, of what is left to read of an open file; nothing is remembered."""
    hasher = hashlib.sha256()
    while chunk := file.read(CHUNK):
        hasher.update(chunk)
        (progress or _quiet)(len(chunk))
    return hasher.hexdigest()


def _quiet(_: int) -> None:
    pass
