"""What a Hugging Face folder of an audio LLM holds on disk: config, weights, processor, defaults.

Names of weights are the published ones here, whichever transformers wrote them.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoConfig

from alm.errors import BadCheckpoint, UnknownName
from alm.facts import TokenFacts
from wrappers import pick_role
from wrappers.checkpoint import limits, pruned
from wrappers.checkpoint.adapters import peft_folder
from wrappers.checkpoint.adapters.contract import Adapter
from wrappers.checkpoint.llm_files import HEAD, TABLE
from wrappers.checkpoint.plain_files import extractor, no_model, read_json
from wrappers.checkpoint.text import generation_fields, tokenizer_files
from wrappers.checkpoint.weights import experts, nf4
from wrappers.checkpoint.weights.tensors import Weights, open_folder
from wrappers.encoders import whisper
from wrappers.frontends.mel import HOP, RATE
from wrappers.layers.spec import Spec

TOWER, BRIDGE, LLM = "audio_tower.", "multi_modal_projector.", "language_model."
FFT = 400  # samples of a frame, of every Whisper

LONGEST = 512  # new tokens, where nothing sets it; transformers would stop at 20


class Files:
    """One checkpoint on disk; each property is read once, on first use."""

    family: str  # its config's model_type, if no other family has that too
    tower_type = ""  # the tower's model_type, if not the family's with `_encoder`
    tower_section = "audio_config"  # the config's section on it
    tower_prefix, bridge_prefix = TOWER, BRIDGE  # of the published names of their weights
    most_new = LONGEST  # tokens of an answer, where nothing sets it

    def __init__(self, path: Path) -> None:
        """`path` is the folder or its config.json, or the folder of a PEFT adapter of a model.

        Raises:
            MissingFile: the adapter's model is not on this machine.
        """
        self.given = path if path.is_dir() else path.parent
        alone = peft_folder.is_alone(self.given)
        self.path = peft_folder.base_of(self.given) if alone else self.given
        self.file = self.path / "config.json"

    @cached_property
    def plain(self) -> dict[str, Any]:
        """What is in config.json.

        Raises:
            BadCheckpoint: sizes beyond all limits, or weights that are quantized in an unknown way.
        """
        plain = read_json(self.file)
        limits.check(plain, str(self.file))
        quantized = plain.get("quantization_config")
        if quantized and not nf4.described(quantized):
            raise BadCheckpoint(
                f"{self.file} describes quantised weights, and of those only bitsandbytes' 4-bit "
                "ones are read (quant_method: bitsandbytes, load_in_4bit: true); give the folder "
                "of the plain ones, they are quantised again on export"
            )
        return plain

    @cached_property
    def config(self) -> Any:
        """transformers' config.

        Raises:
            BadCheckpoint: it is none, or describes weights that are quantized in an unknown way.
        """
        _ = self.plain
        try:
            return AutoConfig.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # transformers raises what its dataclasses raise
            raise no_model(str(self.file), error) from error

    @cached_property
    def whisper_config(self) -> dict[str, Any]:
        """A Whisper's sizes under its own names."""
        audio = self.audio_config
        return whisper.known(
            {name: getattr(audio, name) for name in whisper.DEFAULTS}, f"{self.file}: audio_config"
        )

    @cached_property
    def audio_config(self) -> Any:
        """The config's section on the tower.

        Raises:
            BadCheckpoint: it is of another family's tower.
        """
        section = self.tower_section
        audio = getattr(self.config, section)
        known = self.tower_type or f"{self.family}_encoder"
        if audio.model_type != known:
            raise BadCheckpoint(
                f"{self.file} says {section}.model_type: {audio.model_type!r}; known is {known}"
            )
        return audio

    @cached_property
    def text_config(self) -> Any:
        """The config's section on the LLM."""
        return self.config.text_config

    @cached_property
    def spec(self) -> Spec:
        """The LLM that the config describes, of the sizes that its weights have."""
        text = self.text_config
        said = self.plain.get("text_config")
        unsaid = not isinstance(said, dict) or said.get("head_dim") is None
        try:
            spec = pick_role("llm", text.model_type).spec(text)
            spec = pruned.fitted(spec, self.weights.under(LLM), unsaid=unsaid)
            # transformers puts a plain head of these models' own on the LLM: a Gemma 2's logits
            # are not capped in them and a Granite's not divided, which shows with beams and
            # sampling.
            return replace(spec, logit_softcap=0.0, logit_divisor=1.0)
        except UnknownName as error:
            raise BadCheckpoint(f"{self.file} says text_config.model_type: {error}") from error
        except BadCheckpoint as error:
            raise BadCheckpoint(f"{self.file}: {error}") from error

    @property
    def frames(self) -> int:
        """Frames that the tower gives for a window."""
        return int(self.whisper_config["max_source_positions"])

    @cached_property
    def window_samples(self) -> int:
        """Samples of the longest piece that is heard at once: of the tower's window.

        Raises:
            BadCheckpoint: the processor's settings are of another spectrogram, all named.
        """
        samples = 2 * self.frames * HOP
        mels = self.whisper_config["num_mel_bins"]
        self.check_extractor({"feature_size": mels, "chunk_length": samples / RATE})
        return samples

    def check_extractor(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """The settings of the folder's feature extractor, found to be as `wanted`.

        Raises:
            BadCheckpoint: they are of another spectrogram, all that differ named.
        """
        file, settings = extractor(self.path)
        wanted = {"sampling_rate": RATE, "hop_length": HOP, "n_fft": FFT} | wanted
        odd = [
            f"{name} {settings[name]!r} and not {want:g}"
            for name, want in wanted.items()
            if settings.get(name, want) != want
        ]
        if odd:
            raise BadCheckpoint(f"{file} says {', '.join(odd)}, as {self.file} wants it")
        return settings

    @cached_property
    def _stored(self) -> Weights:
        """What the folder holds, as it is named there and quantized where it is."""
        return open_folder(self.path)

    @cached_property
    def adapter(self) -> Adapter | None:
        """The PEFT adapter beside the weights, under the published names.

        Raises:
            BadCheckpoint: of a kind or with a setting that cannot be followed, or one adapter lies
                in the folder given and one beside the weights.
        """
        if not peft_folder.is_beside(self.given):
            return None
        if self.given != self.path and peft_folder.is_beside(self.path):
            raise BadCheckpoint(
                f"{self.given} is a PEFT adapter of {self.path}, which holds another one; merge "
                "that into the weights first"
            )
        return self.read_adapter(self.given)

    def read_adapter(self, folder: Path) -> Adapter:
        """The PEFT adapter in a folder, under the published names.

        Raises:
            MissingFile, BadCheckpoint: see `peft_folder.read`.
        """
        own_head = any(name.endswith(HEAD) for name in self._stored.shapes)
        tied = {} if own_head else {LLM + TABLE: LLM + HEAD}
        return peft_folder.read(folder, rename=self.published, aliases=self.aliases, tied=tied)

    @cached_property
    def weights(self) -> Weights:
        """All weights of the folder, dequantized, under their published names, without an adapter.

        An LLM that is tied, and without a head of its own, has its table for one.
        """
        stored = experts.fused(nf4.dequantized(self._stored))
        named = Weights(stored.where)
        for name, shape in stored.shapes.items():
            named.add(self.published(name), shape, partial(stored.__getitem__, name))
        table, head = LLM + TABLE, LLM + HEAD
        if self.tied and head not in named and table in named:
            named.add(head, named.shapes[table], partial(named.__getitem__, table))
        return named

    def published(self, name: str) -> str:
        """A weight's name in the folder -> the one that published checkpoints have."""
        return _published(name)

    def aliases(self, module: str) -> tuple[str, ...]:
        """A module's published name -> those that an adapter's config may call it by."""
        return _names(module)

    @property
    def tied(self) -> bool:
        """Whether the LLM's table is its head, where the folder holds no head."""
        return bool(getattr(self.text_config, "tie_word_embeddings", False))

    @cached_property
    def adapters(self) -> dict[str, Adapter]:
        """What is merged: the prefix of the weights below which an adapter has its names, and it.

        At most one of them changes the LLM.
        """
        return {"": self.adapter} if self.adapter else {}

    @property
    def folders(self) -> list[Path]:
        """The folders that the checkpoint consists of."""
        return [self.path] if self.given == self.path else [self.path, self.given]

    @cached_property
    def tokenizer_folder(self) -> Path:
        """The folder whose tokenizer it is."""
        return self.path

    def kinds(self) -> dict[str, int]:
        """How many weights are quantized, by type: {"NF4": 224}."""
        return nf4.kinds(self._stored)

    # --- what is beside them

    @cached_property
    def generation_config(self) -> tuple[Path, dict[str, Any]]:
        """The settings that `generate` finds, and the file that has them."""
        return generation_fields.in_folder(self.path)

    def generation(self) -> dict[str, Any]:
        """How the checkpoint wants to be decoded.

        Raises:
            BadCheckpoint: in a way that is not done here, named.
        """
        file, plain = self.generation_config
        options = generation_fields.settings(plain, file)
        return generation_fields.defaults(
            options, where=file, vocab=self.spec.vocab, max_new_tokens=self.most_new
        )

    def tokens(self, tokenizer: Tokenizer, start: str) -> TokenFacts:
        """BOS, where the tokenizer puts one in front that `start` does not hold yet, and EOS.

        Raises:
            BadCheckpoint: no file says what ends an answer.
        """
        file, plain = self.generation_config
        eos = plain.get("eos_token_id")
        for config in (self.text_config, self.config):
            eos = getattr(config, "eos_token_id", None) if eos is None else eos
        if eos is None:
            eos = tokenizer_files.special_id(self.path, tokenizer, "eos_token")
        ends = [i for i in (eos if isinstance(eos, list | tuple) else [eos]) if isinstance(i, int)]
        if not ends:
            raise BadCheckpoint(f"{self.path} does not say eos_token_id")
        front = tokenizer.encode("", add_special_tokens=True).ids[:1]
        opened = tokenizer.encode(start, add_special_tokens=False).ids[:1]
        bos = front[0] if front and front != opened and front[0] not in ends else None
        # transformers is given these prompts as ids, and penalizes what it is given.
        stops = generation_fields.stop_strings(plain, file)
        return TokenFacts(bos, tuple(ends), tuple(stops), penalize_prompt=True)

    def fingerprint(self) -> str:
        """Tells this checkpoint from another: names, sizes, and both ends of every file."""
        digest = hashlib.sha256()
        for file in (file for folder in self.folders for file in sorted(folder.iterdir())):
            if not file.is_file():
                continue
            size = file.stat().st_size
            digest.update(f"{file.name} {size}".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(2**20))
                stream.seek(max(0, size - 2**20))
                digest.update(stream.read())
        return digest.hexdigest()


def _published(name: str) -> str:
    """A weight's name -> the one that published checkpoints have.

    Since its version 5 transformers calls them model.audio_tower, model.language_model and lm_head,
    though it still writes the older names.
    """
    plain = name.removeprefix("model.")
    if plain == HEAD:
        return LLM + HEAD
    inner = plain.removeprefix(LLM)
    if inner != plain and not inner.startswith(("model.", "lm_head.")):
        return f"{LLM}model.{inner}"
    return plain


def _names(module: str) -> tuple[str, ...]:
    """A module's names in an adapter's config: those of transformers 5, and the published ones."""
    if module == LLM + HEAD.removesuffix(".weight"):
        return "lm_head", module
    return "model." + module.replace(f"{LLM}model.", LLM, 1), module
