"""From logits to tokens, greedy, sampled or by beams, as transformers' `generate` does it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, Protocol

import numpy as np

from alm import _beams, _scores
from alm.errors import BadOption

StopReason = Literal["eos", "stop_string", "length"]


@dataclass(frozen=True)
class Options:
    """How to decode; names, meanings and effects are those of transformers' GenerationConfig.

    `min_length` counts new tokens, as `min_new_tokens` does there; `top_k` is off unless asked for.

    Raises:
        BadOption: a value out of range, or two that contradict each other.
    """

    max_new_tokens: int = 200
    num_beams: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0  # beams only: above 0 favours long answers, below 0 short ones
    min_length: int = 0
    early_stopping: bool | Literal["never"] = False  # beams only
    seed: int | None = None  # None: another answer every time

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Refuse values that are out of range or contradict each other, with a BadOption."""
        for name, least in (
            ("max_new_tokens", 1),
            ("num_beams", 1),
            ("top_k", 0),
            ("min_length", 0),
        ):
            _whole(name, getattr(self, name), least)
        if self.seed is not None:
            _whole("seed", self.seed, 0)
        if self.min_length > self.max_new_tokens:
            raise BadOption(
                f"min_length {self.min_length} is more than max_new_tokens {self.max_new_tokens}"
            )
        if self.do_sample and self.num_beams > 1:
            raise BadOption(
                f"sampling and {self.num_beams} beams exclude each other; "
                "ask for one beam, or for greedy"
            )
        if self.do_sample and self.temperature == 0:
            raise BadOption("sampling cannot have temperature 0; ask for greedy instead")
        # Beyond these ends float32 scores overflow.
        if self.do_sample:
            _between("temperature", self.temperature, 1e-6, 1e6)
        _between("repetition_penalty", self.repetition_penalty, 1e-6, 1e6)
        _between("length_penalty", self.length_penalty, -8, 8)
        if not _finite(self.top_p) or not 0 < self.top_p <= 1:
            raise BadOption(f"top_p must be above 0 and at most 1, not {self.top_p!r}")
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise BadOption(
                f"early_stopping must be False, True or 'never', not {self.early_stopping!r}"
            )


class Decoder(Protocol):
    """A language model with a cache, one row a sequence."""

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """Feed one token to every row, int64 [rows]; gives logits, float32 [rows, vocab]."""
        ...

    def reorder(self, rows: np.ndarray) -> None:
        """Make row i of the cache a copy of what was row rows[i]; rows may become more or fewer."""
        ...


@dataclass(frozen=True)
class Sequence:
    """An answer: the new tokens (the EOS too, if there is one), why they end, a beam's score."""

    token_ids: list[int]
    stop_reason: StopReason
    score: float | None = None  # sum of log probabilities / length ** length_penalty; beams only


def choose(defaults: Mapping[str, Any], said: Mapping[str, Any]) -> Options:
    """Options: the defaults with what is said in their place; `None` is as good as unsaid.

    Asking for a temperature above 0, top_k or top_p asks for sampling, temperature 0 for none.
    Sampling is done with one beam unless both are said.

    Raises:
        BadOption: out of range, contradicting each other, or unknown.
    """
    names = {f.name for f in fields(Options)}
    unknown = sorted(set(said) - names)
    if unknown:
        raise BadOption(f"unknown option {unknown[0]!r}; there is: {', '.join(sorted(names))}")
    said = {name: value for name, value in said.items() if value is not None}
    default = {name: value for name, value in defaults.items() if name in names}
    if said.keys() & {"temperature", "top_k", "top_p"}:
        said.setdefault("do_sample", said.get("temperature") != 0)
    # A default must not forbid what was asked for.
    if "do_sample" not in said and said.get("num_beams", 1) != 1:
        said["do_sample"] = False
    chosen = default | said
    if chosen.get("do_sample") and "num_beams" not in said:
        chosen["num_beams"] = 1
    if "min_length" not in said and "max_new_tokens" in said:
        allowed = Options(max_new_tokens=said["max_new_tokens"]).max_new_tokens
        chosen["min_length"] = min(chosen.get("min_length", 0), allowed)
    return Options(**chosen)


def generate(
    logits: np.ndarray,
    decoder: Decoder,
    options: Options,
    *,
    eos_ids: Set[int],
    stopped: Callable[[int, list[int]], bool] | None = None,
    on_token: Callable[[int, int], None] | None = None,
    prompts: Iterable[Iterable[int]] = (),
) -> list[Sequence]:
    """Continue every prompt row; each answer is the one that the row would get alone.

    The same tokens as transformers 5 from `generate(inputs_embeds=...)`: penalties and lengths see
    only what is new, but for `prompts`. A sampled row has random numbers of its own, from the seed:
    a row of a batch draws what it draws alone.

    Args:
        logits: float32 [rows, vocab] of the last position of each prompt.
        decoder: its cache holds the prompts, one a row; rows that are done leave it.
        options: what to do.
        eos_ids: the tokens that end an answer; may be empty.
        stopped: asked (row, new tokens so far) after each token but an EOS; True ends the row, or
            with beams that one hypothesis of it.
        on_token: told (row, token) of every token when it is chosen, the EOS too; not with beams,
            where no token is certain before the end.
        prompts: the token ids of each prompt, where the repetition penalty is for them as well, as
            it is from `generate(input_ids=...)`.

    Raises:
        BadArtifacts: logits that are not finite numbers, or not of one row per prompt.
    """
    seen = [sorted(set(ids)) for ids in prompts]
    rules = _beams.Rules(options, frozenset(eos_ids), stopped, seen)
    logits = np.asarray(logits)
    if options.num_beams > 1:
        found = _beams.search(logits, decoder, rules)
        return [
            Sequence(best.token_ids, best.stop_reason or "length", float(best.score))
            for best in found
        ]
    return _one_by_one(logits, decoder, rules, on_token)


def _one_by_one(
    logits: np.ndarray,
    decoder: Decoder,
    rules: _beams.Rules,
    on_token: Callable[[int, int], None] | None,
) -> list[Sequence]:
    """Greedy decoding and sampling: every row takes one token a step until it ends."""
    options = rules.options
    answers: list[list[int]] = [[] for _ in logits]
    reasons: dict[int, StopReason] = {}
    dice = _dice(options.seed, len(logits))
    live = list(range(len(logits)))
    while live:
        scores = _scores.process(
            _scores.checked(logits, len(live)),
            [answers[row] for row in live],
            repetition_penalty=options.repetition_penalty,
            min_length=options.min_length,
            eos_ids=rules.eos_ids,
            prompts=rules.prompts_of(live),
        )
        kept: list[int] = []
        for place, row in enumerate(live):
            token = _choose(scores[place], options, dice[row])
            answers[row].append(token)
            if on_token is not None:
                on_token(row, token)
            reason = rules.end(row, answers[row])
            if reason is None:
                kept.append(place)
            else:
                reasons[row] = reason
        if kept and len(kept) < len(live):  # a row that is done costs nothing from here on
            decoder.reorder(np.array(kept, np.int64))
        live = [live[place] for place in kept]
        if live:
            logits = decoder.step(np.array([answers[row][-1] for row in live], np.int64))
    return [Sequence(answer, reasons[row]) for row, answer in enumerate(answers)]


def _choose(scores: np.ndarray, options: Options, random: np.random.Generator) -> int:
    """The next token of one row from its scores [vocab]."""
    if not options.do_sample:
        return int(scores.argmax())
    warped = _scores.warp(scores, options.temperature, options.top_k, options.top_p)
    return _scores.draw(warped, random)


def _dice(seed: int | None, rows: int) -> list[np.random.Generator]:
    """A generator for each row, so that a row draws in a batch what it draws alone."""
    return [np.random.default_rng(seed) for _ in range(rows)]


def _finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise BadOption(f"{name} must be a whole number of at least {least}, not {value!r}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not _finite(value) or not low <= value <= high:
        raise BadOption(f"{name} must be a number from {low:g} to {high:g}, not {value!r}")
