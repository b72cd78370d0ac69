"""Weight files as data: safetensors or `torch.load(weights_only=True)`, tensor by tensor."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alm.errors import BadCheckpoint, MissingFile
from wrappers.checkpoint.plain_files import REASON, exists, read_json, refuse_pointer

__all__ = ["FILES", "Weights", "load_pickled", "open_folder", "read_json", "state_dict"]

FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
WRAPPED = ("model", "state_dict", "module")  # where trainers put the state dict
# A class of transformers, or of a pruner's copy of it, in a complaint of torch's.
WHOLE = re.compile(r"GLOBAL \S*(?:modeling_\w+|torch\.nn\.modules)\.")
MOST_WRAPPED = 4  # of these in each other
PARALLEL = "module."  # what torch's DataParallel puts before every name


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
        prefix = next((p for p in prefixes if any(n.startswith(p) for n in self.shapes)), None)
        part = Weights(self.where)
        if prefix is not None:
            for name, shape in self.shapes.items():
                if name.startswith(prefix):
                    part.shapes[name[len(prefix) :]] = shape
                    part._read[name[len(prefix) :]] = self._read[name]
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

    def add_tensors(self, tensors: Mapping[Any, Any]) -> None:
        """Tensors that were read from a file.

        Raises:
            BadCheckpoint: a name that is no text, a value that is no tensor, or a tensor whose
                values are not simply there: quantized, sparse, or fewer than its shape says.
        """
        for name, tensor in tensors.items():
            if not isinstance(name, str):
                kind = type(name).__name__
                raise BadCheckpoint(
                    f"{self.where} names a tensor by a value of type {kind}; tensors have names"
                )
            if reason := _not_plain(tensor):
                raise BadCheckpoint(f"{self.where}: {name} is {reason}")
            self.add(name, tuple(tensor.shape), lambda tensor=tensor: tensor)

    def add(self, name: str, shape: tuple[int, ...], read: Callable[[], Tensor]) -> None:
        """A tensor that is read, or computed, each time it is taken."""
        self.shapes[name], self._read[name] = shape, read

    def add_safetensors(self, path: Path) -> None:
        """The tensors of a safetensors file; of the file only its header is read.

        Raises:
            MissingFile: no such file, or a Git LFS pointer.
            BadCheckpoint: damaged, or no safetensors file.
        """
        _refuse_missing(path)
        try:
            with safe_open(path, "pt") as file:
                names = list(file.keys())
                self.shapes |= {n: tuple(file.get_slice(n).get_shape()) for n in names}
        except (SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())[:REASON]
            raise BadCheckpoint(f"{path} is no readable safetensors file: {reason}") from error
        for name in names:
            self._read[name] = lambda name=name: _one(path, name)


def _not_plain(value: Any) -> str:
    """What keeps a value from being a tensor as a weight is; "" where nothing does."""
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__} and no tensor"
    if value.is_quantized:
        return f"quantized by torch ({value.dtype}); save its values as they are used, in floats"
    if value.layout != torch.strided or value.is_meta or value.is_nested:
        return "a tensor without plain values (sparse, nested or on the meta device)"
    if value.is_complex():
        return f"of complex numbers ({value.dtype})"
    held = value.untyped_storage().nbytes() // value.element_size()
    if value.numel() > held:
        return f"a tensor of shape {list(value.shape)} with {held} values"
    return ""


def _refuse_missing(path: Path) -> None:
    if not exists(path) or not path.is_file():
        raise MissingFile(f"there is no file {path}")
    refuse_pointer(path)


def _one(path: Path, name: str) -> Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)


def load_pickled(path: Path) -> Any:
    """What torch.save wrote, plain data and tensors only.

    Raises:
        MissingFile: no such file, or a Git LFS pointer.
        BadCheckpoint: truncated, no torch file, or one that holds code.
    """
    _refuse_missing(path)
    try:
        # Mapped, a file costs memory where it is read; torch's form before 1.6 cannot be.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise BadCheckpoint(f"{path} holds {_more(str(error))}") from error
    except MemoryError:
        raise
    except Exception as error:  # damaged old files fail in any way, from struct.error to KeyError
        reason = (str(error) or type(error).__name__).split("\n")[0][:REASON]
        raise BadCheckpoint(f"{path} is no readable torch file: {reason}") from error


def _more(complaint: str) -> str:
    """What a file holds besides data, from torch's complaint, and what to type."""
    reason = complaint.split("\n")[0].rstrip(".")[:REASON]
    if WHOLE.search(complaint):  # as pruners such as LLM-Pruner and Torch-Pruning leave it
        return (
            "code: a whole model was pickled, not its weights. Where you trust it, open it with "
            "the pruner's own code, model = torch.load(file, weights_only=False)['model'], and "
            "save a folder with model.save_pretrained(folder)"
        )
    return (
        f"more than tensors and plain data, or is damaged ({reason}); save its tensors with "
        "torch.save({'model': state_dict}) or as safetensors"
    )


def state_dict(plain: Any) -> dict[Any, Any]:
    """The tensors by name in what a training framework saved, wherever it puts them.

    Trainers wrap a state dict under `model`, `state_dict` (Lightning) or `module` (DeepSpeed), also
    one in another. Beside tensors there may be counters and settings, which are left out.

    Returns:
        An empty dict where there are no tensors.
    """
    for _ in range(MOST_WRAPPED):
        if not isinstance(plain, dict):
            return {}
        inner = [plain[k] for k in WRAPPED if isinstance(plain.get(k), dict) and plain[k]]
        if not inner or any(isinstance(value, Tensor) for value in plain.values()):
            break
        plain = inner[0]
    if not isinstance(plain, dict):
        return {}
    return {name: value for name, value in plain.items() if isinstance(value, Tensor)}


def open_folder(folder: Path) -> Weights:
    """The weights of a Hugging Face folder: safetensors preferred, sharded or not.

    Raises:
        MissingFile: no folder, or none of the usual files in it.
        BadCheckpoint: unreadable, or an index that points out of the folder.
    """
    if not exists(folder) or not folder.is_dir():
        raise MissingFile(f"there is no folder {folder}")
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise MissingFile(f"{folder} holds no weights; looked for {', '.join(FILES)}")
    weights = Weights(str(path))
    for shard in _shards(path):
        if shard.suffix == ".safetensors":
            weights.add_safetensors(shard)
        else:
            weights.add_tensors(state_dict(load_pickled(shard)))
    if not weights.shapes:
        raise BadCheckpoint(f"{path} holds no tensors")
    bare = weights.under(PARALLEL)
    return bare if len(bare.shapes) == len(weights.shapes) else weights


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
