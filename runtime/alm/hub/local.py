"""The one place in which what was given as a folder becomes a folder of this machine."""

from __future__ import annotations

from pathlib import Path

from alm.hub import names


def folder(given: str | Path, manifest_only: bool = False) -> Path:
    """The folder itself; of hub:org/name@revision the cached one, fetched where it is not whole.

    What is fetched is told on stderr. With `manifest_only` the folder need hold no more than its
    manifest, and no other file is fetched.

    Raises:
        BadOption: hub: and then no name of a model.
        MissingPackage: huggingface_hub is not installed.
        MissingFile, HubFailed: the model is not there, or the hub cannot be reached or refuses.
        BadArtifacts: the manifest is none, or a file is not what it says.
    """
    repo = names.on_hub(given)
    if repo is None:
        return Path(given)
    from alm.hub import cached  # the folders of this machine need none of it

    return cached.folder(repo, manifest_only)
