"""What sampling leaves out of a row's scores, as transformers' logits warpers do it.

Order and float32 arithmetic are those of transformers 5.24 (`generation/logits_process.py`). A
vocabulary may hold 256k tokens, so a row is sorted whole only by `typical_p`, and then only what
the warpers before it left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from alm.decoding import logit_arrays

if TYPE_CHECKING:
    from alm.decoding.options import Options

Warper = Callable[[np.ndarray], np.ndarray]

HEAD = 256  # tokens that top-p sorts first; nearly always they hold all of its mass
TOP_H_TOKENS = 100  # transformers measures the entropy of so many of the likeliest


def warpers(options: Options, keep: int = 1) -> list[Warper]:
    """The warpers that `options` turn on: from scores [vocab] to scores, -inf for what is left out.

    Args:
        options: how to sample.
        keep: the likeliest tokens that always stay.
    """
    active: list[Warper] = []
    if options.temperature != 1:
        active.append(lambda scores: scores / np.float32(options.temperature))
    if (top_h := options.top_h) is not None:
        active.append(lambda scores: only(scores, _low_entropy(scores, top_h)))
    if options.top_k:
        active.append(
            lambda scores: _at_least(scores, logit_arrays.kth(scores, max(options.top_k, keep)))
        )
    if options.top_p < 1:
        active.append(lambda scores: only(scores, _nucleus(scores, options.top_p, keep)))
    if (min_p := options.min_p) is not None:
        active.append(lambda scores: _min_p(scores, min_p, keep))
    if options.typical_p < 1:
        active.append(lambda scores: only(scores, _typical(scores, options.typical_p, keep)))
    if 0 < options.epsilon_cutoff < 1:
        active.append(lambda scores: _cut(scores, np.float32(options.epsilon_cutoff), keep))
    if 0 < options.eta_cutoff < 1:
        active.append(lambda scores: _cut(scores, _eta(scores, options.eta_cutoff), keep))
    return active


def only(scores: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Scores [vocab] at these places, -inf elsewhere."""
    kept = np.full_like(scores, -np.inf)
    kept[places] = scores[places]
    return kept


def _at_least(scores: np.ndarray, least: np.floating) -> np.ndarray:
    return np.where(scores < least, np.float32(-np.inf), scores)  # equals of the last one stay


def _low_entropy(scores: np.ndarray, top_h: float) -> np.ndarray:
    """The likeliest tokens whose entropy together is within `top_h` of that of the first hundred.

    Top-H decoding (Potraghloo et al. 2025); one token always stays.
    """
    places = logit_arrays.best(scores, min(TOP_H_TOKENS, scores.size))
    log_chances = logit_arrays.log_softmax(scores[places][None])[0]
    chances = np.exp(log_chances)
    with np.errstate(invalid="ignore"):  # 0 * -inf: such a token does not stay
        terms = -chances * log_chances
        keep = terms.cumsum(dtype=np.float64).astype(np.float32) <= np.float32(top_h) * (
            np.nansum(terms, dtype=np.float32)
        )
    keep[0] = True
    return places[keep]


def _nucleus(scores: np.ndarray, top_p: float, keep: int) -> np.ndarray:
    """The places of the fewest tokens that hold `top_p` of the mass (Holtzman et al. 2020).

    As in transformers, tokens go from the least likely up while their mass together is at most
    1 - top_p, and `keep` always stay. Only a head of the distribution is sorted; the rest is
    summed.
    """
    places = np.flatnonzero(scores > -np.inf)  # a partition of many equal zeros would be slow
    chances = logit_arrays.softmax(scores[places])
    limit, count = np.float32(1 - top_p), max(HEAD, keep)
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
    stays = mass > limit
    stays[-keep:] = True
    return places[head[stays]]


def _min_p(scores: np.ndarray, min_p: float, keep: int) -> np.ndarray:
    """Tokens of at least `min_p` of the likeliest one's probability (Nguyen et al. 2024)."""
    chances = logit_arrays.softmax(scores)
    stays = chances >= np.float32(min_p) * chances.max()
    stays[logit_arrays.best(chances, keep)] = True
    return only(scores, np.flatnonzero(stays))


def _typical(scores: np.ndarray, mass: float, keep: int) -> np.ndarray:
    """The places whose surprise is nearest to the entropy, up to `mass` (Meister et al. 2022)."""
    places = np.flatnonzero(scores > -np.inf)
    log_chances = logit_arrays.log_softmax(scores[places][None])[0]
    chances = np.exp(log_chances)
    entropy = -np.sum(log_chances * chances, dtype=np.float32)
    distance = np.abs(-log_chances - entropy)
    order = np.argsort(distance, kind="stable")
    sums = chances[order].cumsum(dtype=np.float64).astype(np.float32)
    last = min(int((sums < np.float32(mass)).sum()), places.size - 1)
    stays = distance[order] <= distance[order[last]]
    stays[:keep] = True
    return places[order[stays]]


def _eta(scores: np.ndarray, epsilon: float) -> np.float32:
    """The cutoff of eta sampling: the lower the flatter the distribution (Hewitt et al. 2022)."""
    log_chances = logit_arrays.log_softmax(scores[scores > -np.inf][None])[0]
    entropy = -np.sum(np.exp(log_chances) * log_chances, dtype=np.float32)
    limit = np.float32(epsilon)
    return np.minimum(limit, np.sqrt(limit) * np.exp(-entropy))


def _cut(scores: np.ndarray, limit: np.floating, keep: int) -> np.ndarray:
    """Tokens of a probability of at least `limit`, and the `keep` likeliest."""
    chances = logit_arrays.softmax(scores)
    stays = (chances >= limit) | (scores >= logit_arrays.kth(scores, keep))
    return np.where(stays, scores, np.float32(-np.inf))
