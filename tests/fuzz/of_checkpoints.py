"""Inputs of a checkpoint: what export.py reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import mutations


class Checkpoint:
    """One file of a checkpoint, which is then opened and whose parts are loaded."""

    NAME = "config.yaml"

    def __init__(self, sources: Path, scratch: Path) -> None:
        self.folder = Path(shutil.copytree(sources / "checkpoint", scratch / "checkpoint"))
        self.config, self.count = self.folder / "config.yaml", 0
        files = sorted(self.folder.rglob(self.NAME))
        self.whole = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in files}

    def make(self, dice: Random) -> bytes:
        name = dice.choice(sorted(self.whole))
        return name.encode() + b"\n" + self.changed(dice, self.whole[name])

    def changed(self, dice: Random, whole: bytes) -> bytes:
        raise NotImplementedError

    def run(self, content: bytes) -> None:
        from wrappers import open_checkpoint

        name, _, content = content.partition(b"\n")
        path = self.folder / name.decode()
        self.count += 1
        try:
            path.write_bytes(content)
            opened = open_checkpoint(self.config)
            if self.count % 2:
                opened.embedding()
            names = list(opened.parts)
            opened.part(names[self.count % len(names)], "standard")
        finally:
            path.write_bytes(self.whole[name.decode()])


class Yaml(Checkpoint):
    """The original's config.yaml."""

    def changed(self, dice: Random, whole: bytes) -> bytes:
        import yaml

        plain = mutations.json_value(dice, yaml.safe_load(whole))
        way = dice.random()
        if way < 0.1:
            return dice.choice(
                [b"[" * 20000, b"a: " + b"9" * 5000, b"&a [*a]", b"a: &a\n  b: *a\n"]
            )
        try:
            content = yaml.safe_dump(plain, allow_unicode=True).encode("utf-8", "surrogatepass")
        except (yaml.YAMLError, RecursionError):
            content = whole
        return mutations.raw(dice, content) if way < 0.3 else content


class Configs(Checkpoint):
    """config.json of the LLM and of Whisper, and what else of JSON lies there."""

    NAME = "*.json"

    def changed(self, dice: Random, whole: bytes) -> bytes:
        if dice.random() < 0.03:
            return dice.choice([b"[" * 100000, b"{}", b"", b"null", b"\xff", b"9" * 5000])
        return mutations.json_bytes(dice, json.loads(whole))


class Safetensors(Checkpoint):
    """Headers of safetensors."""

    NAME = "*.safetensors"

    def changed(self, dice: Random, whole: bytes) -> bytes:
        size = int.from_bytes(whole[:8], "little")
        if dice.random() < 0.3:
            return mutations.raw(dice, whole, near=8 + size)
        header = mutations.json_bytes(dice, json.loads(whole[8 : 8 + size]))
        length = len(header) if dice.random() < 0.9 else dice.choice([0, 1, 2**40, 2**63])
        return length.to_bytes(8, "little") + header + whole[8 + size :]


class Pickles(Checkpoint):
    """The .pth of the trained parts."""

    NAME = "*.pth"

    def changed(self, dice: Random, whole: bytes) -> bytes:
        import io

        import torch

        if dice.random() < 0.4:
            return mutations.raw(dice, whole, near=3000)
        plain = torch.load(io.BytesIO(whole), weights_only=True)
        tensors = plain["model"] if "model" in plain else plain
        for _ in range(dice.choice([1, 1, 2, 4])):
            name = dice.choice(sorted(map(str, tensors)))
            way, old = dice.randrange(9), tensors.get(name)
            odd: list[Any] = [
                1, "x", None, [], {1: torch.zeros(2)}, torch.zeros(()), torch.zeros(0, 3),
                torch.zeros(2, 2, dtype=torch.complex64), torch.zeros(3).to_sparse(),
                torch.zeros(2, dtype=torch.bool), torch.full((2, 2), float("nan")),
                torch.zeros(1).expand(2**20, 2**10), torch.zeros(2, device="meta"),
                torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8),
            ]  # fmt: skip
            if way == 0:
                tensors.pop(name, None)
            elif way == 1:
                tensors[dice.choice([1, None, "x", "", "\ud800", (1, 2), b"x"])] = old
            elif way == 2 and hasattr(old, "ndim"):
                tensors[name] = old.T.contiguous() if old.ndim == 2 else old[..., None]
            elif way == 3 and hasattr(old, "double"):
                tensors[name] = dice.choice(
                    [old.double(), old.half(), old.long(), old.flatten()[:1]]
                )
            elif way == 4:
                plain = dice.choice([tensors, [tensors], {"state_dict": tensors}, {"model": plain}])
            else:
                tensors[name] = dice.choice(odd)
        stream = io.BytesIO()
        torch.save(plain, stream)
        return stream.getvalue()
