"""Qwen2.5-Omni (Xu et al. 2025), its thinker: a Whisper in windows of 2 s, one layer, a Qwen2.5.

Sound comes in and text goes out, 25 embeddings a second. A clip up to the extractor's window, five
minutes in the published models, is heard as one; there may be several in a conversation. What sees
and the talker, which speaks, are left out.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import Qwen2_5OmniThinkerConfig, Qwen2Config

from alm.errors import BadCheckpoint
from alm.facts import MOST_SAMPLES
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.projector import Projector
from wrappers.checkpoint import llm_files
from wrappers.checkpoint.hf_files import FFT, TOWER
from wrappers.checkpoint.model_type import model_type
from wrappers.checkpoint.omni_files import SIGHT, OmniFolder
from wrappers.encoders import qwen2_5_omni
from wrappers.frontends.masked_mel import MaskedMel
from wrappers.frontends.mel import HOP, RATE

LOOKS_LIKE = "a Hugging Face folder whose config.json says model_type: qwen2_5_omni(_thinker)"

THINKER = "qwen2_5_omni_thinker"
SPEECH = ("talker.", "token2wav.")


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of Qwen2.5-Omni or of its thinker alone."""
    return model_type(path) in (Qwen25Omni.family, THINKER)


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tokenizer in the folder.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other, or a chat template that is no start, turns and an end.
    """
    folder = Qwen25Omni(path)
    # One frame of the spectrogram's transform; from 321 samples on that is one embedding.
    return folder.checkpoint(
        audio_tokens=lambda: qwen2_5_omni.rows_of(folder.window_samples // HOP),
        least_samples=FFT,
        long="each",
    )


class Qwen25Omni(OmniFolder):
    """The checkpoint taken apart."""

    family = tower = "qwen2_5_omni"
    tower_type = "qwen2_5_omni_audio_encoder"
    front = "masked_mel"
    bridge = {"layers.0": "proj"}
    thinker, thinker_class = THINKER, Qwen2_5OmniThinkerConfig
    text_type, text_class = "qwen2_5_omni_text", Qwen2Config
    sections = (16, 24, 24)
    speech = SPEECH
    unused = (
        *llm_files.UNUSED,
        # An embedding that transformers has and computes nothing with.
        rf"^{TOWER}audio_bos_eos_token\.weight$",
        rf"^({'|'.join((SIGHT, *SPEECH))})",
    )

    @cached_property
    def tower_config(self) -> dict[str, Any]:
        """The tower's sizes; `scale_embedding` changes nothing in the original either."""
        audio = self.audio_config
        return {name: getattr(audio, name) for name in qwen2_5_omni.DEFAULTS}

    @cached_property
    def window_samples(self) -> int:
        """See `Files.window_samples`; the tower has none, and the extractor's is the bound.

        Raises:
            BadCheckpoint: the extractor's settings are of another spectrogram, all named.
        """
        mels = self.tower_config["num_mel_bins"]
        settings = self.check_extractor({"feature_size": mels, "dither": 0.0, "padding_value": 0.0})
        seconds, side = settings.get("chunk_length", 30), settings.get("padding_side", "right")
        most = MOST_SAMPLES // RATE
        wrong = []
        if type(seconds) is not int or not 0 < seconds <= most:
            wrong.append(
                f"chunk_length {str(seconds)[:80]}; it must be a whole number of seconds, at most "
                f"{most}"
            )
        if side != "right":
            wrong.append(
                f"padding_side {str(side)[:80]!r}; known is 'right', silence behind a clip"
            )
        if wrong:
            raise BadCheckpoint(f"{self.path} has an extractor of {', '.join(wrong)}")
        return seconds * RATE

    def mel(self) -> Wrapper:
        return MaskedMel(int(self.tower_config["num_mel_bins"]), self.window_samples)

    def build_tower(self) -> Wrapper:
        return qwen2_5_omni.build(self.tower_config)

    def build_projector(self) -> Projector:
        return Projector(list(self.check_width()), frames="rows")

    @property
    def audio_token(self) -> int:
        """See `OmniFolder.audio_token`."""
        return int(self.config.audio_token_index)
