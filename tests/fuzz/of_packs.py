"""Inputs of one file, an .alm: bytes, records of the zip, members under right checksums."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import judge
import mutations
from of_models import Graphs

from alm import backends
from alm.artifacts import manifest
from alm.artifacts.embedding_table import open_table
from alm.cli import alm_commands, run_command
from alm.host import archive, ziplayout
from alm.host.ziplayout import Member
from alm.packing import pack
from alm.session import BackendOptions

# Where numbers lie in a record, and as what: of the end, a central header, a local one.
END = ((4, "H"), (6, "H"), (8, "H"), (10, "H"), (12, "I"), (16, "I"), (20, "H"))
CENTRAL = ((4, "H"), (6, "H"), (8, "H"), (10, "H"), (14, "H"), (16, "I"), (20, "I"), (24, "I"),
           (28, "H"), (30, "H"), (32, "H"), (34, "H"), (38, "I"), (42, "I"))  # fmt: skip
LOCAL = ((4, "H"), (6, "H"), (8, "H"), (12, "H"), (14, "I"), (18, "I"), (22, "I"), (26, "H"),
         (28, "H"))  # fmt: skip
ODD = (0, 1, 8, 0xFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 2**31, 4096)
WIDE = (0, 1, 22, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1)
NAMES = ("", "../x", "/etc/passwd", "a//b", "manifest.json", "a\\b", "C:x", "contents.json", "\0",
         "x" * 300, "decoder.onnx/x", "embed.npy", "\x1b[31m", "a\nb")  # fmt: skip


class Packs:
    """A decoder, its table and its golden vectors as one file."""

    def __init__(self, sources: Path, scratch: Path) -> None:
        import onnx

        self.onnx, self.scratch, self.path = onnx, scratch, scratch / "model.alm"
        folder = Path(shutil.copytree(sources / "artifacts", scratch / "artifacts"))
        whole = manifest.load(folder)
        parts = tuple(part for part in whole.parts if part.name in ("decoder", "embed"))
        golden = tuple(file for file in whole.golden if file.name.endswith(".json"))
        replace(whole, parts=parts, golden=golden).save(folder)
        pack.pack(folder, self.path, None)
        self.whole, self.layout = self.path.read_bytes(), archive.layout(self.path)
        self.members = [(m.name, archive.content(self.path, m.name)) for m in self.layout.members]
        self.clip = str(sources / "clip.wav")

    def make(self, dice: Random) -> bytes:
        way = dice.random()
        if way < 0.2:
            return self._bytes(dice)
        return self._records(dice) if way < 0.5 else self._packed(dice)

    def _bytes(self, dice: Random) -> bytes:
        """Bytes of one place are others: a header, the directory, or anywhere."""
        starts = [m.start - len(h) for m, h in zip(self.layout.members, self.layout.headers)]  # noqa: B905
        start = dice.choice([*starts, self.layout.tail_start, dice.randrange(len(self.whole))])
        end = min(len(self.whole), start + dice.choice([60, 400, 4096]))
        made = mutations.raw(dice, self.whole[start:end])
        return self.whole[:start] + made + self.whole[end:]

    def _records(self, dice: Random) -> bytes:
        """Numbers of headers are others, or records come where none were."""
        made = bytearray(self.whole)
        for _ in range(dice.choice([1, 1, 2])):
            at, fields = dice.choice(self._places(bytes(made)))
            place, kind = dice.choice(fields)
            number = dice.choice(ODD) & (0xFFFF if kind == "H" else 0xFFFFFFFF)
            if at + place + 4 <= len(made):
                struct.pack_into(f"<{kind}", made, at + place, number)
        way = dice.random()
        if way < 0.3:  # zip64's end and its locator
            count, length, start = (dice.choice(WIDE) for _ in range(3))
            end64 = struct.pack("<IQHHIIQQQQ", ziplayout.END64, 44, 45, 45, 0, 0, count, count,
                                length, start)  # fmt: skip
            locator = struct.pack("<IIQI", ziplayout.LOCATOR64, 0, dice.choice(WIDE), 1)
            struct.pack_into("<HHII", made, len(made) - 14, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1)
            made[-22:-22] = end64 + locator
            return bytes(made[-dice.choice([22, 98, 97, len(made)]) :])
        if way < 0.5:  # a field of zip64's behind a name
            at = dice.choice(self._places(bytes(made)))[0]
            made[at + 46 : at + 46] = struct.pack("<HHQQ", 1, 16, dice.choice(WIDE), 2**63)
        elif way < 0.6:
            made = bytearray(dice.randbytes(dice.randrange(60))) + made[-dice.randrange(1, 100) :]
        return bytes(made)

    def _places(self, data: bytes) -> list[tuple[int, Any]]:
        """Where records begin, and their fields."""
        found: list[tuple[int, Any]] = [(len(data) - 22, END)]
        at = self.layout.tail_start
        while data[at : at + 4] == struct.pack("<I", ziplayout.CENTRAL):
            found.append((at, CENTRAL))
            at += 46 + sum(struct.unpack_from("<HHH", data, at + 28))
        pairs = zip(self.layout.members, self.layout.headers, strict=True)
        return found + [(member.start - len(header), LOCAL) for member, header in pairs]

    def _packed(self, dice: Random) -> bytes:
        """Members are others, and all around them says so."""
        data = dict(self.members)
        for _ in range(dice.choice([1, 1, 2])):
            self._change(dice, data)
        if dice.random() < 0.8:  # the manifest takes the files as they are now
            data["manifest.json"] = self._listed(data)
        if dice.random() < 0.9 and pack.CONTENTS in data:
            data[pack.CONTENTS] = self._contents(data)
        if dice.random() < 0.1:
            data[pack.CONTENTS] = mutations.json_bytes(dice, json.loads(self._contents(data)))
        members = [Member(n, len(d), zlib.crc32(d)) for n, d in data.items()]
        if dice.random() < 0.1:  # sizes without bytes
            odd = dice.randrange(len(members))
            members[odd] = replace(members[odd], bytes=dice.choice(WIDE))
        return _file(members, list(data.values()))

    def _change(self, dice: Random, data: dict[str, bytes]) -> None:
        name = dice.choice(list(data))
        way = dice.random()
        if way < 0.1:
            del data[name]
        elif way < 0.2:
            data[dice.choice(NAMES)] = dice.choice([b"", b"{}", data[name][:4096]])
        elif way < 0.5 or "decoder.onnx" not in data:
            plain = name.endswith(".json") and dice.random() < 0.8
            old = data[name]
            data[name] = (
                mutations.json_bytes(dice, json.loads(old)) if plain else mutations.raw(dice, old)
            )
        elif way < 0.8:
            model = self.onnx.ModelProto.FromString(dict(self.members)["decoder.onnx"])
            Graphs.change(dice, model)
            _nested(dice, self.onnx, model)
            data["decoder.onnx"] = model.SerializeToString()
        else:
            signature = {"algorithm": "ed25519", "key": "0" * 64, "signature": "AA=="}
            data[pack.SIGNATURE] = mutations.json_bytes(dice, signature)

    @staticmethod
    def _listed(data: dict[str, bytes]) -> bytes:
        """The manifest with sizes and hashes of these members."""
        try:
            plain = json.loads(data["manifest.json"])
        except (KeyError, ValueError):
            return data.get("manifest.json", b"")
        for container, key in mutations.places(plain):
            entry = container[key]
            name = entry.get("name") if isinstance(entry, dict) else None
            if isinstance(name, str) and "sha256" in entry and name in data:
                digest = hashlib.sha256(data[name]).hexdigest()
                entry.update(bytes=len(data[name]), sha256=digest)
        return json.dumps(plain).encode()

    @staticmethod
    def _contents(data: dict[str, bytes]) -> bytes:
        listed = [
            {"name": n, "bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()}
            for n, d in data.items()
            if n not in (pack.CONTENTS, pack.SIGNATURE)
        ]
        return json.dumps({"format": "alm", "format_version": 1, "members": listed}).encode()

    def run(self, content: bytes) -> str:
        self.path.write_bytes(content)
        file, turn = str(self.path), zlib.crc32(content)
        out = self.scratch / "out"
        shutil.rmtree(out, ignore_errors=True)
        run = ["--engine", file, self.clip, "transcribe", "--provider", "cpu"]
        ways: list[tuple[Any, list[str], bool]] = [
            (alm_commands.app, ["inspect", file], True),
            (alm_commands.app, ["unpack", file, str(out)], False),
            (alm_commands.app, ["plan", file, "--device", "agx-orin-64gb"], False),
            (run_command.running, [*run, "--max-new-tokens", "2"], False),
        ]
        app, words, prints = ways[turn % len(ways)]
        for wrong in (
            judge.told(alm_commands.app, ["verify", file]),
            judge.told(app, words, prints),
        ):
            if wrong:
                return f"{words[0]}: {wrong}"
        said = manifest.load(self.path)
        for part in said.parts:
            if part.role == "table":
                open_table(self.path, part.files)
            else:
                backends.open_session(part, self.path, BackendOptions("cpu", 1))
        return ""


def _nested(dice: Random, onnx: Any, model: Any) -> None:
    """Weights of a graph in a graph, or of an attribute, that lie in another file."""
    if dice.random() < 0.7:
        return
    tensor = onnx.TensorProto(name="outside", dims=[4], data_type=1, data_location=1)
    places = ["decoder.onnx.data", "model.alm", "../x", "/etc/passwd"]
    for key, value in (("location", dice.choice(places)), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    node = model.graph.node.add(op_type="Constant", output=["strange"])
    if dice.random() < 0.5:
        node.attribute.add(name="value", type=4).t.CopyFrom(tensor)
        return
    node.op_type, node.input[:] = "If", [model.graph.input[0].name]
    branch = node.attribute.add(name="then_branch", type=5).g
    branch.initializer.append(tensor)
    branch.output.add(name="outside")


def _file(members: list[Member], data: list[bytes]) -> bytes:
    """The file of these members, whatever they are called and how large they are said to be."""
    at, made, central = 0, bytearray(), bytearray()
    for member, content in zip(members, data, strict=True):
        member = replace(member, bytes=min(member.bytes, 2**64 - 1))
        header = ziplayout._local(member, len(made))  # pyright: ignore[reportPrivateUsage]
        central += ziplayout._central(member, at)  # pyright: ignore[reportPrivateUsage]
        made += header + content
        at = len(made)
    end = ziplayout._end(len(members), len(central), at)  # pyright: ignore[reportPrivateUsage]
    return bytes(made + central) + end
