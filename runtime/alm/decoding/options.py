"""The decoding options: their names, ranges and defaults, and how a call's override the model's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from alm.decoding import option_values as values
from alm.decoding.option_values import Ids
from alm.errors import BadOption, BadPrompt


@dataclass(frozen=True)
class Options:
    """How to decode; names, meanings and effects are those of transformers' GenerationConfig.
    `seed` and `repetition_window` (Kimi-Audio's) are none of them.

    Lists become tuples. `sequence_bias` is a list of (token ids, bias) or a dict of them.

    Raises:
        BadOption: a value out of range, or two that contradict each other.
    """

    max_new_tokens: int = 200
    max_length: int | None = None  # counts the prompt; replaces max_new_tokens where it is set
    min_new_tokens: int | None = None  # replaces min_length where it is set
    min_length: int = 0  # counts the prompt
    num_beams: int = 1
    length_penalty: float = 1.0  # beams only: above 0 favours long answers, below 0 short ones
    early_stopping: bool | Literal["never"] = False  # beams only
    do_sample: bool = False
    seed: int | None = None  # None: another answer every time
    # What sampling leaves out, in the order in which it is applied.
    temperature: float = 1.0
    top_h: float | None = None
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    min_p: float | None = None
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    # What changes the scores in any mode, in the order in which it is applied.
    sequence_bias: tuple[tuple[Ids, float], ...] = ()
    encoder_repetition_penalty: float = 1.0
    repetition_penalty: float = 1.0
    repetition_window: int = 0  # new tokens that repetition_penalty sees; 0: all, and the prompt's
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[Ids, ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | Ids | None = None
    remove_invalid_values: bool = False
    exponential_decay_length_penalty: tuple[int, float] | None = None  # (start, factor)
    suppress_tokens: Ids = ()
    begin_suppress_tokens: Ids = ()
    watermarking_config: tuple[tuple[str, float], ...] | None = None  # of a dict; lefthash only
    renormalize_logits: bool = False

    def __post_init__(self) -> None:
        for name, kept in _KEPT.items():
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else kept(name, value))
        self.check()

    def check(self) -> None:
        """Refuse values that are out of range or contradict each other, with a BadOption."""
        for name, least in _WHOLE.items():
            if getattr(self, name) is not None or name not in _MAY_LACK:
                values.whole(name, getattr(self, name), least)
        for name, (low, high) in _RANGES.items():
            if getattr(self, name) is not None or name not in _MAY_LACK:
                values.between(name, getattr(self, name), low, high)
        for name in ("do_sample", "remove_invalid_values", "renormalize_logits"):
            if not isinstance(getattr(self, name), bool):
                raise BadOption(f"{name} must be true or false, not {getattr(self, name)!r:.80}")
        if not values.finite(self.top_p) or not 0 < self.top_p <= 1:
            raise BadOption(f"top_p must be above 0 and at most 1, not {self.top_p!r:.80}")
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise BadOption(
                f"early_stopping must be False, True or 'never', not {self.early_stopping!r:.80}"
            )
        self._check_together()

    def _check_together(self) -> None:
        least = self.min_new_tokens or 0
        if self.max_length is None and least > self.max_new_tokens:
            raise BadOption(
                f"min_new_tokens {least} is more than max_new_tokens {self.max_new_tokens}"
            )
        if self.do_sample and self.temperature == 0:
            raise BadOption("sampling cannot have temperature 0; ask for greedy instead")
        if self.do_sample:  # beyond these ends float32 scores overflow
            values.between("temperature", self.temperature, 1e-6, 1e6)
        for name in ("forced_bos_token_id", "forced_eos_token_id"):
            forced = set(values.as_ids(getattr(self, name)))
            if forced and forced <= set(self.suppress_tokens):
                raise BadOption(
                    f"{name} {sorted(forced)} is forced, and suppress_tokens forbids it"
                )

    def check_tokens(self, vocab: int) -> None:
        """Refuse tokens that a vocabulary of this size does not have, with a BadOption.

        Tokens that are only suppressed may be beyond it, as in transformers.
        """
        for name, ids in (
            ("sequence_bias", [i for sequence, _ in self.sequence_bias for i in sequence]),
            ("bad_words_ids", [i for sequence in self.bad_words_ids for i in sequence]),
            ("forced_bos_token_id", values.as_ids(self.forced_bos_token_id)),
            ("forced_eos_token_id", values.as_ids(self.forced_eos_token_id)),
        ):
            beyond = [i for i in ids if i >= vocab]
            if beyond:
                raise BadOption(f"{name} has token {beyond[0]}, and the vocabulary is {vocab}")

    @property
    def forced_ends(self) -> Ids:
        """The tokens of `forced_eos_token_id`."""
        return values.as_ids(self.forced_eos_token_id)

    # --- lengths, for a prompt of so many tokens with its audio

    def most(self, prompt: int) -> int:
        """New tokens at most.

        Raises:
            BadPrompt: `max_length` leaves no room for one.
        """
        if self.max_length is None:
            return self.max_new_tokens
        if self.max_length <= prompt:
            raise BadPrompt(
                f"the prompt is {prompt} tokens long with its audio, and max_length "
                f"{self.max_length} counts it too; ask for max_new_tokens instead"
            )
        return self.max_length - prompt

    def least(self, prompt: int) -> int:
        """New tokens before which no EOS token may come."""
        if self.min_new_tokens is not None:
            return self.min_new_tokens
        return max(0, self.min_length - prompt)

    def within(self, room: int, prompt: int) -> Options:
        """The same for at most `room` new tokens."""
        most = min(room, self.most(prompt))
        least = None if self.min_new_tokens is None else min(self.min_new_tokens, most)
        return replace(self, max_new_tokens=most, max_length=None, min_new_tokens=least)


def choose(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> Options:
    """Options: the defaults with what is given in their place; `None` is as good as not given.

    Asking for a temperature above 0, or for anything that only sampling heeds, asks for sampling,
    temperature 0 for none. Sampling then has one beam, unless beams are asked for too or the
    defaults already sample with several.

    Raises:
        BadOption: out of range, contradicting each other, or unknown.
    """
    names = {f.name for f in fields(Options)}
    unknown = sorted((set(given) | set(defaults)) - names)
    if unknown:
        raise BadOption(f"unknown option {unknown[0]!r:.80}; there is: {', '.join(sorted(names))}")
    given = {name: value for name, value in given.items() if value is not None}
    default = {name: value for name, value in defaults.items() if value is not None}
    if given.keys() & SAMPLING:
        given.setdefault("do_sample", given.get("temperature") != 0)
    # A default must not forbid what was asked for.
    if "do_sample" not in given and given.get("num_beams", 1) != 1:
        given["do_sample"] = False
    chosen = default | given
    if given.get("do_sample") and not default.get("do_sample") and "num_beams" not in given:
        chosen["num_beams"] = 1
    if "max_new_tokens" in given:
        chosen.pop("max_length", None)
        most = Options(max_new_tokens=given["max_new_tokens"]).max_new_tokens
        least = default.get("min_new_tokens")
        if isinstance(least, int) and "min_new_tokens" not in given:  # others are refused below
            chosen["min_new_tokens"] = min(least, most)
    if "min_length" in given and "min_new_tokens" not in given:
        chosen.pop("min_new_tokens", None)
    return Options(**chosen)


# --- what values may be

SAMPLING = {
    *("temperature", "top_h", "top_k", "top_p", "min_p"),
    *("typical_p", "epsilon_cutoff", "eta_cutoff"),
}
_MAY_LACK = {f.name for f in fields(Options) if f.default is None}
_WHOLE = {
    "max_new_tokens": 1,
    "max_length": 1,
    "min_new_tokens": 0,
    "min_length": 0,
    "num_beams": 1,
    "seed": 0,
    "top_k": 0,
    "repetition_window": 0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "forced_bos_token_id": 0,
}
_RANGES = {
    "encoder_repetition_penalty": (1e-6, 1e6),
    "repetition_penalty": (1e-6, 1e6),
    "length_penalty": (-8, 8),
    "top_h": (1e-6, 1),
    "min_p": (0, 1),
    "typical_p": (1e-6, 1),
    "epsilon_cutoff": (0, 1),
    "eta_cutoff": (0, 1),
}


_KEPT: dict[str, Callable[[str, object], Any]] = {
    "sequence_bias": values.biases,
    "bad_words_ids": values.sequences,
    "forced_eos_token_id": values.ends,
    "exponential_decay_length_penalty": values.decay,
    "suppress_tokens": values.ids,
    "begin_suppress_tokens": values.ids,
    "watermarking_config": values.watermark,
}
