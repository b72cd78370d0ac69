"""A checkpoint's decoding settings: every field of transformers 5.24's GenerationConfig.

Each is done by `alm.decoding`, read elsewhere, known to change no token, or refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from alm.decoding.options import Options, choose
from alm.errors import BadCheckpoint, BadOption
from wrappers.checkpoint import limits
from wrappers.checkpoint.plain_files import read_json

FILE = "generation_config.json"

# What `generate` takes for a field that nothing names (`_get_default_generation_params`), for
# those that a person may want to see in the manifest, and top_k, which is off in `Options`.
DEFAULTS: dict[str, Any] = {
    "num_beams": 1,
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
}

# Done by `alm.decoding`, under the same name.
DONE = frozenset(field.name for field in fields(Options)) - {"seed", "repetition_window"}

# Read by the families, into the manifest's `tokens`.
TOKENS = {
    "eos_token_id": "what ends an answer",
    "stop_strings": "text that ends an answer",
}

HARMLESS = {
    "pad_token_id": "rows of a batch are not padded with tokens",
    "bos_token_id": "it begins a prompt that is empty, and none is",
    "decoder_start_token_id": "of encoder-decoder models",
    "use_cache": "without a cache the same tokens take longer",
    "max_cache_len": "a size of memory",
    "compile_config": "how fast torch runs",
    "disable_compile": "how fast torch runs",
    "prefill_chunk_size": "how much of a prompt is computed at once",
    "continuous_batching_config": "of another method than `generate`",
    "output_attentions": "what is returned beside the tokens",
    "output_hidden_states": "what is returned beside the tokens",
    "output_scores": "what is returned beside the tokens",
    "output_logits": "what is returned beside the tokens",
    "return_dict_in_generate": "what is returned beside the tokens",
    "num_assistant_tokens": "of an assistant model, which a config cannot name",
    "num_assistant_tokens_schedule": "of an assistant model",
    "assistant_confidence_threshold": "of an assistant model",
    "assistant_lookbehind": "of an assistant model",
    "target_lookbehind": "of an assistant model",
    "assistant_ensemble_weight": "of an assistant model",
    "max_matching_ngram_size": "of prompt_lookup_num_tokens",
    "transformers_version": "who wrote the file",
    "_from_model_config": "who wrote the file",
    "_commit_hash": "who wrote the file",
    "_original_object_hash": "whether the settings were changed since they were read",
}

# Refused but for these values, which change nothing; and why.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "guidance_scale": ((1,), "it takes a second pass of the model without the prompt"),
    "max_time": ((), "its answers depend on how fast the machine is"),
    "num_return_sequences": ((1,), "one answer is given to a prompt"),
    "token_healing": ((False,), "it rewrites the prompt's last tokens"),
    "use_mtp": ((False,), "it takes layers that are not exported"),
    "speculation_type": ((), "it takes a second model"),
    "is_assistant": ((False,), "it makes the model another's draft"),
    "assistant_early_exit": ((), "it takes the logits of inner layers"),
    "prompt_lookup_num_tokens": ((), "it is a way of assisted decoding"),
    "dola_layers": ((), "it takes the logits of inner layers"),
    "penalty_alpha": ((0,), "contrastive search takes a second pass for each token"),
    "low_memory": ((False,), "it is of contrastive search, and an error with beams"),
    "num_beam_groups": ((1,), "groups of beams are no longer in transformers itself"),
    "diversity_penalty": ((0,), "it is of groups of beams"),
    "constraints": ((), "constrained beams are no longer in transformers itself"),
    "force_words_ids": ((), "constrained beams are no longer in transformers itself"),
    "forced_decoder_ids": (([],), "transformers has dropped it"),
    "cache_implementation": (
        ("dynamic", "static", "offloaded", "offloaded_static", "hybrid", "sliding_window"),
        "another cache may keep other values",
    ),
    "cache_config": (({},), "another cache may keep other values"),
}
# Done for the values that `Options` takes; the reason stands with what it refuses.
KNOWN = DONE | TOKENS.keys() | HARMLESS.keys() | REFUSED.keys()


def in_folder(folder: Path, model: Mapping[str, Any] | None = None) -> tuple[Path, dict[str, Any]]:
    """The decoding settings of a model's folder, as `from_pretrained` reads them, and their file.

    The file is its generation_config.json; without one, config.json, where older transformers left
    them and of which the outer settings go before those of the text model.

    Args:
        folder: the model's folder.
        model: its config.json, if that was read already.

    Raises:
        BadCheckpoint: unreadable, or a token's id that is none.
    """
    file = folder / FILE
    if file.is_file():
        plain = {name: value for name, value in read_json(file).items() if value is not None}
        limits.check({name: plain[name] for name in limits.TOKENS if name in plain}, str(file))
        return file, plain
    file = folder / "config.json"
    plain = model if model is not None else read_json(file) if file.is_file() else {}
    inner = plain.get("text_config")
    both = (inner if isinstance(inner, dict) else {}, plain)
    settings: dict[str, Any] = {}
    for config in both:
        settings |= {n: v for n, v in config.items() if n in KNOWN and v is not None}
    return file, settings


def settings(plain: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """The options among these settings; what is harmless or read elsewhere is left out.

    `max_new_tokens` and `min_new_tokens` replace `max_length` and `min_length`, as in `generate`.

    Raises:
        BadCheckpoint: naming all that is not done, and all that is unknown.
    """
    wrong: list[str] = []
    for name, value in plain.items():
        if value is None:
            continue
        if name in REFUSED:
            neutral, why = REFUSED[name]
            if value not in neutral:
                wrong.append(f"{name}: {value!r:.80}, which is not done here, since {why}")
        elif name not in KNOWN:
            wrong.append(f"{name}: {value!r:.80}, which transformers' GenerationConfig has not")
    if wrong:
        raise BadCheckpoint(
            f"{where} asks for {'; and for '.join(wrong)}; take it out to export without it"
        )
    options = {name: plain[name] for name in plain if name in DONE and plain[name] is not None}
    if "max_new_tokens" in options:
        options.pop("max_length", None)
    if "min_new_tokens" in options:
        options.pop("min_length", None)
    return options


def section(given: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """`settings` of a section beside an LLM's folder; what ends an answer is said by the folder.

    Raises:
        BadCheckpoint: as `settings`, and for a setting that only the folder's files may have.
    """
    if odd := [name for name in TOKENS if given.get(name) is not None]:
        raise BadCheckpoint(
            f"{where} says {' and '.join(odd)}; what ends an answer is read from the LLM's own "
            "folder: say it there"
        )
    return settings(given, where)


def defaults(
    *sources: Mapping[str, Any], where: Path | str, vocab: int, max_new_tokens: int
) -> dict[str, Any]:
    """The manifest's `generation`: later sources go before earlier ones.

    Args:
        sources: options, as `settings` gives them.
        where: the file to name.
        vocab: the size of the vocabulary.
        max_new_tokens: the longest answer where nothing sets one.

    Raises:
        BadCheckpoint: values out of range, contradicting each other, or tokens that are not there.
    """
    options = dict(DEFAULTS)
    for source in sources:
        options |= source
        if "max_new_tokens" in source:
            options.pop("max_length", None)
        if "min_new_tokens" in source:
            options.pop("min_length", None)
    if "max_length" not in options:
        options.setdefault("max_new_tokens", max_new_tokens)
    try:
        choose(options, {}).check_tokens(vocab)
    except BadOption as error:
        raise BadCheckpoint(f"{where}: {error}") from error
    return options


def stop_strings(plain: Mapping[str, Any], where: Path | str) -> list[str]:
    """The `stop_strings` of these settings.

    Raises:
        BadCheckpoint: they are no strings.
    """
    value = plain.get("stop_strings")
    strings = [value] if isinstance(value, str) else value or []
    if not isinstance(strings, list) or not all(isinstance(s, str) and s for s in strings):
        raise BadCheckpoint(f"{where} has stop_strings {value!r:.80}, which are no strings")
    return strings
