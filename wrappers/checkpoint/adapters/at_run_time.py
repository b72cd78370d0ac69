"""Which modules of which parts an adapter changes, for adapters that stay files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from alm.adapters.settings import MERGE, WEIGHTS
from alm.errors import BadCheckpoint, MissingFile
from wrappers.checkpoint.adapters import adapter_faults
from wrappers.checkpoint.adapters.contract import Adapter, few

# Part -> module in it -> the names that an adapter's file may have for that.
Shares = dict[str, dict[str, tuple[str, ...]]]


def shares(
    folder: Path,
    adapter: Adapter,
    skeleton: Callable[[], nn.Module],
    home: Callable[[str], tuple[str, str]],
) -> Shares:
    """What of each part the adapter changes.

    Args:
        folder: the adapter's.
        adapter: what is in it, under the names of the skeleton.
        skeleton: makes all modules under their published names, without memory.
        home: a module's published name -> its part and its path in that, "" where no part has it.

    Raises:
        MissingFile: the adapter's weights are in no safetensors file.
        BadCheckpoint: it is no plain LoRA of Linears, or does not fit.
    """
    if not (folder / WEIGHTS).is_file():
        raise MissingFile(f"there is no {WEIGHTS} in {folder}; save the adapter with peft anew")
    _check_plain(folder, adapter)
    modules = dict(skeleton().named_modules())
    made: Shares = {}
    for site in adapter.sites:
        if not isinstance(modules.get(site.name), nn.Linear):
            if site.name in modules:
                kind = type(modules[site.name]).__name__
                raise BadCheckpoint(
                    f"the adapter in {folder} changes {site.name}, a {kind}, and at run time only "
                    f"Linears take one; {MERGE}"
                )
            raise BadCheckpoint(
                f"the adapter in {folder} changes {site.name}, which is no module of this model"
            )
        part, path = home(site.name)
        if not part:
            raise BadCheckpoint(
                f"the adapter in {folder} changes {site.name}, which takes none so; {MERGE}"
            )
        made.setdefault(part, {})[path] = tuple(dict.fromkeys((*site.aliases, site.name)))
    if wrong := adapter_faults.faults(skeleton(), adapter):
        raise BadCheckpoint(wrong[0])
    return made


def _check_plain(folder: Path, adapter: Adapter) -> None:
    """Refuse, with BadCheckpoint, what is more than a low-rank term of a Linear."""
    settings, names = adapter.settings, adapter.tensors
    why = ""
    if adapter.kind.peft_type != "LORA":
        why = f"is {adapter.kind.name}"
    elif settings.get("use_dora") or any("magnitude" in name for name in names):
        why = "is DoRA"
    elif settings.get("use_qalora"):
        why = "is QA-LoRA"
    elif settings.get("lora_bias") or settings.get("bias", "none") != "none":
        why = "has trained biases"
    elif adapter.replaced or adapter.rows:
        why = f"has trained {few(sorted([*adapter.replaced, *adapter.rows]))} whole"
    elif any(".lora_embedding_" in name for name in names):
        why = "changes the embedding table"
    if why:
        raise BadCheckpoint(f"the adapter in {folder} {why}, which is no plain LoRA; {MERGE}")


def joined(shares: Mapping[str, Shares]) -> Shares:
    """What several adapters change, taken together."""
    every: Shares = {}
    for one in shares.values():
        for part, modules in one.items():
            every.setdefault(part, {}).update(modules)
    return every
