"""The adapters of a folder, each read when it is first asked for; a path is one too."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock

from alm.adapters.adapter import NONE, Adapter, load
from alm.adapters.settings import CONFIG, WEIGHTS
from alm.artifacts import verify
from alm.artifacts.manifest import Manifest
from alm.errors import BadArtifacts, BadOption, MissingFile, UnknownName

MOST_CONFIG = 2**20  # bytes


class Adapters:
    """What `adapter=` may name; threads may share it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._known: dict[tuple[object, ...], Adapter] = {}
        self._lock = Lock()

    def find(self, name: str | os.PathLike[str] | None) -> Adapter:
        """The adapter of that name, or in the folder at that path; without one, the base model.

        Raises:
            UnknownName: none has the name; those that there are.
            BadOption: it is no name, or the model was exported without slots.
            MissingFile, BadArtifacts: its files are not there, or not what they should be.
        """
        if name is None or name == "":
            return NONE
        if not isinstance(name, str | os.PathLike):
            raise BadOption(f"an adapter is wanted as a name or a folder, not {name!r:.80}")
        given = os.fspath(name)
        if not any(part.slots for part in self.manifest.parts):
            raise BadOption(
                f"adapter {given!r:.80}: {self.folder} was exported without slots for adapters; "
                "export it with: --adapter NAME=DIR"
            )
        with self._lock:
            if given in self.manifest.adapters:
                return self._known.get((given,)) or self._own(given)
            return self._beside(given)

    def _own(self, name: str) -> Adapter:
        """One of the folder's, whose files are those that the manifest lists."""
        config, weights = self.manifest.adapters[name]
        text = verify.content(self.folder, config, MOST_CONFIG)
        with verify.opened(self.folder, weights) as stream:
            where = str(self.folder / weights.name)
            made = load(name, text, stream, weights.bytes, self.manifest.parts, where)
        self._known[(name,)] = made
        return made

    def _beside(self, given: str) -> Adapter:
        """A peft folder's; read anew where one of its files has changed."""
        folder = Path(given)
        if not os.path.isdir(folder):
            there = ", ".join(self.manifest.adapters) or "none"
            raise UnknownName(f"unknown adapter {given!r:.80}; there is: {there}")
        for file in (CONFIG, WEIGHTS):
            if not os.path.isfile(folder / file):
                raise MissingFile(f"there is no {file} in {folder}")
        try:
            with open(folder / CONFIG, "rb") as config, open(folder / WEIGHTS, "rb") as weights:
                status = [os.fstat(stream.fileno()) for stream in (config, weights)]
                marks = ((s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) for s in status)
                key = (given, *marks)
                if key in self._known:
                    return self._known[key]
                if status[0].st_size > MOST_CONFIG:
                    raise BadArtifacts(f"{folder / CONFIG} has {status[0].st_size} bytes, too many")
                text, size = config.read(MOST_CONFIG + 1), status[1].st_size
                where = str(folder / WEIGHTS)
                made = load(given, text, weights, size, self.manifest.parts, where)
        except OSError as error:
            if isinstance(error, MissingFile):
                raise
            raise BadArtifacts(f"{folder} cannot be read: {error.strerror or error}") from error
        self._known = {k: v for k, v in self._known.items() if k[0] != given} | {key: made}
        return made
