"""What an Ultravox checkpoint consists of on disk: its folder, and those that its config names.

A published folder holds the projector, often the tower that was trained with it, seldom the LLM:
`text_model_id` and `audio_model_id` name the rest by their names on the hub. Nothing is downloaded
here. Such a name is a folder on this machine, or one called like its last part in or beside the
checkpoint's own folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import CONFIG_MAPPING

from alm.errors import BadCheckpoint, MissingFile, UnknownName
from wrappers import pick_role
from wrappers.checkpoint import limits, llm_files, ultravox_keys
from wrappers.checkpoint.adapters import contract, peft_folder
from wrappers.checkpoint.adapters.contract import Adapter
from wrappers.checkpoint.hf import Folder
from wrappers.checkpoint.hf_files import LLM, TOWER
from wrappers.checkpoint.llm_files import HEAD, TABLE
from wrappers.checkpoint.plain_files import exists, extractor, no_model, read_json
from wrappers.checkpoint.weights import nf4
from wrappers.checkpoint.weights.tensors import Weights, open_folder
from wrappers.encoders import whisper
from wrappers.frontends.mel import HOP, RATE
from wrappers.layers.spec import Spec

TEXT_ID, AUDIO_ID = "text_model_id", "audio_model_id"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
ENCODER = ("model.encoder.", "encoder.")  # of a Whisper folder


class UltravoxFolder(Folder):
    """One checkpoint on disk; each property is read once, on first use."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The config's own keys, what it leaves out as the original takes it.

        Raises:
            BadCheckpoint: all that is wrong with them at once.
        """
        plain = read_json(self.file)
        limits.check(plain, str(self.file))
        return ultravox_keys.checked(plain, self.file)

    @cached_property
    def named(self) -> dict[str, Path]:
        """The folders of `text_model_id` and `audio_model_id`, as far as the config has them.

        Raises:
            MissingFile: they are not on this machine, all named.
            BadCheckpoint: one holds a PEFT adapter.
        """
        found: dict[str, Path] = {}
        missing: list[str] = []
        for key in (TEXT_ID, AUDIO_ID):
            name = self.settings[key]
            if name is None:
                continue
            place = next((p for p in self._places(name) if exists(p / "config.json")), None)
            if place is None:
                missing.append(self._how_to_get(key, name))
            elif peft_folder.is_beside(place):
                raise BadCheckpoint(
                    f"{place} holds a PEFT adapter ({peft_folder.CONFIG}), which is not applied "
                    f"to what {self.file} names; {peft_folder.MERGE}"
                )
            else:
                found[key] = place
        if missing:
            raise MissingFile("; ".join(missing))
        return found

    def _places(self, name: str) -> Iterator[Path]:
        last = name.rstrip("/").rpartition("/")[2] or name
        yield from (self.path / name, Path(name), self.path / last, self.path.parent / last)

    def _how_to_get(self, key: str, name: str) -> str:
        where = self.path.parent / (name.rpartition("/")[2] or name)
        way = "put the path of its folder in the place of the name"
        if HUB_NAME.fullmatch(name):
            way = f"download it (hf download {name} --local-dir {where}), or {way}"
        return (
            f"{self.file} says {key}: {name!r:.200}, whose weights are in a folder of their own "
            f"that is not on this machine; {way}"
        )

    @property
    def folders(self) -> list[Path]:
        """See `Files.folders`."""
        return [*super().folders, *self.named.values()]

    @cached_property
    def tokenizer_folder(self) -> Path:
        """Its own, or the LLM's where it has none."""
        own = any((self.path / name).is_file() for name in TOKENIZERS)
        return self.path if own else self.named.get(TEXT_ID, self.path)

    # --- what the pieces are

    @cached_property
    def config(self) -> Any:
        """The LLM's config as its own class has it."""
        return SimpleNamespace(text_config=self.spec.config)

    @cached_property
    def whisper_config(self) -> dict[str, Any]:
        """See `Files.whisper_config`.

        Raises:
            BadCheckpoint: the tower is no Whisper, or its sizes are none.
        """
        if folder := self.named.get(AUDIO_ID):
            plain, where = read_json(folder / "config.json"), str(folder / "config.json")
        else:
            plain, where = self.settings["audio_config"], f"{self.file}: audio_config"
        kind = plain.get("model_type", "whisper")
        if kind != "whisper":
            raise BadCheckpoint(f"{where} says model_type: {kind!r:.80}; known is whisper")
        return whisper.known(plain, where)

    @cached_property
    def spec(self) -> Spec:
        """The LLM, as its own class of transformers has it."""
        if folder := self.named.get(TEXT_ID):
            return llm_files.read_spec(folder)
        section = self.settings["text_config"]
        kind = section.get("model_type", "llama")
        where = f"{self.file} says text_config"
        try:
            family = pick_role("llm", str(kind))
            return family.spec(CONFIG_MAPPING[str(kind)](**section))
        except UnknownName as error:
            raise BadCheckpoint(f"{where}.model_type: {error}") from error
        except BadCheckpoint as error:
            raise BadCheckpoint(f"{self.file}: {error}") from error
        except Exception as error:  # transformers raises what its dataclasses raise
            raise no_model(f"{where}, which", error) from error

    @property
    def tied(self) -> bool:
        """See `Files.tied`."""
        return self.spec.tied

    @cached_property
    def window_samples(self) -> int:
        """See `Files.window_samples`: of the tower's window, whatever an extractor's chunk is."""
        mels = self.whisper_config["num_mel_bins"]
        wanted: dict[str, Any] = {"feature_size": mels, "hop_length": HOP, "n_fft": 400}
        wanted |= {"sampling_rate": RATE, "dither": 0.0, "padding_value": 0.0}
        wanted |= {"padding_side": "right"}
        folders = [self.path, *([self.named[AUDIO_ID]] if AUDIO_ID in self.named else [])]
        odd = []
        for folder in folders:
            file, settings = extractor(folder)
            odd += [
                f"{file} says {name} {settings[name]!r:.80} and not {want}"
                for name, want in wanted.items()
                if settings.get(name, want) != want
            ]
        if odd:
            raise BadCheckpoint(f"{'; '.join(odd)}, as the tower of {self.file} wants it")
        return 2 * self.frames * HOP

    # --- weights

    @cached_property
    def _own(self) -> Weights:
        """What the folder itself holds."""
        return open_folder(self.path)

    @cached_property
    def _stored(self) -> Weights:
        """All weights: of the folders named, with those of the own one in their place."""
        own = Weights(self._own.where)
        for name, shape in self._own.shapes.items():
            if not contract.is_adapter(name):
                own.add(name, shape, partial(self._own.__getitem__, name))
        base = Weights(own.where)
        for key, prefix in ((TEXT_ID, LLM), (AUDIO_ID, TOWER)):
            if key in self.named:
                weights = self._base(key)
                base = weights.above(prefix, but="").over(base) if weights.shapes else base
        return base.over(own) if base.shapes else own

    def _base(self, key: str) -> Weights:
        weights = open_folder(self.named[key])
        return llm_files.named(weights) if key == TEXT_ID else weights.under(*ENCODER)

    def kinds(self) -> dict[str, int]:
        """See `Files.kinds`; of the LLM's folder, where there is one."""
        folder = self.named.get(TEXT_ID)
        return nf4.kinds(self._own if folder is None else open_folder(folder))

    @cached_property
    def adapters(self) -> dict[str, Adapter]:
        """LoRA in the weights, as training leaves it, or a PEFT adapter in the folder.

        Raises:
            BadCheckpoint: the config and the weights contradict each other, or there are both.
        """
        found = {TOWER: self._lora(TOWER, "audio"), LLM: self._lora(LLM, "text")}
        own = {prefix: adapter for prefix, adapter in found.items() if adapter}
        if own and self.adapter:
            raise BadCheckpoint(
                f"{self._own.where} holds LoRA of its own, and {self.adapter.where} another "
                "adapter that was trained on top of it; merge the first into the weights "
                "(the original's merge_and_unload)"
            )
        return own or super().adapters

    def _lora(self, prefix: str, kind: str) -> Adapter | None:
        """The LoRA on the tower or on the LLM, under the names that are below the prefix."""
        key = f"{kind}_model_lora_config"
        section = dict(self.settings[key])
        rank = section.get("r", 0)
        below = self._own.under(prefix)
        tensors = below.take(name for name in below.shapes if contract.is_adapter(name))
        if tensors and not rank:
            raise BadCheckpoint(
                f"{self._own.where} holds {len(tensors)} tensors of an adapter below {prefix[:-1]},"
                f" and {self.file} says no {key}.r above zero"
            )
        if rank and not tensors:
            raise BadCheckpoint(
                f"{self.file} says {key}.r: {rank!r:.80}, and {self._own.where} holds no adapter "
                f"below {prefix[:-1]}; set it to 0 to export the model as it is"
            )
        tied = {TABLE: HEAD} if prefix == LLM and self.tied else {}
        adapter = contract.read(tensors, {}, self._own.where, tied=tied)
        if adapter is None:
            return None
        where = f"{self.file}, section {key},"
        plain = ultravox_keys.LORA | {n: v for n, v in section.items() if v is not None}
        plain.pop("unfreeze_layers", None)
        settings = peft_folder.followed(plain, adapter.kind, where)
        return contract.read(tensors, settings, self._own.where, tied=tied)
