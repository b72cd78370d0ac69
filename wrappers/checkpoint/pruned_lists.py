"""What lists of an LLM's config.json say of its layers, where a pruner left some."""

from __future__ import annotations

from alm.errors import BadCheckpoint
from wrappers.layers.spec import Spec

# Lists with an entry per layer: of RTP-LLM, and of LLM-Drop.
HEADS, WIDE, DEPTH = "layer_head_num", "layer_inter_size", "layer_num"
NO_ATTENTION, NO_MLP = "drop_attn_list", "drop_mlp_list"
BLOCKS = "block_configs"  # of Nemotron-NAS (Puzzle)


def dropped(spec: Spec) -> tuple[set[int], set[int]]:
    """The layers without attention and those without an MLP, as lists of the config name them.

    Raises:
        BadCheckpoint: a list that is none, or is of other layers; an LLM whose layers cannot lack
            either.
    """
    if getattr(spec.config, BLOCKS, None):
        raise BadCheckpoint(f"it says {BLOCKS}, as a Nemotron-NAS does; that is not read here")
    none = _listed(spec, NO_ATTENTION), _listed(spec, NO_MLP)
    if (heads := _per_layer(spec, HEADS)) is not None:
        none = none[0] | {i for i, n in enumerate(heads) if not n}, none[1]
    if (wide := _per_layer(spec, WIDE)) is not None:
        none = none[0], none[1] | {i for i, n in enumerate(wide) if not n}
    if any(none) and spec.layer:
        raise BadCheckpoint(
            f"it says that layers have no attention or no MLP, which is not done for "
            f"{spec.config.model_type}"
        )
    if len(none[0]) == spec.layers:
        raise BadCheckpoint("it says that no layer has attention; such an LLM hears nothing")
    return none


def _listed(spec: Spec, key: str) -> set[int]:
    """Numbers of layers, from a list of them or of true and false for every layer."""
    given = getattr(spec.config, key, None) or []
    flags = isinstance(given, list) and all(type(value) is bool for value in given)
    if flags and len(given) in (0, spec.layers):
        return {i for i, gone in enumerate(given) if gone}
    numbers = isinstance(given, list) and all(type(value) is int for value in given)
    if numbers and all(0 <= value < spec.layers for value in given):
        return set(given)
    raise BadCheckpoint(
        f"it says {key} {str(given)[:60]}; that must be numbers of its {spec.layers} layers, or "
        "true and false for each"
    )


def _per_layer(spec: Spec, key: str) -> list[int] | None:
    given = getattr(spec.config, key, None)
    if given is None:
        return None
    whole = isinstance(given, list) and all(type(n) is int and n >= 0 for n in given)
    if not whole or len(given) != spec.layers:
        raise BadCheckpoint(
            f"it says {key} {str(given)[:60]}; that must be a whole number for each of "
            f"{spec.layers} layers"
        )
    return given


def check(spec: Spec, where: str) -> None:
    """Hold the lists against the sizes that the weights in `where` have.

    Raises:
        BadCheckpoint: naming every list that says something else.
    """
    wrong: list[str] = []
    for key, name in ((HEADS, "heads"), (WIDE, "intermediate")):
        found = [getattr(spec.at(i), name) for i in range(spec.layers)]
        if (said := _per_layer(spec, key)) is not None and said != found:
            wrong.append(f"{key} {said}, and {where} has {found}")
    depth = getattr(spec.config, DEPTH, None)
    if depth is not None and depth != spec.layers:
        wrong.append(f"{DEPTH} {depth} and num_hidden_layers {spec.layers}")
    if wrong:
        raise BadCheckpoint(f"it says {'; '.join(wrong)}")
