"""The keys of SALMONN's config.yaml, the original's and its forks': what is done about each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alm.errors import BadCheckpoint

# Keys of the LLM's adapter; with whisper_ before them they are those of Whisper's.
LORA = frozenset(
    {
        *("lora", "lora_rank", "lora_alpha", "use_rslora", "use_dora"),
        *("lora_rank_pattern", "lora_alpha_pattern", "lora_target_modules"),
    }
)
READ = frozenset(
    {
        *("llama_path", "whisper_path", "beats_path", "ckpt", "speech_llama_proj_model"),
        *("use_speech_Qformer", "window_level_Qformer", "num_speech_query_token"),
        *("second_per_window", "second_stride", "qformer_heads", "scaled_audio"),
        *("prompt_template", "test_prompt_path", "end_sym", "vblora_topk", "hra_apply_GS"),
        *LORA,
        *(f"whisper_{key}" for key in LORA),
    }
)
# Keys that change no weight and no answer, and why.
HARMLESS = {
    **dict.fromkeys(
        ("freeze_whisper", "freeze_beats", "freeze_speech_QFormer", "freeze_speech_llama_proj"),
        "says what was trained; the .pth holds the result",
    ),
    **dict.fromkeys(("lora_dropout", "whisper_lora_dropout"), "dropout is for training"),
    **dict.fromkeys(("multi_prompt", "prompt_path", "max_txt_len"), "texts of training"),
    **dict.fromkeys(
        ("gradient_checkpointing", "use_class_weights", "class_weights", "liger_kernel"),
        "about training alone",
    ),
    **dict.fromkeys(
        ("low_resource", "device_8bit", "load_in_8bit", "load_in_4bit", "torch_dtype")
        + ("bnb_4bit_compute_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant")
        + ("attn_implementation", "device_map"),
        "how the original fits into its memory; here --precision says it",
    ),
    **dict.fromkeys(("token", "only_preprocessor"), "about downloading"),
}
# Keys of forks that change the model in their code: off they mean the original.
OFF = {
    "prune": "name the folder of the pruned LLM as llama_path, saved with its own config.json, and "
    "take the key out",
    "soft_prompts": "trained embeddings before the prompt are not supported",
    "l2p": "a pool of trained prompts is not supported",
}
SECTIONS = ("model", "generate", "datasets", "run", "licence")  # datasets and run: training's
NAMES = ("project_name", "exp_name")  # what a run was called


def check(file: Path, config: Mapping[Any, Any], model: Mapping[Any, Any]) -> None:
    """Refuse every key that is neither read nor known to change nothing.

    Raises:
        BadCheckpoint: naming all of them at once, with what was probably meant.
    """
    wrong = strange(config, {*SECTIONS, *NAMES}, "section")
    for key, way in OFF.items():
        if model.get(key):
            wrong.append(f"`{key}: {str(model[key])[:60]}` ({way})")
    known = READ | HARMLESS.keys() | OFF.keys()
    wrong += strange(model, known, "key")
    if wrong:
        raise BadCheckpoint(
            f"{file} says what is not known here and might change answers: {'; '.join(wrong)}"
        )


def strange(section: Mapping[Any, Any], known: Iterable[str], what: str) -> list[str]:
    """What a section holds beside the known keys; an empty value says nothing."""
    odd: list[str] = []
    for key, value in section.items():
        if key in known or value is None or value == "":
            continue
        near = difflib.get_close_matches(str(key), known, 1, 0.75)
        way = f"meant is perhaps `{near[0]}`" if near else "take it out if it changes nothing"
        odd.append(f"{what} `{str(key)[:60]}` ({way})")
    return odd
