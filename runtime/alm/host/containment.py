"""A name out of a manifest or a graph becomes a path: below its folder, and through no link."""

from __future__ import annotations

import stat
from pathlib import Path

from alm.errors import BadArtifacts, MissingFile
from alm.parsing import check_name


def contained(root: Path, name: str) -> Path:
    """The regular file `name` below `root`, reached through no link of any kind.

    Raises MissingFile when it is not there, BadArtifacts with the rule that it breaks. The root
    itself may be a link.
    """
    check_name(name)
    path = Path(root)
    status = None
    for part in name.split("/"):
        if status is not None and not stat.S_ISDIR(status.st_mode):
            raise BadArtifacts(f"{name!r} in {root} is refused: {path.name!r} is not a folder")
        path = path / part
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            raise MissingFile(f"there is no {name!r} in {root}; copy or export it again") from None
        except (OSError, ValueError) as error:  # no permission, too long, not encodable
            why = getattr(error, "strerror", None) or "no name of a file"
            raise BadArtifacts(f"{name[:200]!r} in {root} cannot be looked at: {why}") from None
        if stat.S_ISLNK(status.st_mode):
            raise BadArtifacts(f"{name!r} in {root} is refused: {part!r} is a symbolic link")
    assert status is not None  # a name has at least one part
    if not stat.S_ISREG(status.st_mode):
        raise BadArtifacts(f"{name!r} in {root} is refused: it is not a regular file")
    if status.st_nlink != 1:
        raise BadArtifacts(
            f"{name!r} in {root} is refused: it has {status.st_nlink} hard links and 1 was wanted; "
            "copy the folder with plain files"
        )
    return path
