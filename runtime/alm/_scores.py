"""What happens to a decoder's scores before a token is chosen, as transformers' `generate` does it.

Order and float32 arithmetic are those of transformers 5 (`generation/logits_process.py`):
repetition penalty, least length, then for sampling temperature, top-k and top-p. A vocabulary may
hold 256k tokens, so nothing here sorts it whole unless the numbers leave no other way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from alm.errors import BadArtifacts

HEAD = 256  # tokens that top-p sorts first; nearly always they hold the mass it asks for


def checked(logits: np.ndarray, rows: int) -> np.ndarray:
    """The logits as float32 [rows, vocab].

    Raises:
        BadArtifacts: another shape, or a row without a largest finite number (NaN, inf, all -inf).
    """
    if logits.ndim != 2 or logits.shape[0] != rows or not logits.shape[1]:
        raise BadArtifacts(
            f"the decoder must give logits [{rows}, vocabulary], and gave {list(logits.shape)}"
        )
    logits = np.asarray(logits, np.float32)
    if not np.isfinite(logits.max(axis=-1)).all():  # max() hands a NaN on
        raise BadArtifacts(
            "the decoder gave logits that are not finite numbers: its weights are damaged, "
            "or it overflows in this precision; export it again, or in a wider precision"
        )
    return logits


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log probabilities, float32 [rows, vocab], of logits [rows, vocab]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` largest of scores [n], best first; of equals the earlier one."""
    if count >= scores.size:
        return np.argsort(-scores, kind="stable")
    least = np.partition(scores, scores.size - count)[scores.size - count]
    places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")][:count]


def process(
    scores: np.ndarray,
    histories: Sequence[Sequence[int]],
    *,
    repetition_penalty: float,
    min_length: int,
    eos_ids: Iterable[int],
    prompts: Sequence[Sequence[int]] = (),
) -> np.ndarray:
    """Scores [rows, vocab] after repetition penalty and least length; the given ones stay.

    `histories` are the new tokens of each row. `prompts`, where the penalty is for the prompt's
    tokens as well, are those of each row; a prompt that came as embeddings has none.
    The penalty is that of CTRL (Keskar et al. 2019, section 4.1) as transformers has it: a score
    above zero is divided by it, one below is multiplied.
    """
    short = [row for row, history in enumerate(histories) if len(history) < min_length]
    if repetition_penalty == 1 and not short:
        return scores
    scores = scores.copy()
    penalty = np.float32(repetition_penalty)
    for row, history in enumerate(histories):
        seen = np.unique(np.asarray([*(prompts[row] if prompts else ()), *history], np.int64))
        seen = seen[seen < scores.shape[1]]
        score = scores[row, seen]
        scores[row, seen] = np.where(score < 0, score * penalty, score / penalty)
    ends = [token for token in eos_ids if token < scores.shape[1]]
    scores[np.ix_(short, ends)] = -np.inf
    return scores


def warp(scores: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Scores [vocab] to sample from: cooled, and -inf for what top-k or top-p leave out."""
    if temperature != 1:
        scores = scores / np.float32(temperature)
    if 0 < top_k < scores.size:
        least = np.partition(scores, scores.size - top_k)[scores.size - top_k]
        scores = np.where(
            scores < least, np.float32(-np.inf), scores
        )  # equals of the last one stay
    if top_p < 1:
        kept = _nucleus(scores, top_p)
        scores, all_scores = np.full_like(scores, -np.inf), scores
        scores[kept] = all_scores[kept]
    return scores


def _nucleus(scores: np.ndarray, top_p: float) -> np.ndarray:
    """The places of the fewest tokens that hold `top_p` of the mass (Holtzman et al. 2020).

    As in transformers, tokens go from the least likely up while their mass together is at most
    1 - top_p, and one always stays. Only a head of the distribution is sorted; the rest is summed.
    """
    places = np.flatnonzero(scores > -np.inf)  # a partition of many equal zeros would be slow
    chances = np.exp(scores[places] - scores.max())
    chances /= chances.sum()
    limit, count = np.float32(1 - top_p), HEAD
    while True:
        cut = chances.size - min(count, chances.size)
        least = np.partition(chances, cut)[cut] if cut else np.float32(0)
        below = chances[chances < least].sum(dtype=np.float64)
        if not cut or np.float32(below) <= limit:
            break
        count *= 8
    head = np.flatnonzero(chances >= least)
    head = head[np.argsort(chances[head], kind="stable")]
    # float64 sums rounded to float32: torch's cumsum accumulates in double on the CPU
    mass = (below + chances[head].cumsum(dtype=np.float64)).astype(np.float32)
    keep = mass > limit
    keep[-1] = True
    return places[head[keep]]


def draw(scores: np.ndarray, random: np.random.Generator) -> int:
    """One token of scores [vocab], each with its softmax probability."""
    places = np.flatnonzero(scores > -np.inf)
    chances = np.exp((scores[places] - scores.max()).astype(np.float64))
    mass = chances.cumsum()
    place = mass.searchsorted(random.random() * mass[-1], side="right")
    # Rounding may land on the total itself: then the last token that has any mass.
    return int(places[min(place, mass.searchsorted(mass[-1]))])
