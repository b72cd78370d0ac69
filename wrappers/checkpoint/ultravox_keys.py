"""The keys of an Ultravox's config.json: what is done about each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alm.errors import BadCheckpoint
from wrappers.checkpoint.limits import WIDTH, shown
from wrappers.checkpoint.plain_files import read_json
from wrappers.checkpoint.salmonn_keys import strange
from wrappers.checkpoint.weights import nf4

PLACEHOLDER = "<|audio|>"
STACK = 8
# What the original takes for a key that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "text_config": {},
    "audio_config": {},
    "text_model_id": None,
    "audio_model_id": None,
    "hidden_size": 4096,  # of the projector
    "stack_factor": STACK,
    "projector_act": "swiglu",
    "projector_ln_mid": False,
    "audio_latency_block_size": None,
    "text_model_lora_config": {},
    "audio_model_lora_config": {},
    "llm_only_training": False,
    "transformers_version": "4",
}
# Of a LoRA section the same.
LORA: dict[str, Any] = {
    "r": 0,
    "lora_alpha": 8,
    "target_modules": ["k_proj", "q_proj", "linear_k", "linear_q"],
}
# Keys that change no weight and no answer, and why.
HARMLESS = {
    **dict.fromkeys(("norm_init", "initializer_range"), "what training began with"),
    **dict.fromkeys(("ignore_index", "pad_token_id"), "about training, or rows of a batch"),
    **dict.fromkeys(("auto_map", "custom_pipelines"), "names of code, which is never run here"),
    **dict.fromkeys(("torch_dtype", "dtype"), "here --precision says it"),
    **dict.fromkeys(("bos_token_id", "eos_token_id"), "the tokenizer names them"),
    "audio_token_index": "read by other software; the original cuts the text at <|audio|>",
    "vocab_size": "the LLM's own is read",
    "tie_word_embeddings": "the LLM's own is read",
    **dict.fromkeys(
        ("model_type", "architectures", "_name_or_path", "_attn_implementation_autoset")
        + ("attn_implementation", "is_encoder_decoder", "return_dict", "use_cache", "problem_type")
        + ("output_attentions", "output_hidden_states", "id2label", "label2id", "is_composition")
        + ("chunk_size_feed_forward", "quantization_config"),
        "transformers' own, of which the model reads none, or looked at elsewhere",
    ),
}
# What a processor_config.json may say of each key: the original reads none of them.
LATEST, SAMPLES = 2, 320  # encoder_ds_factor: frames, and up to 0.4.1 samples


def checked(plain: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The settings, those that the config leaves out as the original takes them.

    Raises:
        BadCheckpoint: naming every key that is of a wrong type or value, or not known at once.
    """
    said = {name: plain[name] for name in DEFAULTS if plain.get(name) is not None}
    settings = {**DEFAULTS, **said}
    wrong = [
        f"{name}: {shown(settings[name])}, which must be {wanted}"
        for name, (wanted, good) in _WANTED.items()
        if not good(settings[name])
    ]
    quantized = plain.get("quantization_config")
    if quantized and not nf4.described(quantized):
        wrong.append(
            "quantization_config, and of quantised weights only bitsandbytes' 4-bit ones are read"
        )
    wrong += strange(plain, {*DEFAULTS, *HARMLESS}, "key")
    if wrong:
        raise BadCheckpoint(f"{file} says {'; '.join(wrong)}")
    return settings


def check_processor(folder: Path, stack: int, window: int) -> None:
    """That a processor_config.json says nothing else than the config: the original reads it not.

    Raises:
        BadCheckpoint: it does.
    """
    file = folder / "processor_config.json"
    plain = read_json(file) if file.is_file() else {}
    wanted: dict[str, tuple[Any, ...]] = {
        "audio_padding": ("longest",),
        "audio_placeholder": (PLACEHOLDER,),
        "encoder_ds_factor": (LATEST, SAMPLES),
        "stack_factor": (stack,),
        "audio_context_size": (window,),
    }
    odd = [
        f"{name}: {shown(plain[name])} and not {' or '.join(map(str, values))}"
        for name, values in wanted.items()
        if plain.get(name) is not None and plain[name] not in values
    ]
    if odd:
        raise BadCheckpoint(f"{file} says {'; '.join(odd)}, as the model beside it wants it")


def _whole(least: int, most: int) -> tuple[str, Callable[[Any], bool]]:
    return (
        f"a whole number from {least} to {most}",
        lambda value: type(value) is int and least <= value <= most,
    )


_SECTION: tuple[str, Callable[[Any], bool]] = ("a section", lambda v: isinstance(v, dict))
_NAME: tuple[str, Callable[[Any], bool]] = (
    "the name of a model, or the path of its folder",
    lambda value: value is None or isinstance(value, str) and 0 < len(value) < 4096,
)
_WANTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "text_config": _SECTION,
    "audio_config": _SECTION,
    "text_model_lora_config": _SECTION,
    "audio_model_lora_config": _SECTION,
    "text_model_id": _NAME,
    "audio_model_id": _NAME,
    "hidden_size": _whole(1, WIDTH),
    "stack_factor": _whole(1, 512),
    "projector_act": ("a word", lambda value: isinstance(value, str)),
    "projector_ln_mid": ("true or false", lambda value: isinstance(value, bool)),
    "audio_latency_block_size": (
        "a whole number above zero, or null",
        lambda value: value is None or type(value) is int and 0 < value < 2**20,
    ),
    "llm_only_training": ("false: such a model hears nothing", lambda value: value is False),
    "transformers_version": ("a word", lambda value: isinstance(value, str)),
}
