"""The Hugging Face folder of an LLM: its spec, weights and decoder, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoConfig

from alm.errors import BadCheckpoint, MissingFile, UnknownName
from alm.facts import DimensionFacts
from wrappers import pick_role
from wrappers.checkpoint import limits, pruned
from wrappers.checkpoint.adapters import merging
from wrappers.checkpoint.adapters.contract import Adapter
from wrappers.checkpoint.plain_files import no_model, read_json
from wrappers.checkpoint.weights import experts, fit, nf4
from wrappers.checkpoint.weights.hollow import attach, hollow
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.layers import rope
from wrappers.layers.decoder import Decoder
from wrappers.layers.spec import Spec

TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
UNUSED = (r"rotary_emb\.(original_)?inv_freq$",)  # computed; older transformers saved it


def read_spec(folder: Path, weights: Callable[[], Weights] | None = None) -> Spec:
    """The LLM that the folder's config.json describes.

    Args:
        weights: the folder's, under transformers' names: where the LLM is pruned and its layers
            have other sizes than the config says, theirs count.

    Raises:
        BadCheckpoint: a family nobody knows, or weights that are quantized in an unknown way.
    """
    file = folder / "config.json"
    plain = read_json(file)
    limits.check(plain, str(file))
    try:
        family = pick_role("llm", str(plain.get("model_type", "")))
    except UnknownName as error:
        raise BadCheckpoint(f"{file} says model_type: {error}") from error
    quantized = plain.get("quantization_config")
    if quantized and not nf4.described(quantized):
        raise BadCheckpoint(
            f"{file} describes quantised weights, and of those only bitsandbytes' 4-bit ones "
            "are read (quant_method: bitsandbytes, load_in_4bit: true); give the folder of the "
            "plain ones, they are quantised again on export"
        )
    try:
        spec = family.spec(_config(folder, plain, weights))
    except (BadCheckpoint, MissingFile) as error:
        raise type(error)(f"{file}: {error}") from error
    except Exception as error:  # transformers raises what its dataclasses raise
        raise no_model(str(file), error) from error
    if not weights:
        return spec
    try:
        return pruned.fitted(spec, weights(), unsaid=plain.get("head_dim") is None)
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{file}: {error}") from error


def _config(folder: Path, plain: dict[str, Any], weights: Callable[[], Weights] | None) -> Any:
    """transformers' config, also of what it refuses: heads that do not go into hidden_size.

    Where heads were pruned from every layer alike they need not, and head_dim is the weights' own.
    """
    width, heads = plain.get("hidden_size"), plain.get("num_attention_heads")
    kv_heads, head_dim = plain.get("num_key_value_heads") or heads, plain.get("head_dim")
    odd = isinstance(width, int) and isinstance(heads, int) and width % heads != 0
    if odd and weights:
        head_dim = head_dim or pruned.head_dim_beside(plain, weights())
    if not odd or not head_dim:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    changed = plain | dict(num_attention_heads=1, num_key_value_heads=1, head_dim=head_dim)
    config = CONFIG_MAPPING[str(plain["model_type"])].from_dict(changed)
    config.num_attention_heads, config.num_key_value_heads = heads, kv_heads
    return config


def named(stored: Weights) -> Weights:
    """What a folder holds, dequantized and under transformers' names.

    Raises:
        BadCheckpoint: pieces of a quantized weight, or of a layer's experts, are not all there.
    """
    weights = experts.fused(nf4.dequantized(stored))  # first: pieces go by the folder's names
    if not any(name.startswith("model.") for name in weights.shapes):
        weights = weights.above("model.", but=HEAD)  # saved from the bare model
    return weights


def on_meta(spec: Spec) -> Decoder:
    """The decoder without memory, for names and shapes."""
    with torch.device("meta"):
        return Decoder(spec)


def with_table(spec: Spec) -> Decoder:
    """The decoder with its embedding table, as checkpoints and adapters know it; no memory."""
    with torch.device("meta"):
        return and_table(Decoder(spec), spec.vocab)


def and_table(part: Decoder, rows: int) -> Decoder:
    """The decoder with an embedding table of so many rows."""
    part.model.embed_tokens = torch.nn.Embedding(rows, part.spec.hidden)
    return part


def faults(spec: Spec, weights: Weights) -> list[str]:
    """All that is missing, misshapen or unknown: of the table, and of the decoder."""
    shapes, want, wrong = dict(weights.shapes), (spec.vocab, spec.hidden), []
    wrong += pruned.faults(spec, weights)
    if (table := shapes.get(TABLE, ())) != want:
        is_now = f"{list(table)} and not {list(want)}" if table else "missing"
        wrong.append(f"{weights.where}: {TABLE} is {is_now}")
    if spec.tied:
        shapes[HEAD] = want
    wrong += fit.faults(on_meta(spec), shapes, weights.where)
    if wrong:  # which say why more is unknown
        return wrong
    return fit.unknown(weights, {*with_table(spec).state_dict(), HEAD}, UNUSED, "LLM")


def with_head(spec: Spec, weights: Weights) -> Weights:
    """The weights with a head: of a tied model it is the table."""
    if not spec.tied or TABLE not in weights:
        return weights
    head = Weights(weights.where)
    head.add(HEAD, weights.shapes[TABLE], lambda: weights[TABLE])
    return weights.over(head)


def adapted(spec: Spec, weights: Weights, adapter: Adapter | None) -> Weights:
    """The weights with the adapter, if any, merged in as they are read; the table as well.

    Raises:
        BadCheckpoint: the adapter does not fit.
    """
    weights = with_head(spec, weights)
    return merging.merged(with_table(spec), weights, adapter) if adapter else weights


def decoder(spec: Spec, weights: Weights, adapter: Adapter | None) -> Decoder:
    """The decoder, its head tied where the spec says so and the adapter, if any, merged in.

    Raises:
        BadCheckpoint: the adapter does not fit, or merging it changes more than rounding does.
    """
    part = attach(hollow(lambda: Decoder(spec)), adapted(spec, weights, adapter))
    if adapter:
        part.merge_error = merge_error(part, spec, with_head(spec, weights), adapter)
    return part


def merge_error(part: Decoder, spec: Spec, weights: Weights, adapter: Adapter) -> float | None:
    """How far logits moved when the adapter was merged; None where it leaves the decoder alone.

    Raises:
        BadCheckpoint: further than rounding moves them.
    """
    decoder_adapter = adapter.under("", but=TABLE.removesuffix(".weight"))
    if not decoder_adapter.sites:
        return None
    before = merging.unmerged(hollow(lambda: Decoder(spec)), weights, decoder_adapter)
    return merging.merge_error(before, part)


def scaled(table: Tensor, spec: Spec) -> Tensor:
    """The table [rows, hidden] as the LLM uses it."""
    return table if spec.embedding_scale == 1.0 else table.float() * spec.embedding_scale


def dimensions(spec: Spec, *, audio_tokens: int, table: int | None = None) -> DimensionFacts:
    """The LLM's sizes; `table` where the embedding table has more rows than its vocabulary."""
    return DimensionFacts(
        hidden=spec.hidden,
        vocab=spec.vocab,
        table=table,
        layers=spec.layers,
        heads=spec.heads,
        kv_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        experts=spec.mixture.experts if spec.mixture else None,
        active_experts=spec.mixture.active if spec.mixture else None,
        context=spec.context,
        audio_tokens=audio_tokens,
        **getattr(spec.rope, "dimensions", rope.dimensions)(spec.config),
    )
