"""One call of `generate`: prompts about clips in, answers out, every stage timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alm.audio import reader
from alm.audio.clips import Rules
from alm.decoding import search
from alm.generation import answers
from alm.generation.answers import Answer, Said
from alm.generation.audio_cache import MOST_ROWS
from alm.generation.pipeline import Decoder, assemble, woven
from alm.generation.speech import Mouth
from alm.text import detokenizer
from alm.text.prompt import Prompt

if TYPE_CHECKING:
    from alm.generation.model import Model


@dataclass(frozen=True)
class _Row:
    """What is answered at once: a prompt and its clips, or one window of its only clip."""

    asked: int  # the prompt's place in the call
    pcms: list[np.ndarray]
    prompt: Prompt


class Run(Mouth):
    """One call of `generate`."""

    def __init__(
        self,
        model: Model,
        options: search.Options,
        truncate: bool = False,
        max_seconds: float = reader.HOUR,
        on_text: Callable[[str], None] | None = None,
        forced: bool = False,
        verbatim: bool = False,
    ) -> None:
        super().__init__(model, options, on_text, forced)
        self.verbatim = verbatim
        self.truncate, self.max_seconds = truncate, max_seconds
        self.rules = Rules(model.manifest.audio)
        self._left_out: list[list[str]] = []  # of each prompt's clips, as notes

    def answer(self, asked: Sequence[Sequence[Any]], prompts: Sequence[str]) -> list[Answer]:
        """One answer to each prompt about its sources."""
        start = time.perf_counter()
        build, verbatim = self.model.prompter.build, self.verbatim
        built = [
            build(prompt, len(own), verbatim=verbatim)
            for prompt, own in zip(prompts, asked, strict=True)
        ]
        self.stages.add("prompt", start)
        if self.on_text:
            self.joiner = detokenizer.Joiner(self.on_text, _separator(built[0]))
        read = self.rules.read
        clips = [[read(each, self.max_seconds, self.stages) for each in own] for own in asked]
        start = time.perf_counter()
        self._left_out = [[] for _ in asked]
        rows = [row for i, own in enumerate(clips) for row in self._rows(i, own, built[i])]
        self.stages.add("windows", start)
        # One clip is answered window after window, so that its text can be read as it comes.
        most = 1 if len(asked) == 1 else MOST_ROWS
        said: list[Said] = []
        for at in range(0, len(rows), most):
            said += self._say(rows[at : at + most])
        timings = self.timings()
        return [
            answers.join(
                own,
                [each for each in said if each.asked == i],
                _separator(built[i]),
                self.rules.notes(own, self.truncate) + self._left_out[i],
                self.model.provider,
                timings,
            )
            for i, own in enumerate(clips)
        ]

    def _rows(self, asked: int, clips: Sequence[reader.Clip], prompt: Prompt) -> Iterator[_Row]:
        notes = self._left_out[asked]
        if len(clips) == 1:
            pieces, left_out = self.rules.windows(clips[0], self.truncate, prompt.joined)
            notes += left_out
            yield from (_Row(asked, [pcm], prompt) for pcm in pieces)
            return
        pcms: list[np.ndarray] = []
        for clip in clips:
            pcm, left_out = self.rules.one(clip, self.truncate)
            pcms.append(pcm)
            notes += left_out
        yield _Row(asked, pcms, prompt)

    def _say(self, rows: Sequence[_Row]) -> list[Said]:
        """Encode the clips of these rows and let the model speak, all rows at a time."""
        embeds, known = self.model.ear.hear([pcm for row in rows for pcm in row.pcms], self.stages)
        ends = np.cumsum([len(row.pcms) for row in rows])[:-1].tolist()
        cuts = list(zip([0, *ends], [*ends, len(embeds)], strict=True))
        return self._speak(rows, [embeds[a:b] for a, b in cuts], [sum(known[a:b]) for a, b in cuts])

    def _speak(
        self, rows: Sequence[_Row], embeds: Sequence[list[np.ndarray]], known: Sequence[int]
    ) -> list[Said]:
        """Prompts around the audio, [n, hidden] a clip, and what the model says to them."""
        start, model = time.perf_counter(), self.model
        woven_rows = [woven(row.prompt.pieces, embeds[i]) for i, row in enumerate(rows)]
        inputs, lengths = assemble(model.table, woven_rows)
        self.stages.add("prompt", start)
        options, cut = self.fitted(int(lengths.max()))
        if cut and len(rows) > 1:  # each row has its own room, which a batch would share
            alone = [slice(i, i + 1) for i in range(len(rows))]
            return [s for i in alone for s in self._speak(rows[i], embeds[i], known[i])]
        start = time.perf_counter()
        decoder = Decoder(model.decoder_session, model.decoder_part, model.table)
        most = max(int(length) + options.most(int(length)) for length in lengths)
        decoder.start(len(rows), max(most, inputs.shape[1]))
        self.stages.add("prefill", start)
        ids = model.prompter.ids
        prompts = [ids(row.prompt, embeds[i]) for i, row in enumerate(rows)]
        sequences, texts = self.speak(
            decoder, inputs, lengths, options, prompts if model.prompter.by_ids else ()
        )
        return [
            Said(
                asked=row.asked,
                sequence=sequence,
                text=texts[i],
                prompt_tokens=int(lengths[i]),
                audio_tokens=sum(map(len, embeds[i])),
                audio_cached=known[i],
                stop_reason=answers.reason(sequence, cut),
            )
            for i, (row, sequence) in enumerate(zip(rows, sequences, strict=True))
        ]


def _separator(prompt: Prompt) -> str:
    return " " if prompt.joined else "\n"
