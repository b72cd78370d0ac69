"""What a model is, besides its parts: stated by its family, held by checkpoint and manifest.

A fact is one field here: its type, its bounds and its meaning are read from the declaration when a
manifest is parsed, when it is written, and when docs/manifest.md is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from alm.fact_fields import fact, plain_of, section, spare
from alm.parsing import Misshapen, need

# Sizes are bounded before anything of that size is allocated.
MOST_RATE = 768_000  # hertz; the highest of any converter
MOST_SAMPLES = 2**26  # of a window: 70 minutes at 16 kHz, 256 MiB of float32
MOST_HIDDEN = 2**18  # columns; the largest models have 2**14
MOST_VOCAB = 2**24
MOST_CONTEXT = 2**24  # positions


@dataclass(frozen=True)
class PromptFacts:
    """How a turn of a user is put into words: `alm.text.prompt` fills the templates in."""

    start: str = fact("text that opens a conversation, before its first turn", "")
    system: str = fact(
        "the same with a system message; `{}` is its text. Where it is empty there can be none", ""
    )
    system_trimmed: bool = fact("white space around a system message is left out", False)
    turn: str = fact(
        "a turn: one `{clips}` and one `{}` for the user's words; white space from the words to "
        "clips behind them is written where clips are", "", needed=True,
    )  # fmt: skip
    turns: dict[str, str] = fact("turns of tasks that have one of their own")
    clip: str = fact(
        "what stands around a clip; `{n}` is its number, `{k}` that in its turn", "", needed=True
    )
    placeholder: str = fact(
        "the text in `clip` that the embeddings replace: a token, or three", "", needed=True
    )
    clip_last: str = fact(
        "what stands behind a turn's last clip where no words are behind it in its turn", ""
    )
    end: str = fact("text that closes an answer when another turn follows", "")
    single: bool = fact("a conversation is one turn about one clip, in the turn's own place", False)
    one_clip: bool = fact(
        "a conversation has any number of turns and one clip, in its turn's own place", False
    )
    one_turn: bool = fact("a conversation is one turn, about any number of clips or none", False)
    clip_first: bool = fact(
        "a conversation's first turn has a clip: without any, the original answers with other "
        "weights",
        False,
    )
    trim: str = fact(
        "the white space that the original strips of a user's words: of all of them (`words`), of "
        "each text between clips (`parts`) or of the turn's content (`content`)",
        "",
        words=("words", "parts", "content"),
    )
    literal: bool = fact("control tokens that a user spells stay text", False)
    apart: bool = fact(
        "clips and words of a turn are one text, tokenized apart from the turn's own", False
    )
    retold: bool = fact(
        "an answer stands in later turns as its text, tokenized anew without its last token", False
    )
    tasks: dict[str, str] = fact(
        "name of a task -> the words that it stands for", needed=True, always=True
    )
    joined: tuple[str, ...] = fact(
        "words whose answers to consecutive windows of one recording read on when joined; `{}` "
        "stands for any words",
        (),
    )
    heading: str = fact(
        "what an answer begins with before its words, such as `language {}<asr_text>`; `{}` is the "
        "language",
        "",
    )
    languages: dict[str, str] = fact(
        "code of a language -> its name in `heading`, with which an answer in it is begun"
    )
    thought: str = fact(
        "what stands around what the model thinks before it answers, such as `<think>{}</think>`",
        "",
    )
    fleeting: str = fact(
        "the end of `turn` that no turn has once another follows it, such as `<think>\\n`", ""
    )
    left_out: str = fact(
        "later turns have of an answer with a thought what is behind it: as it is (`rest`), "
        "without line ends before it (`lines`), white space before it (`spaces`) or on both sides "
        "(`words`)",
        "",
        words=("rest", "lines", "spaces", "words"),
    )
    time_mark: str = fact(
        "what is before and behind each segment of an answer: `[{}]`; `{}` is a time in seconds", ""
    )
    speaker_mark: str = fact("who speaks, behind the first of them: `[S{}]`; `{}` is a number", "")
    marker_seconds: int = fact(
        "as often the seconds so far stand among a clip's embeddings, as text", 0, most=86_400
    )
    marker_rows: int = fact("embeddings from one such text to the next", 0, most=MOST_CONTEXT)
    marker_rate: int = fact("embeddings of 1,000 s, by which seconds are full", 0, most=10**6)


@dataclass(frozen=True)
class TokenFacts:
    """Tokens that begin and end text."""

    bos: int | None = fact("token in front of a conversation", None, most=MOST_VOCAB)
    eos: tuple[int, ...] = fact(
        "tokens that end an answer", (), most=MOST_VOCAB - 1, needed=True, always=True
    )
    stop_strings: tuple[str, ...] = fact("text that ends an answer and is no part of it", ())
    penalize_prompt: bool = fact(
        "the original's `generate` was given ids: penalties and n-grams see the prompt", False
    )
    audio: int | None = fact(
        "token that penalties see in the place of each of a clip's embeddings, where it is not the "
        "prompt's placeholder", None, most=MOST_VOCAB - 1,
    )  # fmt: skip


@dataclass(frozen=True)
class AudioFacts:
    """What sound the first part takes."""

    rate: int = fact("samples a second", 0, least=1, most=MOST_RATE, needed=True)
    channel: Literal["first", "mean"] = fact(
        "what is heard of stereo", "first", words=("first", "mean"), needed=True, always=True
    )
    least_samples: int = fact(
        "shorter clips are padded with silence to it", 0, least=1, most=MOST_SAMPLES, needed=True
    )
    window_samples: int = fact(
        "the longest piece that is heard at once", 0, least=1, most=MOST_SAMPLES, needed=True
    )
    long: str = fact(
        "how more windows than one are heard: each for itself (`each`), or joined in one prompt "
        "(`joined`)",
        "",
        words=("each", "joined"),
    )


@dataclass(frozen=True)
class DimensionFacts:
    """Sizes of the LLM."""

    hidden: int = fact("width of an embedding", 0, least=1, most=MOST_HIDDEN, needed=True)
    vocab: int = fact("tokens that it can choose", 0, least=1, most=MOST_VOCAB, needed=True)
    table: int | None = fact(
        "rows of the embedding table, where they are more than `vocab`", None, least=1,
        most=MOST_VOCAB,
    )  # fmt: skip
    layers: int = fact("layers of the decoder", 0, most=10_000)
    heads: int = fact("attention heads of the queries", 0, most=100_000)
    kv_heads: int = fact(
        "attention heads of keys and values, of the layer with most", 0, most=100_000
    )
    head_dim: int = fact("width of a head", 0, most=100_000)
    experts: int | None = fact("experts of a layer that is a mixture", None, least=1, most=100_000)
    active_experts: int | None = fact(
        "experts of a layer that a token passes", None, least=1, most=100_000
    )
    context: int = fact(
        "positions that it was trained for", 0, least=1, most=MOST_CONTEXT, needed=True
    )
    audio_tokens: int | None = fact("embeddings of a whole window", None, most=MOST_CONTEXT)
    rope_grows_past: int | None = fact(
        "positions past which each length has rotary frequencies of its own (`dynamic`)", None,
        most=MOST_CONTEXT,
    )  # fmt: skip
    rope_switches_past: int | None = fact(
        "positions past which other rotary frequencies hold for good (`longrope`)", None,
        most=MOST_CONTEXT,
    )  # fmt: skip
    rope_doubles_past: int | None = fact(
        "positions past which a prompt and its answer have rotary frequencies by doublings", None,
        least=1, most=MOST_CONTEXT,
    )  # fmt: skip


@dataclass(frozen=True)
class UnitFacts:
    """Of a model that hears a clip as tokens of its own vocabulary, not as embeddings."""

    count: int = fact(
        "units that the last part before the decoder tells apart, as `units`; 0: it makes "
        "embeddings",
        0,
        most=MOST_VOCAB,
    )
    first: int = fact("token of the first unit, whom the others follow", 0, most=MOST_VOCAB)
    merged: bool = fact("a unit that repeats the one before it is left out", False)
    unsaid: bool = fact("an answer holds no unit: none of their tokens is ever chosen", False)


@dataclass(frozen=True)
class AlignFacts:
    """Of a model that answers with no text, but with the times of words that it is given."""

    mark: str = fact("the token behind each word, twice, whose label is a time", "")
    step_ms: int = fact("milliseconds from one label to the next", 0, most=60_000)


@dataclass(frozen=True)
class LiveFacts:
    """Of a model that hears a stream step by step, and says one token at each."""

    step_samples: int = fact("samples of a step; 0: the model hears clips", 0, most=MOST_SAMPLES)
    ahead_samples: int = fact("samples behind a step that its spectrogram needs", 0, most=2**16)
    left: int = fact("steps of silence before the sound", 0, most=10_000)
    right: int = fact("steps of silence behind it, beside those of the delay", 0, most=10_000)
    delay: int = fact("steps by which words follow, where no other are asked for", 0, most=10_000)
    pad: str = fact("the token of a step that says nothing", "")
    window: int = fact("positions that the LLM sees; 0: all, and no live run", 0, most=MOST_CONTEXT)


SECTIONS: dict[str, type[Any]] = {
    "dimensions": DimensionFacts,
    "audio": AudioFacts,
    "prompt": PromptFacts,
    "tokens": TokenFacts,
    "units": UnitFacts,
    "align": AlignFacts,
    "live": LiveFacts,
}


@dataclass(frozen=True)
class Facts:
    """The whole of it.

    `generation` holds the defaults of `alm.decoding.options.Options`; `source` and `licence` are
    for people. `missing` names needed facts that a loaded manifest does not state.
    """

    prompt: PromptFacts = PromptFacts()
    tokens: TokenFacts = TokenFacts()
    audio: AudioFacts = AudioFacts()
    dimensions: DimensionFacts = DimensionFacts()
    units: UnitFacts = UnitFacts()
    align: AlignFacts = AlignFacts()
    live: LiveFacts = LiveFacts()
    generation: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    licence: dict[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = field(default=(), compare=False)

    def to_json(self) -> dict[str, Any]:
        """The facts as plain data: what `from_json` takes."""
        plain: dict[str, Any] = {"source": self.source, "licence": self.licence}
        sections = {name: plain_of(getattr(self, name)) for name in SECTIONS}
        plain |= {n: stated for n, stated in sections.items() if stated or not spare(SECTIONS[n])}
        return plain | {"generation": self.generation}

    def check_run(self) -> None:
        """Refuse, with Misshapen, facts with which no model can run."""
        if self.missing:
            raise Misshapen(f"it lacks {', '.join(self.missing)}")
        table, vocab = self.dimensions.table, self.dimensions.vocab
        if table is not None and table < vocab:
            raise Misshapen(f"'table' of 'dimensions' is {table}, and 'vocab' is {vocab}")
        first, count, rows = self.units.first, self.units.count, table or vocab
        if first + count > rows:
            raise Misshapen(
                f"'units' has {count} tokens from {first} on, and the embedding table {rows} rows"
            )


def from_json(plain: Mapping[str, Any]) -> Facts:
    """The facts of a manifest's JSON; needed ones may be absent, see `Facts.check_run`.

    Raises:
        Misshapen: a section with needed facts is absent; a fact is unknown, of another kind or out
            of bounds.
    """
    missing: list[str] = []
    read = {name: section(kind, plain, name, missing) for name, kind in SECTIONS.items()}
    return Facts(
        **read,
        generation=need(plain, "generation", dict),
        source=need(plain, "source", dict, {}),
        licence=need(plain, "licence", dict, {}),
        missing=tuple(missing),
    )
