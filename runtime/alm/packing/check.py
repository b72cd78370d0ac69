"""Whether an .alm file is the one that was packed, and whose."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alm.artifacts import manifest as manifests
from alm.artifacts import verify
from alm.errors import AlmError, BadArtifacts
from alm.host import archive
from alm.host.ziplayout import Member
from alm.packing import signing
from alm.packing.pack import CONTENTS, SIGNATURE, Say
from alm.parsing import File, need, parse
from alm.parsing import file as file_of


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
    if os.path.isdir(file):
        raise BadArtifacts(f"{file} is a folder; alm pack {file} FILE.alm makes one file of it")
    with archive.unchanged(file):
        return _check(file, public, say)


def _check(file: Path, public: Any, say: Say) -> Verified:
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
    for name, data in ((CONTENTS, contents), (SIGNATURE, signature)):
        if name in members and zlib.crc32(data) != members[name].crc:
            raise BadArtifacts(f"{name!r} in {file} was changed")
    return Verified(len(members), signer, public is not None)


def _listed(contents: bytes) -> dict[str, File]:
    """Members by name, as the list has them."""
    plain = parse(contents.decode("utf-8"))
    if need(plain, "format", str) != "alm" or need(plain, "format_version", int) != 1:
        raise BadArtifacts("it is of another format")
    return {f.name: f for f in (file_of(each, CONTENTS) for each in need(plain, "members", list))}


def _small(file: Path, members: dict[str, Member], name: str) -> bytes:
    """The bytes of one of the members that an .alm file adds."""
    if name not in members or members[name].bytes > manifests.MOST_BYTES:
        raise BadArtifacts(f"{file} has no {name!r} that can be read")
    return archive.content(file, name)
