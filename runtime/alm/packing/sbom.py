"""What a packed model was made of, for those who must answer for it: an SBOM, and licences.

The SBOM is CycloneDX 1.6 in JSON (cyclonedx.org). It follows from the manifest alone, so that the
same model gives the same bytes: its serial number is made of the hashes, its time is the export's.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from alm.artifacts.manifest import Manifest
from alm.version import __version__

# SPDX names of what exports are made with, by package. None of them is inside.
TOOLS = {
    "python": "PSF-2.0",
    "torch": "BSD-3-Clause",
    "transformers": "Apache-2.0",
    "peft": "Apache-2.0",
    "onnx": "Apache-2.0",
    "onnxscript": "MIT",
    "onnx-ir": "Apache-2.0",
    "onnxsim": "Apache-2.0",
    "onnxruntime": "MIT",
}
UNKNOWN = "not stated by the checkpoint: ask who published it"


def cyclonedx(manifest: Manifest) -> dict[str, Any]:
    """The SBOM: the model with a component for each part, and the tools that made it."""
    name = str(manifest.facts.source.get("llm") or manifest.facts.source.get("config") or "")
    files = [vars(file) for file in manifest.files()]
    number = uuid.UUID(hashlib.sha256(json.dumps(files).encode()).hexdigest()[:32])
    model: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": f"{manifest.family} {name}".strip(),
        "licenses": _licences(manifest.facts.licence),
        "components": [*map(_part, manifest.parts)],
    }
    said: dict[str, Any] = {"tools": {"components": [*map(_tool, sorted(manifest.tools.items()))]}}
    said["component"] = model
    if manifest.created:
        said["timestamp"] = manifest.created
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        "metadata": said,
        "components": [_file(file) for file in _beside(manifest)],
    }


def licences(manifest: Manifest) -> str:
    """The page of licences: of the model, of the data inside, of the tools."""
    stated = manifest.facts.licence
    lines = ["# Licences", "", "## The model", ""]
    lines += [f"- {what}: {text}" for what, text in stated.items()] or [f"- {UNKNOWN}"]
    lines += ["", "## Data inside", ""]
    clips = [file.name for file in manifest.golden if file.name.endswith(".wav")]
    lines += [f"- {name}: Apache-2.0, of alm-edge" for name in clips] or ["- none"]
    lines += ["", "## Tools that made it, none of which is inside", ""]
    lines += [f"- alm-edge {__version__}: Apache-2.0"]
    for name, version in sorted(manifest.tools.items()):
        lines.append(f"- {name} {version}: {TOOLS.get(name, 'see its package')}")
    return "\n".join([*lines, ""])


def _part(part: Any) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"part-{part.name}",
        "name": part.name,
        "description": f"{part.role}, {part.precision}",
        "components": [_file(file) for file in part.files],
    }


def _beside(manifest: Manifest) -> list[Any]:
    """Files that are no part's."""
    parts = {file.name for part in manifest.parts for file in part.files}
    return [file for file in manifest.files() if file.name not in parts]


def _file(file: Any) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": file.sha256}]
    return {"type": "file", "bom-ref": file.name, "name": file.name, "hashes": hashes}


def _tool(tool: tuple[str, str]) -> dict[str, Any]:
    name, version = tool
    purl = f"pkg:generic/{name}@{version}" if name == "python" else f"pkg:pypi/{name}@{version}"
    found: dict[str, Any] = {"type": "library", "name": name, "version": version, "purl": purl}
    return found | ({"licenses": [{"license": {"id": TOOLS[name]}}]} if name in TOOLS else {})


def _licences(stated: Mapping[str, Any]) -> list[dict[str, Any]]:
    """As CycloneDX has them: names, since a checkpoint's words need not be SPDX's."""
    names = [f"{what}: {text}" for what, text in stated.items()] or [UNKNOWN]
    return [{"license": {"name": name}} for name in names]
