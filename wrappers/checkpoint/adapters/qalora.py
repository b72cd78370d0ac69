"""QA-LoRA: a LoRA of an input that is pooled in groups, as a LoRA of the whole input.

peft has it for layers of GPTQ and cannot merge it there (`QALoraLinearVariant`): of an input of
n groups it takes n times the mean of each, so that every column of `lora_A` stands for a group. The
same map of the whole input has each column once for every input of its group, times n / group size.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from alm.errors import BadCheckpoint
from wrappers.checkpoint.adapters.contract import Adapter

USUAL = 16  # inputs of a group where the settings do not say; peft's own


def spread(skeleton: nn.Module, adapter: Adapter) -> Adapter:
    """The adapter with every pooled `lora_A` as one of the whole input.

    An adapter whose settings say no `use_qalora` is what it was, and so is a `lora_A` that is as
    wide as its module: peft pools nothing there.

    Raises:
        BadCheckpoint: the groups do not fill a module's input, or the settings want DoRA as well.
    """
    if not adapter.settings.get("use_qalora"):
        return adapter
    size = adapter.settings.get("qalora_group_size", USUAL)
    if type(size) is not int or size < 1:
        raise BadCheckpoint(f"the adapter's qalora_group_size is {str(size)[:60]!r}")
    if adapter.settings.get("use_dora"):
        raise BadCheckpoint("the adapter says use_qalora and use_dora, which peft has not together")
    made: dict[str, Tensor] = {}
    for site in adapter.sites:
        key = f"{site.name}.lora_A"
        module, pooled = skeleton.get_submodule(site.name), adapter.tensors.get(key)
        if not isinstance(module, nn.Linear) or pooled is None or pooled.ndim != 2:
            continue
        groups = pooled.shape[1]
        if groups == module.in_features:
            continue
        if groups * size != module.in_features:
            raise BadCheckpoint(
                f"{key} has {groups} columns, each of qalora_group_size {size} inputs, and the "
                f"module takes {module.in_features}"
            )
        made[key] = pooled.repeat_interleave(size, 1) * (groups / size)
    return replace(adapter, tensors=adapter.tensors | made)
