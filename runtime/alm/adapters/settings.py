"""adapter_config.json of a plain LoRA: what scales it, and what would make it something else."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alm.errors import BadArtifacts
from alm.parsing import is_a, parse, printable

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MERGE = "merge it: alm-export merges an adapter that lies beside the model's weights"
NAMES = re.compile(r"\^?[\w.\-]+")  # of a module, or of the end of one: no expression that repeats

# Fields that say what is in the tensors anyway, or that change no answer.
READ = frozenset({
    *("peft_type", "base_model_name_or_path", "target_modules", "exclude_modules", "r"),
    *("layers_to_transform", "layers_pattern", "lora_alpha", "use_rslora", "rank_pattern"),
    *("alpha_pattern", "bias", "init_lora_weights"),
    *("task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "lora_dropout"),
    *("fan_in_fan_out", "eva_config", "runtime_config", "megatron_core", "qalora_group_size"),
})  # fmt: skip
# Starts of training that leave the base model's weights as they are.
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Settings:
    """What a delta is multiplied with: alpha / rank, or alpha / sqrt(rank)."""

    alpha: float
    rooted: bool  # rsLoRA (Kalajdzievski 2023)
    alphas: Mapping[str, float] = field(default_factory=dict)  # by the end of a module's name

    def scale(self, names: tuple[str, ...], rank: int) -> float:
        """Of the module with these names; the first pattern that fits one of them counts."""
        alpha = self.alpha
        for name in names:
            found = [a for end, a in self.alphas.items() if _ends(name, end)]
            if found:
                alpha = found[0]
                break
        return alpha / (math.sqrt(rank) if self.rooted else rank)


def _ends(name: str, end: str) -> bool:
    """As peft matches a pattern: with the whole name, or with its end behind a dot."""
    whole = end.removeprefix("^")
    return name == whole or (whole == end and name.endswith(f".{end}"))


def settings(text: bytes, where: str) -> Settings:
    """What the config says.

    Raises:
        BadArtifacts: no JSON, or of something else than plain LoRA.
    """
    try:
        plain = parse(text.decode("utf-8"))
    except (BadArtifacts, ValueError, RecursionError) as error:
        raise BadArtifacts(f"{where} is not JSON: {printable(error, 200)}") from error
    if not isinstance(plain, dict) or plain.get("peft_type") != "LORA":
        kind = plain.get("peft_type") if isinstance(plain, dict) else None
        raise BadArtifacts(
            f"{where} says peft_type: {kind!r:.60}, and at run time an adapter is a LORA; {MERGE}"
        )
    for name, value in plain.items():
        if name not in READ and value:
            raise BadArtifacts(
                f"{where} says {name:.60}: {printable(value, 80)}, which is no plain LoRA; {MERGE}"
            )
    if (bias := plain.get("bias", "none")) != "none":
        raise BadArtifacts(f"{where} says bias: {bias!r:.60}, which is no plain LoRA; {MERGE}")
    start = plain.get("init_lora_weights", True)
    if not any(start is known or start == known for known in PLAIN_STARTS):
        raise BadArtifacts(
            f"{where} says init_lora_weights: {printable(start, 80)}, which changes the model's "
            f"own weights; {MERGE}"
        )
    patterns = plain.get("alpha_pattern") or {}
    if not isinstance(patterns, dict) or not all(NAMES.fullmatch(name) for name in patterns):
        raise BadArtifacts(
            f"{where} has an alpha_pattern of expressions; write the modules' names, or {MERGE}"
        )
    alphas = {name: _number(value, f"alpha_pattern of {name:.80}", where)
              for name, value in patterns.items()}  # fmt: skip
    alpha = _number(plain.get("lora_alpha"), "lora_alpha", where)
    return Settings(alpha, bool(plain.get("use_rslora", False)), alphas)


def _number(value: Any, name: str, where: str) -> float:
    if not is_a(value, (int, float)):
        raise BadArtifacts(f"{where} says {name}: {value!r:.60}, which is no number")
    return float(value)
