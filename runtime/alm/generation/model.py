"""A model on the device: audio and a prompt in, text out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from alm.artifacts.manifest import Manifest
from alm.audio import reader
from alm.cache.audio import MOST_BYTES, Forward
from alm.decoding.options import Options
from alm.errors import BadOption, BadPrompt
from alm.generation import drafts, keywords
from alm.generation.answers import Answer
from alm.generation.conversation import Conversation, finish
from alm.generation.parts import Parts
from alm.generation.turn import Question
from alm.hearing.ears import Clips, Ear, Streams
from alm.hearing.listener import EVERY, WAITING, Listener
from alm.hearing.utterances import LONGEST, cut
from alm.voice.activity import Settings

PAUSES = Settings()

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from alm.generation.keywords import Decoding, Generating
    from alm.live.live import Live

Audio = reader.Source


class Model:
    """Artifacts opened for use; made by `alm.load`.

    Threads may share it: a call of `generate` or `stream` keeps what it works on to itself, and
    gives in any thread what it gives alone. A `Conversation` is one line of turns; see there.
    """

    def __init__(
        self,
        folder: Path,
        provider: str = "auto",
        threads: int = 0,
        audio_cache: int = MOST_BYTES,
        cache: Path | None = None,
        draft: str | Path | None = None,
        together: int = 1,
        front: Forward | None = None,
    ) -> None:
        """See `alm.load`."""
        more: Any = {"cache": cache, "together": together, "front": front}
        self.parts = Parts(folder, provider, threads, audio_cache, **more)
        self.drafting = None if draft is None else drafts.opened(draft, self.parts, threads)

    @property
    def folder(self) -> Path:
        """What was loaded."""
        return self.parts.folder

    @property
    def manifest(self) -> Manifest:
        """The folder's manifest."""
        return self.parts.manifest

    @property
    def provider(self) -> str:
        """The backend's provider that runs the graphs."""
        return self.parts.provider

    @property
    def tasks(self) -> dict[str, str]:
        """Task names that stand for a prompt."""
        return self.manifest.tasks

    def options(self, **given: Unpack[Decoding]) -> Options:
        """Decoding options: the manifest's defaults with what is given in their place.

        Asking for a temperature above 0, or for anything that only sampling heeds, asks for
        sampling, temperature 0 for none; see `decoding.options.choose`.

        Raises:
            BadOption: out of range, contradicting each other, or unknown.
        """
        return self.parts.options(given)

    @overload
    def generate(
        self,
        source: Audio,
        prompt: str,
        *,
        on_text: Callable[[str], None] | None = None,
        **options: Unpack[Generating],
    ) -> Answer: ...

    @overload
    def generate(
        self,
        source: Sequence[Audio | Sequence[Audio]],
        prompt: str | Sequence[str],
        *,
        on_text: Callable[[str], None] | None = None,
        **options: Unpack[Generating],
    ) -> list[Answer]: ...

    def generate(
        self,
        source: Audio | Sequence[Audio | Sequence[Audio]],
        prompt: str | Sequence[str],
        *,
        on_text: Callable[[str], None] | None = None,
        **options: Unpack[Generating],
    ) -> Answer | list[Answer]:
        """Answer a prompt about a clip, or several prompts about clips in one batch.

        Args:
            source: a file as a path, as its bytes or opened for reading bytes; samples at the
                model's rate; the tuple (samples, rate); or a list or tuple of those, which is a
                batch, and an item of it may itself be a list or tuple, of the clips of one prompt.
            prompt: free text or a task's name, for a batch one for all or one for each; `<audio>`
                in it is the place of a clip, without any they go where the model's own are.
            on_text: called with pieces of text as they become certain (one prompt only).
            options: `truncate`, to answer only the first window of a longer clip, as the original
                does; `max_audio_seconds`, at most a day, to refuse longer audio before decoding it
                (default: an hour); `verbatim`, to take the prompt as text, even where it is a
                task's name or nearly one; `show_thinking`, to stream what a model thinks before
                its answer too; `merge_audio`, to give the decoder so many percent of a clip's
                embeddings, the likest neighbours averaged; `gate`, not to ask about sound in which
                nobody speaks (None: only for transcripts); `joins`, "quiet" to cut a long clip in
                pauses for a transcript; `hypothesis`, a text that the answer is likely to repeat,
                which makes it faster; `adapter`, the name of a LoRA of the folder or a
                peft folder, for this answer alone; `stop`, texts that end it; `system`, a message
                before the conversation; `schema`, `grammar` or `regex`, what the answer must
                follow, or of a batch a list of them (docs/structured.md); and the fields of
                `alm.Options`, whose defaults are the manifest's.

        Returns:
            An Answer, or a list of them when `source` is a batch.

        Raises:
            BadAudio, MissingFile, BadPrompt, BadOption: one sentence says what is wrong.
            UnknownName: a prompt of one word that is nearly a task's name.
        """
        many = _is_batch(source)
        questions = _questions(list(source) if many else [source], prompt, many)  # pyright: ignore
        if on_text and len(questions) > 1:
            raise BadOption("on_text follows one prompt, not several")
        answers = finish(
            self.chat(**options).turn(questions, listening=on_text is not None), on_text
        )
        return answers if many else answers[0]

    def stream(
        self, source: Audio, prompt: str, **options: Unpack[Generating]
    ) -> Generator[str, None, None]:
        """As `generate` with one clip, in pieces of text; joined they are the answer's text.

        Nothing is done before the first piece is asked for. Whoever leaves it half-way or closes it
        ends the answer; the next call is answered as ever. With beams the text is certain only at
        the end, and comes as one piece.
        """
        many = _is_batch(source)
        questions = _questions(list(source) if many else [source], prompt, many)  # pyright: ignore
        if len(questions) > 1:
            raise BadOption("a stream follows one prompt, not several")
        yield from self.chat(**options).turn(questions, listening=True)

    def chat(self, **options: Unpack[Generating]) -> Conversation:
        """A conversation about any number of clips; see `Conversation.ask`.

        Args:
            options: of all its turns, as `generate` takes them.
        """
        return Conversation(self.parts, *keywords.split(options), self.drafting)

    def live(self, *, delay: float | None = None, **options: Unpack[Decoding]) -> Live:
        """A live run: samples go in as they come, text comes out as it becomes certain.

        Args:
            delay: milliseconds by which words follow their sound; as the checkpoint says where none
                is given.
            options: as `generate` takes them; there is no length but one that is asked for.

        Raises:
            BadOption: the model hears clips and no stream, or an option that a stream cannot have.
        """
        return self.parts.live(delay, dict(options))

    def listen(
        self,
        prompt: str = "transcribe",
        *,
        pauses: Settings | None = PAUSES,
        every: float = EVERY,
        waiting: float = WAITING,
        **options: Unpack[Generating],
    ) -> Listener:
        """Listen to somebody: sound goes in as it comes, what was said comes out as events.

        Every model can: one that hears clips hears an utterance again and again while it goes on.

        Args:
            prompt: what is asked about each utterance: a task's name, or free text.
            pauses: what is an utterance; one that goes on is cut where it is quietest before it is
                longer than the model's window, or than 30 s. None: `Listener.commit` ends them.
            every: seconds of sound between two partials, at least.
            waiting: seconds of speech that may wait for the model.
            options: as `generate` takes them. A partial text is the `hypothesis` of the next.

        Raises:
            BadPrompt, BadOption, UnknownName: see `generate`; or `pauses` cut longer utterances
                than the model hears.
        """
        rules = self.parts.rules
        longest = rules.most / rules.rate or LONGEST
        ear = self._ear(prompt, options)
        return Listener(ear, rules.rate, pauses and cut(pauses, longest), every, waiting)

    def _ear(self, prompt: str, options: Generating) -> Ear:
        """What hears utterances; refuses what `listen` cannot do, before any is heard."""
        parts, chosen = self.parts, {**options}
        inputs, decoding = keywords.split(chosen)
        if inputs.hypothesis:
            raise BadOption("a listener guesses by its own partial texts: hypothesis is not for it")
        asked = parts.prompter.build(prompt, 1, 0, True, inputs.verbatim, inputs.language)
        if parts.stepping:
            parts.stepping.asked([asked.pieces])
        if parts.stepping and parts.manifest.facts.live.window:
            if others := chosen.keys() - decoding.keys() - {"delay", "verbatim"}:
                raise BadOption(f"a stream is not listened to with {', '.join(sorted(others))}")
            parts.live(inputs.delay, decoding)  # refuses what it cannot have
            return Streams(lambda: parts.live(inputs.delay, decoding))
        self.chat(**options)
        guesses = drafts.can(parts, parts.options(decoding))

        def ask(pcm: np.ndarray, before: str) -> Generator[str, None, Answer]:
            guess = {"hypothesis": before} if guesses else {}
            conversation = Conversation(parts, *keywords.split(chosen | guess), self.drafting)
            return (yield from conversation.turn([Question(prompt, [pcm])], listening=True))[0]

        return Clips(ask)


def _questions(sources: list[Any], prompt: Any, many: bool) -> list[Question]:
    if not isinstance(prompt, str) and not (many and isinstance(prompt, list | tuple)):
        raise BadPrompt(
            f"the prompt is wanted as text, or one text for each clip of a list, not "
            f"{type(prompt).__name__}"
        )
    prompts: list[Any] = [prompt] * len(sources) if isinstance(prompt, str) else [*prompt]
    if len(prompts) != len(sources):
        raise BadPrompt(f"there are {len(sources)} clips but {len(prompts)} prompts")
    return [
        Question(text, source if _is_batch(source) else [source])
        for source, text in zip(sources, prompts, strict=True)
    ]


def _is_batch(source: object) -> bool:
    """Whether it is several clips; (samples, rate) is one."""
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], int | np.integer):
        return False
    return isinstance(source, list | tuple)
