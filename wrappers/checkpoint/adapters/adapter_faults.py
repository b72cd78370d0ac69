"""What keeps an adapter from a model, found without memory: settings, tensors, places."""

from __future__ import annotations

import re
from typing import Any

from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from alm.errors import BadCheckpoint
from wrappers.checkpoint.adapters import patterns
from wrappers.checkpoint.adapters.contract import Adapter, few
from wrappers.checkpoint.adapters.merging import CHANGED, check_places, merged
from wrappers.checkpoint.weights.tensors import Weights


def faults(skeleton: nn.Module, adapter: Adapter) -> list[str]:
    """All that keeps the adapter from these modules, which are on the meta device and get wrapped.

    Every setting of its config has a tensor, and every tensor a place.
    """
    try:
        check_places(skeleton, adapter)
        _check_targets(skeleton, adapter)
        weights = Weights("the model")
        for name, value in skeleton.state_dict().items():
            weights.add(name, tuple(value.shape), lambda value=value: value)
        merged(skeleton, weights, adapter)
    except BadCheckpoint as error:
        return [
            f"{adapter.where}: {error}".replace(f"{adapter.where}: {adapter.where}", adapter.where)
        ]
    return []


def _check_targets(skeleton: nn.Module, adapter: Adapter) -> None:
    """The modules that the settings name are those that the tensors are of."""
    targets = adapter.settings.get("target_modules")
    if targets is None:
        return
    if targets == "all-linear":
        targets = [n for n, m in skeleton.named_modules() if isinstance(m, nn.Linear)]
        targets = [name for name in targets if not name.endswith("lm_head")]
    fields = ("exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern")
    rule: Any = type("Rule", (), {n: adapter.settings.get(n) for n in fields})()
    rule.target_modules, rule.target_parameters = targets, None
    every = [n for n, m in skeleton.named_modules() if isinstance(m, CHANGED)]
    held = {site.name for site in adapter.sites}
    patterns.check(adapter.settings, (a for n in every for a in adapter.aliases(n)), adapter.where)
    try:
        # transformers' own names decide; an older config may know those of older versions only.
        for way in range(max((len(adapter.aliases(n)) for n in every), default=0)):
            named = {n for n in every if check_target_module_exists(rule, adapter.aliases(n)[way])}
            if named:
                break
        else:
            named = set()
    except (re.error, TypeError, ValueError, RecursionError, AttributeError) as error:
        raise BadCheckpoint(f"its target_modules cannot be read: {error}") from error
    if bare := sorted(named - held):
        raise BadCheckpoint(
            f"its settings adapt {few(bare)}, of which it holds no tensors; save it again"
        )
    if more := sorted((held & set(every)) - named):
        raise BadCheckpoint(f"it holds tensors of {few(more)}, which its settings do not adapt")
