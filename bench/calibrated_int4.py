"""Ways to choose the codes of 4 bits, at equal bytes: python bench/calibrated_int4.py --help

The decoder's linears get the weights that a graph would have, the sums stay in float32, and the
model answers clips that it was not fitted to. AWQ's scales are folded into what is before.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from alm.decoder.decoder import Decoder, assemble, woven  # noqa: E402
from alm.timings import Stages  # noqa: E402
from exporters import answering, calibration  # noqa: E402
from exporters.levers import _compensated, _moments, _nbits, int4head8, int4mixed, int8  # noqa: E402
from wrappers import open_checkpoint  # noqa: E402
from wrappers.checkpoint.weights.hollow import filled  # noqa: E402

POWERS = [step / 20 for step in range(20)]  # AWQ's grid
LEVERS: dict[str, Any] = {"int4head8": int4head8.Lever(), "int4mixed": int4mixed.Lever()}
Codes = Callable[[Tensor, Tensor, _nbits.Scheme], Tensor]  # W', H -> what W' becomes


@dataclass(frozen=True)
class Row:
    """A prompt, and the original's answer with its logits [answer + 1, vocab]."""

    embeds: np.ndarray
    said: answering.Said
    logits: np.ndarray


def nearest(matrix: Tensor, _: Tensor, scheme: _nbits.Scheme) -> Tensor:
    """As int4 has it."""
    return _read(_nbits.quantize(matrix, scheme), matrix, scheme)


def compensated(loudest_first: bool) -> Codes:
    """GPTQ."""

    def codes(matrix: Tensor, second: Tensor, scheme: _nbits.Scheme) -> Tensor:
        how = _compensated.Compensation(second, loudest_first)
        return _read(_compensated.quantize(matrix, scheme, how), matrix, scheme)

    return codes


WAYS: dict[str, Codes] = {
    "nearest": nearest,
    "GPTQ, in order": compensated(loudest_first=False),
    "GPTQ, loudest first": compensated(loudest_first=True),
}


def awq(matrices: Sequence[Tensor], seconds: Sequence[Tensor], scheme: _nbits.Scheme) -> list[Any]:
    """Products with one input, their columns scaled by a power of its size before rounding."""
    size = max(seconds, key=lambda second: float(second.trace())).diagonal().sqrt().float()
    size = size.clamp(min=1e-4 * float(size.max()))
    best: list[Any] = []
    least = float("inf")
    for power in POWERS:
        scale = size**power
        scale = scale / (scale.max() * scale.min()).sqrt()
        made = [
            nearest(m * scale, s, scheme) / scale for m, s in zip(matrices, seconds, strict=True)
        ]
        pairs = zip(made, matrices, seconds, strict=True)
        lost = sum(float((((a - b).double() @ s) * (a - b)).sum()) for a, b, s in pairs)
        if lost < least:
            best, least = made, lost
    return best


def _read(found: _nbits.Quantized, matrix: Tensor, scheme: _nbits.Scheme) -> Tensor:
    return torch.from_numpy(_nbits.dequantize(found, scheme, matrix.shape[1]))


class Model:
    """A checkpoint's decoder as a torch module, whose weights can be put in and taken out."""

    def __init__(self, path: Path, calibrate: Path) -> None:
        self.checkpoint = open_checkpoint(path)
        self.part = filled(self.checkpoint.part("decoder", "standard").eval())
        self.clips = calibration.find(calibrate, self.checkpoint.facts)
        self.audience = answering.Audience(
            self.checkpoint, "standard", "decoder", self.part, self.clips
        )
        self.seconds: dict[str, Tensor] = {}
        self.together: dict[str, list[str]] = {}  # linears with one input, whole layers through
        groups = [
            _moments.Group(g.members, True, self._linear(g.members[0]).in_features)
            for g in _moments.groups(self.part, self.audience.hear)
        ]
        for group, moments in _moments.gather(self.part, groups, self.audience.hear):
            for name in group.members:
                self.seconds[name] = moments.second
                kind = name.replace("k_proj", "q_proj").replace("v_proj", "q_proj")
                kind = kind.replace("up_proj", "gate_proj")
                self.together.setdefault(kind, []).append(name)
        self.weights = {name: self._linear(name).weight.detach().clone() for name in self.seconds}

    def _linear(self, name: str) -> Any:
        return self.part.get_submodule(name)

    def put(self, lever: Any, way: str) -> None:
        """Give the decoder the weights of a way; "original" are its own."""
        for names in self.together.values():
            scheme = int8.SCHEME if lever.careful(names[0]) else lever.scheme
            matrices, seconds = ([of[n] for n in names] for of in (self.weights, self.seconds))
            if way == "original":
                made = matrices
            elif scheme is int8.SCHEME:
                made = [nearest(m, s, scheme) for m, s in zip(matrices, seconds, strict=True)]
            elif way == "AWQ":
                made = awq(matrices, seconds, scheme)
            else:
                made = [WAYS[way](m, s, scheme) for m, s in zip(matrices, seconds, strict=True)]
            for name, matrix in zip(names, made, strict=True):
                self._linear(name).weight.data.copy_(matrix)

    def decoder(self) -> Decoder:
        """The decoder as it is now."""
        told = self.audience._stated((), self.part.inputs, self.part.outputs)
        table: Any = self.audience._table
        return Decoder(calibration.TorchSession(self.part), told, table)

    def row(self, pcm: np.ndarray, task: str) -> Row:
        """What the decoder says to samples as it is now."""
        audience = self.audience
        pcm = np.pad(pcm, (0, max(self.checkpoint.facts.audio.least_samples - len(pcm), 0)))
        heard, _ = audience._ears.encode([pcm], Stages())
        prompt = audience._prompter.build(task)
        markers = audience._prompter.markers
        embeds, lengths = assemble(self.audience._table, [woven(prompt.pieces, heard, markers)])
        said = audience._answer(self.decoder(), embeds, lengths)
        return Row(embeds, said, self.forced(embeds, said.ids))

    def forced(self, embeds: np.ndarray, ids: Sequence[int]) -> np.ndarray:
        """Logits [answer + 1, vocab] along an answer."""
        decoder = self.decoder()
        decoder.start(1, embeds.shape[1] + len(ids) + 1)
        logits = [decoder.feed(embeds, np.array([embeds.shape[1]]))[0]]
        logits += [decoder.step(np.array([token]))[0] for token in ids]
        return np.stack(logits)

    def said(self, row: Row) -> answering.Said:
        """What the decoder says now to a row's prompt."""
        lengths = np.array([row.embeds.shape[1]])
        return self.audience._answer(self.decoder(), row.embeds, lengths)


def words(texts: Sequence[str], right: Sequence[str]) -> float:
    """Word errors in percent."""
    import jiwer

    from bench.quality import normal

    return 100 * float(jiwer.wer([normal(t) for t in right], [normal(t) for t in texts]))


def line(model: Model, kinds: dict[str, list[tuple[Row, str]]]) -> str:
    """Logits' rms, agreement of tokens, equal answers, least margin, circling, words by kind."""
    lost = size = same = tokens = 0.0
    said: list[answering.Said] = []
    errors: list[str] = []
    for rows in kinds.values():
        texts: list[str] = []
        for row, _ in rows:
            logits = model.forced(row.embeds, row.said.ids).astype(np.float64)
            lost += float(np.square(logits - row.logits).sum())
            size += float(np.square(row.logits.astype(np.float64)).sum())
            same += float((logits.argmax(1) == row.logits.argmax(1)).sum())
            tokens += len(logits)
            said.append(model.said(row))
            texts.append(model.audience._prompter.tokenizer.decode([*said[-1].ids]))
        right = [text for _, text in rows]
        errors.append(f"{words(texts, right):.1f}" if any(right) else "-")
    before = [row.said for rows in kinds.values() for row, _ in rows]
    found = answering.compared(before, said)
    return " | ".join(
        [
            f"{(lost / size) ** 0.5:.4f}",
            f"{100 * same / tokens:.1f}",
            f"{100 * found['equal']:.1f}",
            f"{found['least_margin']['graph']:.2f}",
            f"{100 * found['circling']['graph']:.1f}",
            *errors,
        ]
    )


def composed(recordings: Path, count: int, seed: int) -> Iterator[tuple[str, np.ndarray, str]]:
    """Clips that training never saw, by kind, each with what is said."""
    from bench.accuracy import unheard

    for kind, clips in unheard(recordings, count, seed).items():
        if kind != "captions":
            yield from ((kind, clip.pcm, clip.text) for clip in clips)


def learned(recordings: Path, count: int, folder: Path) -> None:
    """Write clips that are composed as those of training."""
    import soundfile

    from demo import voices
    from demo.compose import SPEAKERS, Sources, compose
    from demo.prepare import SHARES

    takes = voices.takes(recordings, list(SPEAKERS), held_out=False)
    sources, chance = Sources(voices.VARIANTS, takes, SHARES, background=0.3), random.Random(7)
    for i, kind in enumerate(chance.choices(list(SHARES), list(SHARES.values()), k=count)):
        soundfile.write(folder / f"{i:03}.wav", compose(kind, sources, chance).pcm, 16_000)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "demo/checkpoint/config.yaml")
    parser.add_argument("--recordings", type=Path, required=True, help="fsdd's recordings")
    parser.add_argument("--calibrate", type=Path, required=True, help="clips; made if not there")
    parser.add_argument("--calibration-clips", type=int, default=60, help="so many are made")
    parser.add_argument("--clips", type=int, default=60, help="of each kind")
    parser.add_argument("--task", default="transcribe")
    parser.add_argument("--no-words", action="store_true", help="a random model says none")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if not given.calibrate.is_dir():
        given.calibrate.mkdir(parents=True)
        learned(given.recordings, given.calibration_clips, given.calibrate)
    model = Model(given.model, given.calibrate)
    kinds: dict[str, list[tuple[Row, str]]] = {}
    for kind, pcm, text in composed(given.recordings, given.clips, given.seed):
        row = model.row(pcm, given.task)
        kinds.setdefault(kind, []).append((row, "" if given.no_words else text))
    heads = ("codes", "way", "rms", "top-1", "equal", "margin", "circling", *kinds)
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    print(f"| fp32 | | {line(model, kinds)} |", flush=True)
    for name, lever in LEVERS.items():
        for way in (*WAYS, "AWQ"):
            model.put(lever, way)
            print(f"| {name} | {way} | {line(model, kinds)} |", flush=True)


if __name__ == "__main__":
    main()
