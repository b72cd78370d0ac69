"""The options of an answer by keyword, and bounds that keep a machine from being filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import Any, Literal, TypedDict

from alm.audio import merging
from alm.audio.reader import HOUR
from alm.decoding import options
from alm.errors import BadOption
from alm.joins.places import EXACT, QUIET
from alm.text.tasks import near

FORMS = ("schema", "grammar", "regex")
TEXTS = ("language", "hypothesis", "system")
MOST_BEAMS = 256  # rows of the KV cache; published settings have at most 16
MOST_STOPS, LONGEST_STOP = 16, 256
MOST_TOKENS = 2**31 - 1  # positions: the graphs' int32, more than any context


@dataclass(frozen=True)
class InputOptions:
    """How clips and prompts are taken.

    `truncate`: only the first window of a longer clip, as the original does. `max_audio_seconds`:
    longer audio is refused before it is decoded; at most a day. `verbatim`: a prompt is text, even
    where it is a task's name or nearly one. `language`: the code of the one to answer in, of models
    and tasks that know several. `delay`: milliseconds by which words follow their sound, of models
    that hear a stream; None is as the checkpoint says. `show_thinking`: what a model thinks before
    its answer is streamed too, between its marks. `merge_audio`: percent of a clip's embeddings
    that the decoder is given, the likest neighbours averaged; 100 is all of them, as the model was
    made. `gate`: sound in which nobody speaks is not asked about; None, as commands have it, is so
    for the task `transcribe` alone, and not in conversations; False is as the original does.
    `joins`: how a longer clip is cut where answers read on: "exact" into as few windows as will
    hold it, "quiet" in pauses, with an overlap where nobody pauses. `hypothesis`: a text that the
    answer is likely to repeat, such as one of an earlier run: where it does, several tokens are
    computed at once. `adapter`: the name of one in the folder, or a peft folder, with which parts
    compute; "" is the model itself. `stop`: texts of which the first ends the answer, and is no
    part of it. `system`: a message to the model before the conversation, of models whose prompts
    have a place for one. `schema`, `grammar`, `regex`: what answers must follow, one of them: a
    JSON schema (a dict or JSON text), a grammar in Lark or EBNF, or a regular expression; a list
    has one for each prompt of a batch.
    """

    truncate: bool = False
    max_audio_seconds: float = HOUR
    verbatim: bool = False
    language: str = ""
    delay: float | None = None
    show_thinking: bool = False
    merge_audio: float = merging.WHOLE
    gate: bool | None = False
    joins: Literal["exact", "quiet"] = "exact"
    hypothesis: str = ""
    adapter: str | PathLike[str] = ""
    stop: Sequence[str] = ()
    system: str = ""
    schema: Any = None
    grammar: Any = None
    regex: Any = None

    def __post_init__(self) -> None:
        """Refuse, with BadOption, what is no text where one is wanted, or no way to join."""
        for name in TEXTS:
            if not isinstance(getattr(self, name), str):
                raise BadOption(f"{name} is a text, not {getattr(self, name)!r:.40}")
        if self.joins not in (EXACT, QUIET):
            raise BadOption(f"joins is {EXACT} or {QUIET}, not {self.joins!r:.40}")
        given = self.stop
        fits = isinstance(given, list | tuple) and len(given) <= MOST_STOPS
        if not fits or not all(isinstance(s, str) and 0 < len(s) <= LONGEST_STOP for s in given):
            raise BadOption(
                f"stop is up to {MOST_STOPS} texts of 1 to {LONGEST_STOP} characters, "
                f"not {given!r:.80}"
            )
        asked = [name for name, form in self.forms.items() if form is not None]
        if given and asked:
            raise BadOption(f"stop would cut an answer that must follow a {asked[0]}; give one")

    @property
    def forms(self) -> dict[str, Any]:
        """What answers must follow, by its keyword."""
        return {name: getattr(self, name) for name in FORMS}


class Decoding(TypedDict, total=False):
    """The fields of `alm.Options` as keyword arguments; None is as good as not given."""

    max_new_tokens: int | None
    max_length: int | None
    min_new_tokens: int | None
    min_length: int | None
    num_beams: int | None
    length_penalty: float | None
    early_stopping: bool | Literal["never"] | None
    do_sample: bool | None
    seed: int | None
    temperature: float | None
    top_h: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    epsilon_cutoff: float | None
    eta_cutoff: float | None
    sequence_bias: Any
    encoder_repetition_penalty: float | None
    repetition_penalty: float | None
    repetition_window: int | None
    no_repeat_ngram_size: int | None
    encoder_no_repeat_ngram_size: int | None
    bad_words_ids: list[list[int]] | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | list[int] | None
    remove_invalid_values: bool | None
    exponential_decay_length_penalty: tuple[int, float] | None
    suppress_tokens: list[int] | None
    begin_suppress_tokens: list[int] | None
    watermarking_config: dict[str, Any] | None
    renormalize_logits: bool | None


class Asking(Decoding, total=False):
    """What an answer must follow, beside the fields of `Decoding`."""

    schema: dict[str, Any] | str | type | Sequence[dict[str, Any] | str | type | None] | None
    grammar: str | Sequence[str | None] | None
    regex: str | Sequence[str | None] | None


class Generating(Asking, total=False):
    """The fields of `InputOptions` as keyword arguments, beside those of `Decoding`."""

    truncate: bool
    max_audio_seconds: float
    verbatim: bool
    language: str
    delay: float | None
    show_thinking: bool
    merge_audio: float
    gate: bool | None
    joins: Literal["exact", "quiet"]
    hypothesis: str
    adapter: str | PathLike[str]
    stop: Sequence[str]
    system: str


def split(given: Mapping[str, Any]) -> tuple[InputOptions, dict[str, Any]]:
    """Keyword arguments as input options, and the decoding options, which `choose` checks.

    Raises:
        BadOption: an input option is none.
    """
    names = {f.name for f in fields(InputOptions)}
    inputs = InputOptions(**{name: value for name, value in given.items() if name in names})
    return inputs, {name: value for name, value in given.items() if name not in names}


def shaped(inputs: InputOptions, given: Mapping[str, Any]) -> tuple[InputOptions, dict[str, Any]]:
    """Options of one turn: what its answer must follow, in the place of `inputs`', and the rest."""
    own = {name: value for name, value in given.items() if name in FORMS}
    rest = {name: value for name, value in given.items() if name not in FORMS}
    return replace(inputs, **{**dict.fromkeys(FORMS), **own}) if own else inputs, rest


def choose(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> options.Options:
    """`options.choose`, after what is unknown or beyond all bounds.

    Raises:
        BadOption: as there; an unknown name is answered with the near ones.
    """
    known = [f.name for f in fields(options.Options)]
    for name in sorted(set(given) - set(known)):
        nearest = near(name, known)
        if nearest:
            raise BadOption(f"unknown option {name!r:.80}; did you mean {nearest[0]}?")
    for name, most in (
        ("num_beams", MOST_BEAMS),
        ("max_new_tokens", MOST_TOKENS),
        ("max_length", MOST_TOKENS),
        ("min_new_tokens", MOST_TOKENS),
        ("min_length", MOST_TOKENS),
        ("top_k", MOST_TOKENS),
    ):
        value = given.get(name)
        if isinstance(value, int) and value > most:
            raise BadOption(f"{name} is at most {most}, not {value if value < 1e18 else 'more'}")
    return options.choose(defaults, given)
