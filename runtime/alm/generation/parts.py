"""A model's parts opened, and what else of its folder answering needs."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from alm import backends
from alm.adapters.adapter import NONE, Adapter
from alm.adapters.store import Adapters
from alm.artifacts import verify
from alm.artifacts.embedding_table import open_table
from alm.artifacts.manifest import NAME as MANIFEST_NAME
from alm.artifacts.manifest import load as load_manifest
from alm.audio import merging
from alm.audio.clips import Piece, Rules
from alm.cache import prefix
from alm.cache.audio import AudioEncoder, Forward
from alm.cache.folder import Folder
from alm.cache.memory import Memory
from alm.decoder.decoder import MOST_FED, Decoder
from alm.decoder.fastest import Fastest
from alm.decoder.together import Member, Together, check_together
from alm.decoding.options import Options
from alm.errors import BadArtifacts, BadOption
from alm.generation import keywords
from alm.generation.complete import check_complete
from alm.generation.pipeline import Pipeline, at_once, check_table
from alm.host import processor
from alm.host.turns import Turns
from alm.live.hearing import Hearing
from alm.live.live import Live, endless
from alm.live.state import Chain, carried
from alm.live.stepping import Stepping
from alm.ports import DELAY
from alm.session import BackendOptions, Session
from alm.text import detokenizer
from alm.text.prompt import Prompter
from alm.text.segments import Segment
from alm.text.spoken import shifted
from alm.text.units import Units
from alm.timings import Stages


class Aligner(Protocol):
    """What times the words of an answer; `alm.align.aligner` has one."""

    @property
    def rate(self) -> int: ...
    @property
    def most_seconds(self) -> float: ...
    def segments(
        self, pcm: np.ndarray, spoken: Sequence[Segment], start: float, stages: Stages
    ) -> list[Segment]: ...


class Parts:
    """All of a model's folder opened; nothing in it changes, but for the audio that it remembers.

    Threads may share it, each with a `decoder()` of its own.
    """

    def __init__(
        self,
        folder: Path,
        provider: str,
        threads: int,
        audio_cache: int,
        *,
        aligns: bool = False,
        cache: Path | None = None,
        together: int = 1,
        front: Forward | None = None,
    ) -> None:
        """Verify the artifacts and open them; see `alm.load`. `aligns`: they are an aligner's."""
        start = time.perf_counter()
        if audio_cache < 0:
            raise BadOption(f"audio_cache is bytes, 0 or more, not {audio_cache!r}")
        processor.check_threads(threads)
        check_together(together)
        self.folder, self._front = folder, front
        self.manifest = load_manifest(folder)
        check_complete(self.manifest, folder, aligns)
        self._check_defaults()
        if front and self.manifest.facts.live.step_samples:
            raise BadOption(f"{folder} hears a stream piece by piece, so it takes no `front`")
        self.provider = backends.choose(provider, Fastest(folder, self.manifest, threads))
        tokenizer = self.manifest.tokenizer
        assert tokenizer is not None
        content = verify.content(folder, tokenizer, detokenizer.MOST_BYTES)
        self.tokenizer = detokenizer.load_tokenizer(folder / tokenizer.name, content)
        facts = self.manifest.facts
        self.prompter = Prompter(self.tokenizer, facts.prompt, facts.tokens)
        turns = Turns() if together > 1 else None
        options = BackendOptions(self.provider, threads, turns=turns)
        roles = {part.role for part in self.manifest.parts} - {"table"}
        graphs = self.manifest.with_role(*({"decoder"} if front else roles))
        with ThreadPoolExecutor(2) as pool:
            opened = pool.map(lambda part: backends.open_session(part, folder, options), graphs)
            sessions = {part.name: s for part, s in zip(graphs, opened, strict=True)}
        # The cores are the processor's; elsewhere nothing was measured.
        cores = processor.usable_cores() if backends.on_cpu(self.provider) else 1
        kept = Folder(cache, self._identity()) if cache else None
        self._connect(sessions, audio_cache, kept, at_once(threads, cores))
        if not self.stepping:
            decoder = self.decoder_session, self.decoder_part, self.table
            self.together = Together.opened(*decoder, together)
        self.load_ms = (time.perf_counter() - start) * 1e3

    def _check_defaults(self) -> None:
        """Refuse, with BadArtifacts, defaults of the manifest that contradict each other."""
        try:
            self.options({})
        except BadOption as error:
            raise BadArtifacts(
                f"the generation defaults of {self.folder / MANIFEST_NAME}: {error}"
            ) from error

    def _identity(self) -> bytes:
        """Tells models apart that make other numbers of a clip or of a prompt."""
        plain = self.manifest.to_json()
        of = {name: plain[name] for name in plain if name not in ("created", "tools", "engines")}
        return json.dumps([of, self.provider], sort_keys=True).encode()

    def _connect(
        self, sessions: dict[str, Session], audio_cache: int, kept: Folder | None, at_once: int
    ) -> None:
        manifest = self.manifest
        table, decoder = manifest.with_role("table")[0], manifest.with_role("decoder")[0]
        self.table = open_table(self.folder, table.files)
        check_table(self.table, manifest)
        front = [part for part in manifest.parts if part.role not in ("table", "decoder")]
        self.pipeline = Pipeline(front, sessions, at_once)
        self.rules = Rules(manifest.facts.audio)
        window = self.rules.window if self.rules.joined else 0
        facts = manifest.facts
        self.stepping: Stepping | None = None
        if facts.live.step_samples:
            pad = self.tokenizer.token_to_id(facts.live.pad)
            if pad is None:
                raise BadArtifacts(f"the tokenizer of {self.folder} lacks {facts.live.pad!r:.80}")
            self.stepping = Stepping(facts.live, facts.audio, pad, facts.tokens.bos)
        hear = self.hear if self.stepping else None
        units = Units(facts.units) if facts.units.count else None
        memory = Memory("audio", audio_cache, kept)
        self.audio_encoder = AudioEncoder(self._front or self.pipeline, memory, window, hear, units)
        self.decoder_session, self.decoder_part = sessions[decoder.name], decoder
        self.together: Together | None = None
        beginnings = Memory("prefix", prefix.MOST_BYTES if audio_cache else 0, kept)
        self.prefixes = prefix.Prefixes(beginnings, carried(decoder.inputs), facts.dimensions)
        self.adapters = Adapters(self.folder, manifest)
        self.eos = frozenset(manifest.facts.tokens.eos)
        self.aligner: Aligner | None = None  # see `align_with`
        self.stops = detokenizer.Stops(self.tokenizer, manifest.facts.tokens.stop_strings)

    def decoder(self, adapter: Adapter = NONE) -> Decoder:
        """The decoder with a KV cache of its own, which holds nothing before `start`."""
        dimensions = self.manifest.facts.dimensions
        opened = self.decoder_session, self.decoder_part, self.table
        # Where each length has rotary frequencies of its own, a prompt is one call.
        most_fed = MOST_FED if dimensions.rope_grows_past is None else 0
        if self.together and adapter is NONE:
            return Member(self.together, *opened, most_fed, dimensions.rope_switches_past)
        return Decoder(
            *opened,
            most_fed=most_fed,
            switches=dimensions.rope_switches_past,
            conditions={DELAY: float(self.manifest.facts.live.delay)},
            adapter=adapter.arrays.get(self.decoder_part.name),
        )

    def hearing(self, stages: Stages | None = None) -> Hearing:
        """A stream of sound through the parts before the decoder, with a state of its own."""
        chain = Chain(self.pipeline.parts, self.pipeline.sessions, stages)
        return Hearing(self.manifest.facts.live, chain.run)

    def hear(self, pcm: np.ndarray, stages: Stages | None = None) -> np.ndarray:
        """Embeddings float32 [steps, hidden] of a whole clip, the silence behind it in it."""
        hearing = self.hearing(stages)
        return np.concatenate([*hearing.feed(pcm), *hearing.end(0)])

    def delay(self, ms: float | None) -> int:
        """Steps of so many milliseconds; None is as the checkpoint says.

        Raises:
            BadOption: they are none, or the model hears clips and not steps.
        """
        if self.stepping:
            return self.stepping.delay(ms)
        if ms is not None:
            raise BadOption("a delay is of a model that hears a stream, and this one hears clips")
        return 0

    def check_merging(self, percent: float) -> None:
        """Refuse, with BadOption, a share of a clip's embeddings that this model cannot take."""
        merging.check(percent)
        if percent == merging.WHOLE:
            return
        facts, why = self.manifest.facts, ""
        if facts.units.count:
            why = "hears tokens, which have no mean"
        elif self.stepping:
            why = "writes a token for each step of sound"
        elif facts.prompt.marker_seconds:
            why = "counts its embeddings to tell the time"
        if why:
            raise BadOption(f"merge_audio is not for this model, which {why}")

    def live(self, delay: float | None, given: dict[str, Any]) -> Live:
        """A live run; see `Model.live`."""
        live = self.manifest.facts.live
        if not self.stepping or not live.window:
            why = "sees back over all of a stream" if self.stepping else "hears clips, no streams"
            raise BadOption(f"this model {why}, so model.live is not for it; see model.listen")
        late, decoder = self.stepping.delay(delay), self.decoder()
        decoder.told(**{DELAY: late})
        added = self.tokenizer.get_added_tokens_decoder().items()
        return Live(
            self.hearing(),
            decoder,
            detokenizer.TextStream(self.tokenizer, self.stops.strings),
            prompt=self.stepping.prompt(late),
            delay=late,
            eos=self.eos,
            stops=self.stops,
            silent=frozenset(number for number, token in added if token.special),
            options=endless(self.options(given), given),
        )

    def options(self, given: Mapping[str, Any]) -> Options:
        """Decoding options: the manifest's defaults with what is given in their place.

        Units that an answer may not hold are suppressed beside the tokens that are asked for.

        Raises:
            BadOption: see `keywords.choose`.
        """
        facts = self.manifest.facts
        chosen = keywords.choose(facts.generation, given)
        if not facts.units.unsaid:
            return chosen
        units = range(facts.units.first, facts.units.first + facts.units.count)
        return replace(chosen, suppress_tokens=(*chosen.suppress_tokens, *units))

    def align_with(self, aligner: Aligner) -> None:
        """Time the words of answers; longer clips are heard in pieces that can be aligned.

        Raises:
            BadArtifacts: the aligner hears another rate.
        """
        if aligner.rate != self.rules.rate:
            raise BadArtifacts(
                f"the aligner hears {aligner.rate} samples a second, not the model's "
                f"{self.rules.rate}"
            )
        self.aligner = aligner
        self.rules.shorten(aligner.most_seconds)

    def endless(self) -> Parts:
        """The same, but only a length ends an answer, so that runs can be compared."""
        parts = copy.copy(self)
        parts.eos, parts.stops = frozenset(), detokenizer.Stops(self.tokenizer, ())
        return parts

    def segments(
        self, piece: Piece, text: str, stages: Stages
    ) -> tuple[tuple[Segment, ...], Sequence[str]]:
        """Segments of a piece's answer: the aligner's, the model's own, or the whole piece.

        Also what is wrong with those that the model wrote, in words.
        """
        rate = self.rules.rate
        seconds, start = piece.samples / rate, piece.start / rate
        spoken, faults = self.prompter.spoken.read(text, seconds)
        if spoken is None:
            spoken = [Segment(piece.overlap / rate, seconds, text)]
        made = shifted(spoken, start)
        if self.aligner:
            made = self.aligner.segments(piece.pcm[: piece.samples], made, start, stages)
        return tuple(made), faults
