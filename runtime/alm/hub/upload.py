"""A folder to the hub: its listed files, its manifest and a card, in one commit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alm.artifacts import manifest as manifests
from alm.artifacts import verify
from alm.artifacts.manifest import Manifest
from alm.errors import BadArtifacts
from alm.host import archive
from alm.hub import card, fetching
from alm.hub.client import Client
from alm.hub.names import Repo
from alm.hub.progress import megabytes, tell
from alm.version import __version__

CARD = "README.md"
PLAIN = card.Said()


@dataclass(frozen=True)
class Parcel:
    """What goes up: names in the repository, each with a path here or its bytes."""

    manifest: Manifest
    files: dict[str, Path | bytes]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(
            len(f) if isinstance(f, bytes) else f.stat().st_size for f in self.files.values()
        )


def packed(
    folder: Path,
    repo: Repo,
    said: card.Said = PLAIN,
    with_card: bool = True,
    say: Callable[[str], None] = tell,
) -> Parcel:
    """Check every listed file of a folder against its hash, and write the card.

    Engines of TensorRT stay here, and the manifest goes up without them: nobody but the machine
    that built them could use them, or should.

    Raises:
        MissingFile, BadArtifacts: a file is not there, or is not what the manifest says.
        BadOption: it is one file, an .alm.
    """
    archive.only_folder(folder, "the hub holds a folder's files")
    manifest = manifests.load(folder)
    content = (folder / manifests.NAME).read_bytes()
    if manifest.engines:
        kept = ", ".join(engine.file.name for engine in manifest.engines)
        say(f"note: TensorRT's engines stay here, they are built where they run: {kept}")
        manifest = manifest.with_engines(())
        content = (json.dumps(manifest.to_json(), indent=1, ensure_ascii=False) + "\n").encode()
    files: dict[str, Path | bytes] = {}
    for file in fetching.wanted(manifest, repo):
        if file.name == CARD:
            raise BadArtifacts(f"{folder} lists {CARD}, which is the card's place on a hub")
        files[file.name] = verify.check_file(folder, file.name, file.bytes, file.sha256)
    files[manifests.NAME] = content
    if with_card:
        files[CARD] = card.text(manifest, repo, said).encode()
    return Parcel(manifest, files)


def push(
    parcel: Parcel, repo: Repo, private: bool = False, say: Callable[[str], None] = tell
) -> str:
    """Upload it, into a new repository or branch if there is none; the URL of the commit.

    Raises:
        MissingPackage, HubFailed, MissingFile: see `Client`.
    """
    message = f"{parcel.manifest.family} by alm-edge {__version__}, {megabytes(parcel.bytes)}"
    return Client(repo).push(parcel.files, private, message, say)
