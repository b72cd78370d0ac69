"""Qwen2-Audio (Chu et al. 2024): a Whisper that masks padding and pools, one linear layer, a Qwen2.

A clip becomes 25 embeddings a second, at most 750 of 30 s; there may be several in a conversation,
numbered where its chat template numbers them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.projector import Projector
from wrappers.checkpoint.hf import Folder
from wrappers.checkpoint.hf_files import FFT
from wrappers.checkpoint.model_type import model_type
from wrappers.checkpoint.text import chat_template
from wrappers.frontends import mel

LOOKS_LIKE = "a Hugging Face folder whose config.json says model_type: qwen2_audio"

# What transformers' processor writes where the folder has no template for conversations with
# clips, as the first uploads had none: ChatML, the clips numbered.
CHATML = (
    "{% set heard = namespace(clips=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message.role != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'audio' %}{% set heard.clips = heard.clips + 1 %}"
    "Audio {{ heard.clips }}: <|audio_bos|>PLACEHOLDER<|audio_eos|>\n"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}"
    "{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# No file of a checkpoint names tasks: the words are ours, the names those of the other families.
TASKS = {
    "transcribe": "Transcribe the speech.",
    "describe": "Describe the audio.",
    "translate_en": "Translate the speech into English.",
    "translate_zh": "Translate the speech into Chinese.",
    "emotion": "What is the emotion of the speaker?",
    "lyrics": "Write down the lyrics of the song.",
    "music": "Describe the music.",
}
JOINED = ("transcribe", "translate_en", "translate_zh", "lyrics")


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of Qwen2-Audio."""
    return model_type(path) == Qwen2Audio.family


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tokenizer in the folder.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other, or a chat template that is no start, turns and an end.
    """
    folder = Qwen2Audio(path)
    # One frame of the spectrogram's transform; from 321 samples on that is one embedding.
    return folder.checkpoint(
        audio_tokens=lambda: folder.frames // 2, least_samples=FFT, long="each"
    )


class Qwen2Audio(Folder):
    """The checkpoint taken apart."""

    family = "qwen2_audio"
    pooled = cut = True
    bridge = {"layers.0": "linear"}

    def mel(self) -> Wrapper:
        return mel.Mel(int(self.whisper_config["num_mel_bins"]), self.window_samples, cut=True)

    def build_projector(self) -> Projector:
        widths = [int(self.whisper_config["d_model"]), self.spec.hidden]
        return Projector(widths, frames="rows")

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        placeholder = self.placeholder(tokenizer, self.config.audio_token_index)
        default = CHATML.replace("PLACEHOLDER", placeholder)
        template = chat_template.template(self.path, placeholder, default)
        if template is None:
            raise BadCheckpoint(f"{self.path} holds no chat template")
        joined = tuple(sorted(TASKS[name] for name in JOINED))
        return replace(template.prompt(placeholder), tasks=TASKS, joined=joined)
