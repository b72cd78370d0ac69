"""Clips of a folder through the parts of a checkpoint, for levers that must know what is heard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from alm.cache.audio import batch
from alm.errors import BadAudio, BadOption, MissingFile
from alm.facts import Facts
from alm.generation.pipeline import Pipeline
from alm.live.hearing import Hearing
from alm.live.state import Chain, taken
from alm.ports import Port, is_slot
from alm.session import Feed, Kept, Session
from alm.timings import Stages
from wrappers import Checkpoint, Wrapper

SOME_WORDS = 128  # to calibrate with
HOUR = 3600.0  # seconds that a clip may last
COMPARED = 3  # clips on which a part is compared with its module afterwards


@dataclass(frozen=True)
class Clips:
    """The clips of a folder, in the order of their names."""

    folder: Path
    paths: tuple[Path, ...]
    seconds: float
    notes: tuple[str, ...] = ()  # what was left out

    def some(self, count: int) -> Clips:
        """So many of them, from the whole of the folder; all with a count of 0."""
        if not 0 < count < len(self.paths):
            return self
        at = [i * len(self.paths) // count for i in range(count)]
        return replace(self, paths=tuple(self.paths[i] for i in at))


def wanted(name: str, precision: str) -> BadOption:
    """What is said where a part's precision must know what is heard, and there are no clips."""
    return BadOption(
        f"precision {precision} of part {name} is fitted to what is heard; give a folder of clips: "
        "--calibrate DIR"
    )


def find(folder: Path, facts: Facts) -> Clips:
    """All clips in a folder and those below it; each is read once, and none is kept.

    Raises:
        MissingFile, BadOption: there is no such folder, or no clip in it.
    """
    if not folder.exists():
        raise MissingFile(f"there is no folder {str(folder)[:200]}; --calibrate wants one of clips")
    if not folder.is_dir():
        raise BadOption(f"{str(folder)[:200]} is a file; --calibrate wants a folder of clips")
    rules, found, seconds, left_out = Rules(facts.audio), [], 0.0, []
    for path in sorted(folder.rglob("*"), key=lambda p: p.relative_to(folder).as_posix()):
        name = path.relative_to(folder)
        if not path.is_file() or any(piece.startswith(".") for piece in name.parts):
            continue
        try:
            seconds += rules.read(path, HOUR, Stages()).seconds
            found.append(path)
        except (BadAudio, MissingFile) as error:
            left_out.append(f"{name} is not calibrated with: {error}")
    if not found:
        why = f" ({left_out[0]})" if left_out else ""
        raise BadOption(f"no clip in {str(folder)[:200]} can be read{why}")
    return Clips(folder, tuple(found), seconds, tuple(left_out))


@dataclass
class TorchSession(Session):
    """A part as it is, in the place of its graph."""

    part: Wrapper
    seen: list[dict[str, np.ndarray]] | None = None  # what it is fed, where that is to be kept
    inputs: dict[str, Port] = field(init=False)
    outputs: dict[str, Port] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs, self.outputs = dict(self.part.inputs), dict(self.part.outputs)

    def run(
        self, feeds: Mapping[str, Feed], keep: Mapping[str, Kept | None] | None = None
    ) -> dict[str, Any]:
        """See `Session.run`."""
        arrays = {name: self.fetch(feeds[name]) for name in self.inputs}
        if self.seen is not None:
            self.seen.append(arrays)
        with torch.no_grad():
            made = self.part(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays.values()))
        outputs = made if isinstance(made, tuple) else (made,)
        named = {n: t.numpy() for n, t in zip(self.outputs, outputs, strict=True)}
        return {n: self.hold(a) if n in (keep or {}) else a for n, a in named.items()}

    def hold(self, array: np.ndarray) -> Held:
        """See `Session.hold`."""
        return Held(array)

    def fetch(self, kept: Feed) -> np.ndarray:
        """See `Session.fetch`."""
        return kept.array if isinstance(kept, Held) else np.asarray(kept)


@dataclass
class Held(Kept):
    """An array as a handle."""

    array: np.ndarray


@dataclass(frozen=True)
class Audience:
    """A part that hears clips, behind the parts before it, as the runtime runs them."""

    checkpoint: Checkpoint
    dialect: str
    name: str
    part: Wrapper
    clips: Clips

    def hear(self, count: int = 0) -> None:
        """Run the part on so many of the clips; on all with 0. Nothing is returned or kept."""
        self._through(TorchSession(self.part), self.clips.some(count).paths)

    def feeds(self, count: int = COMPARED) -> list[dict[str, np.ndarray]]:
        """What the part is fed first of each of so many clips, one row."""
        found: list[dict[str, np.ndarray]] = []
        for path in self.clips.some(count).paths:
            seen: list[dict[str, np.ndarray]] = []
            self._through(TorchSession(self.part, seen), (path,))
            found += seen[:1]
        return found

    def _through(self, session: TorchSession, paths: Sequence[Path]) -> None:
        facts = self.checkpoint.facts
        rules, parts = Rules(facts.audio), self._front
        sessions = {n: TorchSession(module) for n, module in parts.items()} | {self.name: session}
        told = [stated(name, each.part) for name, each in sessions.items()]
        opened = {part.name: backends.any_size(sessions[part.name], part) for part in told}
        for path in paths:
            clip = rules.read(path, HOUR, Stages())
            for piece in rules.windows(clip, truncate=False)[0]:
                if facts.live.step_samples:
                    hearing = Hearing(facts.live, Chain(told, sessions).run)
                    for _ in (*hearing.feed(piece.pcm), *hearing.end(0)):
                        pass
                else:
                    Pipeline(told, opened).forward(batch([piece.pcm]))

    @cached_property
    def _front(self) -> dict[str, Wrapper]:
        """The part and those that it waits for; of a model that hears a stream, all before the LLM.

        They are in the order of a run.
        """
        roles = self.checkpoint.roles
        names = [name for name in self.checkpoint.parts if roles[name] != "decoder"]
        live = bool(self.checkpoint.facts.live.step_samples)
        if not live:
            names = names[: names.index(self.name) + 1]
        loaded = {n: self.part if n == self.name else self._load(n) for n in names}
        return loaded if live else _needed(loaded, self.name)

    def _load(self, name: str) -> Wrapper:
        return self.checkpoint.part(name, self.dialect).eval()


def _needed(parts: Mapping[str, Wrapper], last: str) -> dict[str, Wrapper]:
    """Those of the parts, in their order, that `last` needs the outputs of, and itself."""
    wanted, needed = set(taken(parts[last].inputs)), [last]
    for name in reversed(list(parts)):
        if name != last and wanted & set(parts[name].outputs):
            wanted |= set(taken(parts[name].inputs))
            needed.append(name)
    return {name: parts[name] for name in parts if name in needed}


def stated(name: str, part: Wrapper) -> Part:
    return Part(
        name,
        part.role,
        (),
        part.inputs,
        part.outputs,
        part.spans,
        chunk_rows=part.chunk_rows,
        pieces=part.pieces,
    )


def widened(feeds: Sequence[Mapping[str, np.ndarray]], batches: bool) -> Iterator[dict[str, Any]]:
    """The feeds, the second in two equal rows, the third in three, where a batch may have them."""
    for number, one in enumerate(feeds):
        rows = number % 3 + 1 if batches else 1
        yield {n: a if is_slot(n) else np.repeat(a, rows, 0) for n, a in one.items()}


def embeds(checkpoint: Checkpoint) -> Tensor:
    """Embeddings to calibrate with: the prompts' words, words at random, and noise as of audio."""
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json)
    words = " ".join(checkpoint.facts.prompt.tasks.values())
    table = checkpoint.embedding()
    generator = torch.Generator().manual_seed(0)
    random_ids = torch.randint(len(table), (SOME_WORDS,), generator=generator)
    prompt_ids = torch.tensor(tokenizer.encode(words).ids[:SOME_WORDS], dtype=torch.int64)
    words_embeds = table[torch.cat((prompt_ids, random_ids))].float()
    noise = 0.5 * torch.randn(SOME_WORDS, words_embeds.shape[1], generator=generator)
    return torch.cat((words_embeds, noise))
