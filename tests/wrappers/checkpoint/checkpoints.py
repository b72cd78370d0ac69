"""A copy of a small checkpoint with one thing changed, for tests that spoil it."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import sentencepiece
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from alm.errors import AlmError, BadCheckpoint
from demo.random_checkpoint import Recipe
from wrappers import open_checkpoint
from wrappers.checkpoint.text.prompts import SALMONN_TASKS

TINY = Recipe(window_seconds=4, speech_width=16, audio_width=16, bridge_width=48)
Change = Callable[[dict[str, Tensor]], Any]


def in_peft(model: Any, config: Any) -> Any:
    """A model of transformers with an adapter of peft, not merged."""
    with warnings.catch_warnings():  # peft asks transformers by a name that is going away
        warnings.simplefilter("ignore", FutureWarning)
        return peft.get_peft_model(model, config).eval()


class Copy:
    """A checkpoint's folder that a test may spoil."""

    def __init__(self, config: Path, folder: Path) -> None:
        self.folder = Path(shutil.copytree(config.parent, folder / "copy"))
        self.config = self.folder / config.name

    def settings(self, **said: Any) -> Copy:
        """Change the config's model section; None takes a key out."""
        plain = yaml.safe_load(self.config.read_text())
        plain["model"] = {k: v for k, v in (plain["model"] | said).items() if v is not None}
        self.config.write_text(yaml.safe_dump(plain))
        return self

    def json(self, name: str, **said: Any) -> Copy:
        """Change a JSON file, or make it."""
        file = self.folder / name
        plain = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(plain | said))
        return self

    def trained(self, change: Change) -> Copy:
        """Change the tensors of the .pth."""
        file = self.folder / "salmonn.pth"
        plain = torch.load(file, weights_only=True)
        change(plain["model"])
        torch.save(plain, file)
        return self

    def beats(self, change: Change) -> Copy:
        """Change the tensors of the BEATs checkpoint."""
        file = self.folder / "beats.pt"
        plain = torch.load(file, weights_only=True)
        change(plain["model"])
        torch.save(plain, file)
        return self

    def weights(self, name: str, change: Change) -> Copy:
        """Change the tensors of a folder's model.safetensors."""
        file = self.folder / name / "model.safetensors"
        state = load_file(file)
        change(state)
        save_file(state, file)
        return self


def without(*parts: str) -> Change:
    """Takes out all tensors whose names hold one of these."""

    def change(state: dict[str, Tensor]) -> None:
        for name in [n for n in state if any(part in n for part in parts)]:
            del state[name]

    return change


def renamed(rename: Callable[[str], str]) -> Change:
    """Gives all tensors other names."""

    def change(state: dict[str, Tensor]) -> None:
        tensors = {rename(name): tensor for name, tensor in state.items()}
        state.clear()
        state.update(tensors)

    return change


def as_bin(folder: Path) -> None:
    """A folder's weights as older transformers saved them."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def in_shards(folder: Path) -> None:
    """A folder's weights in two files and an index."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {}
    for i, names in enumerate((list(state)[::2], list(state)[1::2])):
        shard = f"model-{i + 1:05}-of-00002.safetensors"
        save_file({name: state[name] for name in names}, folder / shard)
        places |= dict.fromkeys(names, shard)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


CORPUS = [
    *SALMONN_TASKS.values(),
    "USER: <Speech> </Speech> ASSISTANT: the quick brown fox jumps over the lazy dog 0123456789",
    "Describe  the  speech.  What is said, who says it, where and when?",
]
LLAMA_PIECES: dict[str, Any] = dict(
    model_type="bpe",
    byte_fallback=True,
    add_dummy_prefix=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    vocab_size=460,
)


def sentencepiece_folder(folder: Path, said: dict[str, Any], **options: Any) -> Path:
    """A small sentencepiece model in a folder, as LLMs without a tokenizer.json have it."""
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(CORPUS * 3), "utf-8")
    sentencepiece.SentencePieceTrainer.train(  # pyright: ignore
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        hard_vocab_limit=False,
        character_coverage=0.98,
        minloglevel=9,
        **(LLAMA_PIECES | options),
    )
    for name in ("tokenizer.vocab", "corpus.txt"):
        (folder / name).unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def refused(copy: Copy, kind: type[AlmError] = BadCheckpoint) -> str:
    """The sentence with which the copy is refused."""
    with pytest.raises(kind) as caught:
        open_checkpoint(copy.config)
    assert "\n" not in str(caught.value)
    return str(caught.value)
