"""An adapter as peft saves it: adapter_config.json and adapter_model.safetensors or .bin.

transformers' `from_pretrained` applies one that lies beside a model's weights, and loads the base
model of one that lies alone; so do we, but what cannot be followed is refused by name.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

from alm.errors import BadCheckpoint, MissingFile
from wrappers.checkpoint.adapters import contract, peft_kinds
from wrappers.checkpoint.adapters.contract import Adapter
from wrappers.checkpoint.adapters.peft_kinds import Kind
from wrappers.checkpoint.plain_files import read_json
from wrappers.checkpoint.weights.tensors import Weights, load_pickled

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
MERGE = "merge the adapter with peft (merge_and_unload) and save the whole model"

# Fields of every kind that are honoured here.
READ = {
    *("peft_type", "base_model_name_or_path", "target_modules", "exclude_modules"),
    *("layers_to_transform", "layers_pattern", "modules_to_save", "bias", "init_lora_weights"),
    "trainable_token_indices",
}
# Fields that change no answer, and why.
HARMLESS = {
    **dict.fromkeys(
        ("task_type", "auto_mapping", "peft_version", "revision", "inference_mode"),
        "book-keeping",
    ),
    **dict.fromkeys(
        ("lora_dropout", "rank_dropout", "module_dropout", "vblora_dropout", "rank_dropout_scale"),
        "dropout is for training",
    ),
    **dict.fromkeys(
        ("init_weights", "init_ia3_weights", "init_vector_bank_std", "init_logits_std"),
        "the saved tensors take the place of the first ones",
    ),
    **dict.fromkeys(
        ("tinit", "tfinal", "deltaT", "beta1", "beta2", "orth_reg_weight", "total_step"),
        "AdaLoRA's schedule of training",
    ),
    **dict.fromkeys(
        ("eva_config", "runtime_config", "save_only_topk_weights", "megatron_core"),
        "about training or loading; what was saved shows in the tensors",
    ),
    "fan_in_fan_out": "for layers of GPT-2 that no model here has; peft ignores it on others",
    "use_effective_conv2d": "for convolutions of two dimensions, which no part has",
}
# Starts of training that leave the base model as it is. The others (PiSSA, OLoRA, CorDA, LoftQ)
# take something out of its weights, which is not saved.
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")

# Beside an adapter that lies alone these are a model's; they must be the base model's.
MODELS = (
    *("generation_config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt"),
    *("added_tokens.json", "tekken.json", "chat_template.json", "chat_template.jinja"),
)


def is_beside(folder: Path) -> bool:
    """Whether an adapter lies in this folder."""
    return (folder / CONFIG).is_file()


def is_alone(folder: Path) -> bool:
    """Whether this is the folder of an adapter without its model."""
    return is_beside(folder) and not (folder / "config.json").is_file()


def base_of(folder: Path) -> Path:
    """The folder of the model that an adapter which lies alone was trained on.

    Raises:
        MissingFile: it is not on this machine.
        BadCheckpoint: it is not named, or the folder holds files of a model that are not its own.
    """
    file = folder / CONFIG
    named = read_json(file).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise BadCheckpoint(
            f"{folder} is a PEFT adapter alone, and {CONFIG} does not say the model it was trained "
            f"on; copy {CONFIG} and {FILES[0]} into the folder of that model and export it"
        )
    for place in (folder / named, Path(named)):
        if len(named) < 4096 and place.is_dir() and (place / "config.json").is_file():
            break
    else:
        raise MissingFile(
            f"{folder} is a PEFT adapter alone, trained on {named[:200]!r}, which is no folder of "
            f"a model on this machine; download that model, copy {CONFIG} and {FILES[0]} into its "
            "folder, and give that folder as --model"
        )
    for name in MODELS:
        if (folder / name).is_file() and not _alike(folder / name, place / name):
            raise BadCheckpoint(
                f"{folder / name} is another than that of the adapter's base model, {place}; copy "
                f"{CONFIG} and {FILES[0]} into {place}, with it if it is the right one, and give "
                "that folder as --model"
            )
    return place


def _alike(one: Path, other: Path) -> bool:
    if not other.is_file():
        return False
    left, right = one.read_bytes(), other.read_bytes()
    if left == right or one.suffix != ".json":
        return left == right
    try:
        return json.loads(left) == json.loads(right)
    except (ValueError, RecursionError):
        return False


def read(
    folder: Path,
    *,
    rename: Callable[[str], str] | None = None,
    aliases: Callable[[str], tuple[str, ...]] | None = None,
    tied: Mapping[str, str] | None = None,
) -> Adapter:
    """The adapter in a folder.

    Args:
        rename: a weight's name in the file -> the one that it has here.
        aliases: a module's name here -> those that the config may call it by, the best first.
        tied: a table -> the head that shares it.

    Raises:
        MissingFile: it has no weights.
        BadCheckpoint: of a kind or with a setting that cannot be followed.
    """
    file = folder / CONFIG
    kind = peft_kinds.of_type(read_json(file).get("peft_type"), str(file))
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise MissingFile(f"{file} describes an adapter, but there is no {folder / FILES[0]}")
    if path.suffix == ".safetensors":
        stored = Weights(str(path))
        stored.add_safetensors(path)
        tensors = stored.take()
    else:
        tensors = load_pickled(path)
        if not isinstance(tensors, dict) or not all(
            isinstance(k, str) and hasattr(v, "is_floating_point") for k, v in tensors.items()
        ):
            raise BadCheckpoint(f"{path} holds no state dict of tensors")
    adapter = contract.read(
        tensors,
        settings(file, kind),
        str(path),
        kind=kind,
        rename=rename or (lambda name: name),
        aliases=aliases or (lambda name: (name,)),
        tied=tied,
    )
    assert adapter is not None  # with a kind, none is an error
    return adapter


def settings(file: Path, kind: Kind) -> dict[str, Any]:
    """The fields of an adapter_config.json that count, all others looked at.

    Raises:
        BadCheckpoint: it is of another kind, or a field would change answers and is not followed.
    """
    fields = read_json(file)
    if fields.get("peft_type") != kind.peft_type:
        raise BadCheckpoint(
            f"{file} says peft_type: {str(fields.get('peft_type'))[:60]!r}, but the adapter's "
            f"tensors are those of {kind.name}"
        )
    return followed(fields, kind, str(file))


def followed(fields: Mapping[str, Any], kind: Kind, file: str) -> dict[str, Any]:
    """The fields under peft's names that count, all others looked at; `file` says them.

    Raises:
        BadCheckpoint: a field would change answers and is not followed.
    """
    usual = _defaults(kind)
    for name, value in fields.items():
        if name in READ or name in HARMLESS or name in kind.settings:
            continue
        if not value or (name in usual and usual[name] == value):
            continue
        raise BadCheckpoint(
            f"{file} says {name}: {str(value)[:80]!r}, which is not followed for {kind.name}; "
            f"{MERGE}"
        )
    start = fields.get("init_lora_weights", True)
    if not any(start is known or start == known for known in PLAIN_STARTS):
        raise BadCheckpoint(
            f"{file} says init_lora_weights: {str(start)[:80]!r}, which changes the base model's "
            f"weights before training; {MERGE}"
        )
    if fields.get("bias", "none") not in ("none", "all", f"{kind.name.lower()}_only"):
        raise BadCheckpoint(f"{file} says bias: {str(fields['bias'])[:80]!r}, which peft has not")
    return {name: fields[name] for name in fields if name in READ or name in kind.settings}


def _defaults(kind: Kind) -> dict[str, Any]:
    """What peft takes for a field of this kind that is not set."""
    fields: Any = dataclasses.fields(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind.peft_type)])
    return {
        f.name: f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        for f in fields
    }
