"""A model on the device: audio and a prompt in, text out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from alm import backends
from alm.artifacts import manifest, verify
from alm.audio import reader
from alm.audio.clips import Rules
from alm.decoding import search
from alm.errors import BadArtifacts, BadOption, BadPrompt
from alm.generation import keywords
from alm.generation.audio_cache import MOST_BYTES, Ear
from alm.generation.choose_backend import Fastest
from alm.generation.conversation import Chat
from alm.generation.embedding_table import open_table
from alm.generation.pipeline import Pipeline, at_once, check_table, open_part
from alm.generation.run import Answer, Run
from alm.host import processor
from alm.session import EngineOptions, Session
from alm.text import detokenizer
from alm.text.prompt import Prompter

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from alm.generation.keywords import Decoding

Audio = reader.Source


class Model:
    """Artifacts opened for use; made by `alm.load`.

    Threads may share it: a call of `generate` or `stream` keeps what it works on to itself, and
    gives in any thread what it gives alone. A `Chat` is one conversation; see there.
    """

    def __init__(
        self,
        folder: Path,
        provider: str = "auto",
        threads: int = 0,
        audio_cache: int = MOST_BYTES,
    ) -> None:
        start = time.perf_counter()
        if audio_cache < 0:
            raise BadOption(f"audio_cache is bytes, 0 or more, not {audio_cache!r}")
        processor.check_threads(threads)
        self.folder = folder
        self.manifest = manifest.load(folder)
        self._whole()
        self.provider = backends.choose(provider, Fastest(folder, self.manifest, threads))
        tokenizer = self.manifest.tokenizer
        assert tokenizer is not None
        content = verify.content(folder, tokenizer, detokenizer.MOST_BYTES)
        self.tokenizer = detokenizer.load_tokenizer(folder / tokenizer.name, content)
        self.prompter = Prompter(self.tokenizer, self.manifest.prompt, self.manifest.tokens)
        options = EngineOptions(self.provider, threads)
        graphs = [part for part in self.manifest.parts if part.role != "table"]
        with ThreadPoolExecutor(2) as pool:
            opened = pool.map(lambda part: open_part(folder, part, options), graphs)
            sessions = {part.name: s for part, s in zip(graphs, opened, strict=True)}
        # The cores are the processor's; elsewhere nothing was measured.
        cores = processor.usable_cores() if self.provider in backends.ON_CPU else 1
        self._connect(sessions, audio_cache, at_once(threads, cores))
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

    def _connect(self, sessions: dict[str, Session], audio_cache: int, at_once: int) -> None:
        said = self.manifest
        table, decoder = said.with_role("table")[0], said.with_role("decoder")[0]
        self.table = open_table(self.folder, table.files)
        check_table(self.table, said)
        front = [part for part in said.parts if part.role not in ("table", "decoder")]
        self.pipeline = Pipeline(front, sessions, at_once)
        rules = Rules(said.audio)
        self.ear = Ear(self.pipeline, audio_cache, rules.window if rules.joined else 0)
        self.decoder_session, self.decoder_part = sessions[decoder.name], decoder
        self.eos = frozenset(int(i) for i in said.tokens["eos"])
        self.stops = detokenizer.Stops(self.tokenizer, said.tokens.get("stop_strings", ()))

    @property
    def tasks(self) -> dict[str, str]:
        """Task names that stand for a prompt."""
        return self.manifest.tasks

    # --- asking

    def options(self, **said: Unpack[Decoding]) -> search.Options:
        """Decoding options: the manifest's defaults with what is said in their place.

        See `decoding.choose`.
        """
        return keywords.choose(self.manifest.generation, said)

    @overload
    def generate(
        self,
        source: Audio,
        prompt: str,
        *,
        truncate: bool = False,
        max_audio_seconds: float = reader.HOUR,
        verbatim: bool = False,
        on_text: Callable[[str], None] | None = None,
        **options: Unpack[Decoding],
    ) -> Answer: ...

    @overload
    def generate(
        self,
        source: Sequence[Audio | Sequence[Audio]],
        prompt: str | Sequence[str],
        *,
        truncate: bool = False,
        max_audio_seconds: float = reader.HOUR,
        verbatim: bool = False,
        on_text: Callable[[str], None] | None = None,
        **options: Unpack[Decoding],
    ) -> list[Answer]: ...

    def generate(
        self,
        source: Audio | Sequence[Audio | Sequence[Audio]],
        prompt: str | Sequence[str],
        *,
        truncate: bool = False,
        max_audio_seconds: float = reader.HOUR,
        verbatim: bool = False,
        on_text: Callable[[str], None] | None = None,
        **options: Unpack[Decoding],
    ) -> Answer | list[Answer]:
        """Answer a prompt about a clip, or several prompts about clips in one batch.

        Args:
            source: a file as a path, as its bytes or opened for reading bytes; samples at the
                model's rate; the tuple (samples, rate); or a list or tuple of those, which is a
                batch, and an item of it may itself be a list or tuple, of the clips of one prompt.
            prompt: free text or a task's name, for a batch one for all or one for each; `<audio>`
                in it is the place of a clip, without any they go where the model's own are.
            truncate: answer only the first window of a longer clip, as the original does.
            max_audio_seconds: refuse longer audio before decoding it; at most a day.
            verbatim: take the prompt as text, even where it is a task's name or nearly one.
            on_text: called with pieces of text as they become certain (one prompt only).
            options: fields of `decoding.Options`; the defaults are the manifest's.

        Returns:
            An Answer, or a list of them when `source` is a batch.

        Raises:
            BadAudio, MissingFile, BadPrompt, BadOption: one sentence says what is wrong.
            UnknownName: a prompt of one word that is nearly a task's name.
        """
        many = _is_batch(source)
        sources: list[Any] = list(source) if many else [source]  # pyright: ignore
        if not isinstance(prompt, str) and not (many and isinstance(prompt, list | tuple)):
            raise BadPrompt(
                f"the prompt is wanted as text, or one text for each clip of a list, not "
                f"{type(prompt).__name__}"
            )
        prompts = [prompt] * len(sources) if isinstance(prompt, str) else list(prompt)
        if len(prompts) != len(sources):
            raise BadPrompt(f"there are {len(sources)} clips but {len(prompts)} prompts")
        if on_text and len(sources) > 1:
            raise BadOption("on_text follows one prompt, not several")
        chosen = self.options(**options)
        reader.check_options(self.manifest.audio["rate"], "first", max_audio_seconds)
        run = Run(self, chosen, truncate, max_audio_seconds, on_text, verbatim=verbatim)
        answers = run.answer([s if _is_batch(s) else [s] for s in sources], prompts)
        return answers if many else answers[0]

    def chat(
        self,
        *,
        truncate: bool = False,
        max_audio_seconds: float = reader.HOUR,
        verbatim: bool = False,
        **options: Unpack[Decoding],
    ) -> Chat:
        """A conversation about any number of clips; see `Chat.ask`.

        Args:
            truncate: hear only the first window of a longer clip, as the original does.
            max_audio_seconds: refuse longer audio before decoding it; at most a day.
            verbatim: take every prompt as text, even where it is a task's name or nearly one.
            options: of all its turns, as `generate` takes them.
        """
        return Chat(self, truncate, max_audio_seconds, verbatim, **options)

    def stream(
        self,
        source: Audio,
        prompt: str,
        *,
        truncate: bool = False,
        max_audio_seconds: float = reader.HOUR,
        verbatim: bool = False,
        **options: Unpack[Decoding],
    ) -> Iterator[str]:
        """As `generate` with one clip, in pieces of text; joined they are the answer's text.

        Whoever leaves it half-way ends the answer; the next call is answered as ever. With beams
        the text is certain only at the end, and comes as one piece.
        """
        pieces: SimpleQueue[str | None] = SimpleQueue()
        unread = Event()

        def tell(piece: str) -> None:
            if unread.is_set():
                raise _Unread
            pieces.put(piece)

        def work() -> Answer:
            try:
                return self.generate(
                    source,
                    prompt,
                    truncate=truncate,
                    max_audio_seconds=max_audio_seconds,
                    verbatim=verbatim,
                    on_text=tell,
                    **options,
                )
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


def _is_batch(source: object) -> bool:
    """Whether it is several clips; (samples, rate) is one."""
    if isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], int | np.integer):
        return False
    return isinstance(source, list | tuple)
