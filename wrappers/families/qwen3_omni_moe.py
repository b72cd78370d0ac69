"""Qwen3-Omni (Xu et al. 2025), its thinker: Qwen3-ASR's encoder, two layers, a Qwen3 MoE.

Sound comes in and text goes out, 13 embeddings a second. A clip up to 40 minutes is heard as one;
there may be several in a conversation. What sees, and the talker and its vocoder, which speak, are
left out.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import Qwen3MoeConfig, Qwen3OmniMoeThinkerConfig

from alm.errors import BadCheckpoint
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.projector import Projector
from wrappers.checkpoint import limits, llm_files
from wrappers.checkpoint.model_type import model_type
from wrappers.checkpoint.omni_files import SIGHT, OmniFolder
from wrappers.checkpoint.plain_files import read_json
from wrappers.encoders import qwen3_asr
from wrappers.frontends.clip_mel import ClipMel
from wrappers.frontends.mel import HOP, RATE

LOOKS_LIKE = "a Hugging Face folder whose config.json says model_type: qwen3_omni_moe(_thinker)"

MODEL, THINKER = "Qwen3-Omni", "qwen3_omni_moe_thinker"
SPEECH = ("talker.", "code2wav.")
LONGEST = 2400 * RATE  # samples heard as one; the processor has no bound
LEAST = 201  # samples: a spectrogram mirrors 200 at either end of a clip


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of Qwen3-Omni or of its thinker alone."""
    return model_type(path) in (Qwen3Omni.family, THINKER)


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tokenizer in the folder.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other, or a chat template that is no start, turns and an end.
    """
    folder = Qwen3Omni(path)
    frames = LONGEST // HOP
    return folder.checkpoint(
        audio_tokens=lambda: qwen3_asr.rows_of(frames, folder.chunk),
        least_samples=LEAST,
        long="each",
    )


class Qwen3Omni(OmniFolder):
    """The checkpoint taken apart."""

    family = "qwen3_omni_moe"
    tower = "qwen3_asr"
    tower_type = "qwen3_omni_moe_audio_encoder"
    front = "clip_mel"
    bridge = {"layers.0": "proj1", "layers.2": "proj2"}
    thinker, thinker_class = THINKER, Qwen3OmniMoeThinkerConfig
    text_type, text_class = "qwen3_omni_moe_text", Qwen3MoeConfig
    sections = (24, 20, 20)
    speech = SPEECH
    unused = (*llm_files.UNUSED, rf"^({'|'.join((SIGHT, *SPEECH))})")

    @cached_property
    def text_config(self) -> Any:
        """See `OmniFolder.text_config`.

        Raises:
            BadCheckpoint: the LLM has what transformers' has not, or does only in part.
        """
        said = self.config.text_config
        known: dict[str, tuple[Any, ...]] = {
            # The prompt would see all of it, and the cache keep the last of it.
            "sliding_window": (None,),
            "use_qk_norm": (True,),
            "shared_expert_intermediate_size": (0, None),
        }
        wrong = [
            f"{name}: {limits.shown(getattr(said, name))}; known is {values[0]}"
            for name, values in known.items()
            if getattr(said, name, values[0]) not in values
        ]
        if wrong:
            raise BadCheckpoint(f"{self.file} says text_config.{'; text_config.'.join(wrong)}")
        return super().text_config

    @cached_property
    def tower_config(self) -> dict[str, Any]:
        """The tower's sizes under the names of Qwen3-ASR's.

        Left out are `scale_embedding`, which changes nothing in the original either, and
        `conv_chunksize`, which says how much is computed at a time.
        """
        audio = self.audio_config
        theirs = {"max_position_embeddings": "max_source_positions"}
        return {name: getattr(audio, theirs.get(name, name)) for name in qwen3_asr.DEFAULTS}

    @property
    def chunk(self) -> int:
        """Frames that the tower's convolutions take together."""
        return 2 * int(self.tower_config["n_window"])

    @cached_property
    def window_samples(self) -> int:
        """See `Files.window_samples`; neither the tower nor the processor has any.

        Raises:
            BadCheckpoint: the extractor's settings are of another spectrogram, all named, or the
                processor counts the embeddings of another tower.
        """
        mels = self.tower_config["num_mel_bins"]
        settings = self.check_extractor({"feature_size": mels, "dither": 0.0, "padding_value": 0.0})
        side = settings.get("padding_side", "right")
        file = self.path / "processor_config.json"
        processor = read_json(file) if file.is_file() else {}
        half = self.tower_config["n_window"]
        wrong = []
        if side != "right":
            wrong.append(f"an extractor of padding_side {str(side)[:80]!r}; known is 'right'")
        if processor.get("n_window", half) != half:
            counted = limits.shown(processor["n_window"])
            wrong.append(f"a processor of n_window {counted}, and audio_config says {half}")
        if wrong:
            raise BadCheckpoint(f"{self.path} has {' and '.join(wrong)}")
        return LONGEST

    def mel(self) -> Wrapper:
        return ClipMel(int(self.tower_config["num_mel_bins"]), LEAST, LONGEST, brief=self.chunk)

    def build_tower(self) -> Wrapper:
        return qwen3_asr.build(self.tower_config, MODEL, ending=True)

    def build_projector(self) -> Projector:
        width, out = self.check_width()
        activation = self.tower_config["activation_function"]
        return Projector([width, width, out], frames="rows", activation=activation)
