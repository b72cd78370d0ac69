"""A Hugging Face folder of a tower that hears, a projector and an LLM, taken apart.

What differs from family to family stands in the family's file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.facts import AlignFacts, AudioFacts, Facts, LiveFacts, PromptFacts
from wrappers import Checkpoint, Wrapper
from wrappers.checkpoint import llm_files
from wrappers.checkpoint.adapters import adapter_faults, at_run_time, merging
from wrappers.checkpoint.hf_files import LLM, Files
from wrappers.checkpoint.llm_files import TABLE
from wrappers.checkpoint.text import thoughts, tokenizer_files
from wrappers.checkpoint.weights.fit import faults, unknown
from wrappers.checkpoint.weights.hollow import attach, hollow
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.encoders import whisper
from wrappers.frontends.mel import RATE
from wrappers.layers.decoder import Decoder


class Folder(Files):
    """The checkpoint taken apart; a family adds what is not alike in all."""

    tower = "whisper"  # the part's name, and the file of `encoders` that makes it
    front = "mel"  # the file of `frontends` that makes the part `mel`
    pooled = False  # whether a Whisper masks padding and averages pairs of frames
    cut = False  # whether a pooled one computes the clip and not the rest of its window
    joint = "projector"  # the part's name between tower and LLM
    joint_file = "projector"  # the file of `bridges` that makes it
    bridge: dict[str, str] = {}  # a projector's layer -> its name; none: as the checkpoint has them
    unused: tuple[str, ...] = llm_files.UNUSED  # names, as regular expressions, that change nothing

    def build_tower(self) -> Wrapper:
        """The tower that the config describes, without weights."""
        return whisper.build(self.whisper_config, pooled=self.pooled, cut=self.cut)

    def build_projector(self) -> Wrapper:
        """The projector that the config describes, without weights."""
        raise NotImplementedError

    def build_decoder(self) -> Decoder:
        """The decoder that the config describes, without weights."""
        return Decoder(self.spec)

    @property
    def table_rows(self) -> int:
        """Rows of the embedding table."""
        return self.spec.vocab

    def mel(self) -> Wrapper:
        """The front end."""
        raise NotImplementedError

    def alignment(self, tokenizer: Tokenizer) -> AlignFacts:
        """The manifest's facts on the times of words; of most families there are none."""
        return AlignFacts()

    def live(self) -> LiveFacts:
        """The manifest's facts on how a stream is heard; of most families there are none."""
        return LiveFacts()

    def tokenizer_json(self) -> str:
        """The text of a tokenizer.json that tokenizes as the folder's own tokenizer does."""
        return tokenizer_files.tokenizer_json(self.tokenizer_folder, [])

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        """The manifest's prompt facts."""
        raise NotImplementedError

    def encoder(self) -> Wrapper:
        return attach(hollow(self.build_tower), self.adapted.under(self.tower_prefix))

    def projector(self) -> Wrapper:
        ours = Weights(self.weights.where)
        theirs = self.adapted.under(self.bridge_prefix)
        part = hollow(self.build_projector)
        if not self.bridge:
            return attach(part, theirs)
        for layer, name in self.bridge.items():
            for kind in ("weight", "bias"):
                if f"{name}.{kind}" in theirs:
                    read = partial(theirs.__getitem__, f"{name}.{kind}")
                    ours.add(f"{layer}.{kind}", theirs.shapes[f"{name}.{kind}"], read)
        return attach(part, ours)

    def decoder(self) -> Wrapper:
        part = attach(hollow(self.build_decoder), self.adapted.under(LLM))
        weights = self.weights.under(LLM)
        for prefix, adapter in self.adapters.items():
            if prefix in ("", LLM):
                below = adapter if prefix else adapter.under(LLM)
                part.merge_error = llm_files.merge_error(part, self.spec, weights, below)
        return part

    def embedding(self) -> Tensor:
        """The table [vocab, hidden] as the LLM uses it."""
        return llm_files.scaled(self.adapted[LLM + TABLE], self.spec)

    @cached_property
    def adapted(self) -> Weights:
        """The weights with the adapters, if there are any, merged in as they are read."""
        weights = self.weights
        for prefix, adapter in self.adapters.items():
            whole = self._whole(_made)
            if not prefix:
                weights = merging.merged(whole, weights, adapter)
                continue
            below = merging.merged(_below(whole, prefix), weights.under(prefix), adapter)
            weights = weights.over(below.above(prefix, but=""))
        return weights

    # --- the whole

    def check(self) -> None:
        """Name everything that is missing, misshapen, unknown or does not fit, at once.

        Raises:
            BadCheckpoint: there is something.
        """
        wrong: list[str] = []

        def tried(build: Callable[[], nn.Module]) -> nn.Module:
            try:
                return build()
            except BadCheckpoint as error:
                wrong.append(str(error))
                return nn.Module()

        whole = self._whole(tried)
        try:
            _ = self.window_samples
        except BadCheckpoint as error:
            wrong += [] if str(error) in wrong else [str(error)]
        wrong += faults(whole, self.weights.shapes, self.weights.where)
        if not wrong:  # else they say why more is unknown, or why an adapter does not fit
            wrong += unknown(self.weights, whole.state_dict(), self.unused)
        if not wrong:
            for prefix, adapter in self.adapters.items():
                wrong += adapter_faults.faults(_below(whole, prefix), adapter)
        if wrong:
            raise BadCheckpoint("; ".join(dict.fromkeys(wrong)))

    def _whole(self, tried: Callable[[Callable[[], nn.Module]], nn.Module]) -> nn.Module:
        """All modules under their published names, without memory."""
        with torch.device("meta"):
            parts = {
                self.tower_prefix[:-1]: tried(self.build_tower),
                self.bridge_prefix[:-1]: tried(self._named_projector),
                LLM[:-1]: tried(lambda: llm_files.and_table(self.build_decoder(), self.table_rows)),
            }
        return nn.ModuleDict(parts)

    def _named_projector(self) -> nn.Module:
        part = self.build_projector()
        if not self.bridge:
            return part
        return nn.ModuleDict({name: part.get_submodule(our) for our, name in self.bridge.items()})

    def checkpoint(
        self, *, audio_tokens: Callable[[], int], least_samples: int, long: str
    ) -> Checkpoint:
        """The checkpoint taken apart; nothing large is read before its part is loaded.

        Args:
            audio_tokens: embeddings of a whole window, called when the config is known to be right.
            least_samples: to which shorter clips are padded with silence.
            long: `each` or `joined`, how a clip of more than one window is encoded.
        """
        self.check()
        text = self.tokenizer_json()
        tokenizer = Tokenizer.from_str(text)
        spec, prompt = self.spec, self.prompt(tokenizer)
        return Checkpoint(
            family=self.family,
            parts={
                "mel": self.mel,
                self.tower: self.encoder,
                self.joint: self.projector,
                "decoder": self.decoder,
            },
            embedding=self.embedding,
            tokenizer_json=thoughts.spelled(text, prompt.thought),
            facts=Facts(
                prompt=prompt,
                tokens=self.tokens(tokenizer, prompt.start),
                generation=self.generation(),
                audio=AudioFacts(RATE, "mean", least_samples, self.window_samples, long),
                dimensions=llm_files.dimensions(
                    spec,
                    audio_tokens=audio_tokens(),
                    table=None if self.table_rows == spec.vocab else self.table_rows,
                ),
                align=self.alignment(tokenizer),
                live=self.live(),
                source={
                    "config": self.file.name,
                    "llm": spec.config.model_type,
                    "adapter": ", ".join(a.kind.name for a in self.adapters.values()) or "none",
                    "fingerprint": self.fingerprint(),
                },
            ),
            notes=self.notes(),
            made_by={"mel": self.front, self.joint: self.joint_file},
            shares=self.shares,
        )

    def shares(self, folder: Path) -> at_run_time.Shares:
        """See `Checkpoint.shares`."""
        adapter = self.read_adapter(folder)
        return at_run_time.shares(folder, adapter, lambda: self._whole(_made), self._home)

    def _home(self, module: str) -> tuple[str, str]:
        """A module's published name -> its part and its path there; "" where it is loaded anew."""
        ours = {name: our for our, name in self.bridge.items()}
        for prefix, part, load in (
            (self.tower_prefix, self.tower, "encoder"),
            (self.bridge_prefix, self.joint, "projector"),
            (LLM, "decoder", "decoder"),
        ):
            if module.startswith(prefix) and getattr(type(self), load) is getattr(Folder, load):
                path = module.removeprefix(prefix)
                return part, ours.get(path, path) if part == self.joint else path
        return "", ""

    def notes(self) -> tuple[str, ...]:
        """What was found, for the person who exports."""
        notes: list[str] = [*self.spec.found]
        for prefix, adapter in self.adapters.items():
            what = f" ({prefix[:-1]})" if prefix else ""
            notes.append(f"the {adapter.kind.name} in {adapter.where} is merged{what}")
        if kinds := self.kinds():
            counts = " and ".join(f"{count} weights in {kind}" for kind, count in kinds.items())
            notes.append(
                f"{self.path} is quantized by bitsandbytes ({counts}): they are dequantized as "
                "they are read, and exported in the precision asked for"
            )
        return tuple(notes)

    def check_width(self) -> tuple[int, int]:
        """Widths of a tower whose config says `output_dim`, and of the LLM's rows.

        Raises:
            BadCheckpoint: the tower gives rows of another width than the LLM's.
        """
        width, out = int(self.audio_config.d_model), int(self.audio_config.output_dim)
        if out != self.spec.hidden:
            raise BadCheckpoint(
                f"{self.file} says audio_config.output_dim: {out}, and the LLM's rows are "
                f"{self.spec.hidden} wide"
            )
        return width, out

    def tokens_there(self, tokenizer: Tokenizer, texts: Iterable[str]) -> None:
        """That the tokenizer has each of a prompt's tokens as one.

        Raises:
            BadCheckpoint: it lacks some.
        """
        missing = [
            text
            for text in texts
            if tokenizer.encode(text, add_special_tokens=False).ids != [tokenizer.token_to_id(text)]
        ]
        if missing:
            raise BadCheckpoint(f"the tokenizer in {self.path} lacks {', '.join(missing)}")

    def placeholder(self, tokenizer: Tokenizer, number: int | None, means: str = "audio") -> str:
        """The token of the config that stands for a clip's embeddings, or for this, as text.

        Raises:
            BadCheckpoint: the tokenizer does not know it, or not as one token.
        """
        text = None if number is None else tokenizer.id_to_token(number)
        if text is None or tokenizer.encode(text, add_special_tokens=False).ids != [number]:
            raise BadCheckpoint(
                f"{self.file} says that token {number} stands for {means}, and the tokenizer "
                f"beside it has {text!r} there, which is no special token"
            )
        return text


def _made(build: Callable[[], nn.Module]) -> nn.Module:
    return build()


def _below(whole: nn.Module, prefix: str) -> nn.Module:
    """The module of the weights with this prefix."""
    return whole.get_submodule(prefix.removesuffix("."))
