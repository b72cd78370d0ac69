"""What a command was given as a folder: a folder, or a model on the hub, hub:org/name@revision."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from alm.errors import BadOption

PREFIX = "hub:"
MAIN = "main"
ID = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
REVISION = re.compile(r"\w[\w./+-]{0,254}", re.ASCII)  # a branch, a tag, a commit, refs/pr/1
COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Repo:
    """A repository of the hub, at a branch, a tag or a commit."""

    id: str
    revision: str = MAIN

    def __str__(self) -> str:
        return self.id if self.revision == MAIN else f"{self.id}@{self.revision}"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return COMMIT.fullmatch(self.revision) is not None


def repo(words: str) -> Repo:
    """The repository that org/name or org/name@revision names.

    Raises:
        BadOption: it is neither.
    """
    name, at, revision = words.partition("@")
    revision = revision if at else MAIN
    if not ID.fullmatch(name) or ".." in words or not REVISION.fullmatch(revision):
        raise BadOption(
            f"{words!r:.200} is no model of a hub; wanted org/name or org/name@revision"
        )
    return Repo(name, revision)


def on_hub(given: str | Path) -> Repo | None:
    """The repository that `given` names; None where it is a folder of this machine.

    Raises:
        BadOption: it begins with hub: and names none.
    """
    words = str(given)
    if not words.startswith(PREFIX):
        return None
    return repo(words.removeprefix(PREFIX).replace("\\", "/"))  # Windows' Path turns slashes


def title(given: str | Path) -> str:
    """What people call the model: the repository's name, or the folder's."""
    there = on_hub(given)
    return there.id.partition("/")[2] if there else Path(given).resolve().name
