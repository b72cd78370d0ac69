"""A conversation: the KV cache is kept between turns, and only what is new is computed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from alm.audio import reader
from alm.audio.clips import Rules
from alm.decoding import search
from alm.errors import BadOption
from alm.generation import answers
from alm.generation.answers import Answer, Said
from alm.generation.history import History
from alm.generation.pipeline import Decoder, assemble, woven
from alm.generation.speech import Mouth
from alm.text import detokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from alm.audio.reader import Source
    from alm.generation.keywords import Decoding
    from alm.generation.model import Model


class Chat:
    """Turns about any number of clips; made by `Model.chat`.

    A turn that fails changes nothing: the conversation goes on after the one before it.

    A conversation is one line of turns. Threads may share a Chat: their turns are answered one
    after the other, in the order in which `ask` gets hold of it, and each sees all turns before it.
    For conversations side by side make a Chat for each; the Model may be shared by all.
    """

    def __init__(
        self,
        model: Model,
        truncate: bool,
        max_seconds: float,
        verbatim: bool = False,
        **options: Unpack[Decoding],
    ) -> None:
        model.options(**options)  # what contradicts itself is refused before anything is heard
        reader.check_options(model.manifest.audio["rate"], "first", max_seconds)
        self.verbatim = verbatim
        self._turn = threading.Lock()
        self._asking: int | None = None  # the thread whose turn it is
        self.model, self.truncate, self.max_seconds = model, truncate, max_seconds
        self.said, self.rules = options, Rules(model.manifest.audio)
        self.decoder = Decoder(model.decoder_session, model.decoder_part, model.table)
        self.turns = self.clips = 0
        self._held = 0  # positions in the cache
        self._history = History(model.manifest.dimensions)
        self._unfed: list[int] = []  # ids of the answer before that are not in the cache
        self._ids: list[int] = []  # of the positions in the cache

    def ask(
        self,
        prompt: str,
        *sources: Source,
        on_text: Callable[[str], None] | None = None,
        **options: Unpack[Decoding],
    ) -> Answer:
        """Answer the next turn; it waits until a turn that another thread asked is answered.

        Args:
            prompt: free text or a task's name; each `<audio>` in it is the place of a clip.
            sources: clips that are new in this turn, as `Model.generate` takes them; may be none.
            on_text: called with pieces of text as they become certain.
            options: fields of `decoding.Options` in the place of the conversation's.

        Returns:
            The answer; its `prompt_tokens` are those of the whole conversation before it, of which
            `cached_tokens` were not computed again.

        Raises:
            BadAudio, MissingFile, BadPrompt, BadOption: one sentence says what is wrong, such as a
                question that `on_text` asks while its own turn is still being answered.
        """
        if self._asking == threading.get_ident():
            raise BadOption("this turn is still being answered; ask the next one after it")
        with self._turn:
            self._asking = threading.get_ident()
            try:
                return self._answer(prompt, sources, on_text, options)
            finally:
                self._asking = None

    def _answer(
        self,
        prompt: str,
        sources: Sequence[Source],
        on_text: Callable[[str], None] | None,
        options: Decoding,
    ) -> Answer:
        mouth = Mouth(self.model, self.model.options(**{**self.said, **options}), on_text)
        start = time.perf_counter()
        built = self.model.prompter.build(
            prompt, len(sources), self.clips, not self.turns, self.verbatim
        )
        mouth.stages.add("prompt", start)
        if on_text:
            mouth.joiner = detokenizer.Joiner(on_text, "\n")
        clips = [self.rules.read(each, self.max_seconds, mouth.stages) for each in sources]
        heard = [self.rules.one(clip, self.truncate) for clip in clips]
        embeds, known = self.model.ear.hear([pcm for pcm, _ in heard], mouth.stages)
        start = time.perf_counter()
        row = [np.array(self._unfed, np.int64), *woven(built.pieces, embeds)]
        inputs, lengths = assemble(self.model.table, [row])
        held, whole = self._held, self._held + int(lengths[0])
        if self._history.restarts(held, whole):
            inputs, lengths = assemble(self.model.table, [[*self._history.row, *row]])
            held, whole = 0, int(lengths[0])
        mouth.stages.add("prompt", start)
        options_now, cut = mouth.fitted(whole)
        self._held = held
        ids = [*self._ids, *self._unfed, *self.model.prompter.ids(built, embeds)]
        sequence, answered = self._speak(mouth, inputs, lengths, options_now, ids)
        self._remember(sequence, whole, ids, options_now.num_beams)
        self._history.add(held, whole, row, sequence.token_ids[: self._held - whole])
        self.turns, self.clips = self.turns + 1, self.clips + len(clips)
        said = Said(
            asked=0,
            sequence=sequence,
            text=answered,
            prompt_tokens=whole,
            audio_tokens=sum(map(len, embeds)),
            audio_cached=sum(known),
            stop_reason=answers.reason(sequence, cut),
            cached_tokens=held,
        )
        notes, provider = self.rules.notes(clips, self.truncate), self.model.provider
        notes += [note for _, left_out in heard for note in left_out]
        return answers.join(clips, [said], "\n", notes, provider, mouth.timings())

    def _speak(
        self,
        mouth: Mouth,
        inputs: np.ndarray,
        lengths: np.ndarray,
        options: search.Options,
        ids: list[int],
    ) -> tuple[search.Sequence, str]:
        whole = self._held + inputs.shape[1]
        most = whole + options.most(whole)
        start = time.perf_counter()
        if self._held:
            self.decoder.room(most)
        else:
            self.decoder.start(1, most)
        mouth.stages.add("prefill", start)
        try:
            prompts = [ids] if self.model.prompter.by_ids else []
            sequences, texts = mouth.speak(self.decoder, inputs, lengths, options, prompts)
        except BaseException:  # whoever stopped it may ask again
            if self._held:
                self.decoder.cut(self._held)
            raise
        return sequences[0], texts[0]

    def _remember(
        self, sequence: search.Sequence, whole: int, prompt: list[int], beams: int
    ) -> None:
        """Leave the cache as the next turn wants it, and note what must still go in."""
        ids = self.model.stops.before(list(map(int, sequence.token_ids)))
        # With beams the first row is of another hypothesis; all share the prompt.
        fed = 0 if beams > 1 else min(len(ids), len(sequence.token_ids) - 1)
        self._held, self._ids = whole + fed, [*prompt, *ids[:fed]]
        self.decoder.cut(self._held)
        unfed = ids[fed:]
        self._unfed = unfed[:-1] if unfed and unfed[-1] in self.model.eos else unfed
