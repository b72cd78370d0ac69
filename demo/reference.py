"""The checkpoint in torch, part by part as the exporter loads it: what graphs are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from alm.text.prompt import Prompter
from demo.model import read
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled


class Reference:
    """Greedy answers by the torch modules, LoRA merged, without a cache."""

    def __init__(self, path: Path) -> None:
        found = open_checkpoint(path)
        self.parts: dict[str, Any] = {name: filled(load()) for name, load in found.parts.items()}
        self.table = found.embedding().float()
        self.tokenizer = Tokenizer.from_str(found.tokenizer_json)
        self.prompter = Prompter(self.tokenizer, found.facts.prompt, found.facts.tokens)
        self.ends = set(found.facts.tokens.eos)
        self.least = found.facts.audio.least_samples

    @torch.no_grad()
    def answer(self, pcm: np.ndarray, task: str, most: int = 32) -> str:
        """What the model says to one clip."""
        pcm = np.pad(pcm, (0, max(self.least - len(pcm), 0)))
        tensors: dict[str, Tensor] = {
            "pcm": torch.from_numpy(pcm)[None],
            "pcm_lengths": torch.tensor([len(pcm)]),
        }
        for name, part in self.parts.items():
            if name == "decoder":
                continue
            made = part(*(tensors[port] for port in part.inputs))
            made = made if isinstance(made, tuple) else (made,)
            tensors |= dict(zip(part.outputs, made, strict=True))
        prompt, decoder = self.prompter.build(task), self.parts["decoder"]
        before, after = (self.table[torch.tensor(ids)][None] for ids in prompt.pieces)
        x, said = torch.cat([before, tensors["audio_embeds"], after], 1), []
        while len(said) < most:
            best = int(decoder.lm_head(read(decoder, x)[:, -1]).argmax())
            if best in self.ends:
                break
            said.append(best)
            x = torch.cat([x, self.table[best][None, None]], 1)
        return self.tokenizer.decode(said).strip()
