"""A model on the device: audio and a prompt in, text out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import numpy as np

from alm import _machine, backends, decoding, manifest, text, verify
from alm._clips import Rules
from alm._heard import MOST_BYTES, Ear
from alm._run import Answer, Run
from alm.backends._fastest import Fastest
from alm.backends._session import EngineOptions, Session
from alm.chat import Chat
from alm.errors import BadArtifacts, BadOption, BadPrompt
from alm.pipeline import Pipeline, at_once, check_table, open_part
from alm.prompt import Prompter
from alm.table import open_table

Audio = str | Path | np.ndarray | tuple[np.ndarray, int]


class Model:
    """Artifacts opened for use; made by `alm.load`."""

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
        self.folder = folder
        self.manifest = manifest.load(folder)
        self._whole()
        self.provider = backends.choose(provider, Fastest(folder, self.manifest, threads))
        tokenizer = self.manifest.tokenizer
        assert tokenizer is not None
        content = verify.content(folder, tokenizer, text.MOST_BYTES)
        self.tokenizer = text.load_tokenizer(folder / tokenizer.name, content)
        self.prompter = Prompter(self.tokenizer, self.manifest.prompt, self.manifest.tokens)
        options = EngineOptions(self.provider, threads)
        graphs = [part for part in self.manifest.parts if part.role != "table"]
        with ThreadPoolExecutor(2) as pool:
            opened = pool.map(lambda part: open_part(folder, part, options), graphs)
            sessions = {part.name: s for part, s in zip(graphs, opened, strict=True)}
        # The cores are the processor's; elsewhere nothing was measured.
        cores = _machine.usable_cores() if self.provider in backends.ON_CPU else 1
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
        self.stops = text.Stops(self.tokenizer, said.tokens.get("stop_strings", ()))

    @property
    def tasks(self) -> dict[str, str]:
        """Task names that stand for a prompt."""
        return self.manifest.tasks

    # --- asking

    def options(self, **said: Any) -> decoding.Options:
        """Decoding options: the manifest's defaults with what is said in their place.

        See `decoding.choose`.
        """
        return decoding.choose(self.manifest.generation, said)

    def generate(
        self,
        source: Audio | Sequence[Audio | Sequence[Audio]],
        prompt: str | Sequence[str],
        *,
        truncate: bool = False,
        max_audio_seconds: float = 3600.0,
        on_text: Callable[[str], None] | None = None,
        **options: Any,
    ) -> Any:
        """Answer a prompt about a clip, or several prompts about clips in one batch.

        Args:
            source: a file, samples at the model's rate, (samples, rate), or a list of those, which
                is a batch; an item of it may itself be a list, of the clips of one prompt.
            prompt: free text or a task's name, for a batch one for all or one for each; `<audio>`
                in it is the place of a clip, without any they go where the model's own are.
            truncate: answer only the first window of a longer clip, as the original does.
            max_audio_seconds: refuse longer audio before decoding it.
            on_text: called with pieces of text as they become certain (one prompt only).
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
        if on_text and len(sources) > 1:
            raise BadOption("on_text follows one prompt, not several")
        chosen = self.options(**options)
        run = Run(self, chosen, truncate, max_audio_seconds, on_text)
        answers = run.answer([s if isinstance(s, list) else [s] for s in sources], prompts)
        return answers if many else answers[0]

    def chat(
        self, *, truncate: bool = False, max_audio_seconds: float = 3600.0, **options: Any
    ) -> Chat:
        """A conversation about any number of clips; see `Chat.ask`.

        Args:
            truncate: hear only the first window of a longer clip, as the original does.
            max_audio_seconds: refuse longer audio before decoding it.
            options: of all its turns, as `generate` takes them.
        """
        return Chat(self, truncate, max_audio_seconds, **options)

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
