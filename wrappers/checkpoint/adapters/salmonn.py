"""The adapters in SALMONN's .pth, on the LLM and on Whisper, with the settings to merge them by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from alm.errors import BadCheckpoint
from wrappers.checkpoint.adapters import at_run_time, contract, peft_folder
from wrappers.checkpoint.adapters.contract import Adapter

# config.yaml's key -> peft's name of it.
NAMES = {
    "lora_rank": "r",
    "lora_alpha": "lora_alpha",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "lora_rank_pattern": "rank_pattern",
    "lora_alpha_pattern": "alpha_pattern",
    "lora_target_modules": "target_modules",
}
ORIGINAL = {"r": 8, "lora_alpha": 32}  # of the original's code, for its LoRA on the LLM


def read(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], prefix: str, pth: str, file: Path
) -> Adapter | None:
    """The adapter that these tensors of the .pth are, None where there are none.

    Args:
        settings: the model section of config.yaml.
        prefix: before the keys that are about this adapter: "" or "whisper_".
        pth: the .pth, beside which an adapter_config.json may say more than config.yaml does.
        file: config.yaml.

    Raises:
        BadCheckpoint: an adapter nobody knows, or settings that are missing or contradict.
    """
    adapter = contract.read(tensors, {}, pth)
    if adapter is None:
        return None
    given = {
        peft: settings[prefix + key] for key, peft in NAMES.items() if prefix + key in settings
    }
    beside = Path(pth).parent
    if not prefix and peft_folder.is_beside(beside):
        more = peft_folder.settings(beside / peft_folder.CONFIG, adapter.kind)
        if differing := [k for k in given if k in more and given[k] != more[k]]:
            raise BadCheckpoint(
                f"{file} and {beside / peft_folder.CONFIG} beside the .pth differ in "
                f"{', '.join(differing)}; keep one of the two"
            )
        return replace(adapter, settings=more)
    labels = {"r": f"{prefix}lora_rank"}
    if adapter.kind.peft_type == "LORA":
        usual = ORIGINAL if not prefix else {}
        return replace(adapter, settings=_complete(usual | given, prefix, file) | {"names": labels})
    if adapter.kind.peft_type == "VBLORA":
        return replace(adapter, settings={"topk": settings.get("vblora_topk", 2)})
    if adapter.kind.peft_type == "HRA":
        return replace(adapter, settings={"apply_GS": settings.get("hra_apply_GS", False)})
    if adapter.kind.peft_type == "IA3":
        return adapter
    given = _complete(given, prefix, file)
    return replace(adapter, settings=given | {"alpha": given["lora_alpha"], "names": labels})


def _complete(given: Mapping[str, Any], prefix: str, file: Path) -> dict[str, Any]:
    if "lora_alpha" not in given:
        raise BadCheckpoint(
            f"{file} does not say `{prefix}lora_alpha`, which scales the adapter and is in no "
            "other file; say it in the model section"
        )
    return dict(given)


def shares(
    folder: Path, build: Callable[[], Mapping[str, nn.Module]], *, scaled: bool
) -> at_run_time.Shares:
    """What of the parts the LoRA in a folder changes, that stays a file; see `Checkpoint.shares`.

    Its names are those of the LLM alone, or those of the whole SALMONN.

    Args:
        build: makes the modules without memory, by the first word of their names.
        scaled: the bridge's projection is loaded times a number.

    Raises:
        MissingFile, BadCheckpoint: see `at_run_time.shares`.
    """

    as_whole: list[str] = []  # names in the file that say the part

    def renamed(name: str) -> str:
        if name.startswith(("llama_model.", "speech_", "ln_", "beats.")):
            as_whole.append(name)
        return name if as_whole[-1:] == [name] else f"llama_model.{name}"

    def skeleton() -> nn.Module:
        return nn.ModuleDict(build())

    def home(module: str) -> tuple[str, str]:
        first, _, rest = module.partition(".")
        if first == "speech_llama_proj" and scaled:
            return "", ""
        parts = {"llama_model": "decoder", "speech_encoder": "whisper"}
        return (parts[first], rest) if first in parts else ("qformer", module)

    def aliases(module: str) -> tuple[str, ...]:
        both = module, module.removeprefix("llama_model.")
        return both if as_whole else both[::-1]

    adapter = peft_folder.read(folder, rename=renamed, aliases=aliases)
    return at_run_time.shares(folder, adapter, skeleton, home)
