"""From a prompt's embeddings to an answer's text: prefill, steps, and what each of them took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from alm.decoding import search
from alm.errors import BadPrompt
from alm.generation.pipeline import Decoder, Stages
from alm.text import detokenizer

if TYPE_CHECKING:
    from alm.generation.model import Model

# Stages that an answer's timings leave out: beside the others they are nothing.
FINER = ("prompt", "windows", "recall", "steps", "choose", "detokenise")


class Mouth:
    """What the model says to prompts, with options that hold for all of them."""

    def __init__(
        self,
        model: Model,
        options: search.Options,
        on_text: Callable[[str], None] | None = None,
        forced: bool = False,
    ) -> None:
        """`forced`: nothing but `max_new_tokens` ends an answer, so that runs can be compared."""
        self.model, self.options = model, options
        self.on_text, self.forced = on_text, forced
        self.joiner: detokenizer.Joiner | None = None
        self.stages = Stages()
        self.began = time.perf_counter()
        self.first_ms = 0.0  # from the beginning to the first token
        self.step_ms: list[float] = []  # of each step of the decoder, reordering of rows included

    def fitted(self, prompt: int) -> tuple[search.Options, bool]:
        """The options for a prompt of so many tokens, and whether the context cut them.

        Raises:
            BadPrompt: it leaves no room for an answer.
        """
        context, options = int(self.model.manifest.dimensions["context"]), self.options
        room = context - prompt
        if room < 1:
            raise BadPrompt(
                f"the prompt is {prompt} tokens long with its audio, "
                f"and the model's context is {context}"
            )
        if options.most(prompt) <= room:
            return options, False
        return options.within(room, prompt), True

    def speak(
        self,
        decoder: Decoder,
        embeds: np.ndarray,
        lengths: np.ndarray,
        options: search.Options,
        prompts: Sequence[Sequence[int]] = (),
    ) -> tuple[list[search.Sequence], list[str]]:
        """Feed prompts [rows, longest, hidden] after what the decoder holds, and answer them.

        `prompts` are all token ids of each row, for models that were given them as ids.
        """
        start = time.perf_counter()
        held = decoder.lengths
        logits = decoder.feed(embeds, lengths)
        self.stages.add("prefill", start)
        whole = [int(length) for length in held + lengths]
        sequences = self._decode(logits, decoder, options, prompts, whole)
        start = time.perf_counter()
        texts = [self.model.stops.cut(sequence.token_ids) for sequence in sequences]
        self.stages.add("detokenise", start)
        return sequences, texts

    def _decode(
        self,
        logits: np.ndarray,
        decoder: Decoder,
        options: search.Options,
        prompts: Sequence[Sequence[int]],
        lengths: Sequence[int],
    ) -> list[search.Sequence]:
        model, stops = self.model, self.model.stops
        stream = detokenizer.TextStream(
            model.tokenizer, stops.strings
        )  # of the one row, if it is told
        ends = bool(stops.strings) and not self.forced
        start, stepped, texts = time.perf_counter(), sum(self.step_ms), Stages()

        def stopped(_: int, ids: list[int]) -> bool:
            since = time.perf_counter()
            found = stops.reached(ids)
            texts.add("", since)
            return found

        def on_token(row: int, token: int) -> None:
            self.chosen()
            if self.joiner:
                since = time.perf_counter()
                self.joiner.push(stream.push(token))
                texts.add("", since)

        sequences = search.generate(
            logits,
            _Timed(decoder, self),
            options,
            eos_ids=frozenset() if self.forced else model.eos,
            stopped=stopped if ends else None,
            on_token=on_token,
            prompts=prompts,
            lengths=lengths,
        )
        self.chosen()
        whole = (time.perf_counter() - start) * 1e3
        steps, detokenised = sum(self.step_ms) - stepped, sum(texts.ms.values())
        self.stages.add_ms("steps", steps)
        self.stages.add_ms("choose", whole - steps - detokenised)
        self.stages.add_ms("detokenise", detokenised)
        if self.joiner:
            beams = options.num_beams > 1
            self.joiner.push(stops.cut(sequences[0].token_ids) if beams else stream.finish())
            self.joiner.end()
        return sequences

    def chosen(self) -> None:
        """A token was chosen; the first one counts."""
        self.first_ms = self.first_ms or (time.perf_counter() - self.began) * 1e3

    def timings(self) -> dict[str, float]:
        """Milliseconds by stage since the beginning, for an answer."""
        total = (time.perf_counter() - self.began) * 1e3
        fine = self.stages.ms  # the rest of it is for `alm bench`
        ms = {"load": self.model.load_ms} | {n: t for n, t in fine.items() if n not in FINER}
        ms["first_token"] = self.first_ms
        ms["per_token"] = sum(self.step_ms) / len(self.step_ms) if self.step_ms else 0.0
        ms["total"] = total
        return {stage: round(value, 3) for stage, value in ms.items()}


class _Timed:
    """A decoder whose steps are timed."""

    def __init__(self, decoder: Decoder, mouth: Mouth) -> None:
        self.decoder, self.mouth = decoder, mouth
        self.waiting = 0.0  # ms that the step to come took already

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """See `Decoder.step`."""
        self.mouth.chosen()
        start = time.perf_counter()
        logits = self.decoder.step(token_ids)
        self.mouth.step_ms.append((time.perf_counter() - start) * 1e3 + self.waiting)
        self.waiting = 0.0
        return logits

    def reorder(self, rows: np.ndarray) -> None:
        """See `Decoder.reorder`."""
        start = time.perf_counter()
        self.decoder.reorder(rows)
        self.waiting += (time.perf_counter() - start) * 1e3
