"""What a checkpoint of a joint vocabulary consists of on disk: config, tokenizer of sound, LLM."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint, MissingFile
from alm.facts import TokenFacts, UnitFacts
from wrappers import Wrapper
from wrappers.checkpoint.limits import shown
from wrappers.checkpoint.plain_files import exists
from wrappers.checkpoint.salmonn_keys import strange
from wrappers.checkpoint.text import generation_fields, legacy_pieces, tokenizer_files, unit_names
from wrappers.checkpoint.unit_files import UnitFiles
from wrappers.encoders import hubert
from wrappers.frontends import stacked_mel
from wrappers.frontends.mel import RATE
from wrappers.frontends.stacked_mel import StackedMel

SECTION = "joint_vocab"
HUBERT, MEL = "hubert_kmeans", "mel_kmeans"
# A kind of tokenizer -> the keys that are its own; the first must be there.
KINDS = {HUBERT: ("hubert_path", "layer"), MEL: ("mel_bins", "stack", "centred")}
PATHS = ("llama_path", "km_path")
KEYS = (
    *PATHS,
    *("lora_path", "kind", "offset", "units", "dedup", "begin", "end", "legacy"),
    *("bos", "eos", "stop", "audio_answers", "window_seconds"),
    *("start", "turn", "answer_end", "tasks"),
)
MASKED, WRITTEN = "masked", "written"  # an answer's units
WINDOW, MOST_WINDOW = 30, 600  # seconds
MARK = "<audio>"


class JointFiles(UnitFiles):
    """One checkpoint on disk; each property is read once, on first use."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the section says; a null says nothing."""
        return {key: value for key, value in self.section(SECTION).items() if value is not None}

    def path(self, key: str) -> Path:
        """A path of the config, which lies in the config's folder.

        Raises:
            BadCheckpoint: none is said, or it leads out of the folder.
            MissingFile: it is not there.
        """
        given = self.settings.get(key)
        if not given:
            raise BadCheckpoint(f"{self.file} does not say `{key}`")
        wrong = not isinstance(given, str) or PureWindowsPath(given).drive or "\\" in given
        if wrong or PurePosixPath(given).is_absolute() or ".." in PurePosixPath(given).parts:
            raise BadCheckpoint(
                f"{self.file} says {key}: {shown(given)}; it must be a path in the config's folder"
            )
        path = self.file.parent / given
        if not exists(path):
            raise MissingFile(f"{self.file} says {key}: {given:.200}, but there is no {path}")
        return path

    def check_keys(self) -> None:
        """Refuse what the config says and nothing reads, and what is said in a wrong way."""
        said, kind = self.settings, self.kind
        wrong = strange(self.config, (SECTION, "generate", "licence"), "section")
        wrong += strange(said, (*KEYS, *(key for keys in KINDS.values() for key in keys)), "key")
        for other, keys in KINDS.items():
            held = [key for key in keys if key in said and key not in KINDS[kind]]
            wrong += [f"`{key}`, which is of kind: {other}" for key in held]
        if wrong:
            raise BadCheckpoint(f"{self.file} says what is not known here: {'; '.join(wrong)}")
        wrong = [
            f"{key}: {shown(said[key])}; {what} is wanted"
            for what, (kinds, keys) in _TYPES.items()
            for key in keys
            if key in said and type(said[key]) not in kinds
        ]
        if said.get("bos") is True:
            wrong.append("bos: True; a token, or false, is wanted")
        if said.get("audio_answers", MASKED) not in (MASKED, WRITTEN):
            answers = shown(said["audio_answers"])
            wrong.append(f"audio_answers: {answers}; known are {MASKED} and {WRITTEN}")
        seconds = said.get("window_seconds", WINDOW)
        if type(seconds) is int and not 0 < seconds <= MOST_WINDOW:
            wrong.append(f"window_seconds: {shown(seconds)}; it must be 1 to {MOST_WINDOW}")
        generate = self.section("generate")
        for key, here in (("eos_token_id", "eos"), ("stop_strings", "stop")):
            if key in generate:
                wrong.append(f"{key} in generate; here it is `{here}` of {SECTION}, as text")
        if wrong:
            raise BadCheckpoint(f"{self.file} says {'; '.join(wrong)}")

    # --- the tokenizer of sound

    @property
    def kind(self) -> str:
        """How a clip becomes units."""
        kind = self.settings.get("kind", HUBERT)
        if not isinstance(kind, str) or kind not in KINDS:
            known = ", ".join(KINDS)
            raise BadCheckpoint(f"{self.file} says kind: {shown(kind)}; known are {known}")
        return kind

    @property
    def most_samples(self) -> int:
        """See `UnitFiles.most_samples`."""
        return int(self.settings.get("window_seconds", WINDOW)) * RATE

    @property
    def least_samples(self) -> int:
        """Samples that make one unit."""
        if self.kind == HUBERT:
            return hubert.least_samples(self.hubert_config)
        return stacked_mel.least_samples(self._count("stack"))

    @property
    def frames(self) -> int:
        """Units of a whole window, before repeats are merged."""
        if self.kind == HUBERT:
            return hubert.frames_of(self.hubert_config, self.most_samples)
        return stacked_mel.vectors_of(self._count("stack"), self.most_samples)

    def stacked_mel(self) -> Wrapper:
        """See `frontends.stacked_mel`."""
        centred = bool(self.settings.get("centred", True))
        mels, stack = self._count("mel_bins"), self._count("stack")
        return StackedMel(mels, stack, self.most_samples, centred=centred)

    def _count(self, key: str) -> int:
        value, most = self.settings.get(key), {"mel_bins": 256, "stack": 64}[key]
        if type(value) is not int or not 0 < value <= most:
            raise BadCheckpoint(f"{self.file} says {key}: {shown(value)}; it must be 1 to {most}")
        return value

    def sound_faults(self) -> list[str]:
        """Weights of the tokenizer of sound that do not fit."""
        if self.kind == HUBERT:
            return self.hubert_faults()
        width, wanted = self.centres.shapes["centres"][1], self._count("mel_bins")
        wanted *= self._count("stack")
        if width == wanted:
            return []
        return [
            f"{self.file} says mel_bins times stack, {wanted}, but {self.centres.where} was made "
            f"of {width}"
        ]

    # --- tokens

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The LLM's own, without names for units that it has none for."""
        folder, texts = self.path("llama_path"), self.texts
        if self.settings.get("legacy"):
            return legacy_pieces.tokenizer(folder, texts)
        return Tokenizer.from_str(tokenizer_files.tokenizer_json(folder, texts))

    @property
    def texts(self) -> list[str]:
        """Words of the prompts, on which a converted tokenizer must agree."""
        said, tasks = self.settings, self.settings.get("tasks")
        words = [said.get("start"), said.get("turn"), said.get("answer_end")]
        words += tasks.values() if isinstance(tasks, Mapping) else ()
        return [text for held in words if isinstance(held, str) for text in held.split(MARK)]

    @cached_property
    def units(self) -> UnitFacts:
        """Where the tokens of units are.

        Raises:
            BadCheckpoint: there are more than rows of the table, or they are tokens of text.
        """
        said, folder = self.settings, self.path("llama_path")
        offset, pattern = said.get("offset"), str(said.get("units", ""))
        if (offset is None) == (not pattern):
            both = "both `offset` and `units`" if pattern else "neither `offset` nor `units`"
            raise BadCheckpoint(f"{self.file} says {both}; one of them is wanted")
        merged = bool(said.get("dedup", False))
        unsaid = said.get("audio_answers", MASKED) == MASKED
        if offset is None:
            if pattern.count("{}") != 1:
                raise BadCheckpoint(
                    f"{self.file} says units: {shown(pattern)}; one {{}} is wanted for the number"
                )
            count, first = self.unit_tokens(self.tokenizer, pattern, (), folder)
            added = self.tokenizer.get_added_tokens_decoder().items()
            special = [t.content for i, t in added if t.special and 0 <= i - first < count]
            if special and not unsaid:
                raise BadCheckpoint(
                    f"{self.file} says audio_answers: {WRITTEN}, but {special[0]} is a special "
                    f"token of {folder}, and text leaves these out; say {MASKED}"
                )
            return UnitFacts(count, first, merged, unsaid)
        count, rows = self.centres.shapes["centres"][0], self.spec.vocab
        if offset < 0 or offset + count > rows:
            raise BadCheckpoint(
                f"{self.file} says offset: {shown(offset)}, with {count} units of "
                f"{self.path('km_path')} up to {shown(offset + count)}, but {folder} has {rows} "
                "rows (vocab_size)"
            )
        ids = self.tokenizer.get_vocab(with_added_tokens=True)
        taken = sorted((i, text) for text, i in ids.items() if offset <= i < offset + count)
        if taken:
            raise BadCheckpoint(
                f"{self.file} says offset: {offset} for {count} units, but the tokenizer in "
                f"{folder} has tokens there: {taken[0][0]} is {taken[0][1]!r:.60}; where these "
                "are the units themselves, name them with `units`"
            )
        return UnitFacts(count, offset, merged, unsaid)

    @cached_property
    def tokens(self) -> TokenFacts:
        """Where a conversation begins and an answer ends; `generate` is given ids."""
        folder, units = self.path("llama_path"), self.units
        file, plain = generation_fields.in_folder(folder)
        end = plain.get("eos_token_id", self.spec.config.eos_token_id)
        held = [int(i) for i in (end if isinstance(end, list) else [end]) if i is not None]
        ends = [self.token("eos", text) for text in self._listed("eos")] or held
        if not ends:
            raise BadCheckpoint(f"neither {self.file} says `eos`, nor {folder} eos_token_id")
        wrong = [i for i in ends if i >= self.spec.vocab or 0 <= i - units.first < units.count]
        if wrong:
            raise BadCheckpoint(
                f"an answer of {folder} ends at {wrong[0]}, which is a unit or beyond its "
                f"{self.spec.vocab} rows; say `eos`"
            )
        stops = (*generation_fields.stop_strings(plain, file), *self._listed("stop"))
        return TokenFacts(self._bos(), tuple(ends), stops, penalize_prompt=True)

    def _bos(self) -> int | None:
        """The token in front of a conversation: the config's, or what the tokenizer puts there."""
        said, folder = self.settings.get("bos"), self.path("llama_path")
        if said is False:
            return None
        if isinstance(said, str):
            return self.token("bos", said)
        encoding = self.tokenizer.encode("a")
        ids, mask = encoding.ids, encoding.special_tokens_mask
        before = ids[: mask.index(0)] if 0 in mask else ids
        if len(before) > 1 or any(mask[len(before) :]):
            raise BadCheckpoint(
                f"the tokenizer in {folder} puts {encoding.tokens} around a text; say in "
                f"{self.file} which token a conversation begins with: `bos`, or bos: false"
            )
        return before[0] if before else None

    def _listed(self, key: str) -> list[str]:
        """A text or several."""
        said = self.settings.get(key)
        listed = [said] if isinstance(said, str) else said or []
        if not all(isinstance(text, str) and text for text in listed):
            raise BadCheckpoint(f"{self.file} says {key}: {shown(said)}; texts are wanted")
        return listed

    def token(self, key: str, text: str) -> int:
        number = self.tokenizer.token_to_id(text)
        if number is None or number >= self.spec.vocab:
            raise BadCheckpoint(
                f"{self.file} says {key}: {text!r:.60}, which is no token of "
                f"{self.path('llama_path')} below its {self.spec.vocab} rows"
            )
        return number

    @cached_property
    def tokenizer_json(self) -> str:
        """The tokenizer that is exported: where units may be answered, it writes them."""
        known, units = self.tokenizer.to_str(), self.units
        if units.unsaid or self.settings.get("offset") is None:
            return known
        folder = str(self.path("llama_path"))
        return unit_names.named(known, units.first, units.count, folder, self.texts)


_TYPES: dict[str, tuple[tuple[type, ...], tuple[str, ...]]] = {
    "true or false": ((bool,), ("dedup", "legacy", "centred")),
    "a whole number": ((int,), ("offset", "window_seconds")),
    "text": ((str,), ("units", "begin", "end", "start", "turn", "answer_end")),
    "a token, or false": ((str, bool), ("bos",)),
    "a text or a list of them": ((str, list), ("eos", "stop")),
    "a list of named texts": ((dict,), ("tasks",)),
}
