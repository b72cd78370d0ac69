"""The manifest: everything the runtime knows of a model, in one JSON file beside the graphs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alm.errors import BadArtifacts, MissingFile
from alm.ports import Port, Span

NAME = "manifest.json"
FORMAT = "alm-edge"
FORMAT_VERSION = 1
MOST_BYTES = 64 * 2**20  # a manifest is kilobytes; more is no manifest


@dataclass(frozen=True)
class File:
    """A file of the artifacts, by its path inside their folder."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """One module of the model: a graph with its ports, or the embedding table.

    The first of `files` is the graph (or the table), the others hold its external data.
    """

    name: str
    role: str  # frontend, encoder, bridge, decoder or table
    files: tuple[File, ...]
    inputs: dict[str, Port] = field(default_factory=dict)
    outputs: dict[str, Port] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)
    precision: str = "fp32"
    opset: int = 0
    dialect: str = ""
    nodes: int = 0
    simplified: str = ""  # "yes", or the reason why not
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Manifest:
    """A model as export left it. Parts are in the order of a run."""

    family: str
    parts: tuple[Part, ...]
    tokenizer: File | None
    prompt: dict[str, Any]
    tokens: dict[str, Any]
    generation: dict[str, Any]
    audio: dict[str, Any]
    dimensions: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict)
    licence: dict[str, Any] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    created: str = ""

    def part(self, name: str) -> Part | None:
        """The part of this name, if it was exported."""
        return next((part for part in self.parts if part.name == name), None)

    def with_role(self, *roles: str) -> list[Part]:
        """The parts that play one of these roles, in the order of a run."""
        return [part for part in self.parts if part.role in roles]

    def files(self) -> list[File]:
        """Every file that belongs to the artifacts besides the manifest itself."""
        own = [file for part in self.parts for file in part.files]
        return own + ([self.tokenizer] if self.tokenizer else [])

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain data."""
        plain: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
        for name in ("created", "family", "source", "licence", "tools", "dimensions", "audio"):
            plain[name] = getattr(self, name)
        for name in ("prompt", "tokens", "generation"):
            plain[name] = getattr(self, name)
        plain["tokenizer"] = vars(self.tokenizer) if self.tokenizer else None
        plain["parts"] = [_part_to_json(part) for part in self.parts]
        return plain

    def save(self, folder: Path) -> None:
        """Write it beside, then rename."""
        beside = folder / f".{NAME}.new"
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        beside.write_text(text + "\n", "utf-8")
        beside.replace(folder / NAME)

    def replacing(self, part: Part) -> Manifest:
        """The same with this part new, or in the place of the one of its name."""
        return replace(self, parts=(*(p for p in self.parts if p.name != part.name), part))


def load(folder: Path) -> Manifest:
    """Read `folder/manifest.json`; no other file is touched.

    Raises:
        MissingFile: no such folder, or no manifest in it.
        BadArtifacts: not JSON, of a newer format, or something in it is missing or misshapen.
    """
    path = folder / NAME
    if not folder.is_dir():
        raise MissingFile(f"there is no folder {folder}; make one with: python export.py --out DIR")
    if not path.is_file():
        raise MissingFile(f"{folder} is no artifact folder: it holds no {NAME}")
    if path.is_symlink() or path.stat().st_size > MOST_BYTES:
        raise BadArtifacts(f"{path} is a link or far too large for a manifest")
    try:
        plain = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadArtifacts(f"{path} is not JSON: {error}") from error
    try:
        return _from_json(plain, path)
    except KeyError as error:
        raise BadArtifacts(f"{path} lacks {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, BadArtifacts):
            raise
        raise BadArtifacts(f"{path} is misshapen: {error}") from error


def _from_json(plain: Any, path: Path) -> Manifest:
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise BadArtifacts(f"{path} is no manifest of {FORMAT}")
    version = plain.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BadArtifacts(f"{path} has the format version {version!r}, which is none")
    if version > FORMAT_VERSION:
        raise BadArtifacts(
            f"{path} is of format {version}, this alm-edge reads up to {FORMAT_VERSION}; "
            "upgrade with: pip install -U alm-edge"
        )
    parts = tuple(_part_from_json(_need(p, dict, "a part")) for p in _need(plain["parts"], list))
    names = [part.name for part in parts]
    if len(set(names)) != len(names):
        raise BadArtifacts(f"{path} lists a part twice: {', '.join(names)}")
    tokenizer = plain["tokenizer"]
    sections = ("prompt", "tokens", "generation", "audio", "dimensions")
    return Manifest(
        family=_need(plain["family"], str, "family"),
        parts=parts,
        tokenizer=_file(_need(tokenizer, dict, "tokenizer")) if tokenizer else None,
        **{name: _need(plain[name], dict, name) for name in sections},
        source=_need(plain.get("source", {}), dict, "source"),
        licence=_need(plain.get("licence", {}), dict, "licence"),
        tools=_need(plain.get("tools", {}), dict, "tools"),
        created=str(plain.get("created", "")),
    )


def _need(value: Any, kind: type, name: str = "it") -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} is {type(value).__name__}, not {kind.__name__}")
    return value


def _file(plain: Mapping[str, Any]) -> File:
    size = _need(plain["bytes"], int, "bytes")
    return File(_need(plain["name"], str, "name"), size, _need(plain["sha256"], str, "sha256"))


def _port(plain: Mapping[str, Any]) -> Port:
    axes = tuple(_need(plain["axes"], list, "axes"))
    if not all(isinstance(a, (int, str)) and not isinstance(a, bool) for a in axes):
        raise TypeError(f"axes are {axes!r}, not numbers and names")
    return Port(_need(plain["dtype"], str, "dtype"), axes, str(plain.get("counts", "")))


def _part_from_json(plain: Mapping[str, Any]) -> Part:
    files = tuple(_file(_need(f, dict, "a file")) for f in _need(plain["files"], list, "files"))
    name = _need(plain["name"], str, "name")
    if not files:
        raise ValueError(f"part {name} has no files")
    ports = {
        side: {n: _port(_need(p, dict, n)) for n, p in _need(plain[side], dict, side).items()}
        for side in ("inputs", "outputs")
    }
    spans = {n: Span(*_need(s, list, n)) for n, s in _need(plain.get("spans", {}), dict).items()}
    return Part(
        name=name,
        role=_need(plain["role"], str, "role"),
        files=files,
        spans=spans,
        precision=str(plain.get("precision", "")),
        opset=int(plain.get("opset", 0)),
        dialect=str(plain.get("dialect", "")),
        nodes=int(plain.get("nodes", 0)),
        simplified=str(plain.get("simplified", "")),
        measured=_need(plain.get("measured", {}), dict, "measured"),
        **ports,
    )


def _part_to_json(part: Part) -> dict[str, Any]:
    plain: dict[str, Any] = {"name": part.name, "role": part.role}
    for name in ("precision", "opset", "dialect", "nodes", "simplified"):
        if getattr(part, name):
            plain[name] = getattr(part, name)
    plain["files"] = [vars(file) for file in part.files]
    plain["inputs"] = {n: port.to_json() for n, port in part.inputs.items()}
    plain["outputs"] = {n: port.to_json() for n, port in part.outputs.items()}
    plain["spans"] = {n: [s.least, s.usual, s.most] for n, s in part.spans.items()}
    plain["measured"] = part.measured
    return plain
