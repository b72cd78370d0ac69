"""What a Kimi-Audio checkpoint consists of on disk: the LLM, its Whisper, and a tokenizer of sound.

The tokenizer of sound is a repository of its own, which lies in the folder or beside it. Weights
have names here as in other folders: `audio_tower.`, `voice_tower.`, `multi_modal_projector.`,
`language_model.`.
"""

from __future__ import annotations

import math
import re
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from transformers import Qwen2Config

from alm.errors import BadCheckpoint, MissingFile
from wrappers.checkpoint import limits
from wrappers.checkpoint.adapters import peft_folder
from wrappers.checkpoint.hf import Folder
from wrappers.checkpoint.hf_files import BRIDGE, FFT, LLM, TOWER
from wrappers.checkpoint.llm_files import HEAD
from wrappers.checkpoint.plain_files import extractor, no_model, read_json
from wrappers.checkpoint.weights.tensors import Weights, open_folder
from wrappers.encoders import glm4_voice, whisper
from wrappers.frontends.mel import HOP, RATE
from wrappers.layers.spec import Spec
from wrappers.llms import qwen2

VOICE = "voice_tower."
WHISPER, CODES = "whisper-large-v3", "glm-4-voice-tokenizer"  # folders
WINDOW = 30 * RATE  # samples; of both towers, which the authors' code says
FRAMES, MELS = 1500, 128  # of a window; of both towers' spectrograms
# Which the authors' code does not read, or reads in one way only, and the values that it has then.
ONLY: dict[str, tuple[Any, ...]] = {
    "use_whisper_feature": (True,),
    "use_sliding_window": (False,),
    "rope_scaling": (None,),
    "quantization_config": (None,),
}
NEEDED = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("vocab_size", "kimia_token_offset"),
)
SIZES = (*NEEDED[:-1], "num_key_value_heads", "max_position_embeddings")
LLM_KEYS = (*SIZES, "hidden_act", "rms_norm_eps", "tie_word_embeddings")
UNUSED = (
    r"rotary_emb\.(original_)?inv_freq$",
    r"^language_model\.model\.mimo_(layers|norm)\.|^mimo_output\.",  # of what is said aloud
    rf"^{re.escape(VOICE)}(ema_count|ema_weight|embed_positions2\.weight)$",  # of training
)


class Files(Folder):
    """One checkpoint on disk; each property is read once, on first use."""

    @cached_property
    def plain(self) -> dict[str, Any]:
        """What is in config.json.

        Raises:
            BadCheckpoint: it lacks a size, or has a setting that is not done here; all named.
        """
        plain = {n: v for n, v in read_json(self.file).items() if v is not None}
        limits.check(plain, str(self.file))
        wrong = [f"no {name}" for name in NEEDED if name not in plain]
        for name, known in ONLY.items():
            if name in plain and plain[name] not in known:
                wrong.append(f"{name} {limits.shown(plain[name])}; known is {known[0]}")
        offset, vocab = plain.get("kimia_token_offset"), plain.get("vocab_size", 0)
        if offset is not None and (type(offset) is not int or not 0 < offset < vocab):
            wrong.append(f"kimia_token_offset {limits.shown(offset)}; it must be below vocab_size")
        if wrong:
            raise BadCheckpoint(f"{self.file} says {'; '.join(wrong)}")
        return plain

    @cached_property
    def config(self) -> Qwen2Config:
        """transformers' config of the LLM, which is a Qwen2.

        Raises:
            BadCheckpoint: it is none.
        """
        plain = self.plain
        theta = plain.get("rope_theta", 1e6)
        try:
            return Qwen2Config(
                **{name: plain[name] for name in LLM_KEYS if name in plain},
                rope_parameters={"rope_type": "default", "rope_theta": theta},
            )
        except Exception as error:  # transformers raises what its dataclasses raise
            raise no_model(str(self.file), error) from error

    @cached_property
    def text_config(self) -> Qwen2Config:
        return self.config

    @cached_property
    def spec(self) -> Spec:
        """The LLM that the config describes."""
        plain = self.plain
        width, heads = plain["hidden_size"], plain["num_attention_heads"]
        if width % heads or plain.get("head_dim", width // heads) != width // heads:
            said = f", head_dim {plain['head_dim']}" if "head_dim" in plain else ""
            raise BadCheckpoint(
                f"{self.file} says hidden_size {width}, num_attention_heads {heads}{said}; a head "
                "is their quotient"
            )
        try:
            return qwen2.spec(self.config)
        except BadCheckpoint as error:
            raise BadCheckpoint(f"{self.file}: {error}") from error

    @property
    def offset(self) -> int:
        """The id of the first code; those before it are of text."""
        return int(self.plain["kimia_token_offset"])

    # --- the folders of the towers

    @property
    def whisper_folder(self) -> Path:
        """The folder of the Whisper."""
        return self.path / WHISPER

    @cached_property
    def codes_folder(self) -> Path:
        """The folder of the tokenizer of sound, in the checkpoint's or beside it.

        Raises:
            MissingFile: there is none.
        """
        beside = (self.path.absolute().parent, self.path.resolve().parent)
        places = [folder / CODES for folder in (self.path, *beside)]
        found = next((place for place in places if (place / "config.json").is_file()), None)
        if found is None:
            raise MissingFile(
                f"there is no {CODES} with a config.json in {self.path} or beside it; it is a "
                "repository of its own (THUDM/glm-4-voice-tokenizer), which makes ids of sound"
            )
        return found

    @cached_property
    def whisper_config(self) -> dict[str, Any]:
        """The Whisper's sizes.

        Raises:
            BadCheckpoint: it is of another window or spectrogram than the authors' code has.
        """
        file = self.whisper_folder / "config.json"
        known = whisper.known(read_json(file), str(file))
        self._fits(file, known, exact=True)
        said = self.plain.get("kimia_adaptor_input_dim", 4 * known["d_model"])
        if said != 4 * known["d_model"]:
            raise BadCheckpoint(
                f"{self.file} says kimia_adaptor_input_dim {limits.shown(said)}, and four frames "
                f"of {file} are {4 * known['d_model']} wide"
            )
        return known

    @cached_property
    def voice_config(self) -> dict[str, Any]:
        """The sizes of the tokenizer of sound.

        Raises:
            BadCheckpoint: it is another kind, or has more codes than the LLM has rows.
        """
        file = self.codes_folder / "config.json"
        plain = read_json(file)
        limits.check(plain, str(file))
        known = glm4_voice.known(plain, str(file))
        self._fits(file, known, exact=False)
        codes, room = known["quantize_vocab_size"], self.plain["vocab_size"] - self.offset
        if codes > room:
            raise BadCheckpoint(
                f"{file} says quantize_vocab_size {codes}, and {self.file} has {room} rows behind "
                f"kimia_token_offset {self.offset}"
            )
        return known

    def _fits(self, file: Path, known: dict[str, Any], *, exact: bool) -> None:
        """Refuse, with BadCheckpoint, a tower of another window or spectrogram than 30 s of 128."""
        frames, mels, wrong = known["max_source_positions"], known["num_mel_bins"], []
        if frames < FRAMES or exact and frames != FRAMES:
            wrong.append(f"max_source_positions {frames}; 30 s have {FRAMES}")
        if mels != MELS:
            wrong.append(f"num_mel_bins {mels}; known is {MELS}")
        settings_file, settings = extractor(file.parent)
        wanted = {"sampling_rate": RATE, "hop_length": HOP, "n_fft": FFT, "feature_size": MELS}
        wanted |= {"chunk_length": 30, "dither": 0.0, "padding_value": 0.0}
        odd = [
            f"{settings_file} says {name} {limits.shown(settings[name])} and not {want:g}"
            for name, want in wanted.items()
            if settings.get(name, want) != want
        ]
        if wrong or odd:
            said = [f"{file} says {'; '.join(wrong)}"] if wrong else []
            raise BadCheckpoint("; ".join([*said, *odd]))

    # --- weights

    @cached_property
    def _stored(self) -> Weights:
        """What the folder holds; an adapter beside it is refused, with BadCheckpoint."""
        for folder in (self.given, self.path, self.whisper_folder, self.codes_folder):
            if peft_folder.is_beside(folder):
                raise BadCheckpoint(
                    f"{folder} holds a PEFT adapter ({peft_folder.CONFIG}), which is not applied "
                    f"to this family; {peft_folder.MERGE}"
                )
        return open_folder(self.path)

    @cached_property
    def weights(self) -> Weights:
        """All weights that may be used, under our names; of a tied LLM the table is the head.

        Raises:
            BadCheckpoint: a tied LLM has a head of its own.
        """
        if self.tied and HEAD in self._stored:
            raise BadCheckpoint(
                f"{self.file} says tie_word_embeddings True, and {self._stored.where} holds "
                f"{HEAD}; take one of them out"
            )
        both = super().weights
        towers = (
            (TOWER, open_folder(self.whisper_folder).under("model.encoder.", "encoder.")),
            (VOICE, open_folder(self.codes_folder)),
        )
        last = self._voice_layers
        for prefix, tower in towers:
            for name, shape in tower.shapes.items():
                layer = re.match(r"layers\.(\d+)\.", name)
                if prefix == VOICE and layer and int(layer[1]) >= last:
                    continue  # above the code book
                both.add(prefix + name, shape, partial(tower.__getitem__, name))
        return both

    @property
    def _voice_layers(self) -> int:
        """Layers of the tokenizer below its code book; 0 where its config is at fault."""
        try:
            return int(self.voice_config["quantize_position"])
        except BadCheckpoint:
            return 0

    @cached_property
    def adapter(self) -> None:
        """There is none: see `_stored`."""
        return None

    def published(self, name: str) -> str:
        """See `Files.published`."""
        if name == HEAD:
            return LLM + HEAD
        inner = name.removeprefix("model.vq_adaptor.")
        return BRIDGE + inner if inner != name else LLM + name if name[:6] == "model." else name

    @cached_property
    def left_out(self) -> int:
        """How many weights are for what is said aloud."""
        mimo = re.compile(UNUSED[1])
        return sum(math.prod(s) for name, s in self.weights.shapes.items() if mimo.search(name))

    @property
    def folders(self) -> list[Path]:
        """The folders that the checkpoint consists of."""
        return [self.path, self.whisper_folder, self.codes_folder]
