"""One call of `generate`: windows of audio in, answers out, every stage timed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alm import _answer, audio, decoding, text
from alm._answer import Answer, Said
from alm.errors import BadPrompt
from alm.pipeline import Decoder, Stages, assemble

if TYPE_CHECKING:
    from alm.model import Model

QUIET_SLACK = 2.0  # seconds before the latest cut in which the quietest place is sought
MOST_ROWS = 8  # windows encoded and decoded at a time when several clips come at once

# Stages that an answer's timings leave out: beside the others they are nothing.
FINER = ("prompt", "windows", "recall", "steps", "choose", "detokenise")


@dataclass(frozen=True)
class _Window:
    """A piece of a clip that fits the model, and the prompt to ask about it."""

    clip: int
    pcm: np.ndarray
    prompt: text.Prompt


class Run:
    """One call of `generate`."""

    def __init__(
        self,
        model: Model,
        options: decoding.Options,
        truncate: bool = False,
        max_seconds: float = audio.HOUR,
        on_text: Callable[[str], None] | None = None,
        forced: bool = False,
    ) -> None:
        """`forced`: nothing but `max_new_tokens` ends an answer, so that runs can be compared."""
        self.model, self.options = model, options
        self.truncate, self.max_seconds = truncate, max_seconds
        self.on_text, self.forced = on_text, forced
        self.joiner: text.Joiner | None = None
        self.stages = Stages()
        self.began = time.perf_counter()
        self.first_ms = 0.0  # from the beginning to the first token
        self.step_ms: list[float] = []  # of each step of the decoder, reordering of rows included

    def answer(self, sources: Sequence[Any], prompts: Sequence[str]) -> list[Answer]:
        """One answer a source."""
        start = time.perf_counter()
        built = [self.model.prompter.build(prompt) for prompt in prompts]
        self.stages.add("prompt", start)
        if self.on_text:
            self.joiner = text.Joiner(self.on_text, _separator(built[0]))
        rules = self.model.manifest.audio
        bound, told = self.max_seconds, self.stages.add
        clips = [
            audio.read(source, rules["rate"], rules["channel"], max_seconds=bound, told=told)
            for source in sources
        ]
        start = time.perf_counter()
        windows = [w for i, clip in enumerate(clips) for w in self._cut(i, clip, built[i])]
        self.stages.add("windows", start)
        # One clip is answered window after window, so that its text can be read as it comes.
        rows = 1 if len(sources) == 1 else MOST_ROWS
        said: list[Said] = []
        for at in range(0, len(windows), rows):
            said += self._say(windows[at : at + rows])
        timings = self._timings((time.perf_counter() - self.began) * 1e3)
        return [
            _answer.join(
                clip,
                [each for each in said if each.clip == i],
                _separator(built[i]),
                _answer.notes(clip, rules, self.truncate),
                self.model.provider,
                timings,
            )
            for i, clip in enumerate(clips)
        ]

    def _cut(self, number: int, clip: audio.Clip, prompt: text.Prompt) -> Iterator[_Window]:
        rules = self.model.manifest.audio
        most, pcm = int(rules["window_samples"]), clip.pcm
        if self.truncate:
            pcm = pcm[:most]
        slack = int(QUIET_SLACK * rules["rate"])
        for piece in audio.windows(len(pcm), most, pcm, slack):
            yield _Window(number, self._padded(pcm[piece]), prompt)

    def _padded(self, pcm: np.ndarray) -> np.ndarray:
        least = int(self.model.manifest.audio["least_samples"])
        return pcm if len(pcm) >= least else np.pad(pcm, (0, least - len(pcm)))

    def _say(self, windows: Sequence[_Window]) -> list[Said]:
        """Encode these windows and let the model speak, all rows at a time."""
        embeds, known = self.model.ear.hear([window.pcm for window in windows], self.stages)
        return self._speak(windows, embeds, known)

    def _speak(
        self, windows: Sequence[_Window], embeds: Sequence[np.ndarray], known: Sequence[bool]
    ) -> list[Said]:
        """Prompts around the audio, [n, hidden] a window, and what the model says to them."""
        start = time.perf_counter()
        rows = [(w.prompt.before, embeds[i], w.prompt.after) for i, w in enumerate(windows)]
        inputs, lengths = assemble(self.model.table, rows)
        self.stages.add("prompt", start)
        options, cut = self._fitted(int(lengths.max()))
        if cut and len(windows) > 1:  # each row has its own room, which a batch would share
            alone = [slice(i, i + 1) for i in range(len(windows))]
            return [s for i in alone for s in self._speak(windows[i], embeds[i], known[i])]
        start = time.perf_counter()
        decoder = Decoder(self.model.decoder_session, self.model.decoder_part, self.model.table)
        decoder.start(len(windows), inputs.shape[1] + options.max_new_tokens)
        logits = decoder.feed(inputs, lengths)
        self.stages.add("prefill", start)
        sequences = self._decode(logits, decoder, options)
        start = time.perf_counter()
        texts = [self.model.stops.cut(sequence.token_ids) for sequence in sequences]
        self.stages.add("detokenise", start)
        return [
            Said(
                clip=window.clip,
                sequence=sequence,
                text=texts[i],
                prompt_tokens=int(lengths[i]),
                audio_tokens=len(embeds[i]),
                audio_cached=known[i],
                stop_reason="context"
                if cut and sequence.stop_reason == "length"
                else sequence.stop_reason,
            )
            for i, (window, sequence) in enumerate(zip(windows, sequences, strict=True))
        ]

    def _fitted(self, prompt: int) -> tuple[decoding.Options, bool]:
        """The options for a prompt of so many tokens, and whether the context cut them."""
        context, options = int(self.model.manifest.dimensions["context"]), self.options
        room = context - prompt
        if room < 1:
            raise BadPrompt(
                f"the prompt is {prompt} tokens long with its audio, "
                f"and the model's context is {context}"
            )
        if options.max_new_tokens <= room:
            return options, False
        least = min(options.min_length, room)
        return dataclasses.replace(options, max_new_tokens=room, min_length=least), True

    def _decode(
        self, logits: np.ndarray, decoder: Decoder, options: decoding.Options
    ) -> list[decoding.Sequence]:
        model, stops = self.model, self.model.stops
        stream = text.TextStream(model.tokenizer, stops.strings)  # of the one row, if it is told
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

        sequences = decoding.generate(
            logits,
            _Timed(decoder, self),
            options,
            eos_ids=frozenset() if self.forced else model.eos,
            stopped=stopped if ends else None,
            on_token=on_token,
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

    def _timings(self, total: float) -> dict[str, float]:
        fine = self.stages.ms  # the rest of it is for `alm bench`
        ms = {"load": self.model.load_ms} | {n: t for n, t in fine.items() if n not in FINER}
        ms["first_token"] = self.first_ms
        ms["per_token"] = sum(self.step_ms) / len(self.step_ms) if self.step_ms else 0.0
        ms["total"] = total
        return {stage: round(value, 3) for stage, value in ms.items()}


def _separator(prompt: text.Prompt) -> str:
    return " " if prompt.joined else "\n"


class _Timed:
    """A decoder whose steps are timed."""

    def __init__(self, decoder: Decoder, run: Run) -> None:
        self.decoder, self.run = decoder, run
        self.waiting = 0.0  # ms that the step to come took already

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """See `Decoder.step`."""
        self.run.chosen()
        start = time.perf_counter()
        logits = self.decoder.step(token_ids)
        self.run.step_ms.append((time.perf_counter() - start) * 1e3 + self.waiting)
        self.waiting = 0.0
        return logits

    def reorder(self, rows: np.ndarray) -> None:
        """See `Decoder.reorder`."""
        start = time.perf_counter()
        self.decoder.reorder(rows)
        self.waiting += (time.perf_counter() - start) * 1e3
