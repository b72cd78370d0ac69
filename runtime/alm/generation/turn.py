"""From prompts and clips to answers: the one way in which a model is asked, every stage timed."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from alm.adapters.adapter import NONE, Adapter
from alm.audio import reader
from alm.cache.audio import MOST_ROWS
from alm.decoder.decoder import MOST_TOGETHER, Decoder, woven
from alm.decoding import steps
from alm.decoding.options import Options
from alm.decoding.run import Run
from alm.drafting.verified import Verified
from alm.errors import BadPrompt
from alm.generation import answers
from alm.generation.answers import Answer, Row, WindowAnswer
from alm.generation.answers import Question as Question
from alm.generation.drafts import Drafting, drafts_of
from alm.generation.keywords import InputOptions
from alm.generation.parts import Parts
from alm.generation.past import Feed, Past
from alm.grammar.wanted import Wanted
from alm.live.stepping import Beside
from alm.ports import DELAY
from alm.text.detokenizer import Joiner, Stops, TextStream
from alm.text.prompt import Prompt
from alm.text.reading import ReadingStream, read
from alm.timings import Times, ahead
from alm.voice.gate import Gate


class Turn:
    """Questions answered at once, with options that hold for all of them."""

    def __init__(
        self,
        parts: Parts,
        options: Options,
        inputs: InputOptions,
        times: Times,
        listening: bool,
        drafting: Drafting | None,
        adapter: Adapter = NONE,
    ) -> None:
        """With `listening` pieces of text are yielded; then there is one question."""
        self.adapter = adapter
        self.parts, self.options, self.inputs, self.times = parts, options, inputs, times
        self.listening = self.streams = listening
        parts.check_merging(inputs.merge_audio)
        self.delay = parts.delay(inputs.delay)  # in steps, of models that have them
        self.drafts = drafts_of(drafting, parts, options, inputs.hypothesis)
        self._joiner = Joiner("")
        self.stops = parts.stops.also(inputs.stop)

    def answers(
        self, questions: Sequence[Question], past: Past | None
    ) -> Generator[str, None, list[Answer]]:
        """Yield pieces of text as they become certain; gives an answer to each question.

        Args:
            questions: one, or without a past any number of them.
            past: the conversation, which remembers the turn. Without one every row begins anew,
                and a clip longer than the model's window is answered window by window.

        Raises:
            BadAudio, MissingFile, BadPrompt, BadOption, UnknownName: see `Model.generate`.
        """
        self.wanted = Wanted(self.inputs.forms, len(questions), self.parts)
        prompts = self.prompts(questions, past)
        clips = [[self.read(source) for source in question.sources] for question in questions]
        start = time.perf_counter()
        left_out: list[list[str]] = [[] for _ in questions]  # as notes
        rows = [
            row
            for i, question_clips in enumerate(clips)
            for row in self.rows(i, prompts[i], question_clips, past is None, left_out[i])
        ]
        gate = Gate(self.inputs.gate, self.parts.rules.rate, past is not None)
        asked = answers.heard(rows, gate, self.parts.prompter.facts, self.inputs.verbatim)
        self.wanted.check([row.question for row in asked])
        self.times.add("windows", start)
        seams = any(row.piece and row.piece.overlap for row in rows)
        self.streams = self.listening and not seams  # a window's end is certain after the next
        if self.streams:
            self._joiner = Joiner(answers.separator(prompts[0]))
        # One clip is answered window after window, so that its text can be read as it comes.
        most = 1 if len(questions) == 1 else MOST_ROWS
        answered: list[WindowAnswer] = []
        batches = [asked[at : at + most] for at in range(0, len(asked), most)]
        for batch in ahead(batches, self.encode, self.parts.pipeline.at_once > 1, self.times):
            answered += yield from self._generated(batch, past)
        answered = [
            self._timed(row, window, left_out[row.question])
            for row, window in zip(rows, answers.in_order(rows, answered), strict=True)
        ]
        timings = self.times.of_answer(self.parts.load_ms)
        made = [
            answers.join(
                question_clips,
                [window for window in answered if window.question == i],
                answers.separator(prompts[i]),
                self.parts.rules.notes(question_clips, self.inputs.truncate) + left_out[i],
                self.parts.provider,
                timings,
            )
            for i, question_clips in enumerate(clips)
        ]
        if seams and self.listening and made[0].text:
            yield made[0].text
        return made

    def prompts(self, questions: Sequence[Question], past: Past | None) -> list[Prompt]:
        start, build = time.perf_counter(), self.parts.prompter.build
        earlier, first = (past.clips, not past.turns) if past else (0, True)
        inputs = self.inputs
        ways = (earlier, first, inputs.verbatim, inputs.language, inputs.system)
        prompts = [build(asked.prompt, len(asked.sources), *ways) for asked in questions]
        if stepping := self.parts.stepping:
            stepping.asked([prompt.pieces for prompt in prompts])
        self.times.add("prompt", start)
        return prompts

    def read(self, source: reader.Source) -> reader.Clip:
        return self.parts.rules.read(source, self.inputs.max_audio_seconds, self.times)

    def rows(
        self,
        question: int,
        prompt: Prompt,
        clips: Sequence[reader.Clip],
        windows: bool,
        left_out: list[str],
    ) -> Iterator[Row]:
        rules, truncate = self.parts.rules, self.inputs.truncate
        if windows and len(clips) == 1:
            names = self.parts.prompter.spoken.names  # and times, which no seam may part
            joins = prompt.joined, self.inputs.joins, not names
            pieces, notes = rules.windows(clips[0], truncate, *joins)
            left_out += notes
            if len(pieces) > 1 and names:
                left_out.append(f"each of the {len(pieces)} pieces numbers its speakers anew")
            yield from (Row(question, prompt, [piece.pcm], piece) for piece in pieces)
            return
        pcms: list[np.ndarray] = []
        for clip in clips:
            pcm, notes = rules.one(clip, truncate)
            pcms.append(pcm)
            left_out += notes
        yield Row(question, prompt, pcms)

    def _timed(self, row: Row, window: WindowAnswer, notes: list[str]) -> WindowAnswer:
        if not row.piece or not (text := window.text.strip()):
            return window
        segments, faults = self.parts.segments(row.piece, text, self.times)
        notes += [fault for fault in faults if fault not in notes]
        return replace(window, segments=segments)

    def encode(self, rows: Sequence[Row]) -> None:
        """Give these rows the embeddings of their clips."""
        pcms = [pcm for row in rows for pcm in row.pcms]
        if stepping := self.parts.stepping:
            pcms = [stepping.padded(pcm, self.delay) for pcm in pcms]
        embeds, known = self.parts.audio_encoder.encode(pcms, self.times, self.adapter)
        pairs = zip(embeds, known, strict=True)
        for row in rows:
            of_row = list(islice(pairs, len(row.pcms)))
            row.embeds = [array for array, _ in of_row]
            row.cached = sum(hit for _, hit in of_row)
            row.merge(self.inputs.merge_audio)

    def _generated(
        self, rows: Sequence[Row], past: Past | None
    ) -> Generator[str, None, list[WindowAnswer]]:
        """The model's answers to these prompts around their audio."""
        start, parts = time.perf_counter(), self.parts
        begun = past or Past(parts, self.adapter)
        feed, stepping = self.fed(begun, rows), parts.stepping
        self.times.add("prompt", start)
        options, cut = self.fitted(max(feed.whole), rows[0])
        # Each row has its own room, which a batch would share, and is fed in its own chunks.
        apart = cut or max(feed.whole) > MOST_TOGETHER or stepping
        if apart and len(rows) > 1:
            alone: list[WindowAnswer] = []
            for row in rows:
                alone += yield from self._generated([row], past)
            return alone
        asked = [(row.question, row.prompt.begun) for row in rows]
        grammar, stops = self.wanted.following(asked, options), self.wanted.stops(self.stops)
        start = time.perf_counter()
        most = max(whole + options.most(whole) for whole in feed.whole)
        decoder = begun.open(feed, max(most, *feed.whole))
        self.times.add("prefill", start)
        ids = parts.prompter.ids
        by_ids = rows if parts.prompter.by_ids else ()
        prompts = [[*begun.ids, *ids(row.prompt, row.embeds)] for row in by_ids]
        says: Decoder | Beside | Verified = decoder
        verified = None
        if self.drafts and len(rows) == 1:
            start = time.perf_counter()
            room = most, options.most(feed.whole[0])
            verified = says = self.drafts.over(decoder, rows[0].prompt, rows[0].pcms, room)
            self.times.add("draft", start)
        if stepping:
            says, prompts = Beside(decoder, rows[0].embeds[0]), [stepping.prompt(self.delay)]
            decoder.told(**{DELAY: self.delay})
        try:
            stream = self._stream(rows[0].prompt, stops)
            run = Run(options, parts.eos, stops, self.times, grammar)
            joiner = self._joiner if self.streams else None
            new = feed.embeds, feed.lengths, feed.whole
            sequences, texts = yield from run.answers(says, *new, prompts, stream, joiner)
        except BaseException:  # whoever stopped it may ask again
            begun.forget()
            decoder.done()
            raise
        drafted = verified.drafted() if verified else (0, 0)
        begun.keep_prefix(feed)
        if past:
            before = prompts[0] if prompts else []
            followed = options.num_beams == 1
            past.remember(feed, sequences[0], rows[0].prompt, before, stops, followed)
        decoder.done()
        of_rows = zip(rows, sequences, texts, feed.whole, strict=True)
        answered = [self._answer(row, feed, drafted, cut, s, t, n) for row, s, t, n in of_rows]
        if not grammar:
            return answered
        lacks = [grammar.lack(i, ended.token_ids, parts.eos) for i, ended in enumerate(sequences)]
        return [replace(one, lacks=lack) for one, lack in zip(answered, lacks, strict=True)]

    def _answer(
        self,
        row: Row,
        feed: Feed,
        drafted: tuple[int, int],
        cut: str,
        sequence: steps.Sequence,
        text: str,
        whole: int,
    ) -> WindowAnswer:
        """A row's answer; `drafted` counts tokens that were proposed and taken, `whole` prompts."""
        reading = read(text, self.parts.prompter, row.prompt)
        return WindowAnswer(
            question=row.question,
            sequence=sequence,
            text=reading.words,
            thinking=reading.thinking,
            prompt_tokens=whole,
            audio_tokens=sum(map(len, row.embeds)),
            audio_cached=row.cached,
            audio_merged=row.merged,
            merge_cosine=row.cosine,
            drafted_tokens=drafted[0],
            accepted_tokens=drafted[1],
            stop_reason=answers.reason(sequence, cut),
            cached_tokens=feed.held,
            prefix_tokens=feed.shared,
            language=reading.language or row.prompt.language,
        )

    def fed(self, begun: Past, rows: Sequence[Row]) -> Feed:
        """What the prompts put into the cache."""
        if not (stepping := self.parts.stepping):
            markers = self.parts.prompter.markers
            return begun.feed([woven(row.prompt.pieces, row.embeds, markers) for row in rows])
        ids = np.array(stepping.prompt(self.delay), np.int64)
        feed = begun.feed([[ids] for _ in rows])
        audio = np.stack([row.embeds[0][: len(ids)] for row in rows])
        return replace(feed, embeds=feed.embeds + audio)

    def fitted(self, prompt: int, row: Row) -> tuple[Options, str]:
        """The options for a prompt of so many tokens, and what cut them: context, audio or "".

        Raises:
            BadPrompt: it leaves no room for an answer.
        """
        context, options = self.parts.manifest.facts.dimensions.context, self.options
        room, cuts = context - prompt, "context"
        if self.parts.stepping and (steps := len(row.embeds[0])) < context:
            room, cuts = steps - prompt, "audio"  # a token for each step of sound
        if room < 1:
            raise BadPrompt(
                f"the prompt is {prompt} tokens long with its audio, "
                f"and the model's context is {context}"
            )
        if options.most(prompt) <= room:
            return options, ""
        return options.within(room, prompt), cuts

    def _stream(self, prompt: Prompt, stops: Stops) -> ReadingStream:
        """What makes text of the one row's tokens, if it is yielded."""
        text = TextStream(self.parts.tokenizer, stops.strings)
        return ReadingStream(text, self.parts.prompter, prompt, self.inputs.show_thinking)
