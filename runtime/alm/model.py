"""A model on the device: audio and a prompt in, text out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import numpy as np

from alm import audio, backends, decoding, manifest, text, verify
from alm.backends._session import EngineOptions, Session
from alm.errors import BadArtifacts, BadOption, BadPrompt
from alm.pipeline import Decoder, Pipeline, Stages, Table, assemble, check_table, open_part

Audio = str | Path | np.ndarray | tuple[np.ndarray, int]

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


class Model:
    """Artifacts opened for use; made by `alm.load`."""

    def __init__(self, folder: Path, provider: str = "auto", threads: int = 0) -> None:
        start = time.perf_counter()
        self.folder = folder
        self.manifest = manifest.load(folder)
        self.provider = backends.choose(provider)
        self._whole()
        tokenizer = self.manifest.tokenizer
        assert tokenizer is not None
        path = verify.check_file(folder, tokenizer.name, tokenizer.bytes, tokenizer.sha256)
        self.tokenizer = text.load_tokenizer(path)
        self.prompter = text.Prompter(self.tokenizer, self.manifest.prompt, self.manifest.tokens)
        options = EngineOptions(self.provider, threads)
        graphs = [part for part in self.manifest.parts if part.role != "table"]
        with ThreadPoolExecutor(2) as pool:
            opened = pool.map(lambda part: open_part(folder, part, options), graphs)
            sessions = {part.name: s for part, s in zip(graphs, opened, strict=True)}
        self._connect(sessions)
        self.load_ms = (time.perf_counter() - start) * 1e3

    def _whole(self) -> None:
        """All that a run needs was exported."""
        said = self.manifest
        roles = {part.role for part in said.parts}
        names = ", ".join(part.name for part in said.parts) or "nothing"
        front = [part for part in said.parts if part.role not in ("table", "decoder")]
        lack = Pipeline(front, {}).lack(("pcm", "pcm_lengths"), ("audio_embeds",))
        if lack or not {"table", "decoder"} <= roles or said.tokenizer is None:
            why = f" ({lack})" if lack else ""
            raise BadArtifacts(
                f"{self.folder} holds only {names}, not a whole model{why}; "
                f"export the rest with: python export.py --model M --part all --out {self.folder}"
            )
        manifest.check_run(said, self.folder)
        try:
            self.options()
        except BadOption as error:
            raise BadArtifacts(
                f"the generation defaults of {self.folder / manifest.NAME}: {error}"
            ) from error

    def _connect(self, sessions: dict[str, Session]) -> None:
        said = self.manifest
        table, decoder = said.with_role("table")[0], said.with_role("decoder")[0]
        file = table.files[0]
        self.table = Table(verify.check_file(self.folder, file.name, file.bytes, file.sha256))
        check_table(self.table, said)
        front = [part for part in said.parts if part.role not in ("table", "decoder")]
        self._pipeline = Pipeline(front, sessions)
        self._decoder_session, self._decoder_part = sessions[decoder.name], decoder
        self._eos = frozenset(int(i) for i in said.tokens["eos"])
        self._stops = text.Stops(self.tokenizer, said.tokens.get("stop_strings", ()))

    @property
    def tasks(self) -> dict[str, str]:
        """Task names that stand for a prompt."""
        return dict(self.manifest.prompt["tasks"])

    # --- asking

    def options(self, **said: Any) -> decoding.Options:
        """Decoding options: the manifest's defaults with what is said in their place.

        `None` is as good as unsaid. Asking for a temperature above 0, top_k or top_p asks for
        sampling, temperature 0 for none. Sampling is done with one beam unless both are said.

        Raises:
            BadOption: out of range, contradicting each other, or unknown.
        """
        names = {f.name for f in dataclasses.fields(decoding.Options)}
        unknown = sorted(set(said) - names)
        if unknown:
            raise BadOption(f"unknown option {unknown[0]!r}; there is: {', '.join(sorted(names))}")
        said = {name: value for name, value in said.items() if value is not None}
        default = {n: v for n, v in self.manifest.generation.items() if n in names}
        if said.keys() & {"temperature", "top_k", "top_p"}:
            said.setdefault("do_sample", said.get("temperature") != 0)
        # A default must not forbid what was asked for.
        if "do_sample" not in said and said.get("num_beams", 1) != 1:
            said["do_sample"] = False
        chosen = default | said
        if chosen.get("do_sample") and "num_beams" not in said:
            chosen["num_beams"] = 1
        if "min_length" not in said and "max_new_tokens" in said:
            allowed = decoding.Options(max_new_tokens=said["max_new_tokens"]).max_new_tokens
            chosen["min_length"] = min(chosen.get("min_length", 0), allowed)
        return decoding.Options(**chosen)

    def generate(
        self,
        source: Audio | Sequence[Audio],
        prompt: str | Sequence[str],
        *,
        truncate: bool = False,
        max_audio_seconds: float = 3600.0,
        on_text: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Any:
        """Answer a prompt about a clip, or about each of several clips in one batch.

        Args:
            source: a file, samples at the model's rate, (samples, rate), or a list of those.
            prompt: free text or a task's name; for several clips one for all or one for each.
            truncate: answer only the first window of a longer clip, as the original does.
            max_audio_seconds: refuse longer audio before decoding it.
            on_text: called with pieces of text as they become certain (one clip only).
            options: fields of `decoding.Options`; the defaults are the manifest's.

        Returns:
            An Answer, or a list of them when `source` is a list.

        Raises:
            BadAudio, MissingFile, BadPrompt, BadOption: one sentence says what is wrong.
        """
        many = isinstance(source, list)
        sources: list[Any] = list(source) if many else [source]  # pyright: ignore
        prompts = [prompt] * len(sources) if isinstance(prompt, str) else list(prompt)
        if len(prompts) != len(sources):
            raise BadPrompt(f"there are {len(sources)} clips but {len(prompts)} prompts")
        if on_text and many:
            raise BadOption("on_text follows one clip, not a list of clips")
        chosen = self.options(**options)
        run = _Run(self, chosen, truncate, max_audio_seconds, on_text)
        answers = run.answer(sources, prompts)
        return answers if many else answers[0]

    def stream(self, source: Audio, prompt: str, **options: Any) -> Iterator[str]:
        """The same, one clip, as pieces of text; joined they are the answer's text.

        With beams the text is certain only at the end, and comes as one piece.
        """
        pieces: SimpleQueue[str | None] = SimpleQueue()
        unread = Event()

        def tell(piece: str) -> None:
            if unread.is_set():
                raise _Unread
            pieces.put(piece)

        def work() -> Answer:
            try:
                return self.generate(source, prompt, on_text=tell, **options)
            finally:
                pieces.put(None)

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(work)
            try:
                while (piece := pieces.get()) is not None:
                    yield piece
            finally:
                unread.set()  # whoever stops reading need not wait for the rest of the answer
            answer.result()


class _Unread(Exception):
    """Nobody reads the stream any more."""


class _Run:
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
        model = self.model
        lengths = np.array([len(w.pcm) for w in windows], np.int64)
        pcm = np.zeros((len(windows), int(lengths.max())), np.float32)
        for row, window in zip(pcm, windows, strict=True):
            row[: len(window.pcm)] = window.pcm
        tensors = model._pipeline.forward({"pcm": pcm, "pcm_lengths": lengths}, self.stages)
        embeds = tensors["audio_embeds"]

        start = time.perf_counter()
        rows = [(w.prompt.before, embeds[i], w.prompt.after) for i, w in enumerate(windows)]
        inputs, prompt_lengths = assemble(model.table, rows)
        longest, context = int(prompt_lengths.max()), int(model.manifest.dimensions["context"])
        room = context - longest
        if room < 1:
            raise BadPrompt(
                f"the prompt is {longest} tokens long with its audio, "
                f"and the model's context is {context}"
            )
        options = self.options
        if options.max_new_tokens > room:
            least = min(options.min_length, room)
            options = dataclasses.replace(options, max_new_tokens=room, min_length=least)
        decoder = Decoder(model._decoder_session, model._decoder_part, model.table)
        decoder.start(len(windows), longest + options.max_new_tokens)
        logits = decoder.feed(inputs, prompt_lengths)
        self.stages.add("prefill", start)
        sequences = self._decode(logits, decoder, options)
        cut_short = options.max_new_tokens < self.options.max_new_tokens
        return [
            _Said(
                clip=window.clip,
                sequence=sequence,
                text=model._stops.cut(sequence.token_ids),
                prompt_tokens=int(prompt_lengths[i]),
                audio_tokens=embeds.shape[1],
                stop_reason="context"
                if cut_short and sequence.stop_reason == "length"
                else sequence.stop_reason,
            )
            for i, (window, sequence) in enumerate(zip(windows, sequences, strict=True))
        ]

    def _decode(
        self, logits: np.ndarray, decoder: Decoder, options: decoding.Options
    ) -> list[decoding.Sequence]:
        model = self.model
        stops = model._stops
        stream = text.TextStream(model.tokenizer, stops.strings)  # of the one row, if it is told

        def on_token(row: int, token: int) -> None:
            self._first_token()
            if self.joiner:
                self.joiner.push(stream.push(token))

        sequences = decoding.generate(
            logits,
            _Timed(decoder, self),
            options,
            eos_ids=model._eos,
            stopped=(lambda _, ids: stops.reached(ids)) if stops.strings else None,
            on_token=on_token,
        )
        self._first_token()
        if self.joiner:
            beams = options.num_beams > 1
            self.joiner.push(stops.cut(sequences[0].token_ids) if beams else stream.finish())
            self.joiner.end()
        return sequences

    def _first_token(self) -> None:
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

    def __init__(self, decoder: Decoder, run: _Run) -> None:
        self.decoder, self.run = decoder, run

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """See `Decoder.step`."""
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
