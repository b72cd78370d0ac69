"""Small models of families as transformers answers: what whole runs are compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor

from tests.wrappers.families import tiny_audio_llm, tiny_hf
from tests.wrappers.families.tiny_audio_llm import Original as AudioLlm
from tests.wrappers.families.tiny_hf import RATE

STEPS = 32
GREEDY: dict[str, Any] = dict(max_new_tokens=STEPS, do_sample=False, num_beams=1)


@dataclass
class Turn:
    """What a user says, the clips [samples] that stand before it, and what was answered."""

    words: str
    clips: list[np.ndarray]
    answer: list[int] = field(default_factory=list)


class Original(ABC):
    """A checkpoint in `path`, and the model of transformers that is in it."""

    path: Path
    words = "What is said?"  # of a turn about one clip

    @abstractmethod
    def answer(self, turns: Sequence[Turn]) -> list[int]:
        """Greedy tokens to the last of the turns, the answers before it given."""


class Qwen2Audio(Original):
    """As its processor and its `generate` do it."""

    def __init__(self, folder: Path) -> None:
        self.tiny = tiny_hf.qwen2_audio(folder)
        self.path = folder
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def answer(self, turns: Sequence[Turn]) -> list[int]:
        """See `Original`."""
        import jinja2

        messages: list[dict[str, Any]] = []
        for turn in turns:
            said: list[dict[str, str]] = [{"type": "audio", "audio_url": "x"} for _ in turn.clips]
            messages.append(
                {"role": "user", "content": [*said, {"type": "text", "text": turn.words}]}
            )
            messages.append({"role": "assistant", "content": "ANSWER"})
        text = jinja2.Template(tiny_hf.TEMPLATE).render(
            messages=messages[:-1], add_generation_prompt=True
        )
        clips = [clip for turn in turns for clip in turn.clips]
        made: Any = self.tiny.extractor(
            clips, sampling_rate=RATE, return_attention_mask=True, return_tensors="pt"
        )
        tower, audio = self.tiny.truth.model.audio_tower, self.tiny.truth.config.audio_token_index
        counts = tower._get_feat_extract_output_lengths(made.attention_mask.sum(-1))[1].tolist()
        ends, ids = {0, 2}, []
        for i, piece in enumerate(text.split("ANSWER")):
            for token in self.tokenizer.encode(piece, add_special_tokens=False).ids:
                ids += [audio] * counts.pop(0) if token == audio else [token]
            ids += [token for token in turns[i].answer if token not in ends]
        return _generated(
            self.tiny.truth,
            ids,
            input_features=made.input_features,
            feature_attention_mask=made.attention_mask,
        )


class Voxtral(Original):
    """As mistral-common writes a conversation, and as its processor hears."""

    def __init__(self, folder: Path) -> None:
        self.tiny = tiny_hf.voxtral(folder)
        self.path = folder

    def answer(self, turns: Sequence[Turn]) -> list[int]:
        """See `Original`."""
        ids, features = [1], []
        for i, turn in enumerate(turns):
            if i:
                ids += [token for token in turns[i - 1].answer if token != 2] + [2]
            ids.append(3)
            for clip in turn.clips:
                windows = self.heard(clip)
                features.append(windows)
                ids += [25] + [24] * (375 * len(windows))
            # Bytes follow the special tokens; words must hold none of the few longer pieces.
            ids += [tiny_hf.TEKKEN_SPECIALS + byte for byte in turn.words.encode()] + [4]
        return _generated(self.tiny.truth, ids, input_features=torch.cat(features))

    def heard(self, clip: np.ndarray) -> Tensor:
        """log-mel [windows, mels, 3000] of the clip padded to whole windows."""
        made: Any = self.tiny.extractor(
            clip,
            sampling_rate=RATE,
            padding=True,  # pyright: ignore
            truncation=False,
            pad_to_multiple_of=30 * RATE,
            return_tensors="pt",
        )
        mels = made.input_features
        return mels.reshape(mels.shape[1], -1, 3000).transpose(0, 1)


class AudioLlama(Original):
    """The projected frames of a clip between two tokens, then the words."""

    def __init__(self, folder: Path) -> None:
        self.path = tiny_audio_llm.make(folder, max_position_embeddings=4096)
        with torch.no_grad():
            self.original = AudioLlm(folder)

    @torch.no_grad()
    def answer(self, turns: Sequence[Turn]) -> list[int]:
        """See `Original`."""
        original = self.original
        table, end = original.llm.get_input_embeddings(), original.tokenizer.eos_token_id
        mean = table.weight[: original.llm.config.vocab_size - 2].mean(0)
        rows: list[Tensor] = []
        for i, turn in enumerate(turns):
            if i:
                said = [token for token in turns[i - 1].answer if token != end]
                rows.append(table(torch.tensor([*said, end])))
            for clip in turn.clips:
                rows += [mean[None], original.heard([clip])["audio_embeds"][0], mean[None]]
            rows.append(table(torch.tensor(original.tokenizer(turn.words).input_ids)))
        embeds = torch.cat(rows)[None]
        original.llm.lm_head = torch.nn.Linear(*original.head.T.shape, bias=False)
        original.llm.lm_head.weight.data = original.head
        made = original.llm.generate(
            inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]), **_settings(end)
        )
        return made[0].tolist()


def _generated(model: Any, ids: list[int], **heard: Tensor) -> list[int]:
    given = torch.tensor([ids])
    made = model.generate(
        input_ids=given,
        attention_mask=torch.ones_like(given),
        **heard,
        **_settings(model.generation_config.eos_token_id),
    )
    return made[0, len(ids) :].tolist()


def _settings(eos: Any) -> dict[str, Any]:
    return GREEDY | dict(eos_token_id=eos, pad_token_id=0, use_cache=True)


ORIGINALS: dict[str, type[Any]] = {
    "audio_llm": AudioLlama,
    "qwen2_audio": Qwen2Audio,
    "voxtral": Voxtral,
}
transformers.logging.set_verbosity_error()
