"""Small folders of models: a manifest, and files of chance bytes that it lists."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from alm.artifacts.engine_files import Engine, Maker
from alm.artifacts.manifest import NAME, Manifest
from alm.artifacts.part import Part
from alm.facts import AudioFacts, DimensionFacts, Facts, PromptFacts, TokenFacts
from alm.parsing import File

FACTS = Facts(
    prompt=PromptFacts(
        turn="{clips}{}", clip="<a> ", placeholder="<a>", tasks={"transcribe": "Write it down."}
    ),
    tokens=TokenFacts(eos=(2,)),
    audio=AudioFacts(rate=16000, channel="first", least_samples=1, window_samples=16000),
    dimensions=DimensionFacts(hidden=8, vocab=32, context=64),
    generation={"max_new_tokens": 5},
    source={"config": "config.yaml", "llm": "llama"},
)
PARITY = {"worst_abs": 1.5e-6, "rms": 1e-7, "bound": 0.0, "verdict": "exact"}
Files = dict[str, bytes]


def listed(name: str, content: bytes) -> File:
    return File(name, len(content), hashlib.sha256(content).hexdigest())


def files(seed: int = 0, large: int = 50_000) -> Files:
    """The files of a model by name: a graph, a decoder with its data of `large` bytes, words."""
    chance = random.Random(seed)
    sizes = {"ear.onnx": 3_000, "sub/decoder.onnx": 4_000, "sub/decoder.onnx.data": large}
    made = {name: chance.randbytes(size) for name, size in sizes.items()}
    return made | {"tokenizer.json": b'{"words": %d}' % seed}


def manifest(held: Files, **more: Any) -> Manifest:
    """What lists them."""
    lists = [listed(name, content) for name, content in held.items()]
    ear, decoder, data, words = lists
    measured = {"parity": PARITY}
    parts = (
        Part("ear", "encoder", (ear,), precision="fp32", measured=measured),
        Part("decoder", "decoder", (decoder, data), precision="fp32", measured=measured),
    )
    made: dict[str, Any] = {"family": "salmonn", "tokenizer": words, "facts": FACTS}
    return Manifest(**made | {"parts": parts, "tools": {"torch": "2.13"}} | more)


def as_json(listing: Manifest) -> bytes:
    return json.dumps(listing.to_json()).encode()


def model(seed: int = 0, large: int = 50_000) -> Files:
    """All files of a repository that holds a model."""
    held = files(seed, large)
    return held | {NAME: as_json(manifest(held))}


def spoilt(held: Files, number: int, **fields: Any) -> Files:
    """A model whose manifest says something else of a file of its decoder, or of its ear."""
    plain = json.loads(held[NAME])
    plain["parts"][number]["files"][-1] |= fields
    return held | {NAME: json.dumps(plain).encode()}


def written(held: Files, folder: Path) -> Path:
    for name, content in held.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def read(folder: Path) -> Files:
    """Every file of a folder by its name in it."""
    paths = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def engine(content: bytes) -> Engine:
    """An engine of the ear."""
    maker = Maker("tensorrt", "10.3.0", "Linux aarch64", "Orin", "8.7")
    return Engine("ear", listed("ear.engine", content), "f" * 64, maker, ())
