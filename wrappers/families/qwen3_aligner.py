"""Qwen3's forced aligner (Qwen team 2026): Qwen3-ASR's parts, whose head labels times, not words.

It is given a clip and its words, each with two marks behind it. The labels at the marks, in steps
of 80 ms, are where the word begins and where it ends.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from alm.errors import BadCheckpoint
from alm.facts import AlignFacts, PromptFacts, TokenFacts
from wrappers import Checkpoint
from wrappers.checkpoint import qwen3_asr_authors
from wrappers.checkpoint.hf_files import LLM
from wrappers.checkpoint.llm_files import HEAD
from wrappers.checkpoint.model_type import model_type
from wrappers.checkpoint.plain_files import read_json
from wrappers.checkpoint.text import chat_template
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.encoders import qwen3_asr
from wrappers.families.qwen3_asr import BEGIN_AUDIO, END_AUDIO, LEAST, Qwen3Asr, aligns
from wrappers.frontends.mel import HOP, RATE
from wrappers.layers.decoder import Decoder
from wrappers.layers.spec import Spec

LOOKS_LIKE = "a Hugging Face folder of a Qwen3ASRForTokenClassification, which times words"

LONGEST = 180 * RATE  # samples; the authors' own software cuts there
STEP = 80.0  # milliseconds, where the processor's settings leave it out
SCORE = "score."  # the head's name in the checkpoint


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a config.json of the aligner."""
    return model_type(path) == "qwen3_asr" and aligns(path)


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: no weights or no tokenizer in the folder.
        BadCheckpoint: weights missing or misshapen (all named at once), settings that contradict
            each other, a tokenizer without the mark, or another chat template.
    """
    folder = Qwen3Aligner(path)
    return folder.checkpoint(
        audio_tokens=lambda: qwen3_asr.rows_of(folder.window_samples // HOP, folder.chunk),
        least_samples=LEAST,
        long="each",
    )


class Qwen3Aligner(Qwen3Asr):
    """The checkpoint taken apart."""

    family = "qwen3_aligner"
    tower_type = "qwen3_asr_encoder"

    @property
    def labels(self) -> int:
        """Times that the head tells apart."""
        return int(self.config.num_labels)

    @cached_property
    def spec(self) -> Spec:
        """The LLM, its vocabulary the labels."""
        return replace(super().spec, vocab=self.labels, tied=False)

    @property
    def table_rows(self) -> int:
        """See `Folder.table_rows`."""
        return int(self.config.text_config.vocab_size)

    @property
    def tied(self) -> bool:
        """The head is its own."""
        return False

    def build_decoder(self) -> Decoder:
        """See `Folder.build_decoder`."""
        return Decoder(self.spec, every=True, head_bias=self.config.token_classification_bias)

    @cached_property
    def weights(self) -> Weights:
        """See `Files.weights`; the head is called as those of LLMs are."""
        theirs = super().weights
        named = Weights(theirs.where)
        head = LLM + HEAD.removesuffix("weight")
        for name, shape in theirs.shapes.items():
            ours = name.replace(SCORE, head, 1) if name.startswith(SCORE) else name
            named.add(ours, shape, lambda name=name: theirs[name])
        return named

    @cached_property
    def step_ms(self) -> int:
        """Milliseconds from a label to the next, as the processor has them."""
        file = self.path / "processor_config.json"
        plain = read_json(file) if file.is_file() else {}
        own = read_json(self.file).get(qwen3_asr_authors.SECTION) or {}
        step = plain.get("timestamp_segment_time", own.get("timestamp_segment_time", STEP))
        if not isinstance(step, int | float) or step != int(step) or not 0 < step <= 1000:
            raise BadCheckpoint(
                f"{file} says timestamp_segment_time {step!r:.40}; it must be whole milliseconds"
            )
        return int(step)

    @cached_property
    def window_samples(self) -> int:
        """As much as the authors' software aligns at once, and no more than there are labels of."""
        _ = super().window_samples  # the extractor is checked
        return min(LONGEST, (self.labels - 1) * self.step_ms * RATE // 1000)

    def generation(self) -> dict[str, Any]:
        """Nothing is generated."""
        return {}

    def tokens(self, tokenizer: Tokenizer, start: str) -> TokenFacts:
        """Nothing ends an answer."""
        return TokenFacts()

    def alignment(self, tokenizer: Tokenizer) -> AlignFacts:
        """See `Folder.alignment`."""
        return AlignFacts(self.mark(tokenizer), self.step_ms)

    def mark(self, tokenizer: Tokenizer) -> str:
        """The token that is labelled, as text."""
        return self.placeholder(tokenizer, self.config.timestamp_token_id, "a word's time")

    def prompt(self, tokenizer: Tokenizer) -> PromptFacts:
        placeholder = self.placeholder(tokenizer, self.config.audio_token_id)
        clip = BEGIN_AUDIO + placeholder + END_AUDIO
        template = chat_template.template(self.path, placeholder)
        # The authors' package writes the prompt itself, whatever template lies in the folder.
        if template is not None and not qwen3_asr_authors.is_theirs(read_json(self.file)):
            mark = self.mark(tokenizer)
            template.check([_written(words, clip, mark) for words in _WORDS], asks=False)
        return PromptFacts(
            turn="{clips}{}", clip=clip, placeholder=placeholder, single=True, tasks={}
        )


# Words that a folder's template must write with two marks behind each.
_WORDS = (["one"], ["It's", "two", "Łódź"], ["三", "四"])


def _written(words: list[str], clip: str, mark: str) -> tuple[list[dict[str, Any]], str]:
    """The messages of transformers' processor, and the prompt that they must become."""
    content: list[dict[str, Any]] = [{"type": "audio", "audio": "clip.wav"}]
    content += [{"type": "text", "text": word} for word in words]
    text = clip + "".join(word + 2 * mark for word in words)
    return [{"role": "user", "content": content}], text
