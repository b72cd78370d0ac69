"""The manifest: everything the runtime knows of a model, in one JSON file beside the graphs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alm import facts
from alm.artifacts import engine_files, older_levers, storages
from alm.artifacts.engine_files import Engine as Engine
from alm.artifacts.part import Part as Part
from alm.artifacts.part import part_from_json
from alm.artifacts.port_checks import check_decoder, check_state
from alm.errors import BadArtifacts, MissingFile, UnknownName
from alm.facts import Facts
from alm.host import archive, atomic, containment
from alm.parsing import File as File
from alm.parsing import Misshapen, file, is_a, need, parse, printable
from alm.precision import Levers

NAME = "manifest.json"
FORMAT = "alm-edge"
FORMAT_VERSION = 2
MOST_BYTES = 8 * 2**20  # a manifest is kilobytes; more is no manifest


@dataclass(frozen=True)
class Manifest:
    """A model as export left it. Parts are in the order of a run."""

    family: str
    parts: tuple[Part, ...]
    tokenizer: File | None
    facts: Facts
    tools: dict[str, str] = field(default_factory=dict)
    created: str = ""
    levers: Levers = field(default_factory=dict)  # precisions that the exporter knew
    adapters: dict[str, tuple[File, File]] = field(default_factory=dict)  # config, weights
    golden: tuple[File, ...] = ()  # of whole runs: what was said of clips, and the clips

    @property
    def engines(self) -> tuple[Engine, ...]:
        """What `alm build` made of the parts."""
        return tuple(engine for part in self.parts for engine in part.engines)

    def with_engines(self, engines: Iterable[Engine]) -> Manifest:
        """The same with these engines alone, each at its part.

        Raises:
            Misshapen: an engine of a part that is not there.
        """
        of: dict[str, list[Engine]] = {part.name: [] for part in self.parts}
        for engine in engines:
            if engine.part not in of:
                raise Misshapen(f"an engine is of part {engine.part!r:.80}, which is not listed")
            of[engine.part].append(engine)
        parts = (replace(part, engines=tuple(of[part.name])) for part in self.parts)
        return replace(self, parts=tuple(parts))

    def without_golden(self) -> Manifest:
        """The same with nothing that the original gave, for a place that only runs it."""
        parts = tuple(replace(part, golden=None) for part in self.parts)
        return replace(self, parts=parts, golden=())

    def part(self, name: str) -> Part | None:
        """The part of this name, if it was exported."""
        return next((part for part in self.parts if part.name == name), None)

    @property
    def tasks(self) -> dict[str, str]:
        """Names that stand for a prompt.

        Raises:
            Misshapen: the manifest has none.
        """
        if (lacks := "'tasks' of 'prompt'") in self.facts.missing:
            raise Misshapen(f"the manifest lacks {lacks}")
        return self.facts.prompt.tasks

    def named(self, name: str) -> Part:
        """The part of that name.

        Raises:
            UnknownName: there is none; the message lists those there are.
        """
        part = self.part(name)
        if part is None:
            names = ", ".join(part.name for part in self.parts)
            raise UnknownName(f"unknown part {name!r}; there is: {names}")
        return part

    def with_role(self, *roles: str) -> list[Part]:
        """The parts that play one of these roles, in the order of a run."""
        return [part for part in self.parts if part.role in roles]

    def files(self) -> list[File]:
        """Every file that belongs to the artifacts besides the manifest itself."""
        files = [file for part in self.parts for file in part.files]
        files += [self.tokenizer] if self.tokenizer else []
        files += [file for pair in self.adapters.values() for file in pair]
        files += [part.golden for part in self.parts if part.golden]
        files += self.golden
        return files + [engine.file for engine in self.engines]

    def engine(self, part: str, backend: str) -> Engine | None:
        """What `backend` built of the part of this name."""
        owner = self.part(part)
        return owner.engine(backend) if owner else None

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain data."""
        plain: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
        plain |= {"created": self.created, "family": self.family, "tools": self.tools}
        plain |= self.facts.to_json()
        plain["tokenizer"] = vars(self.tokenizer) if self.tokenizer else None
        plain["levers"] = storages.levers_to_json(self.levers)
        plain["parts"] = [part.to_json() for part in self.parts]
        if self.adapters:
            plain["adapters"] = {n: [vars(f) for f in pair] for n, pair in self.adapters.items()}
        if self.golden:
            plain["golden"] = [vars(file) for file in self.golden]
        if self.engines:
            plain["engines"] = [engine.to_json() for engine in self.engines]
        return plain

    def save(self, folder: Path) -> None:
        """Write it beside, then rename: a failure leaves the old one."""
        try:
            text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise BadArtifacts(f"a number for {NAME} is not finite: {error}") from error
        atomic.write(folder, NAME, (text + "\n").encode())

    def replacing(self, part: Part) -> Manifest:
        """The same with this part new, or in the place of the one of its name.

        An engine of the part goes with the graph that it was built of; the others stay.
        """
        graph, old = engine_files.fingerprint(part.files), self.part(part.name)
        kept = tuple(e for e in old.engines if e.graph == graph) if old else ()
        others = (p for p in self.parts if p.name != part.name)
        return replace(self, parts=(*others, replace(part, engines=kept)))


def load(folder: Path) -> Manifest:
    """Read `folder/manifest.json`, or that of an .alm file; no other file is touched.

    Raises:
        MissingFile: no such folder, or no manifest in it.
        BadArtifacts: not JSON, of a newer format, or something in it is missing or misshapen.
    """
    path = folder / NAME
    packed = archive.is_one(folder)
    if not packed and not os.path.isdir(folder):  # Path's own fails on names that are too long
        raise MissingFile(f"there is no folder {folder}; make one with: alm-export --out DIR")
    if not packed and not path.is_symlink() and not path.is_file():
        raise MissingFile(
            f"{folder} is no artifact folder: it holds no {NAME}; "
            "make one with: alm-export --out DIR"
        )
    containment.contained(folder, NAME)
    try:
        with archive.section(folder, NAME) if packed else path.open("rb") as stream:
            size = containment.size(folder, NAME)
            if size > MOST_BYTES:
                raise BadArtifacts(f"{path} has {size} bytes, too many for a manifest")
            plain = parse(stream.read(MOST_BYTES).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, Misshapen):
            raise BadArtifacts(f"{path} is misshapen: {error}") from error
        if isinstance(error, BadArtifacts):
            raise
        raise BadArtifacts(f"{path} is not JSON: {printable(error, 300)}") from error
    except OSError as error:
        raise BadArtifacts(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return _from_json(plain, path)
    except Misshapen as error:
        raise BadArtifacts(f"{path} is misshapen: {error}") from error


def check_run(manifest: Manifest, folder: Path) -> None:
    """Refuse, with BadArtifacts, a manifest that lacks what a run needs besides its parts."""
    try:
        manifest.facts.check_run()
        for part in manifest.parts:
            check = check_decoder if part.role == "decoder" else check_state
            check(part.inputs, part.outputs, f"part {part.name:.80}")
    except Misshapen as error:
        raise BadArtifacts(f"{folder / NAME} is misshapen: {error}") from error


def _from_json(plain: Any, path: Path) -> Manifest:
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise BadArtifacts(f"{path} is no manifest of {FORMAT}")
    version: Any = plain.get("format_version")
    if not is_a(version, int) or version < 1:
        raise BadArtifacts(f"{path} has the format version {version!r:.80}, which is none")
    if version < FORMAT_VERSION:
        raise BadArtifacts(
            f"{path} is of format {version}, which this alm-edge no longer reads; "
            "export the model again"
        )
    if version > FORMAT_VERSION:
        raise BadArtifacts(
            f"{path} is of format {str(version):.40}, this alm-edge reads {FORMAT_VERSION}; "
            "upgrade with: pip install -U alm-edge"
        )
    parts = tuple(part_from_json(part, i) for i, part in enumerate(need(plain, "parts", list)))
    names = [part.name for part in parts]
    if len(set(names)) != len(names):
        raise BadArtifacts(f"{path} lists a part twice: {printable(', '.join(names), 300)}")
    if "tokenizer" not in plain:
        raise Misshapen("it lacks 'tokenizer'")
    tools = need(plain, "tools", dict, {})
    levers = need(plain, "levers", dict, {})
    engines = need(plain, "engines", list, [])
    adapters = need(plain, "adapters", dict, {})
    manifest = Manifest(
        family=need(plain, "family", str),
        parts=parts,
        tokenizer=None if plain["tokenizer"] is None else file(plain["tokenizer"], "tokenizer"),
        facts=facts.from_json(plain),
        tools={name: need(tools, name, str) for name in tools},
        created=need(plain, "created", str, ""),
        levers=storages.levers_from_json(levers) if "levers" in plain else older_levers.LEVERS,
        adapters={name: _adapter(pair, name) for name, pair in adapters.items()},
        golden=tuple(file(f, "a golden file") for f in need(plain, "golden", list, [])),
    )
    return manifest.with_engines(
        engine_files.from_json(engine, i) for i, engine in enumerate(engines)
    )


def _adapter(plain: Any, name: str) -> tuple[File, File]:
    if not isinstance(plain, list) or len(plain) != 2:
        raise Misshapen(f"adapter {name:.80} is not its config and its weights")
    config, weights = (file(entry, f"a file of adapter {name:.80}") for entry in plain)
    return config, weights
