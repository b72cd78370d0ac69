"""Inputs of what a device proves itself with: golden vectors, and whole runs."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import mutations

from alm.artifacts import manifest
from alm.artifacts.manifest import Part
from alm.doctor import answers, vectors
from alm.doctor.vectors import Way
from alm.golden import runs
from alm.parsing import File

KEY, METADATA = "golden", "__metadata__"
WAY = Way("cpu", 1, asked=True)
NUMBERS = [[0, 1, -1, 2**40, 7], [2**31], [0] * 100, [-(2**63), 2**63 - 1]]


class Golden:
    """`golden/PART.safetensors` and `golden/runs.json`, under `alm doctor`."""

    def __init__(self, sources: Path, scratch: Path) -> None:
        self.folder = Path(shutil.copytree(sources / "artifacts", scratch / "artifacts"))
        self.said = manifest.load(self.folder)
        self.files = {part.golden.name: part for part in self.said.parts if part.golden}
        self.whole = {name: (self.folder / name).read_bytes() for name in (*self.files, runs.NAME)}

    def make(self, dice: Random) -> bytes:
        name = runs.NAME if dice.random() < 0.2 else dice.choice(sorted(self.files))
        old = self.whole[name]
        if name == runs.NAME:
            content = mutations.json_bytes(dice, json.loads(old))
        else:
            content = _vectors(dice, old)
        return name.encode() + b"\n" + content

    def run(self, content: bytes) -> None:
        name, _, content = content.partition(b"\n")
        path = self.folder / name.decode()
        file = File(name.decode(), len(content), hashlib.sha256(content).hexdigest())
        try:
            path.write_bytes(content)
            self._examine(file)
        finally:
            path.write_bytes(self.whole[file.name])

    def _examine(self, file: File) -> None:
        def quiet(_: str) -> None:
            pass

        if file.name == runs.NAME:
            clips = tuple(f for f in self.said.golden if f.name != file.name)
            said = replace(self.said, golden=(file, *clips))
            found = [*answers.check(self.folder, said, WAY, set(), quiet)]
        else:
            part: Part = replace(self.files[file.name], golden=file)
            said = replace(self.said, parts=(part,))
            found = [*vectors.check(self.folder, said, WAY, set(), quiet)]
        for finding in found:
            json.dumps(finding.to_json(), allow_nan=False)


def _vectors(dice: Random, whole: bytes) -> bytes:
    """A safetensors file whose header, metadata or values are others."""
    size = int.from_bytes(whole[:8], "little")
    if dice.random() < 0.15:
        return mutations.raw(dice, whole, near=8 + size)
    header: Any = json.loads(whole[8 : 8 + size])
    body, way = bytearray(whole[8 + size :]), dice.random()
    if way < 0.4:
        said = mutations.json_value(dice, json.loads(header[METADATA][KEY]))
        header[METADATA][KEY] = json.dumps(said)
    elif way < 0.6:
        header = mutations.json_value(dice, header)
    elif way < 0.8:  # other numbers under the same names
        names = [n for n in header if n != METADATA and header[n]["dtype"] == "I64"]
        name = dice.choice(names or [n for n in header if n != METADATA])
        values = b"".join(n.to_bytes(8, "little", signed=True) for n in dice.choice(NUMBERS))
        start = len(body)
        body += values
        entry = {"dtype": "I64", "shape": [len(values) // 8]}
        header[name] = entry | {"data_offsets": [start, len(body)]}
    elif way < 0.9:  # the same bytes under many names
        name = dice.choice([n for n in header if n != METADATA])
        header |= {f"input.{i}": header[name] for i in range(dice.choice([2, 10_000]))}
    else:  # shapes as large as may be
        said = json.loads(header[METADATA][KEY])
        for tensor in said["inputs"].values():
            shape = [dice.choice([size, 2**13, 2**26, 0]) for size in tensor["shape"]]
            tensor["shape"] = shape if dice.random() < 0.5 else tensor["shape"]
        header[METADATA][KEY] = json.dumps(said)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    length = len(text) if dice.random() < 0.95 else dice.choice([0, 1, 2**40, 2**63])
    return length.to_bytes(8, "little") + text + bytes(body)
