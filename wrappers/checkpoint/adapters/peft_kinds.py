"""The kinds of PEFT adapters that can be merged: their tensors, their settings, their peft config.

A kind is recognised by the names of its tensors, and by `peft_type` where an adapter_config.json
has it. Ranks come from the tensors, scales from the settings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import peft
from peft.utils.other import get_pattern_key
from torch import Tensor

from alm.errors import BadCheckpoint

Tensors = Mapping[str, Tensor]  # by MODULE.LEAF
Settings = Mapping[str, Any]  # under peft's names
BANK = "vblora_vector_bank"  # VB-LoRA's vectors: one bank for every module


@dataclass(frozen=True)
class Site:
    """What a module is called, and what the settings may call it."""

    name: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """One method of peft."""

    name: str  # for people
    peft_type: str
    leaves: tuple[str, ...]  # names of its tensors within a module; the first is always there
    settings: frozenset[str]  # fields of peft's config that `build` honours
    build: Callable[[Tensors, list[Site], Settings], Any]  # gives the peft config

    @property
    def mark(self) -> str:
        """The leaf that every module of this kind has."""
        return self.leaves[0]


def _number(settings: Settings, name: str, default: float | None = None) -> float:
    """A number of the settings.

    Raises:
        BadCheckpoint: it is none, or it is missing and has no default.
    """
    value = settings.get(name, default)
    if value is None:
        raise BadCheckpoint(f"no file beside the adapter says its {name}, which scales it")
    return _finite(name, value)


def _finite(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadCheckpoint(f"the adapter's {name} is {str(value)[:60]!r} and no number")
    return value


def _pattern(settings: Settings, name: str) -> Mapping[str, Any]:
    pattern = settings.get(name) or {}
    if not isinstance(pattern, Mapping):
        raise BadCheckpoint(f"the adapter's {name} is {str(pattern)[:60]!r} and no mapping")
    for key, value in pattern.items():
        _finite(f"{name} of {key}", value)
    return pattern


def _of(site: Site, pattern: Mapping[str, Any], usual: float) -> float:
    """What a rank_pattern or an alpha_pattern gives a module, as peft matches its keys."""
    for alias in site.aliases:
        key = get_pattern_key(tuple(pattern), alias)
        if key in pattern:
            return pattern[key]
    return usual


def _ranks(
    tensors: Tensors,
    sites: list[Site],
    settings: Settings,
    leaf: str,
    key: str = "r",
    axis: int = 0,
) -> dict[str, int]:
    """The rank of every module, from its tensors; the settings must agree.

    Raises:
        BadCheckpoint: they do not, naming the two.
    """
    actual = {
        site.name: tensors[f"{site.name}.{part}"].shape[axis]
        for site in sites
        for part in (leaf, leaf.replace("lora_A", "lora_embedding_A"))
        if f"{site.name}.{part}" in tensors and tensors[f"{site.name}.{part}"].ndim
    }
    pattern, usual = _pattern(settings, "rank_pattern"), settings.get(key)
    if usual is None:
        return actual
    _finite(key, usual)
    for site in sites:
        wanted = _of(site, pattern, usual)
        if site.name in actual and actual[site.name] != wanted:
            label = settings.get("names", {}).get(key, key)
            ranks = ", ".join(str(r) for r in sorted(set(actual.values())))
            where = f" of {site.name}" if pattern else ""
            raise BadCheckpoint(
                f"{label}{where} is {wanted:g} but the adapter's weights are of rank {ranks}"
            )
    return actual


def _exact(values: Mapping[str, float], usual: float) -> dict[str, float]:
    """A pattern for peft that names every module which differs from the usual."""
    return {f"^{re.escape(name)}": v for name, v in values.items() if v != usual}


def _names(sites: Iterable[Site]) -> list[str]:
    return [site.name for site in sites]


def _patterned(
    tensors: Tensors, sites: list[Site], settings: Settings, *, leaf: str, alpha: str, axis: int = 0
) -> dict[str, Any]:
    """r, alpha and their patterns, of the kinds whose modules may differ in them."""
    ranks = _ranks(tensors, sites, settings, leaf, axis=axis)
    usual = _number(settings, alpha)
    pattern = _pattern(settings, "alpha_pattern")
    alphas = {site.name: _of(site, pattern, usual) for site in sites}
    rank = next(iter(ranks.values()), 1)
    return {
        "r": rank,
        alpha: usual,
        "rank_pattern": _exact(ranks, rank),
        "alpha_pattern": _exact(alphas, usual),
        "target_modules": _names(sites),
    }


def _lora(tensors: Tensors, sites: list[Site], settings: Settings) -> Any:
    dora = any(name.endswith(".lora_magnitude_vector") for name in tensors)
    if dora != bool(settings.get("use_dora", dora)):
        held = "holds" if dora else "does not hold"
        raise BadCheckpoint(
            f"use_dora is {bool(settings['use_dora'])} but the adapter {held} DoRA's magnitudes"
        )
    return peft.LoraConfig(
        **_patterned(tensors, sites, settings, leaf="lora_A", alpha="lora_alpha"),
        use_rslora=bool(settings.get("use_rslora", False)),
        use_dora=dora,
        lora_bias=any(name.endswith(".lora_B.bias") for name in tensors),
    )


def _adalora(tensors: Tensors, sites: list[Site], settings: Settings) -> Any:
    ranks = set(_ranks(tensors, sites, settings, "lora_A", "init_r").values())
    if len(ranks) != 1:
        raise BadCheckpoint(
            "the AdaLoRA adapter's modules differ in rank; merge it with peft first"
        )
    rank = ranks.pop()
    return peft.AdaLoraConfig(
        init_r=rank,
        target_r=rank,
        lora_alpha=_number(settings, "lora_alpha"),  # pyright: ignore
        total_step=1,
        target_modules=_names(sites),
    )


def _loha(tensors: Tensors, sites: list[Site], settings: Settings) -> Any:
    options = _patterned(tensors, sites, settings, leaf="hada_w1_b", alpha="alpha")
    return peft.LoHaConfig(**options)


def _lokr(tensors: Tensors, sites: list[Site], settings: Settings) -> Any:
    """Of LoKr's factors only a large one is of low rank, so the settings must give the rank."""
    options = _patterned(
        tensors, sites, {k: v for k, v in settings.items() if k != "r"}, leaf="lokr_w2_b",
        alpha="alpha",
    )  # fmt: skip
    pattern, rank = _pattern(settings, "rank_pattern"), int(_number(settings, "r"))
    ranks = {site.name: int(_of(site, pattern, rank)) for site in sites}
    return peft.LoKrConfig(
        **options | {"r": rank, "rank_pattern": _exact(ranks, rank)},
        decompose_both=bool(settings.get("decompose_both", False)),
        decompose_factor=int(_number(settings, "decompose_factor", -1)),
    )


def _ia3(tensors: Tensors, sites: list[Site], settings: Settings) -> Any:
    """IA3's vector scales what goes into a feedforward module, and what comes out of all others."""
    forward = [s.name for s in sites if tensors[f"{s.name}.ia3_l"].shape[:1] == (1,)]
    return peft.IA3Config(target_modules=_names(sites), feedforward_modules=forward)


def _hra(tensors: Tensors, sites: list[Site], settings: Settings) -> Any:
    ranks = set(_ranks(tensors, sites, settings, "hra_u", axis=-1).values())
    if len(ranks) != 1:
        raise BadCheckpoint("the HRA adapter's modules differ in rank")
    return peft.HRAConfig(
        r=ranks.pop(),
        apply_GS=bool(settings.get("apply_GS", False)),
        target_modules=_names(sites),
    )


def _vblora(tensors: Tensors, sites: list[Site], settings: Settings) -> Any:
    bank = tensors.get(BANK)
    if bank is None or bank.ndim != 2:
        raise BadCheckpoint(f"the VB-LoRA adapter has no {BANK} of vectors")
    ranks = _ranks(tensors, sites, settings, "vblora_logits_A")
    return peft.VBLoRAConfig(
        r=next(iter(ranks.values()), 1),
        num_vectors=bank.shape[0],
        vector_length=bank.shape[1],
        topk=int(_number(settings, "topk", 2)),
        target_modules=_names(sites),
    )


_PATTERNS = frozenset({"r", "rank_pattern", "alpha_pattern"})
KINDS = (
    Kind(
        "AdaLoRA",
        "ADALORA",
        ("lora_E", "lora_A", "lora_B", "ranknum"),
        frozenset({"init_r", "r", "lora_alpha", "target_r"}),  # of the two r only init_r counts
        _adalora,
    ),
    Kind(
        "LoRA",
        "LORA",
        ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"),
        _PATTERNS
        | {"lora_alpha", "use_rslora", "use_dora", "lora_bias", "use_qalora", "qalora_group_size"},
        _lora,
    ),
    Kind(
        "LoHa",
        "LOHA",
        ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
        _PATTERNS | {"alpha"},
        _loha,
    ),
    Kind(
        "LoKr",
        "LOKR",
        tuple(f"lokr_{n}" for n in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
        _PATTERNS | {"alpha", "decompose_both", "decompose_factor"},
        _lokr,
    ),
    Kind("IA3", "IA3", ("ia3_l",), frozenset({"feedforward_modules"}), _ia3),
    Kind("HRA", "HRA", ("hra_u",), frozenset({"r", "apply_GS"}), _hra),
    Kind(
        "VB-LoRA",
        "VBLORA",
        ("vblora_logits_A", "vblora_logits_B", BANK),
        frozenset({"r", "num_vectors", "vector_length", "topk"}),
        _vblora,
    ),
)
LEAVES = tuple(dict.fromkeys(leaf for kind in KINDS for leaf in kind.leaves))
KNOWN = ", ".join(kind.name for kind in KINDS)


def of_tensors(leaves: Iterable[str], example: str) -> Kind:
    """The kind whose tensors have these names.

    Raises:
        BadCheckpoint: none has.
    """
    held = set(leaves)
    for kind in KINDS:
        # LoRA of embeddings alone has no lora_A; a large LoKr factor is saved as two.
        marks = {kind.mark, "lora_embedding_A"} if kind.peft_type == "LORA" else {kind.mark}
        marks |= {"lokr_w1_a"} if kind.peft_type == "LOKR" else set()
        if held & marks and held <= set(kind.leaves):
            return kind
    raise BadCheckpoint(f"unknown adapter, or half of one ({example}); known are {KNOWN}")


def of_type(peft_type: Any, where: str) -> Kind:
    """The kind that an adapter_config.json names.

    Raises:
        BadCheckpoint: none that is known here.
    """
    for kind in KINDS:
        if kind.peft_type == peft_type:
            return kind
    raise BadCheckpoint(
        f"{where} says peft_type: {str(peft_type)[:60]!r}, an adapter that cannot be merged here; "
        f"known are {KNOWN}; merge it with peft (merge_and_unload) and save the whole model"
    )
