"""One call of `generate`: windows of audio in, answers out, every stage timed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from alm import audio, decoding, text
from alm.errors import BadPrompt
from alm.pipeline import Decoder, Stages, assemble

if TYPE_CHECKING:
    from alm.model import Model

QUIET_SLACK = 2.0  # seconds before the latest cut in which the quietest place is sought
MOST_ROWS = 8  # windows encoded and decoded at a time when several clips come at once


@dataclass(frozen=True)
class Answer:
    """What the model said to one clip.

    A clip longer than the model's window is answered window by window: `token_ids` are then those
    of all windows, `text` is joined, and `windows` counts them.
    """

    text: str
    token_ids: list[int]
    stop_reason: str  # eos, stop_string, length (of what was asked for) or context (of the model)
    audio_seconds: float
    audio_tokens: int
    prompt_tokens: int
    windows: int
    provider: str
    timings_ms: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The answer as plain data."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class _Window:
    """A piece of a clip that fits the model, and the prompt to ask about it."""

    clip: int
    pcm: np.ndarray
    prompt: text.Prompt


@dataclass(frozen=True)
class _Said:
    """What was said to one window."""

    clip: int
    sequence: decoding.Sequence
    text: str
    prompt_tokens: int
    audio_tokens: int
    stop_reason: str


class Run:
    """One call of `generate`."""

    def __init__(
        self,
        model: Model,
        options: decoding.Options,
        truncate: bool,
        max_seconds: float,
        on_text: Callable[[str], None] | None,
    ) -> None:
        self.model, self.options = model, options
        self.truncate, self.max_seconds = truncate, max_seconds
        self.on_text = on_text
        self.joiner: text.Joiner | None = None
        self.stages = Stages()
        self.began = time.perf_counter()
        self.steps = 0
        self.stepping_ms = 0.0

    def answer(self, sources: Sequence[Any], prompts: Sequence[str]) -> list[Answer]:
        """One answer a source."""
        rules = self.model.manifest.audio
        built = [self.model.prompter.build(prompt) for prompt in prompts]
        if self.on_text:
            self.joiner = text.Joiner(self.on_text, _separator(built[0]))
        start = time.perf_counter()
        clips = [
            audio.read(source, rules["rate"], rules["channel"], max_seconds=self.max_seconds)
            for source in sources
        ]
        self.stages.add("decode_audio", start)
        windows = [w for i, clip in enumerate(clips) for w in self._cut(i, clip, built[i])]
        # One clip is answered window after window, so that its text can be read as it comes.
        rows = 1 if len(sources) == 1 else MOST_ROWS
        said: list[_Said] = []
        for at in range(0, len(windows), rows):
            said += self._say(windows[at : at + rows])
        total = (time.perf_counter() - self.began) * 1e3
        timings = self._timings(total)
        return [
            self._joined(clip, _separator(built[i]), [s for s in said if s.clip == i], timings)
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

    def _say(self, windows: Sequence[_Window]) -> list[_Said]:
        """Encode these windows and let the model speak, all rows at a time."""
        lengths = np.array([len(w.pcm) for w in windows], np.int64)
        pcm = np.zeros((len(windows), int(lengths.max())), np.float32)
        for row, window in zip(pcm, windows, strict=True):
            row[: len(window.pcm)] = window.pcm
        feeds = {"pcm": pcm, "pcm_lengths": lengths}
        embeds = self.model.pipeline.forward(feeds, self.stages)["audio_embeds"]
        return self._speak(windows, embeds)

    def _speak(self, windows: Sequence[_Window], embeds: np.ndarray) -> list[_Said]:
        """Prompts around the audio [rows, n, hidden], and what the model says to them."""
        start = time.perf_counter()
        rows = [(w.prompt.before, embeds[i], w.prompt.after) for i, w in enumerate(windows)]
        inputs, lengths = assemble(self.model.table, rows)
        options, cut = self._fitted(int(lengths.max()))
        if cut and len(windows) > 1:  # each row has its own room, which a batch would share
            alone = range(len(windows))
            return [s for i in alone for s in self._speak(windows[i : i + 1], embeds[i : i + 1])]
        decoder = Decoder(self.model.decoder_session, self.model.decoder_part, self.model.table)
        decoder.start(len(windows), inputs.shape[1] + options.max_new_tokens)
        logits = decoder.feed(inputs, lengths)
        self.stages.add("prefill", start)
        sequences = self._decode(logits, decoder, options)
        return [
            _Said(
                clip=window.clip,
                sequence=sequence,
                text=self.model.stops.cut(sequence.token_ids),
                prompt_tokens=int(length),
                audio_tokens=embeds.shape[1],
                stop_reason="context"
                if cut and sequence.stop_reason == "length"
                else sequence.stop_reason,
            )
            for window, sequence, length in zip(windows, sequences, lengths, strict=True)
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
        model = self.model
        stops = model.stops
        stream = text.TextStream(model.tokenizer, stops.strings)  # of the one row, if it is told

        def on_token(row: int, token: int) -> None:
            self.chosen()
            if self.joiner:
                self.joiner.push(stream.push(token))

        sequences = decoding.generate(
            logits,
            _Timed(decoder, self),
            options,
            eos_ids=model.eos,
            stopped=(lambda _, ids: stops.reached(ids)) if stops.strings else None,
            on_token=on_token,
        )
        self.chosen()
        if self.joiner:
            beams = options.num_beams > 1
            self.joiner.push(stops.cut(sequences[0].token_ids) if beams else stream.finish())
            self.joiner.end()
        return sequences

    def chosen(self) -> None:
        """A token was chosen; the first one counts."""
        if "first_token" not in self.stages.ms:
            self.stages.ms["first_token"] = (time.perf_counter() - self.began) * 1e3

    def _timings(self, total: float) -> dict[str, float]:
        ms = {"load": self.model.load_ms} | self.stages.ms
        ms["per_token"] = self.stepping_ms / self.steps if self.steps else 0.0
        ms["total"] = total
        return {stage: round(value, 3) for stage, value in ms.items()}

    def _joined(
        self,
        clip: audio.Clip,
        separator: str,
        said: Sequence[_Said],
        timings: dict[str, float],
    ) -> Answer:
        rules = self.model.manifest.audio
        notes: list[str] = []
        if clip.seconds * rules["rate"] < rules["least_samples"]:
            least = rules["least_samples"] / rules["rate"]
            notes.append(f"{clip.seconds:.3g} s of audio were padded with silence to {least:g} s")
        window = rules["window_samples"] / rules["rate"]
        if self.truncate and clip.seconds > window:
            notes.append(f"only the first {window:g} s of {clip.seconds:.1f} s were heard")
        parts = [s.text.strip() for s in said]
        return Answer(
            text=separator.join(part for part in parts if part),
            token_ids=[int(i) for s in said for i in s.sequence.token_ids],
            stop_reason=said[-1].stop_reason,
            audio_seconds=round(clip.seconds, 4),
            audio_tokens=sum(s.audio_tokens for s in said),
            prompt_tokens=sum(s.prompt_tokens for s in said),
            windows=len(said),
            provider=self.model.provider,
            timings_ms=timings,
            notes=tuple(notes),
        )


def _separator(prompt: text.Prompt) -> str:
    return " " if prompt.joined else "\n"


class _Timed:
    """A decoder whose steps are counted and timed."""

    def __init__(self, decoder: Decoder, run: Run) -> None:
        self.decoder, self.run = decoder, run

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """See `Decoder.step`."""
        self.run.chosen()
        start = time.perf_counter()
        logits = self.decoder.step(token_ids)
        self.run.steps += 1
        self.run.stepping_ms += (time.perf_counter() - start) * 1e3
        return logits

    def reorder(self, rows: np.ndarray) -> None:
        """See `Decoder.reorder`."""
        start = time.perf_counter()
        self.decoder.reorder(rows)
        self.run.stepping_ms += (time.perf_counter() - start) * 1e3
