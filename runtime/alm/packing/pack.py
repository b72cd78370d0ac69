"""A folder becomes an .alm file."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import zlib
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from alm.artifacts import manifest as manifests
from alm.artifacts import verify
from alm.artifacts.manifest import Manifest
from alm.errors import BadArtifacts, BadOption, MissingFile
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
    _check_out(out)
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
    digest = hashlib.sha256()
    atomic.clear(out)
    atomic.check_room(out.absolute().parent, layout.bytes, out)
    with atomic.replacing_at(out) as file:

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
    return digest.hexdigest()


def _check_out(out: Path) -> None:
    """Refuse, before gigabytes are read, a file that cannot be written."""
    folder = out.absolute().parent
    try:
        with suppress(FileNotFoundError):
            if not (stat.S_ISREG(mode := out.lstat().st_mode) or stat.S_ISLNK(mode)):
                raise BadArtifacts(f"{out} is no regular file; it is left alone")
        if not os.access(folder.resolve(strict=True), os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileNotFoundError:
        raise MissingFile(f"there is no folder {folder} to write {out.name} to") from None
    except OSError as error:
        raise BadArtifacts(f"{out} cannot be written: {error.strerror or error}") from error


def _json(plain: Any) -> bytes:
    return (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode()
