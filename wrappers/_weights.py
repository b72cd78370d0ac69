"""Weight files as data: safetensors or `torch.load(weights_only=True)`, tensor by tensor."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alm.errors import BadCheckpoint, MissingFile

FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


class Weights:
    """The tensors of a checkpoint by name; shapes are known without reading the values."""

    def __init__(self, where: str) -> None:
        self.where = where  # the file or folder, for messages
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._read: dict[str, Callable[[], Tensor]] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self._read[name]()

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def under(self, *prefixes: str) -> Weights:
        """The tensors under the first of these prefixes that any name has, without it."""
        found = next((p for p in prefixes if any(n.startswith(p) for n in self.shapes)), None)
        part = Weights(self.where)
        if found is not None:
            for name, shape in self.shapes.items():
                if name.startswith(found):
                    part.shapes[name[len(found) :]] = shape
                    part._read[name[len(found) :]] = self._read[name]
        return part

    def above(self, prefix: str, but: str) -> Weights:
        """All tensors with the prefix before their names, except the one called `but`."""
        part = Weights(self.where)
        for name, shape in self.shapes.items():
            longer = name if name == but else prefix + name
            part.shapes[longer], part._read[longer] = shape, self._read[name]
        return part

    def over(self, changed: Weights) -> Weights:
        """These tensors with those of `changed` in the place of the ones of the same name."""
        both = Weights(f"{self.where} and {changed.where}" if changed.shapes else self.where)
        both.shapes = self.shapes | changed.shapes
        both._read = self._read | changed._read
        return both

    def take(self, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Tensors by name, all by default."""
        return {name: self[name] for name in (self.shapes if names is None else names)}

    def add_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            self.add(name, tuple(tensor.shape), lambda tensor=tensor: tensor)

    def add(self, name: str, shape: tuple[int, ...], read: Callable[[], Tensor]) -> None:
        """A tensor that is read, or computed, each time it is asked for."""
        self.shapes[name], self._read[name] = shape, read

    def add_safetensors(self, path: Path) -> None:
        if not path.is_file():
            raise MissingFile(f"there is no file {path}")
        try:
            with safe_open(path, "pt") as file:
                names = list(file.keys())
                self.shapes |= {n: tuple(file.get_slice(n).get_shape()) for n in names}
        except (SafetensorError, OSError) as error:
            raise BadCheckpoint(f"{path} is no readable safetensors file: {error}") from error
        for name in names:
            self._read[name] = lambda name=name: _one(path, name)


def _one(path: Path, name: str) -> Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)


def load_pickled(path: Path) -> Any:
    """What torch.save wrote, plain data and tensors only.

    Raises:
        MissingFile: no such file.
        BadCheckpoint: truncated, no torch file, or one that holds code.
    """
    if not path.is_file():
        raise MissingFile(f"there is no file {path}")
    try:
        # Mapped, a file costs memory where it is read; torch's form before 1.6 cannot be.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0].rstrip(".")
        raise BadCheckpoint(
            f"{path} holds more than tensors and plain data, or is damaged ({reason}); "
            "save its tensors with torch.save({'model': state_dict}) or as safetensors"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # damaged old files fail in any way, from struct.error to KeyError
        reason = (str(error) or type(error).__name__).split("\n")[0]
        raise BadCheckpoint(f"{path} is no readable torch file: {reason}") from error


def open_folder(folder: Path) -> Weights:
    """The weights of a Hugging Face folder: safetensors preferred, sharded or not.

    Raises:
        MissingFile: no folder, or none of the usual files in it.
        BadCheckpoint: unreadable, or an index that points out of the folder.
    """
    if not folder.is_dir():
        raise MissingFile(f"there is no folder {folder}")
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise MissingFile(f"{folder} holds no weights; looked for {', '.join(FILES)}")
    weights = Weights(str(path))
    for shard in _shards(path):
        if shard.suffix == ".safetensors":
            weights.add_safetensors(shard)
        else:
            weights.add_tensors(load_pickled(shard))
    return weights


def _shards(path: Path) -> list[Path]:
    if path.suffix != ".json":
        return [path]
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise BadCheckpoint(f"{path} has no weight_map")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if Path(name).name != name:
            raise BadCheckpoint(f"{path} names the shard {name!r}, which is not beside it")
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise MissingFile(f"{path} names shards that are not there: {', '.join(missing)}")
    return [path.parent / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint, or a sentence about why not."""
    if not path.is_file():
        raise MissingFile(f"there is no file {path}")
    try:
        said = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BadCheckpoint(f"{path} is not JSON: {error}") from error
    if not isinstance(said, dict):
        raise BadCheckpoint(f"{path} holds no JSON object")
    return said
