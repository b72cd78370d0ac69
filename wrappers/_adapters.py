"""Adapters: recognised from the names of their tensors and merged through peft's own delta.

The decoder's modules are named as transformers names them, so peft wraps it as it would wrap the
original and the tensors of the checkpoint fit without renaming.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from wrappers._decoder import Decoder
from wrappers._lazy import attach, held
from wrappers._weights import Weights

Settings = Mapping[str, Any]  # the checkpoint's `model` section: lora_alpha and so on

# Worst difference of logits, as a share of the largest logit, that rounding of a merge may cost.
MERGE_TOLERANCE = 1e-4


def _lora(tensors: Mapping[str, Tensor], targets: list[str], settings: Settings) -> Any:
    ranks = {v.shape[0] for k, v in tensors.items() if ".lora_A." in k}
    rank = int(settings.get("lora_rank", 8))
    if ranks != {rank}:
        found = ", ".join(str(r) for r in sorted(ranks))
        raise BadCheckpoint(f"lora_rank is {rank} but the adapter's weights are of rank {found}")
    return peft.LoraConfig(
        r=rank,
        lora_alpha=settings.get("lora_alpha", 32),
        target_modules=targets,
        use_dora=any(".lora_magnitude_vector." in k for k in tensors),
    )


def _vblora(tensors: Mapping[str, Tensor], targets: list[str], settings: Settings) -> Any:
    bank = next((v for k, v in tensors.items() if BANK in k), None)
    if bank is None or bank.ndim != 2:
        raise BadCheckpoint(f"the VB-LoRA adapter has no {BANK} of vectors")
    rank = next(v.shape[0] for k, v in tensors.items() if ".vblora_logits_A." in k)
    return peft.VBLoRAConfig(
        r=rank,
        num_vectors=bank.shape[0],
        vector_length=bank.shape[1],
        topk=int(settings.get("vblora_topk", 2)),
        target_modules=targets,
    )


# What a tensor's name holds -> the adapter's name and its peft config.
KINDS: dict[str, tuple[str, Callable[[Mapping[str, Tensor], list[str], Settings], Any]]] = {
    ".lora_A.": ("LoRA", _lora),
    ".vblora_logits_A.": ("VB-LoRA", _vblora),
}
BANK = "vblora_vector_bank"
MARKS = (".lora_", ".vblora_")  # all that those two ever store
TOPK = ("_topk_indices", "_topk_weights")


def _module(key: str) -> str:
    """base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight -> model...q_proj"""
    stem = key.removeprefix("base_model.model.")
    cut = min(stem.index(mark) for mark in MARKS if mark in stem)
    return stem[:cut]


def is_adapter(key: str) -> bool:
    """Whether a tensor of this name belongs to an adapter that is known here."""
    return any(mark in key for mark in MARKS)


def kind(tensors: Mapping[str, Tensor]) -> str:
    """The adapter's name, "" when there are no tensors.

    Raises:
        BadCheckpoint: an adapter that is not known here.
    """
    if not tensors:
        return ""
    if reduced := [key for key in tensors for mark in TOPK if key.endswith(mark)]:
        raise BadCheckpoint(
            f"the VB-LoRA adapter was saved as its top-k weights only ({reduced[0]}); load it with "
            "peft and save the whole state_dict, with the logits"
        )
    for mark, (name, _) in KINDS.items():
        if any(mark in key for key in tensors):
            return name
    known = ", ".join(name for name, _ in KINDS.values())
    raise BadCheckpoint(
        f"unknown adapter, or half of one ({next(iter(tensors))}); known are {known}"
    )


def faults(decoder: Decoder, tensors: Mapping[str, Tensor], settings: Settings) -> list[str]:
    """All that keeps the adapter from this decoder, which may be on the meta device."""
    try:
        _wrapped(decoder, tensors, settings)
    except BadCheckpoint as error:
        return [str(error)]
    return []


def _wrapped(
    decoder: Decoder, tensors: Mapping[str, Tensor], settings: Settings
) -> tuple[Any, dict[str, Tensor]]:
    """The decoder in peft's clothes, and the adapter's tensors under all the names peft has.

    Raises:
        BadCheckpoint: tensors that peft does not ask for, or lacks, or of other shapes.
    """
    name = kind(tensors)
    config_of = next(build for n, build in KINDS.values() if n == name)
    targets = sorted({_module(k) for k in tensors if any(mark in k for mark in KINDS)})
    there = {n for n, module in decoder.named_modules() if isinstance(module, nn.Linear)}
    if absent := [target for target in targets if target not in there]:
        raise BadCheckpoint(
            f"the {name} adapter changes what the LLM does not have: {', '.join(absent)}"
        )
    try:
        config = config_of(tensors, targets, settings)
        wrapped: Any = peft.get_peft_model(decoder, config)  # pyright: ignore
    except BadCheckpoint:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise BadCheckpoint(f"the {name} adapter does not fit: {error}") from error
    wanted = {k: v.shape for k, v in wrapped.state_dict().items() if is_adapter(k)}
    tensors = _with_aliases(tensors, wanted)
    faults = [f"{k} is missing" for k in wanted if k not in tensors]
    faults += [f"nothing takes {k}" for k in tensors if k not in wanted]
    faults += [
        f"{k} is {list(v.shape)} and not {list(wanted[k])}"
        for k, v in tensors.items()
        if k in wanted and v.shape != wanted[k]
    ]
    if faults:
        raise BadCheckpoint(f"the {name} adapter does not fit: {'; '.join(faults)}")
    return wrapped, tensors


def _with_aliases(tensors: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """VB-LoRA's one bank of vectors under the name that it has in every layer, saved or not."""
    banks = {k: v for k, v in tensors.items() if BANK in k}
    shared = next(iter(banks.values()), None)
    alias = {} if shared is None else {k: shared for k in wanted if BANK in k}
    return alias | dict(tensors)


def merged(
    decoder: Decoder, weights: Weights, tensors: Mapping[str, Tensor], settings: Settings
) -> Weights:
    """The decoder's weights with the adapter merged in, each one when it is read.

    Args:
        decoder: a hollow one, which becomes the unmerged model: calling it applies the adapter
            beside the weights, as peft does in training.
        weights: those of the decoder without the adapter.

    Raises:
        BadCheckpoint: tensors that peft does not ask for, or lacks.
    """
    _, tensors = _wrapped(decoder, tensors, settings)
    beside = Weights(weights.where)
    for name, parameter in decoder.state_dict().items():
        own = tensors.get(f"base_model.model.{name}")
        plain = name.replace(".base_layer.", ".")
        read = (lambda plain=plain: weights[plain]) if own is None else (lambda own=own: own)
        found = plain in weights.shapes or own is not None
        beside.add(name, tuple(parameter.shape) if found else (), read)
    attach(decoder, beside)
    changed = Weights(weights.where)
    for path, layer in decoder.named_modules():
        if isinstance(layer, BaseTunerLayer):
            name = f"{path}.weight"
            changed.add(name, weights.shapes[name], lambda path=path: _merge(decoder, path))
    return weights.over(changed)


@torch.no_grad()
def _merge(decoder: Decoder, path: str) -> Tensor:
    """The weight at `path` with peft's own delta added, float32."""
    layer: Any = decoder.get_submodule(path)
    with held(decoder, path):
        try:
            layer.merge(safe_merge=True)
            return layer.get_base_layer().weight.detach()
        except ValueError as error:
            raise BadCheckpoint(f"the adapter cannot be merged into {path}: {error}") from error
        finally:
            layer.merged_adapters.clear()


@torch.no_grad()
def merge_error(before: Decoder, after: Decoder) -> float:
    """The worst difference between the logits of the unmerged and of the merged model (float32).

    Raises:
        BadCheckpoint: it is more than rounding.
    """
    probe = _probe(after)
    wanted, got = before(*probe)[0], after(*probe)[0]
    error = float((wanted - got).abs().max())
    if not error <= MERGE_TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise BadCheckpoint(f"merging the adapter changes logits by {error:.1e}")
    return error


def _probe(decoder: Decoder) -> list[Tensor]:
    """A short random prompt and an empty cache."""
    sizes = {"batch": 1, "seq": 8, "past": 0, "capacity": 8}
    noise = torch.Generator().manual_seed(0)
    embeds = torch.randn(1, 8, decoder.spec.hidden, generator=noise)
    cache = [torch.from_numpy(port.empty(sizes)) for port in list(decoder.inputs.values())[3:]]
    return [embeds, torch.tensor([0]), torch.tensor([8]), *cache]
