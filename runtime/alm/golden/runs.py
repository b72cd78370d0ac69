"""Whole runs: what the original answered to two short clips, held against a model token by token.

`golden/runs.json` has "runs", each a clip, a task or a prompt, the tokens that the original chose
greedily, and how far the exported model was from choosing them; and "texts", each with the ids that
the original's tokenizer makes of it.

A model is fed the original's tokens, whatever it would have chosen. At each the gap is how much
larger its own choice's logit is than that token's: 0 where it chooses the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alm.artifacts import verify
from alm.artifacts.manifest import Manifest
from alm.decoder.decoder import assemble, woven
from alm.errors import BadArtifacts
from alm.generation.parts import Parts
from alm.golden.vectors import MORE, SLACK
from alm.parsing import Misshapen, all_of, count, need, parse
from alm.timings import Stages

NAME = "golden/runs.json"
MOST_BYTES = 2**20
MOST_CLIP = 4 * 2**20
MOST_SECONDS = 60.0
MOST_RUNS, MOST_TEXTS = 16, 256
MOST_IDS = 256  # of a run: a step of the decoder each


@dataclass(frozen=True)
class Run:
    """A clip, what it was asked, and what the original said."""

    clip: str  # a file of the manifest's
    prompt: str
    ids: tuple[int, ...]
    length: int = 0  # of the prompt, its audio included
    gap: float = 0.0  # the largest, at export; of the root mean square of the logits


@dataclass(frozen=True)
class Text:
    """A text and its token ids, nothing added."""

    text: str
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Runs:
    """What `golden/runs.json` holds."""

    runs: tuple[Run, ...] = ()
    texts: tuple[Text, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "runs": [vars(run) | {"ids": list(run.ids)} for run in self.runs],
            "texts": [{"text": text.text, "ids": list(text.ids)} for text in self.texts],
        }


@dataclass(frozen=True)
class Followed:
    """How a model went along with the original."""

    gap: float  # the largest, of the root mean square of the logits; inf where none are finite
    at: int  # the token where it was
    length: int  # of the prompt
    ms: float


def read(folder: Path, manifest: Manifest) -> Runs:
    """The runs of a folder; none where it has none.

    Raises:
        MissingFile, BadArtifacts: the file is not the manifest's, or misshapen.
    """
    listed = {file.name: file for file in manifest.golden}
    if NAME not in listed:
        return Runs()
    try:
        plain = parse(verify.content(folder, listed[NAME], MOST_BYTES).decode("utf-8"))
        said, texts = need(plain, "runs", list), need(plain, "texts", list)
        if len(said) > MOST_RUNS or len(texts) > MOST_TEXTS:
            raise Misshapen(f"it has more than {MOST_RUNS} runs or {MOST_TEXTS} texts")
        return Runs(tuple(_run(run, listed) for run in said), tuple(map(_text, texts)))
    except (Misshapen, ValueError, RecursionError) as error:
        raise BadArtifacts(f"{NAME!r} in {folder} is misshapen: {error}") from error


def clip(folder: Path, manifest: Manifest, run: Run) -> bytes:
    """The bytes of a run's clip; raises as `read`."""
    listed = {file.name: file for file in manifest.golden}
    return verify.content(folder, listed[run.clip], MOST_CLIP)


def follow(parts: Parts, source: bytes | Path, run: Run) -> Followed:
    """Feed a model the original's tokens, and see how nearly it would have chosen them."""
    start, stages = time.perf_counter(), Stages()
    heard = parts.rules.read(source, MOST_SECONDS, stages)
    (piece, *_), _ = parts.rules.windows(heard, truncate=False)
    embeds, _ = parts.audio_encoder.encode([piece.pcm], stages)
    prompt = parts.prompter.build(run.prompt)
    row = woven(prompt.pieces, embeds, parts.prompter.markers)
    whole, lengths = assemble(parts.table, [row])
    decoder = parts.decoder()
    decoder.start(1, int(lengths[0]) + len(run.ids))
    logits, worst, at = decoder.feed(whole, lengths)[0], 0.0, 0
    for number, token in enumerate(run.ids):
        gap = gap_of(logits, token)
        if gap > worst:
            worst, at = gap, number
        if number + 1 < len(run.ids):
            logits = decoder.step(np.array([token]))[0]
    ms = (time.perf_counter() - start) * 1e3
    return Followed(worst, at, int(lengths[0]), ms)


def gap_of(logits: np.ndarray, token: int) -> float:
    """How much larger the best logit is than the token's, of their root mean square."""
    values = logits.astype(np.float64)
    if not np.isfinite(values).all() or token >= len(values):
        return math.inf
    return float(values.max() - values[token]) / max(math.sqrt(np.square(values).mean()), 1e-30)


def allowed(run: Run) -> float:
    """The gap that is allowed: that at export, and half of it more."""
    return MORE * run.gap + SLACK


def _run(plain: Any, listed: Any) -> Run:
    where = "a run"
    name = need(plain, "clip", str, where=where)
    if name not in listed:
        raise Misshapen(f"its clip {name!r:.80} is not among the manifest's")
    gap = float(need(plain, "gap", (int, float), where=where))
    if not gap >= 0:
        raise Misshapen(f"'gap' of a run is {gap!r:.40}")
    length, ids = count(plain, "length", 1, where=where), _ids(plain, where)
    if len(ids) > MOST_IDS:
        raise Misshapen(f"a run has {len(ids)} tokens, {MOST_IDS} at most")
    return Run(name, need(plain, "prompt", str, where=where), ids, length, gap)


def _text(plain: Any) -> Text:
    return Text(need(plain, "text", str, where="a text"), _ids(plain, "a text"))


def _ids(plain: Any, where: str) -> tuple[int, ...]:
    ids: Sequence[Any] = need(plain, "ids", list, where=where)
    all_of(ids, int, "ids")
    if any(number < 0 for number in ids):
        raise Misshapen(f"'ids' of {where} holds a number below 0")
    return tuple(ids)
