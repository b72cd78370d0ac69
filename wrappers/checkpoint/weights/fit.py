"""Weights by exact name into a module; all that is missing or misshapen is named at once."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping

from torch import Tensor, nn

from alm.errors import BadCheckpoint
from wrappers.checkpoint.weights.tensors import Weights

MOST_LISTED = 24


def faults(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], where: str) -> list[str]:
    """One sentence naming the missing and the misshapen weights, or none at all.

    Only shapes are looked at, so the module may be on the meta device and the values unread.
    """
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    missing = [name for name in wanted if name not in shapes]
    misshapen = [
        f"{name} is {list(shapes[name])} and not {list(shape)}"
        for name, shape in wanted.items()
        if name in shapes and tuple(shapes[name]) != shape
    ]
    complaints = [f"missing: {listed(missing)}"] if missing else []
    complaints += [f"misshapen: {listed(misshapen)}"] if misshapen else []
    return [f"{where} does not fit its config; {'; '.join(complaints)}"] if complaints else []


def unknown(
    weights: Weights, known: Container[str], unused: Iterable[str], what: str = "model"
) -> list[str]:
    """One sentence naming the weights that no part takes, or none at all.

    Args:
        known: names that are taken.
        unused: regular expressions, found in the names of weights that change no answer.
    """
    idle = re.compile("|".join(unused) or "$^")
    odd = [n for n in weights.shapes if n not in known and not idle.search(n)]
    if not odd:
        return []
    named = ", ".join(odd[:5]) + (f" and {len(odd) - 5} more" if len(odd) > 5 else "")
    return [
        f"{weights.where} holds what no part of the {what} takes: {named}; export would leave it "
        "out, so take it out of the file if the original does not use it either"
    ]


def listed(names: list[str]) -> str:
    """The names in a sentence, and how many more where they are very many."""
    more = len(names) - MOST_LISTED
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:MOST_LISTED])} and {more} more"


def fill(module: nn.Module, state: Mapping[str, Tensor], where: str) -> list[str]:
    """Give `module` its weights from `state`, in the module's dtypes; `where` is their file.

    Returns:
        The names in `state` that the module has no use for.

    Raises:
        BadCheckpoint: naming every missing and every misshapen weight at once.
    """
    wrong = faults(module, {name: tuple(t.shape) for name, t in state.items()}, where)
    if wrong:
        raise BadCheckpoint(wrong[0])
    wanted = module.state_dict()
    ours = {name: state[name].to(value.dtype) for name, value in wanted.items()}
    module.load_state_dict(ours, assign=True)
    return [name for name in state if name not in wanted]
