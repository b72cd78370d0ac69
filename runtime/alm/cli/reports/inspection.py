"""What is in an artifact folder: parts, files, ports, operators, and whether all of it is whole."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from alm.artifacts import verify
from alm.artifacts.manifest import FORMAT, FORMAT_VERSION, File, Manifest, Part
from alm.artifacts.manifest import load as load_manifest
from alm.cli import terminal
from alm.errors import LONGEST, AlmError, BadArtifacts, BadOption
from alm.host import archive, containment
from alm.onnxfile import summary
from alm.parsing import printable
from alm.ports import Port, Span, differences

PORT = 8080  # where Netron is served
GRAPH = ".onnx"
PARTS = "part|role|opset, dialect|precision|>nodes|>size|>error|>relative|>rms|verdict"


@dataclass
class Findings:
    """What was looked at beyond the manifest: verdict by file, operators by part, complaints."""

    verdicts: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, dict[str, int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def show(
    folder: Path,
    *,
    part: str = "",
    as_json: bool = False,
    out: Path | None = None,
    netron: str = "",
    port: int = PORT,
    check: bool = True,
) -> int:
    """Print what is in `folder`, all of it or one `part`, or serve the part `netron` instead.

    Args:
        part: only this part.
        as_json: everything as one JSON object, not as tables.
        out: where that object is written, whatever is printed.
        netron: the part to serve.
        port: where to serve it.
        check: hold every file against its hash.

    Returns:
        0, or 1 when something is not as in the manifest; stderr then has what.
    """
    if netron and out:
        raise BadOption("--netron serves a graph and finds nothing that --out could write")
    if netron:
        return serve(folder, netron, port)
    manifest = load_manifest(folder)
    parts = [manifest.named(part)] if part else list(manifest.parts)
    findings = examine(folder, manifest, parts, check)
    data = _data(manifest, parts, findings, check)
    tables = partial(_print, folder, manifest, parts, findings, whole=not part)
    terminal.give(data, as_json, out, tables)
    for sentence in findings.wrong:
        print(f"error: {printable(sentence, LONGEST)}", file=sys.stderr)
    return 1 if findings.wrong else 0


def serve(folder: Path, part: str, port: int = PORT, browse: bool = False) -> int:
    """Show a part in Netron, for this machine alone and until Ctrl-C; the URL goes to stdout."""
    from alm.cli.reports.netron import Viewer

    archive.only_folder(folder, "Netron is shown files")
    chosen = load_manifest(folder).named(part)
    files = {file.name: _checked(folder, file) for file in chosen.files}
    name = chosen.files[0].name
    if name.endswith(GRAPH):
        verify.check_graph(folder, summary.read(files[name]), name, files)
    with Viewer(name, files, port) as server:
        if port not in (0, server.server_port):
            print(f"note: port {port} is taken", file=sys.stderr)
        print(f"{chosen.name}: {server.url} (Ctrl-C ends)", flush=True)
        if browse:
            import webbrowser

            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


def examine(folder: Path, manifest: Manifest, parts: Sequence[Part], check: bool) -> Findings:
    """Read the graphs of `parts`; with `check` hold all files against the manifest too."""
    findings = Findings()
    whole = len(parts) == len(manifest.parts)
    lone = _lone(manifest) if whole else []
    for file in [*(file for part in parts for file in part.files), *lone]:
        try:
            _checked(folder, file) if check else containment.contained(folder, file.name)
            findings.verdicts[file.name] = "ok" if check else "there"
        except AlmError as error:
            findings.verdicts[file.name] = "wrong"
            findings.wrong.append(str(error))
    for part in parts:
        name = part.files[0].name
        if not name.endswith(GRAPH):
            continue
        try:
            graph = summary.read(containment.contained(folder, name))
            findings.nodes[part.name] = dict(graph.nodes.most_common())
            if check:
                _check_graph(folder, part, graph)
        except AlmError as error:
            if str(error) not in findings.wrong:
                findings.wrong.append(str(error))
    return findings


def _lone(manifest: Manifest) -> list[File]:
    """Files that no part runs: the tokenizer's, those of adapters, and golden vectors."""
    files = [manifest.tokenizer] if manifest.tokenizer else []
    files += [file for pair in manifest.adapters.values() for file in pair]
    return [*files, *(part.golden for part in manifest.parts if part.golden), *manifest.golden]


def _checked(folder: Path, file: File) -> Path:
    return verify.check_file(folder, file.name, file.bytes, file.sha256)


def _check_graph(folder: Path, part: Part, graph: summary.GraphFile) -> None:
    name = part.files[0].name
    verify.check_graph(folder, graph, name, {file.name for file in part.files})
    for side in ("input", "output"):
        wrong = differences(getattr(part, f"{side}s"), getattr(graph, f"{side}s"), side)
        if wrong:
            raise BadArtifacts(f"{name!r} in {folder} has other {side}s than the manifest: {wrong}")


def _data(
    manifest: Manifest, parts: Sequence[Part], findings: Findings, check: bool
) -> dict[str, Any]:
    """The manifest, of its parts only `parts`, and what was found."""
    plain = manifest.to_json()
    named = {part["name"]: part for part in plain["parts"]}
    plain["parts"] = [
        named[part.name] | {"bytes": part.bytes, "histogram": findings.nodes.get(part.name, {})}
        for part in parts
    ]
    return plain | {"verified": check, "verdicts": findings.verdicts, "wrong": findings.wrong}


# --- for people


def _print(
    folder: Path, manifest: Manifest, parts: Sequence[Part], findings: Findings, whole: bool
) -> None:
    table = terminal.printer()
    if whole:
        table("", "|", _header(folder, manifest))
    table("parts", PARTS, _parts(parts))
    files = [file for part in parts for file in part.files]
    files += _lone(manifest) if whole else []
    table(
        "files",
        "file|>bytes|sha256|",
        ((f.name, str(f.bytes), f.sha256[:12], findings.verdicts[f.name]) for f in files),
    )
    table("simplified", "part|", ((p.name, p.simplified) for p in parts if p.simplified))
    rows = (row for part in parts for row in _ports(part))
    table("ports, dynamic axes with least/usual/most", "part||name|type|axes", rows)
    table("operators", "part|", ((n, _counts(nodes)) for n, nodes in findings.nodes.items()))
    if whole:
        table(
            "tasks",
            "task|prompt",
            ((str(n), str(t)) for n, t in manifest.facts.prompt.tasks.items()),
        )


def _header(folder: Path, manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield "folder", str(folder)
    yield "family", manifest.family
    yield "format", f"{FORMAT} {FORMAT_VERSION}"
    yield "created", manifest.created or "?"
    yield "size", terminal.size(sum(file.bytes for file in manifest.files()))
    if manifest.adapters:
        yield "adapters", ", ".join(manifest.adapters)
    facts = manifest.facts.to_json() | {"tools": manifest.tools}
    for name in ("source", "licence", "dimensions", "audio", "generation", "tools"):
        if values := facts[name]:
            yield name, ", ".join(f"{key}={value}" for key, value in values.items())


def _parts(parts: Sequence[Part]) -> Iterator[tuple[str, ...]]:
    for part in parts:
        yield (
            part.name,
            part.role,
            f"{part.opset or '-'} {part.dialect}".strip(),
            part.precision,
            str(part.nodes or "-"),
            terminal.size(part.bytes),
            *(_error(part.parity.get(name)) for name in ("worst_abs", "worst_rel", "rms")),
            part.verdict,
        )


def _error(value: object) -> str:
    return f"{value:.1e}" if isinstance(value, int | float) else "-"


def _ports(part: Part) -> Iterator[tuple[str, ...]]:
    """A row a port; those of the layers of a cache, alike but for the number, share one."""
    for side, ports in (("in", part.inputs), ("out", part.outputs)):
        groups: dict[tuple[str, Port], list[str]] = {}
        for name, port in ports.items():
            layer = re.search(r"(?<=\.)\d+(?=\.)", name)
            key = name[: layer.start()] + "#" + name[layer.end() :] if layer else name
            groups.setdefault((key, port), []).append(layer.group() if layer else "")
        for (name, port), layers in groups.items():
            many = f"{{{layers[0]}..{layers[-1]}}}" if len(layers) > 1 else layers[0]
            axes = ", ".join(_axis(axis, part.spans) for axis in port.axes)
            yield part.name, side, name.replace("#", many), port.dtype, f"[{axes}]"


def _axis(axis: int | str, spans: Mapping[str, Span]) -> str:
    span = spans.get(axis) if isinstance(axis, str) else None
    return f"{axis} {span.least}/{span.usual}/{span.most}" if span else str(axis)


def _counts(nodes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}:{count}" for name, count in nodes.items())
