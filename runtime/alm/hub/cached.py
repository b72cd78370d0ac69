"""Models of the hub on this machine, in huggingface_hub's cache for files of other libraries.

    HF_HOME/assets/alm-edge/org--name/refs/main         commit and manifest that a revision was
                                     /manifests/KEY/    manifest.json as the hub has it
                                     /models/KEY/       a folder as export.py writes it

KEY is the sha256 of the manifest: a commit that changes only the card fetches nothing. The hub's
own cache has links in the place of files, and a folder with a link in it is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from alm.artifacts import manifest as manifests
from alm.errors import AlmError, BadArtifacts, BadOption
from alm.host import atomic
from alm.hub import fetching
from alm.hub.client import Client
from alm.hub.failures import Unreachable
from alm.hub.names import COMMIT, Repo
from alm.hub.progress import tell

KEY = re.compile("[0-9a-f]{64}")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Version:
    """What a revision was when the hub was asked."""

    commit: str
    key: str


def folder(repo: Repo, manifest_only: bool = False, say: Say = tell) -> Path:
    """The cached folder of a model, fetched where it is not whole; see `local.folder`."""
    client = Client(repo)
    version = _version(client, say)
    if manifest_only:
        return _listing(client, version)
    place = client.cache("models", version.key)
    if not fetching.whole(place):
        _fetch(client, version, place, say)
    return place


def pull(repo: Repo, place: Path | None, say: Say = tell) -> Path:
    """Fetch a model into `place`, or the cache; every file that is there is held against its hash.

    Raises:
        BadOption: `place` holds files and is no folder of a model.
        Others: see `local.folder`.
    """
    if place is not None:
        _check_place(place)
    client = Client(repo)
    version = _version(client, say)
    into = client.cache("models", version.key) if place is None else place
    _fetch(client, version, into, say)
    return into


def _check_place(place: Path) -> None:
    try:
        inside = {path.name for path in place.iterdir()} if place.exists() else set()
    except OSError as error:
        raise BadOption(f"{place} is no folder to pull to: {error.strerror or error}") from error
    if inside and inside.isdisjoint((manifests.NAME, fetching.WORK)):
        raise BadOption(f"{place} holds other files; name a new folder, or that of a model")


def _fetch(client: Client, version: Version, place: Path, say: Say) -> None:
    near = client.cache("models", version.key)
    fetching.fetch(client, version.commit, _listing(client, version), place, near, say)


def _version(client: Client, say: Say) -> Version:
    """The version that is meant, its manifest cached: asked of the hub where that can be.

    A commit that was asked about before is not asked about again. Where the hub does not answer,
    the version that it named last is taken, and a note says so.
    """
    known = _known(client)
    if known and (client.repo.pinned or client.offline):
        return known
    try:
        commit, size = client.head(manifests.NAME)
        if known and known.commit == commit:
            return known
        return _learnt(client, commit, size)
    except Unreachable as error:
        if known is None:
            raise
        say(f"note: {error}; meanwhile commit {known.commit[:12]} is taken, which is cached")
        return known


def _learnt(client: Client, commit: str, size: int | None) -> Version:
    """Fetch the manifest of a commit, check it, and remember both for the revision."""
    most = manifests.MOST_BYTES
    if size is not None and size > most:
        raise BadArtifacts(
            f"{manifests.NAME} of {client.repo} has {size} bytes, too many for a manifest"
        )
    if not COMMIT.fullmatch(commit):
        raise BadArtifacts(f"{client.endpoint} names {commit!r:.80} as a commit of {client.repo}")
    content = client.read(manifests.NAME, commit, most)
    version = Version(commit, hashlib.sha256(content).hexdigest())
    place = client.cache("manifests", version.key)
    atomic.write(place, manifests.NAME, content)
    try:
        fetching.wanted(manifests.load(place), client.repo)
    except AlmError as error:
        (place / manifests.NAME).unlink(missing_ok=True)
        where = str(place / manifests.NAME)
        raise BadArtifacts(
            str(error).replace(where, f"{manifests.NAME} of {client.repo}")
        ) from error
    note = json.dumps({"commit": version.commit, "manifest": version.key}).encode()
    for name in {client.repo.revision, commit}:
        atomic.write(client.cache("refs"), _ref(name), note)
    return version


def _known(client: Client) -> Version | None:
    """What the revision was when the hub was last asked, where its manifest is still here."""
    try:
        plain = json.loads((client.cache("refs") / _ref(client.repo.revision)).read_bytes())
        version = Version(plain["commit"], plain["manifest"])
        right = COMMIT.fullmatch(version.commit) and KEY.fullmatch(version.key)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return version if right and (_listing(client, version) / manifests.NAME).is_file() else None


def _listing(client: Client, version: Version) -> Path:
    return client.cache("manifests", version.key)


def _ref(revision: str) -> str:
    return quote(revision, safe="")
