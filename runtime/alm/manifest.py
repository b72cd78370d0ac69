"""The manifest: everything the runtime knows of a model, in one JSON file beside the graphs."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alm import verify
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
    chunk_rows: int = 0  # rows at once when several tokens meet a past; 0: any number
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
        """Write it beside, then rename: a failure leaves the old one."""
        beside = folder / f".{NAME}.new"
        try:
            text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise BadArtifacts(f"a number for {NAME} is not finite: {error}") from error
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
    if not os.path.isdir(folder):  # Path's own fails on names that are too long
        raise MissingFile(f"there is no folder {folder}; make one with: python export.py --out DIR")
    if not path.is_symlink() and not path.is_file():
        raise MissingFile(
            f"{folder} is no artifact folder: it holds no {NAME}; "
            "make one with: python export.py --out DIR"
        )
    size = verify.contained(folder, NAME).stat().st_size
    if size > MOST_BYTES:
        raise BadArtifacts(f"{path} has {size} bytes, too many for a manifest")
    try:
        plain = json.loads(path.read_text("utf-8"), parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BadArtifacts(f"{path} is not JSON: {error}") from error
    except OSError as error:
        raise BadArtifacts(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return _from_json(plain, path)
    except _Misshapen as error:
        raise BadArtifacts(f"{path} is misshapen: {error}") from error


def check_run(said: Manifest, folder: Path) -> None:
    """Refuse, with BadArtifacts, a manifest that lacks what a run needs besides its parts."""
    try:
        _check_run(said)
    except _Misshapen as error:
        raise BadArtifacts(f"{folder / NAME} is misshapen: {error}") from error


def _check_run(said: Manifest) -> None:
    for name in ("template", "placeholder"):
        _need(said.prompt, name, str, where="'prompt'")
    tasks = _need(said.prompt, "tasks", dict, where="'prompt'")
    _need(said.audio, "channel", str, where="'audio'")
    for name in ("rate", "least_samples", "window_samples"):
        _count(said.audio, name, 1, where="'audio'")
    for name in ("hidden", "vocab", "context"):
        _count(said.dimensions, name, 1, where="'dimensions'")
    if said.tokens.get("bos") is not None:
        _count(said.tokens, "bos", 0, where="'tokens'")
    for values, kind, name in (
        (_need(said.tokens, "eos", list, where="'tokens'"), int, "eos"),
        (said.tokens.get("stop_strings", []), str, "stop_strings"),
        (said.prompt.get("joined", []), str, "joined"),
        (list(tasks.values()), str, "tasks"),
    ):
        if not isinstance(values, list) or not all(_is(value, kind) for value in values):
            raise _Misshapen(f"{name!r} is {values!r:.80}, not all {kind.__name__}")


class _Misshapen(BadArtifacts):
    """Something in the manifest is missing or of another kind than it should be."""


def _no_number(word: str) -> float:
    raise ValueError(f"{word:.40} is no finite number")


def _finite(word: str) -> float:
    return value if math.isfinite(value := float(word)) else _no_number(word)


def _from_json(plain: Any, path: Path) -> Manifest:
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise BadArtifacts(f"{path} is no manifest of {FORMAT}")
    version: Any = plain.get("format_version")
    if not _is(version, int) or version < 1:
        raise BadArtifacts(f"{path} has the format version {version!r:.80}, which is none")
    if version > FORMAT_VERSION:
        raise BadArtifacts(
            f"{path} is of format {str(version):.40}, this alm-edge reads up to {FORMAT_VERSION}; "
            "upgrade with: pip install -U alm-edge"
        )
    parts = tuple(_part_from_json(part, i) for i, part in enumerate(_need(plain, "parts", list)))
    names = [part.name for part in parts]
    if len(set(names)) != len(names):
        raise BadArtifacts(f"{path} lists a part twice: {', '.join(names)}")
    if "tokenizer" not in plain:
        raise _Misshapen("it lacks 'tokenizer'")
    tools = _need(plain, "tools", dict, {})
    return Manifest(
        family=_need(plain, "family", str),
        parts=parts,
        tokenizer=None if plain["tokenizer"] is None else _file(plain["tokenizer"], "tokenizer"),
        prompt=_need(plain, "prompt", dict),
        tokens=_need(plain, "tokens", dict),
        generation=_need(plain, "generation", dict),
        audio=_need(plain, "audio", dict),
        dimensions=_need(plain, "dimensions", dict),
        source=_need(plain, "source", dict, {}),
        licence=_need(plain, "licence", dict, {}),
        tools={name: _need(tools, name, str) for name in tools},
        created=_need(plain, "created", str, ""),
    )


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _need(plain: Any, name: str, kind: type, default: Any = None, where: str = "it") -> Any:
    """`plain[name]`, which is of this kind; absent, the default if there is one."""
    if not isinstance(plain, dict):
        raise _Misshapen(f"{where} is {type(plain).__name__}, not an object")
    if name not in plain and default is None:
        raise _Misshapen(f"{where} lacks {name!r}")
    value = plain.get(name, default)
    if not _is(value, kind):
        raise _Misshapen(f"{name!r} of {where} is {value!r:.80}, not {kind.__name__}")
    return value


def _count(plain: Any, name: str, least: int, default: int | None = None, where: str = "it") -> int:
    value = _need(plain, name, int, default, where)
    if not least <= value < 2**63:
        raise _Misshapen(f"{name!r} of {where} is out of range")
    return value


def _file(plain: Any, where: str) -> File:
    size, digest = _count(plain, "bytes", 0, where=where), _need(plain, "sha256", str, where=where)
    return File(_need(plain, "name", str, where=where), size, digest)


def _port(plain: Any, where: str) -> Port:
    axes = tuple(_need(plain, "axes", list, where=where))
    if not all(_is(a, str) or (_is(a, int) and 0 <= a < 2**63) for a in axes):
        raise _Misshapen(f"'axes' of {where} are {axes!r:.80}, not numbers and names")
    dtype, counts = _need(plain, "dtype", str, where=where), _need(plain, "counts", str, "", where)
    return Port(dtype, axes, counts)


def _span(plain: Any, where: str) -> Span:
    if not isinstance(plain, list) or len(plain) != 3 or not all(_is(n, int) for n in plain):
        raise _Misshapen(f"{where} is {plain!r:.80}, not three whole numbers")
    return Span(*plain)


def _part_from_json(plain: Any, number: int) -> Part:
    name = _need(plain, "name", str, where=f"part {number}")
    where = f"part {name:.80}"

    def side(key: str) -> dict[str, Port]:
        ports = _need(plain, key, dict, where=where)
        return {n: _port(port, f"{key[:-1]} {n:.80} of {where}") for n, port in ports.items()}

    files = _need(plain, "files", list, where=where)
    if not files:
        raise _Misshapen(f"{where} has no files")
    spans = _need(plain, "spans", dict, {}, where)
    return Part(
        name=name,
        role=_need(plain, "role", str, where=where),
        files=tuple(_file(file, f"a file of {where}") for file in files),
        inputs=side("inputs"),
        outputs=side("outputs"),
        spans={n: _span(span, f"span {n:.80} of {where}") for n, span in spans.items()},
        precision=_need(plain, "precision", str, "", where),
        opset=_count(plain, "opset", 0, 0, where),
        dialect=_need(plain, "dialect", str, "", where),
        nodes=_count(plain, "nodes", 0, 0, where),
        chunk_rows=_need(plain, "chunk_rows", int, 0, where),
        simplified=_need(plain, "simplified", str, "", where),
        measured=_need(plain, "measured", dict, {}, where),
    )


def _part_to_json(part: Part) -> dict[str, Any]:
    plain: dict[str, Any] = {"name": part.name, "role": part.role}
    for name in ("precision", "opset", "dialect", "nodes", "chunk_rows", "simplified"):
        if getattr(part, name):
            plain[name] = getattr(part, name)
    plain["files"] = [vars(file) for file in part.files]
    plain["inputs"] = {n: port.to_json() for n, port in part.inputs.items()}
    plain["outputs"] = {n: port.to_json() for n, port in part.outputs.items()}
    plain["spans"] = {n: [s.least, s.usual, s.most] for n, s in part.spans.items()}
    plain["measured"] = part.measured
    return plain
