"""Merging an adapter into weights, through peft's own delta.

The modules that an adapter changes are wrapped by peft on the meta device, under the names that the
checkpoint has, so that nothing is allocated before every shape has been compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from wrappers.checkpoint.adapters import patterns, qalora
from wrappers.checkpoint.adapters.contract import LEAF, Adapter, few, key_of
from wrappers.checkpoint.weights.hollow import attach
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.layers.decoder import Decoder

# Worst difference, as a share of the largest value, that rounding of a merge may cost.
MERGE_TOLERANCE = 1e-4
CHANGED = (nn.Linear, nn.Conv1d, nn.Embedding)
EXPERTS = ".experts."  # in the names of what a mixture picks from


def check_places(skeleton: nn.Module, adapter: Adapter) -> None:
    """The model has every module that the adapter changes.

    Raises:
        BadCheckpoint: naming those that it does not have.
    """
    there = {n for n, module in skeleton.named_modules() if isinstance(module, CHANGED)}
    if absent := [site.name for site in adapter.sites if site.name not in there]:
        why = (
            "; experts of a mixture lie in one tensor and take no adapter here: merge it with peft "
            "(merge_and_unload), save the whole model, and give that"
        )
        raise BadCheckpoint(
            f"the {adapter.kind.name} adapter changes what the model does not have: {few(absent)}"
            + (why if any(EXPERTS in f".{name}." for name in absent) else "")
        )


def wrap(skeleton: nn.Module, adapter: Adapter) -> dict[str, Tensor]:
    """Wrap the modules that change, and give the adapter's tensors under the names they have then.

    Raises:
        BadCheckpoint: tensors that peft does not expect, or lacks, or of other shapes.
    """
    check_places(skeleton, adapter)
    adapter = qalora.spread(skeleton, adapter)
    kind, sites = adapter.kind, adapter.sites
    scales = {n: v for n, v in adapter.settings.items() if n in ("rank_pattern", "alpha_pattern")}
    patterns.check(scales, (alias for site in sites for alias in site.aliases), adapter.where)
    try:
        config = kind.build(adapter.tensors, sites, adapter.settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that peft looks up in transformers
            peft.get_peft_model(
                skeleton,  # pyright: ignore
                config,
                autocast_adapter_dtype=False,
                low_cpu_mem_usage=True,
            )
    except BadCheckpoint:
        raise
    except Exception as error:  # peft raises whatever its layers raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadCheckpoint(f"the {kind.name} adapter does not fit: {reason}") from error
    skeleton.eval().requires_grad_(False)
    return _placed(skeleton, adapter)


def _placed(skeleton: nn.Module, adapter: Adapter) -> dict[str, Tensor]:
    """Every name that peft gave an adapter's tensor -> the tensor."""
    placed: dict[str, Tensor] = {}
    wrong: list[str] = []
    used: set[str] = set()
    for name, value in skeleton.state_dict().items():
        match = LEAF.match(name)
        if not match:
            continue
        key = key_of(match)
        tensor = adapter.tensors.get(key)
        if tensor is None and match["leaf"] == "ranknum":  # saved in whole state dicts alone
            rank = adapter.tensors[f"{match['module']}.lora_A"].shape[0]
            tensor = torch.full((1,), float(rank))
        if tensor is None:
            wrong.append(f"{key} is missing")
        elif tensor.shape != value.shape:
            wrong.append(f"{key} is {list(tensor.shape)} and not {list(value.shape)}")
        else:
            placed[name] = tensor
        used.add(key)
    wrong += [f"nothing takes {key}" for key in adapter.tensors if key not in used]
    if wrong:
        raise BadCheckpoint(f"the {adapter.kind.name} adapter does not fit: {'; '.join(wrong)}")
    return placed


# --- weights


def _retrained(weights: Weights, adapter: Adapter) -> Weights:
    """The weights with those in place that were trained whole, or row by row."""
    changed = Weights(adapter.where)
    for name, tensor in adapter.replaced.items():
        was = weights.shapes.get(name)
        if was is None or was != tuple(tensor.shape):
            there = f"{list(was)}" if was else "not in the model"
            raise BadCheckpoint(f"{name} is {list(tensor.shape)}, and {there} without the adapter")
        changed.add(name, tuple(tensor.shape), lambda tensor=tensor: tensor)
    for name, values in adapter.rows.items():
        places = _places(weights, adapter, name, values)
        for table in (name, adapter.tied.get(name)):
            if table is not None:
                read = _with_rows(weights, table, places, values)
                changed.add(table, weights.shapes[table], read)
    return weights.over(changed)


def _with_rows(weights: Weights, name: str, places: Tensor, values: Tensor) -> Callable[[], Tensor]:
    def read() -> Tensor:
        table = weights[name]
        return table.index_copy(0, places, values.to(table.dtype))

    return read


def _places(weights: Weights, adapter: Adapter, name: str, values: Tensor) -> Tensor:
    """The rows of a table that were trained, from the settings' trainable_token_indices."""
    indices = adapter.settings.get("trainable_token_indices")
    module = name.removesuffix(".weight").rpartition(".")[2]
    if isinstance(indices, Mapping):
        indices = next((v for k, v in indices.items() if str(k).rpartition(".")[2] == module), None)
    shape = weights.shapes.get(name, ())
    known = isinstance(indices, list) and all(
        type(i) is int and shape and 0 <= i < shape[0] for i in indices
    )
    if not known or tuple(values.shape) != (len(indices or ()), *shape[1:]):
        raise BadCheckpoint(
            f"trainable_token_indices do not say which rows of {name} {list(shape)} the "
            f"{list(values.shape)} of the adapter are"
        )
    return torch.tensor(indices, dtype=torch.int64)


def _beside(skeleton: nn.Module, base: Weights, placed: Mapping[str, Tensor]) -> Weights:
    """Weights and adapter under the names of the wrapped modules."""
    beside = Weights(base.where)
    for name in skeleton.state_dict():
        if (tensor := placed.get(name)) is not None:
            beside.add(name, tuple(tensor.shape), lambda tensor=tensor: tensor)
        elif (plain := name.replace(".base_layer.", ".")) in base:
            beside.add(name, base.shapes[plain], lambda plain=plain: base[plain])
    return beside


def merged(skeleton: nn.Module, weights: Weights, adapter: Adapter) -> Weights:
    """The weights with the adapter merged in, each one when it is read.

    Args:
        skeleton: the modules that the adapter may change, on the meta device; it gets wrapped.
        weights: those of the skeleton without the adapter.

    Raises:
        BadCheckpoint: tensors that peft does not expect, or lacks.
    """
    base = _retrained(weights, adapter)
    placed = wrap(skeleton, adapter)
    beside = _beside(skeleton, base, placed)
    changed = Weights(adapter.where)
    for path, layer in skeleton.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        for leaf, _ in layer.get_base_layer().named_parameters():
            moved = leaf == "weight" or _moves_bias(adapter, path)
            if moved and (name := f"{path}.{leaf}") in base:
                read = _merging(skeleton, beside, path, leaf)
                changed.add(name, base.shapes[name], read)
    return base.over(changed)


def _moves_bias(adapter: Adapter, path: str) -> bool:
    return any(f"{path}.{leaf}" in adapter.tensors for leaf in ("ia3_l", "lora_B.bias"))


def _merging(skeleton: nn.Module, beside: Weights, path: str, leaf: str) -> Callable[[], Tensor]:
    return lambda: _merge(skeleton, beside, path)[leaf]


@torch.no_grad()
def _merge(skeleton: nn.Module, beside: Weights, path: str) -> dict[str, Tensor]:
    """The parameters of the module at `path` with peft's own delta added, float32.

    Raises:
        BadCheckpoint: they do not do what module and adapter do beside each other.
    """
    layer: Any = skeleton.get_submodule(path)
    with _held(layer, path, beside):
        try:
            probe = _small(layer.get_base_layer())
            wanted = layer(probe)
            layer.merge(safe_merge=True)
            base = layer.get_base_layer()
            _compare(wanted, base(probe), path)
            return {name: value.detach() for name, value in base.named_parameters()}
        except (ValueError, RuntimeError) as error:
            raise BadCheckpoint(f"the adapter cannot be merged into {path}: {error}") from error
        finally:
            layer.merged_adapters.clear()


@contextmanager
def _held(layer: nn.Module, path: str, beside: Weights) -> Iterator[None]:
    """The parameters of a wrapped module are there meanwhile, in float32."""
    owners = {n: layer.get_submodule(n.rpartition(".")[0]) for n, _ in layer.named_parameters()}
    for name, owner in owners.items():
        value = beside[f"{path}.{name}"].float()
        owner._parameters[name.rpartition(".")[2]] = nn.Parameter(value, requires_grad=False)
    try:
        yield
    finally:
        for name, owner in owners.items():
            leaf = name.rpartition(".")[2]
            hollowed = owner._parameters[leaf].to("meta")  # pyright: ignore
            owner._parameters[leaf] = nn.Parameter(hollowed, requires_grad=False)


def _small(base: nn.Module) -> Tensor:
    """A small random input of a module."""
    noise = torch.Generator().manual_seed(0)
    if isinstance(base, nn.Embedding):
        return torch.randint(base.num_embeddings, (2, 8), generator=noise)
    if isinstance(base, nn.Conv1d):
        return torch.randn(1, base.in_channels, 2 * base.kernel_size[0], generator=noise)
    return torch.randn(2, base.in_features, generator=noise)  # pyright: ignore


def _compare(wanted: Tensor, got: Tensor, what: str) -> float:
    error = float((wanted - got).abs().max())
    if not error <= MERGE_TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise BadCheckpoint(f"merging the adapter changes {what} by {error:.1e}")
    return error


def unmerged(part: nn.Module, weights: Weights, adapter: Adapter) -> nn.Module:
    """A hollow part with the adapter beside its weights, as peft has it in training."""
    base = _retrained(weights, adapter)
    placed = wrap(part, adapter)
    return attach(part, _beside(part, base, placed))


@torch.no_grad()
def merge_error(before: nn.Module, after: Decoder) -> float:
    """The worst difference between the logits of the unmerged and of the merged model (float32).

    Raises:
        BadCheckpoint: it is more than rounding.
    """
    probe = _probe(after)
    return _compare(before(*probe)[0], after(*probe)[0], "logits")


def _probe(decoder: Decoder) -> list[Tensor]:
    """A short random prompt and an empty cache."""
    noise = torch.Generator().manual_seed(0)
    embeds = torch.randn(1, 8, decoder.spec.hidden, generator=noise)
    return [embeds, torch.tensor([0]), torch.tensor([8]), *decoder.fresh(1, 8)]
