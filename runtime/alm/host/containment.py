"""A name out of a manifest or a graph becomes a path: below its folder, and through no link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from alm.errors import BadArtifacts, MissingFile
from alm.host import archive
from alm.parsing import check_name

# The environment's: 1 takes files with several hard links, which whoever made them must ask for.
HARD_LINKS = "ALM_HARD_LINKS"


def contained(root: Path, name: str) -> Path:
    """The regular file `name` below `root`, reached through no link of any kind.

    Where `root` is an .alm file it is a path inside, which no system opens; see `size`.

    Raises MissingFile when it is not there, BadArtifacts with the rule that it breaks. The root
    itself may be a link.
    """
    check_name(name)
    path = Path(root)
    if archive.is_one(path):
        return path / archive.find(path, name).member.name
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
    if status.st_nlink != 1 and os.environ.get(HARD_LINKS, "0") != "1":
        raise BadArtifacts(
            f"{name!r} in {root} is refused: it has {status.st_nlink} hard links and 1 was wanted; "
            f"copy the folder with plain files, or set {HARD_LINKS}=1 if the links are yours"
        )
    return path


def size(root: Path, name: str) -> int:
    """Bytes of the file `name` below `root`; raises as `contained`."""
    if archive.is_one(root):
        return archive.find(root, name).member.bytes
    return contained(root, name).stat().st_size
