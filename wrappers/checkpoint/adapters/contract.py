"""Adapters: what one consists of, read from the names of its tensors and the settings beside."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from alm.errors import BadCheckpoint
from wrappers.checkpoint.adapters import peft_kinds
from wrappers.checkpoint.adapters.peft_kinds import BANK, LEAVES, Kind, Settings, Site

# MODULE.lora_A.default.weight in a model's state dict, MODULE.lora_A.weight in an adapter's file.
LEAF = re.compile(
    rf"^(?:(?P<module>.+?)\.)?(?P<leaf>{'|'.join(LEAVES)})"
    r"(?:\.(?!weight$|bias$)(?P<adapter>[^.]+))?(?P<tail>\.(?:weight|bias))?$"
)
_TOKENS = re.compile(r"^(?P<module>.+)\.token_adapter\.trainable_tokens_delta(?:\.[^.]+)?$")
_MARKS = (*(f".{leaf}" for leaf in LEAVES), BANK)
_TOPK = ("_topk_indices", "_topk_weights")


def _same(name: str) -> str:
    return name


def _alone(name: str) -> tuple[str, ...]:
    return (name,)


@dataclass(frozen=True)
class Adapter:
    """One adapter: what it changes, and how."""

    kind: Kind
    where: str  # its file, for messages
    tensors: dict[str, Tensor]  # by MODULE.LEAF
    settings: Settings  # under peft's names
    replaced: dict[str, Tensor] = field(default_factory=dict)  # weights that were trained whole
    rows: dict[str, Tensor] = field(default_factory=dict)  # tables of which some rows were trained
    aliases: Callable[[str], tuple[str, ...]] = _alone  # a module's names in the settings
    tied: Mapping[str, str] = field(default_factory=dict)  # a table -> the head that shares it

    @property
    def sites(self) -> list[Site]:
        """The modules that get a delta."""
        names = {key.removesuffix(".bias").rpartition(".")[0] for key in self.tensors} - {""}
        return [Site(name, self.aliases(name)) for name in sorted(names)]

    def under(self, prefix: str, but: str = "") -> Adapter:
        """The part of it below a prefix, without the deltas of the module `but`."""
        size = len(prefix)

        def below(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {n[size:]: t for n, t in given.items() if n.startswith(prefix)}

        deltas = below(self.tensors)
        if but:
            deltas = {n: t for n, t in deltas.items() if not n.startswith(f"{but}.")}
        aliases = self.aliases
        return replace(
            self,
            tensors=deltas | {n: t for n, t in self.tensors.items() if n == BANK},
            replaced=below(self.replaced),
            rows=below(self.rows),
            aliases=lambda name: aliases(prefix + name),
            tied={t[size:]: h[size:] for t, h in self.tied.items() if t.startswith(prefix)},
        )


def is_adapter(name: str) -> bool:
    """Whether a tensor of this name belongs to an adapter that is known here."""
    return any(mark in name for mark in _MARKS)


def read(
    tensors: Mapping[str, Tensor],
    settings: Settings,
    where: str,
    *,
    kind: Kind | None = None,
    rename: Callable[[str], str] = _same,
    aliases: Callable[[str], tuple[str, ...]] = _alone,
    tied: Mapping[str, str] | None = None,
) -> Adapter | None:
    """The adapter that these tensors are, None where there are none.

    Args:
        tensors: as peft names them, with or without base_model.model. and the adapter's name.
        kind: what the settings say it is; by default its tensors say it.
        rename: a weight's name in the file -> the one that it has here.

    Raises:
        BadCheckpoint: no adapter that is known here, several, or half of one.
    """
    if reduced := [key for key in tensors if key.endswith(_TOPK)]:
        raise BadCheckpoint(
            f"the VB-LoRA adapter was saved as its top-k weights only ({reduced[0]}); load it with "
            "peft and save the whole state_dict, with the logits"
        )
    deltas: dict[str, Tensor] = {}
    whole: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    names: set[str] = set()
    leaves: set[str] = set()
    for name, tensor in tensors.items():
        plain = name.removeprefix("base_model.model.").removeprefix("base_model.")
        if not tensor.is_floating_point():
            raise BadCheckpoint(f"{where}: {name} is {tensor.dtype}, and adapters are of floats")
        if match := LEAF.match(plain):
            leaves.add(match["leaf"])
            names |= {match["adapter"]} if match["adapter"] else set()
            deltas[key_of(match, rename)] = tensor
        elif match := _TOKENS.match(plain):
            rows[rename(f"{match['module']}.weight")] = tensor
        elif ".original_module." not in plain:
            whole[rename(_base_name(plain))] = tensor
    if not deltas:
        if kind or whole or rows:
            raise BadCheckpoint(f"{where} holds no tensor of an adapter that is known here")
        return None
    if len(names) > 1:
        raise BadCheckpoint(
            f"{where} holds {len(names)} adapters ({', '.join(sorted(names))}); keep one of them"
        )
    of_tensors = peft_kinds.of_tensors(leaves, next(iter(tensors)))
    if kind and kind is not of_tensors:
        raise BadCheckpoint(f"{where} holds {of_tensors.name}, but its config says {kind.name}")
    return Adapter(of_tensors, where, deltas, settings, whole, rows, aliases, tied or {})


def key_of(match: re.Match[str], rename: Callable[[str], str] = _same) -> str:
    """MODULE.LEAF of a matched name."""
    if match["leaf"] == BANK:
        return BANK
    module = rename(f"{match['module']}.weight").removesuffix(".weight")
    return f"{module}.{match['leaf']}{'.bias' if match['tail'] == '.bias' else ''}"


def _base_name(name: str) -> str:
    """A weight's name without what peft puts in it around modules that it wraps."""
    plain = re.sub(r"\.modules_to_save\.[^.]+\.", ".", name)
    return plain.replace(".modules_to_save.", ".").replace(".base_layer.", ".")


def few(names: list[str]) -> str:
    """Some names of many, for a message."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
