"""Checkpoint -> torch modules. One file a part or a model family; the folder is its role.

`frontends`, `encoders`, `bridges`, `llms`, `families` and `dialects` hold entries only: a new file
is in the list. What they share is in `layers` and `checkpoint`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import onnx_ir as ir
import torch
from torch import Tensor, nn

from alm.errors import AlmError, BadCheckpoint, MissingFile, UnknownName
from alm.facts import Facts
from alm.parsing import is_panic, printable
from alm.ports import Port, Span
from alm.registry import names, pick
from wrappers import dialect
from wrappers.checkpoint.plain_files import exists, unreadable

PARTS = {"frontend": "frontends", "encoder": "encoders", "bridge": "bridges"}  # role -> folder
FOLDERS = PARTS | {"llm": "llms", "family": "families"}

PartT = TypeVar("PartT", bound="Wrapper")


class Wrapper(nn.Module):
    """A part: its ports say what goes in and what comes out, forward takes and gives them in order.

    `spans` holds a Span for every dynamic axis of the inputs besides `batch`.
    """

    role: str
    inputs: dict[str, Port]
    outputs: dict[str, Port]
    spans: dict[str, Span]
    chunk_rows = 0  # of a decoder, when several tokens meet a past; 0: any number
    exact = False  # what comes out numbers things, so that no lever may round what goes into it
    pieces = ""  # the axis that may be cut into pieces as long as its span, each computed alone
    opset = 20  # LayerNormalization and Gelu are one node each, and TensorRT 10.3 knows them

    def keep_state_in(self, dtype: str) -> None:
        """Carry state from call to call in this dtype; most parts have none."""

    @property
    def state_scales(self) -> dict[str, Tensor]:
        """What a step of integer state is worth, by port; most parts have none."""
        return {}

    def finish(self, model: ir.Model) -> ir.Model:
        """The traced graph with what tracing cannot write; weights in it may be lazy."""
        return model

    @property
    def facts(self) -> dict[str, Any]:
        """What was found out while loading, for the manifest."""
        return {}


@dataclass(frozen=True)
class Checkpoint:
    """A model taken apart: how to load each part, and all that the manifest holds of the whole.

    `parts` is in the order of a run; each value loads that part alone, so that one part can be
    exported without the memory of the others. `part` loads it in a dialect.
    """

    family: str
    parts: dict[str, Callable[[], Wrapper]]  # part name -> load(), in the dialect that is bound
    embedding: Callable[[], Tensor]  # [vocab, hidden], scaled as the model does
    tokenizer_json: str
    facts: Facts
    notes: tuple[str, ...] = ()
    made_by: Mapping[str, str] = field(default_factory=dict)  # part -> its file, of another name
    # The folder of a LoRA -> part -> module in it -> names that the file may have for that; None of
    # families whose adapters are merged alone.
    shares: Callable[[Path], dict[str, dict[str, tuple[str, ...]]]] | None = None

    def part(self, name: str, dialect_name: str) -> Wrapper:
        """A part, loaded; its attention is written in this dialect."""
        with dialect.bound(dialect_name):
            return self.parts[name]()

    @property
    def roles(self) -> dict[str, str]:
        """Part name -> its role: that of the file that makes it; the decoder is one."""
        files = {name: self.made_by.get(name, name) for name in self.parts}
        return {name: role_of(file) or file for name, file in files.items()}


def randomised(part: PartT) -> PartT:
    """The part with random weights, large enough to matter; the same every time."""
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in part.parameters():
            weight.normal_(0, 1.5 * weight.shape[-1] ** -0.5, generator=noise)
    return part.eval().requires_grad_(False)


def folder_of(role: str) -> ModuleType:
    """The folder that holds the files of a role."""
    return importlib.import_module(f"{__name__}.{FOLDERS[role]}")


def role_of(name: str) -> str:
    """The role of the part `name`: that of the folder that has a file of its name; or ""."""
    return next((role for role in PARTS if name in names(folder_of(role))), "")


def with_role(role: str) -> list[str]:
    """The files of this role, sorted."""
    return names(folder_of(role))


def pick_role(role: str, name: str) -> Any:
    """The module `name` of this role; a wrong name lists the right ones."""
    return pick(folder_of(role), name, role)


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`, by whichever family recognises it.

    Raises:
        UnknownName: no family does; the message lists those known.
        MissingFile, BadCheckpoint: as the family finds.
    """
    if not exists(path):
        raise MissingFile(f"there is no {str(path)[:200]}; --model wants a checkpoint, or `demo`")
    families: Mapping[str, Any] = {name: pick_role("family", name) for name in with_role("family")}
    try:
        for family in families.values():
            if family.recognises(path):
                return family.load(path)
    except AlmError:
        raise
    except OSError as error:  # a file or a folder that we may not read
        raise unreadable(Path(str(error.filename or path)), error) from error
    except BaseException as error:
        if not is_panic(error):  # of tokenizers, on a text of the checkpoint's own
            raise
        raise BadCheckpoint(
            f"the tokenizer of {path} cannot be used: its parts do not fit together "
            f"({printable(error, 300)})"
        ) from None
    from wrappers.checkpoint.model_type import model_type

    named = model_type(path)
    detail = f" (its config.json says model_type: {named[:80]!r})" if named else ""
    wanted = _looks({name: family.LOOKS_LIKE for name, family in families.items()})
    raise UnknownName(f"{path} is no model that is known here{detail}; known are {wanted}")


def _looks(known: Mapping[str, str]) -> str:
    """What checkpoints of all families look like; what many begin with is said once."""
    said, rest = [], dict(known)
    for start in (
        "a config.yaml with a section ",
        "a folder whose config.json says ",
        "a Hugging Face folder whose config.json says model_type: ",
    ):
        alike = [name for name, text in rest.items() if text.startswith(start)]
        if alike:
            said.append(start + ", ".join(rest.pop(name).removeprefix(start) for name in alike))
    return "; ".join([*(f"{name}: {text}" for name, text in rest.items()), *said])
