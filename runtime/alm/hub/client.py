"""The hub through huggingface_hub: its endpoint, token, proxies and cache are that library's.

Files come over plain HTTP and not by the library's own download, whose part of a file is lost when
the process is killed and which takes whatever a server sends: here no more bytes are taken than
were listed, and what has come of a file is gone on with.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from alm.errors import BadArtifacts, HubFailed, MissingPackage
from alm.hub.failures import told
from alm.hub.names import Repo
from alm.parsing import File
from alm.version import __version__

LIBRARY = "alm-edge"
AT_ONCE = 500  # paths asked about in one request
Count = Callable[[int], None]


@dataclass(frozen=True)
class Entry:
    """A file as the hub lists it; its sha256 is known of large ones (LFS) alone."""

    bytes: int
    sha256: str = ""


class Taken:
    """A file that http_get writes to, which takes no more bytes than `most`."""

    def __init__(self, file: IO[bytes], most: int, count: Count) -> None:
        self._file, self._most, self._count = file, most, count

    def write(self, chunk: bytes) -> int:
        """Raises TooMuch instead of writing past the end."""
        if self._file.tell() + len(chunk) > self._most:
            raise TooMuch
        self._count(len(chunk))
        return self._file.write(chunk)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class TooMuch(Exception):
    """More bytes came than were listed."""


class Client:
    """One repository of the hub."""

    def __init__(self, repo: Repo) -> None:
        """Raises MissingPackage where huggingface_hub is not installed."""
        self.repo = repo
        self._hf = _library()
        self.endpoint: str = self._hf.constants.ENDPOINT

    @property
    def offline(self) -> bool:
        """Whether the user forbids the network (HF_HUB_OFFLINE)."""
        return bool(self._hf.constants.HF_HUB_OFFLINE)

    def cache(self, *names: str) -> Path:
        """A folder below huggingface_hub's cache for files of other libraries, made if missing."""
        with told(self.repo, self.endpoint):
            place = self._hf.cached_assets_path(LIBRARY, self.repo.id, names[0]).joinpath(
                *names[1:]
            )
            place.mkdir(parents=True, exist_ok=True)
        return place

    def lock(self, place: Path) -> Any:
        """A context in which one process at a time is for a folder; the others wait.

        The file is in the cache: nothing of it is left in the folder or beside it.
        """
        name = hashlib.sha256(os.fsencode(place.resolve())).hexdigest()
        return self._hf.utils.WeakFileLock(self.cache("locks") / f"{name}.lock")

    def head(self, name: str) -> tuple[str, int | None]:
        """The commit that the revision is, and the bytes of a file there."""
        with told(self.repo, self.endpoint):
            found = self._hf.get_hf_file_metadata(
                self._url(name, self.repo.revision), headers=HEADERS
            )
            if not found.commit_hash:
                raise HubFailed(f"{self.endpoint} is no hub: its answer names no commit")
        return found.commit_hash, found.size

    def entries(self, names: Sequence[str], commit: str) -> Mapping[str, Entry]:
        """Those of the named files that are there, with their sizes; nothing is fetched."""
        found: dict[str, Entry] = {}
        api = self._hf.HfApi()
        with told(self.repo, self.endpoint):
            for start in range(0, len(names), AT_ONCE):
                asked = list(names[start : start + AT_ONCE])
                for path in api.get_paths_info(self.repo.id, asked, revision=commit):
                    if hasattr(path, "size"):  # no folder
                        large = getattr(path, "lfs", None)
                        found[path.path] = Entry(path.size, large.sha256 if large else "")
        return found

    def read(self, name: str, commit: str, most: int) -> bytes:
        """The bytes of a small file.

        Raises BadArtifacts where it has more than `most`.
        """
        held = BytesIO()
        self._get(name, commit, held, None, most, lambda _: None)
        return held.getvalue()

    def fetch(self, file: File, commit: str, into: IO[bytes], count: Count) -> None:
        """Write the rest of a file behind what `into`, open at its end, has of it.

        Raises BadArtifacts where more comes than was listed.
        """
        self._get(file.name, commit, into, file.bytes, file.bytes, count)

    def push(
        self,
        files: Mapping[str, Path | bytes],
        private: bool,
        message: str,
        say: Callable[[str], None],
    ) -> str:
        """Upload files as one commit, into a new repository if there is none; the commit's URL.

        Raises HubFailed where it is to be private and there is a public one.
        """
        if self.offline:
            raise HubFailed(
                f"HF_HUB_OFFLINE forbids to upload {self.repo}; unset it for this command"
            )
        api = self._hf.HfApi(library_name=LIBRARY, library_version=__version__)
        with told(self.repo, self.endpoint):
            api.create_repo(self.repo.id, private=True if private else None, exist_ok=True)
            if private and not api.model_info(self.repo.id).private:
                raise HubFailed(
                    f"{self.repo.id} is there already and public, and --private was asked for; "
                    "nothing was uploaded"
                )
            if self.repo != Repo(self.repo.id):
                api.create_branch(self.repo.id, branch=self.repo.revision, exist_ok=True)
            add = self._hf.CommitOperationAdd
            operations = [
                add(name, content if isinstance(content, bytes) else str(content))
                for name, content in files.items()
            ]
            say(f"{self.repo}: {len(files)} files to {self.endpoint}, but for those it holds")
            done = api.create_commit(
                self.repo.id, operations, commit_message=message, revision=self.repo.revision
            )
        return str(done.commit_url)

    def _url(self, name: str, revision: str) -> str:
        return self._hf.hf_hub_url(self.repo.id, name, revision=revision)

    def _get(
        self, name: str, commit: str, into: IO[bytes], size: int | None, most: int, count: Count
    ) -> None:
        taken = cast(BinaryIO, Taken(into, most, count))
        resumed = into.tell()
        with told(self.repo, self.endpoint):
            headers = self._hf.utils.build_hf_headers(
                library_name=LIBRARY, library_version=__version__, headers=HEADERS
            )
            try:
                self._hf.file_download.http_get(
                    self._url(name, commit),
                    taken,
                    resume_size=resumed,
                    headers=headers,
                    expected_size=size,
                    displayed_filename=name,
                )
            except TooMuch:
                raise BadArtifacts(
                    f"{name!r} of {self.repo} is longer than {most} bytes; it is refused"
                ) from None


HEADERS = {"Accept-Encoding": "identity"}  # bytes as they are listed, and parts of them


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.file_download
        import huggingface_hub.utils
    except ImportError as error:
        raise MissingPackage(
            "models on a hub want huggingface_hub, which is not installed: "
            "pip install 'alm-edge[hub]'"
        ) from error
    return huggingface_hub
