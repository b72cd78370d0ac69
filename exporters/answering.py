"""What a decoder hears and says: a model's own prompts around clips, and its answers behind them.

Levers that are fitted to what a decoder hears listen here, and what a graph then says to the same
clips is counted: users of few bits meet answers that are missing, or go in circles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from alm import backends
from alm.artifacts.part import Part
from alm.audio.clips import Rules
from alm.cache.audio import AudioEncoder
from alm.cache.memory import Memory
from alm.decoder.decoder import MOST_FED, Decoder, assemble, woven
from alm.errors import BadOption
from alm.generation.pipeline import Pipeline
from alm.parsing import File
from alm.ports import CACHE_IN, Port
from alm.session import BackendOptions, Feed, Kept, Session
from alm.text.prompt import Prompter
from alm.text.units import Units
from alm.timings import Stages
from exporters import calibration
from wrappers import Checkpoint, Wrapper

MOST_TOKENS = 48  # of an answer: enough for one to go in circles
GRAM, TIMES = 4, 3  # an answer goes in circles where so many tokens come so many times


@dataclass(frozen=True)
class Said:
    """An answer to a piece of a clip."""

    ids: tuple[int, ...]  # without the token that ended it
    margin: float  # of its first position: the best logit of a token that ends no answer, less the
    # best of one that does; below 0 the answer is missing
    end: int | None = None  # the token that ended it; None where it was cut

    @property
    def circles(self) -> bool:
        """Whether some tokens come again and again."""
        return circling(self.ids, GRAM)


def circling(said: Sequence[Any], gram: int) -> bool:
    """Whether so many tokens, or words, come TIMES times or more in the same order."""
    grams = Counter(zip(*(said[i:] for i in range(gram)), strict=False))
    return max(grams.values(), default=0) >= TIMES


def compared(original: Sequence[Said], graph: Sequence[Said]) -> dict[str, Any]:
    """How a graph's answers differ from its module's, for the manifest.

    Margins are of the clips that the original answers, if there is any: it may know no answer to
    some of its tasks.
    """
    count = max(len(original), 1)
    both = {"original": original, "graph": graph}
    given = [i for i, answer in enumerate(original) if answer.ids] or range(len(original))
    margins = {name: [some[i].margin for i in given] for name, some in both.items()}
    return {
        "answers": len(original),
        "equal": sum(a.ids == b.ids for a, b in zip(original, graph, strict=True)) / count,
        "least_margin": {n: round(min(some), 4) for n, some in margins.items()},
        "missing": {n: sum(not a.ids for a in some) / count for n, some in both.items()},
        "circling": {n: sum(a.circles for a in some) / count for n, some in both.items()},
    }


@dataclass(frozen=True)
class Audience:
    """A decoder that hears clips behind the parts before it, as the runtime runs them.

    Each piece of a clip is asked one of the model's tasks, which take turns, and answered greedily.
    The decoder is the original in float32, its cache too.
    """

    checkpoint: Checkpoint
    dialect: str
    name: str
    part: Wrapper
    clips: calibration.Clips
    most: int = MOST_TOKENS  # of an answer
    said: list[Said] = field(default_factory=list)  # the original's answers, when all were heard

    def __post_init__(self) -> None:
        """Refuse, with BadOption, a model that is asked nothing about clips."""
        facts = self.checkpoint.facts
        why = "hears a stream" if facts.live.step_samples else ""
        why = why or ("" if facts.prompt.tasks else "has no task that clips could be asked")
        if why:
            raise BadOption(
                f"part {self.name} cannot be fitted to clips yet: this model {why}; take a "
                "precision that is not calibrated"
            )

    def hear(self, count: int = 0) -> None:
        """Run the part on so many of the clips; on all with 0."""
        said = [answer for answer, _ in self.original(self.clips.some(count).paths)]
        if not count:
            self.said[:] = said

    def feeds(self, count: int = calibration.COMPARED) -> list[dict[str, np.ndarray]]:
        """What the part is fed first of each of so many clips, one row: a prompt."""
        each = [self.original((path,)) for path in self.clips.some(count).paths]
        return [next(fed for _, fed in answers) for answers in each]

    def answers(
        self, graph: Path, inputs: Mapping[str, Port], outputs: Mapping[str, Port]
    ) -> list[Said]:
        """What the part's graph, of these ports, says to all of the clips."""
        told = self._stated((File(graph.name, 0, ""),), inputs, outputs)
        options = BackendOptions("cpu", lean=True)
        session = backends.open_session(told, graph.parent, options, trusted=True)
        return [*self._answered(session, told, self.clips.paths)]

    def original(self, paths: Sequence[Path]) -> Iterator[tuple[Said, dict[str, np.ndarray]]]:
        """Answers of the module, each with what it was fed first, the cache in float32."""
        part, seen = self.part, []
        caches = [port.dtype for name, port in part.inputs.items() if name.startswith(CACHE_IN)]
        part.keep_state_in("float32")
        try:
            told = self._stated((), part.inputs, part.outputs)
            for said in self._answered(_First(part, seen), told, paths):
                yield said, seen.pop()
        finally:
            part.keep_state_in(caches[-1] if caches else "float32")

    def _answered(self, session: Session, told: Part, paths: Sequence[Path]) -> Iterator[Said]:
        """Answers to all pieces of these clips."""
        facts = self.checkpoint.facts
        rules, dimensions, table, number = Rules(facts.audio), facts.dimensions, self._table, 0
        most_fed = MOST_FED if dimensions.rope_grows_past is None else 0
        decoder = Decoder(session, told, table, most_fed, dimensions.rope_switches_past)
        for path in paths:
            clip = rules.read(path, calibration.HOUR, Stages())
            for piece in rules.windows(clip, truncate=False)[0]:
                prompt = self._prompts[number % len(self._prompts)]
                heard, _ = self._ears.encode([piece.pcm], Stages())
                row = woven(prompt.pieces, heard, self._prompter.markers)
                yield self._answer(decoder, *assemble(table, [row]))
                number += 1

    def _answer(self, decoder: Decoder, embeds: np.ndarray, lengths: np.ndarray) -> Said:
        """A greedy answer to one prompt [1, seq, hidden]."""
        facts, prompt = self.checkpoint.facts, int(lengths[0])
        most = max(1, min(self.most, facts.dimensions.context - prompt))
        ends = list(facts.tokens.eos)
        decoder.start(1, prompt + most)
        end: int | None = None
        logits, ids = decoder.feed(embeds, lengths)[0], []
        others = np.delete(logits, ends)
        margin = float(others.max() - logits[ends].max()) if ends else float("inf")
        while True:
            if (token := int(logits.argmax())) in ends:
                end = token
                break
            ids.append(token)
            if len(ids) == most:
                break
            logits = decoder.step(np.array([token]))[0]
        return Said(tuple(ids), margin, end)

    def _stated(
        self, files: tuple[File, ...], inputs: Mapping[str, Port], outputs: Mapping[str, Port]
    ) -> Part:
        part = self.part
        ports = dict(inputs), dict(outputs)
        return Part(self.name, part.role, files, *ports, part.spans, chunk_rows=part.chunk_rows)

    @cached_property
    def _prompter(self) -> Prompter:
        facts = self.checkpoint.facts
        tokenizer = Tokenizer.from_str(self.checkpoint.tokenizer_json)
        return Prompter(tokenizer, facts.prompt, facts.tokens)

    @cached_property
    def _prompts(self) -> list[Any]:
        return [self._prompter.build(task) for task in self.checkpoint.facts.prompt.tasks]

    @cached_property
    def _table(self) -> Any:
        return _Rows(self.checkpoint.embedding())

    @cached_property
    def _ears(self) -> AudioEncoder:
        """All parts before the decoder, as torch modules."""
        names = [n for n, role in self.checkpoint.roles.items() if role != "decoder"]
        parts = {n: self.checkpoint.part(n, self.dialect).eval() for n in names}
        told = [calibration.stated(name, part) for name, part in parts.items()]
        sessions = {
            each.name: backends.any_size(calibration.TorchSession(parts[each.name]), each)
            for each in told
        }
        facts = self.checkpoint.facts
        rules = Rules(facts.audio)
        units = Units(facts.units) if facts.units.count else None
        window = rules.window if rules.joined else 0
        return AudioEncoder(Pipeline(told, sessions), Memory("audio", 0), window, units=units)


class _First(calibration.TorchSession):
    """A decoder as it is; what it was fed first is kept until it is taken."""

    def run(
        self, feeds: Mapping[str, Feed], keep: Mapping[str, Kept | None] | None = None
    ) -> dict[str, Any]:
        """See `Session.run`."""
        made = super().run(feeds, keep)
        del (self.seen or [])[1:]
        return made


class _Rows:
    """The embedding table, read as `alm.artifacts.embedding_table.Table` is."""

    def __init__(self, table: Tensor) -> None:
        self._table = table

    def __call__(self, token_ids: np.ndarray) -> np.ndarray:
        """Embeddings float32 [..., hidden] of ids [...]."""
        return self._table[torch.from_numpy(np.asarray(token_ids, np.int64))].float().numpy()
