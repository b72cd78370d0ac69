"""Random LoRAs of a model of transformers, as peft saves them, and the model with one merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch

from tests.wrappers.checkpoint.checkpoints import in_peft

HIGH = 0.3  # deviation of the weights: large enough to change answers


def save(model: Any, folder: Path, seed: int, **said: Any) -> Path:
    """A LoRA of the model with random weights; the model is as it was."""
    torch.manual_seed(seed)
    tuned: Any = in_peft(model, peft.LoraConfig(**said))
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, HIGH)
    tuned.save_pretrained(folder)
    tuned.unload()
    return folder


def merge(model: Any, adapter: Path, folder: Path) -> Path:
    """The model with the adapter merged by peft, saved into a folder."""
    tuned: Any = peft.PeftModel.from_pretrained(model, adapter)
    tuned.merge_and_unload().save_pretrained(folder)
    return folder
