"""A folder becomes an .alm file, and a folder again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from alm.artifacts import manifest as manifests
from alm.artifacts import verify
from alm.artifacts.manifest import Manifest
from alm.errors import AlmError, BadArtifacts, BadOption
from alm.host import archive, atomic, ziplayout
from alm.host.ziplayout import Layout, Member
from alm.packing import sbom, signing
from alm.parsing import File

CONTENTS, SIGNATURE = "contents.json", "signature.json"
SBOM, LICENCES = "sbom.cdx.json", "LICENCES.md"
OWN = (CONTENTS, SIGNATURE, SBOM, LICENCES)
CHUNK = 2**20
Say = Callable[[str], None]


@dataclass(frozen=True)
class Packed:
    """What was written."""

    file: Path
    bytes: int
    members: int
    sha256: str
    signer: str  # the fingerprint of the key; "" where it is not signed
    left_out: tuple[str, ...]  # engines, which are for one machine


@dataclass(frozen=True)
class Piece:
    """A member to be written: bytes that are there, or a file of the folder."""

    name: str
    data: bytes | None = None
    file: File | None = None

    @contextmanager
    def opened(self, folder: Path) -> Any:
        """What is to be written, open."""
        stream: IO[bytes] = io.BytesIO(self.data or b"")
        if self.file is not None:
            stream = verify.opened(folder, self.file)
        with stream:
            yield stream

    def member(self, folder: Path, say: Say) -> tuple[Member, str]:
        """Its place in a layout, without where it begins, and its sha256."""
        say(f"reading {self.name}")
        crc, size, digest = 0, 0, hashlib.sha256()
        with self.opened(folder) as stream:
            while chunk := stream.read(CHUNK):
                crc, size = zlib.crc32(chunk, crc), size + len(chunk)
                digest.update(chunk)
        return Member(self.name, size, crc), digest.hexdigest()


def pack(folder: Path, out: Path, key: Path | None, say: Say = lambda line: None) -> Packed:
    """Write `folder` as the file `out`, signed by the private key in `key` if there is one.

    The same folder and key give the same bytes. Engines are left out: they are for one machine.

    Raises:
        MissingFile, BadArtifacts: the folder is not whole, or `out` cannot be written.
        BadOption, MissingPackage: no key of Ed25519, or the package that signs is missing.
    """
    if archive.is_one(folder):
        raise BadOption(f"{folder} is packed already; alm unpack {folder} DIR makes a folder of it")
    if out.suffix != archive.SUFFIX:
        raise BadOption(f"{out} wants a name that ends in {archive.SUFFIX}")
    signer = None if key is None else signing.private(key)
    whole = manifests.load(folder)
    left_out = tuple(engine.file.name for engine in whole.engines)
    plain = whole.with_engines(())
    pieces = _pieces(plain)
    found = [piece.member(folder, say) for piece in pieces]
    listed = [File(m.name, m.bytes, digest) for m, digest in found]
    contents = _json({"format": "alm", "format_version": 1, "members": [vars(f) for f in listed]})
    pieces.append(Piece(CONTENTS, contents))
    if signer is not None:
        pieces.append(Piece(SIGNATURE, _json(signing.sign(signer, contents))))
    found += [piece.member(folder, say) for piece in pieces[len(found) :]]
    layout = ziplayout.compose([member for member, _ in found])
    digest = _write(folder, pieces, layout, out, say)
    name = "" if signer is None else signing.fingerprint(signer.public_key())
    return Packed(out, layout.bytes, len(pieces), digest, name, left_out)


def _pieces(manifest: Manifest) -> list[Piece]:
    """All members but the list of them and its signature: the manifest first."""
    text = json.dumps(manifest.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    files = {file.name: file for file in manifest.files()}
    clash = sorted({*files} & {*OWN, manifests.NAME})
    if clash:
        raise BadArtifacts(f"the manifest lists {clash[0]!r}, a name that an .alm file keeps")
    return [
        Piece(manifests.NAME, text.encode()),
        *(Piece(name, file=file) for name, file in files.items()),
        Piece(SBOM, _json(sbom.cyclonedx(manifest))),
        Piece(LICENCES, sbom.licences(manifest).encode()),
    ]


def _write(folder: Path, pieces: Sequence[Piece], layout: Layout, out: Path, say: Say) -> str:
    """Write beside, then rename; the sha256 of the whole."""
    digest, beside = hashlib.sha256(), out.with_name(f".{out.name}.{os.getpid()}.new")
    try:
        if shutil.disk_usage(out.absolute().parent).free < layout.bytes:
            raise BadArtifacts(f"there is no room for {layout.bytes} bytes where {out} is to lie")
        with open(beside, "xb") as file:

            def put(data: bytes) -> None:
                file.write(data)
                digest.update(data)

            for piece, member, header in zip(pieces, layout.members, layout.headers, strict=True):
                say(f"writing {piece.name}")
                put(header)
                crc = 0
                with piece.opened(folder) as stream:
                    while chunk := stream.read(CHUNK):
                        crc = zlib.crc32(chunk, crc)
                        put(chunk)
                if crc != member.crc:
                    raise BadArtifacts(f"{piece.name!r} changed while it was packed; try again")
            put(layout.tail)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, out)
    except OSError as error:
        if isinstance(error, AlmError):
            raise
        raise BadArtifacts(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        beside.unlink(missing_ok=True)
    return digest.hexdigest()


@dataclass(frozen=True)
class Verified:
    """What holds of an .alm file."""

    members: int
    signer: str  # the fingerprint of the key that signed it; "" where none did
    trusted: bool  # whether that is the key that was given


def check(file: Path, key: Path | None, say: Say = lambda line: None) -> Verified:
    """Hold every byte of an .alm file against its list, and the list against a public key.

    Raises:
        MissingFile, BadArtifacts: a byte was changed; the member is named. Or it is not signed by
            the key that was given.
        BadOption, MissingPackage: no public key of Ed25519, or the package that checks is missing.
    """
    public = None if key is None else signing.public(key)
    if not archive.is_one(file):
        raise BadArtifacts(f"there is no file {file}; alm pack DIR {file} writes one")
    members = {member.name: member for member in archive.layout(file).members}
    contents = _small(file, members, CONTENTS)
    try:
        listed = _listed(contents)
    except (AlmError, ValueError, RecursionError) as error:
        raise BadArtifacts(f"{CONTENTS!r} in {file} is misshapen: {error}") from error
    signature = _small(file, members, SIGNATURE) if SIGNATURE in members else b""
    signer = signing.signer(signature, file) if signature else ""
    if public is not None:
        if not signature:
            raise BadArtifacts(f"{file} is not signed; alm pack DIR FILE --sign KEY signs one")
        signing.check(public, contents, signature, file)
    others = {*members} - {*listed, CONTENTS, SIGNATURE}
    if others or {*listed} - {*members}:
        odd = sorted(others or {*listed} - {*members})[0]
        raise BadArtifacts(f"{file} does not hold what it lists: {odd!r}")
    for name, entry in listed.items():
        say(f"checking {name}")
        with archive.section(file, name) as stream:
            there = verify.digest(stream)
        if there != entry.sha256 or members[name].bytes != entry.bytes:
            raise BadArtifacts(f"{name!r} in {file} was changed: it has sha256 {there}")
    for entry in manifests.load(file).files():
        if listed.get(entry.name) != entry:
            raise BadArtifacts(f"{entry.name!r} in {file} is not the one of its manifest")
    for name in (CONTENTS, SIGNATURE):
        if name in members and _crc(file, name) != members[name].crc:
            raise BadArtifacts(f"{name!r} in {file} was changed")
    return Verified(len(members), signer, public is not None)


def unpack(file: Path, folder: Path, say: Say = lambda line: None) -> int:
    """Write an .alm file's members into a new folder; how many there are.

    Raises:
        MissingFile, BadArtifacts: it is no .alm file, was changed, or the folder is there already.
    """
    count = check(file, None, say).members
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadArtifacts(f"{folder} is there already; give a new or an empty one")
    beside = atomic.new_folder(folder.absolute())
    try:
        for name in archive.names(file):
            target = beside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.section(file, name) as stream, target.open("xb") as copy:
                shutil.copyfileobj(stream, copy, CHUNK)
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    except OSError as error:
        if isinstance(error, AlmError):
            raise
        raise BadArtifacts(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return count


def _listed(contents: bytes) -> dict[str, File]:
    """Members by name, as the list has them."""
    from alm.parsing import file as entry
    from alm.parsing import need, parse

    plain = parse(contents.decode("utf-8"))
    if need(plain, "format", str) != "alm" or need(plain, "format_version", int) != 1:
        raise BadArtifacts("it is of another format")
    return {f.name: f for f in (entry(each, CONTENTS) for each in need(plain, "members", list))}


def _small(file: Path, members: dict[str, Member], name: str) -> bytes:
    """The bytes of one of the members that an .alm file adds."""
    if name not in members or members[name].bytes > manifests.MOST_BYTES:
        raise BadArtifacts(f"{file} has no {name!r} that can be read")
    with archive.section(file, name) as stream:
        return stream.read()


def _crc(file: Path, name: str) -> int:
    crc = 0
    with archive.section(file, name) as stream:
        while chunk := stream.read(CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _json(plain: Any) -> bytes:
    return (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode()
