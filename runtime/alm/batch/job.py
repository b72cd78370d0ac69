"""What is asked about every file, as plain data that other processes and machines can be given."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from alm.adapters.settings import CONFIG, WEIGHTS
from alm.artifacts.manifest import Manifest, load
from alm.batch.files import CHUNK
from alm.errors import MissingFile
from alm.generation.keywords import InputOptions

LETTERS = 16  # of a hash
# Of a manifest, what does not change answers: when and with what it was made, engines built of it.
ASIDE = ("created", "tools", "engines")
# As commands have it where a job says nothing: of transcripts alone.
GATE: dict[str, Any] = {"gate": None}
# Of the options, what changes no answer.
FREE = ("max_audio_seconds",)


@dataclass(frozen=True)
class Job:
    """A model and a prompt, and how the prompt is answered.

    `options` are those of `Model.generate`, but that sound without speech is gated where they say
    nothing, as commands have it; `threads` are those of each process.
    """

    folder: str
    prompt: str = "transcribe"
    options: Mapping[str, Any] = field(default_factory=dict)
    provider: str = "auto"
    threads: int = 0
    align: str | None = None
    cache: str | None = None
    draft: str | None = None

    def made_with(self) -> dict[str, Any]:
        """What its rows are made with: rows of other models, prompts or options are others.

        Raises:
            MissingFile, BadArtifacts: a manifest, or an adapter's file, is not there or not right.
        """
        manifest = load(Path(self.folder))
        made: dict[str, Any] = {"model": _model(manifest), "prompt": self.prompt}
        plain = {field.name: field.default for field in fields(InputOptions)} | GATE
        options = {
            name: value
            for name, value in sorted(self.options.items())
            if name not in FREE and value is not None and value != plain.get(name)
        }
        adapter = str(options.get("adapter", ""))
        if adapter and adapter not in manifest.adapters:
            options["adapter"] = f"{os.path.basename(os.path.abspath(adapter))} {_peft(adapter)}"
        if options:
            made["options"] = json.loads(json.dumps(options))  # as a row gives them back
        if self.align:
            made["align"] = _model(load(Path(self.align)))
        return made

    def absolute(self) -> Job:
        """The same, wherever it is done: folders are named by absolute paths."""
        options, adapter = dict(self.options), str(self.options.get("adapter", ""))
        if adapter and adapter not in load(Path(self.folder)).adapters:
            options["adapter"] = os.path.abspath(adapter)
        draft = self.draft
        return replace(
            self,
            folder=os.path.abspath(self.folder),
            options=options,
            align=self.align and os.path.abspath(self.align),
            cache=self.cache and os.path.abspath(self.cache),
            draft=os.path.abspath(draft) if draft and os.path.isdir(draft) else draft,
        )


def _model(manifest: Manifest) -> str:
    """A hash of all that makes its answers: the manifest holds those of the files."""
    plain = manifest.to_json()
    of = {name: plain[name] for name in plain if name not in ASIDE}
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:LETTERS]


def _peft(folder: str) -> str:
    """A hash of a peft folder's files."""
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        path = os.path.join(folder, name)
        try:
            with open(path, "rb") as file:
                while block := file.read(CHUNK):
                    digest.update(block)
        except OSError as error:
            raise MissingFile(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()[:LETTERS]
