"""A decoder's scores: checked, normalised, and a token chosen or drawn from them.

A vocabulary may hold 256k tokens, so nothing here sorts it whole unless the numbers leave no other
way.
"""

from __future__ import annotations

import numpy as np

from alm.errors import BadArtifacts, BadOption


def checked(logits: np.ndarray, rows: int, finite: bool = True) -> np.ndarray:
    """The logits as float32 [rows, vocab].

    Args:
        logits: what the decoder gave.
        rows: how many rows it must have given.
        finite: refuse a row without a largest finite number (NaN, inf, all -inf).

    Raises:
        BadArtifacts: another shape, or a row that is not `finite`.
    """
    if logits.ndim != 2 or logits.shape[0] != rows or not logits.shape[1]:
        raise BadArtifacts(
            f"the decoder must give logits [{rows}, vocabulary], and gave {list(logits.shape)}"
        )
    logits = np.asarray(logits, np.float32)
    if finite and not np.isfinite(logits.max(axis=-1)).all():  # max() hands a NaN on
        raise BadArtifacts(
            "the decoder gave logits that are not finite numbers: its weights are damaged, "
            "or it overflows in this precision; export it again, or in a wider precision"
        )
    return logits


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log probabilities, float32 [rows, vocab], of logits [rows, vocab]."""
    with np.errstate(invalid="ignore"):  # a row of NaN stays one, for whoever removes it
        shifted = logits - logits.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities, float32 [n], of scores [n] of which one at least is finite."""
    chances = np.exp(scores - scores.max())
    return chances / chances.sum()


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` largest of scores [n], best first; of equals the earlier one."""
    if count >= scores.size:
        return np.argsort(-scores, kind="stable")
    least = kth(scores, count)
    places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")][:count]


def kth(scores: np.ndarray, count: int) -> np.floating:
    """The `count`-th largest of scores [n]; the least where there are fewer."""
    count = min(count, scores.size)
    return np.partition(scores, scores.size - count)[scores.size - count]


def likeliest(scores: np.ndarray) -> int:
    """The token of the highest of scores [vocab].

    Raises:
        BadOption: every token is forbidden.
    """
    token = int(scores.argmax())
    if scores[token] == -np.inf:
        raise nothing_left()
    return token


def draw(scores: np.ndarray, random: np.random.Generator) -> int:
    """One token of scores [vocab], each with its softmax probability.

    Raises:
        BadOption: every token is forbidden.
    """
    places = np.flatnonzero(scores > -np.inf)
    if not places.size:
        raise nothing_left()
    chances = np.exp((scores[places] - scores.max()).astype(np.float64))
    mass = chances.cumsum()
    place = mass.searchsorted(random.random() * mass[-1], side="right")
    # Rounding may land on the total itself: then the last token that has any mass.
    return int(places[min(place, mass.searchsorted(mass[-1]))])


def draw_several(scores: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """`count` different places of scores [n], or all that have mass, the best score first.

    They are drawn one after the other without replacement by their softmax probabilities, which
    adding Gumbel noise and taking the largest does at once (Kool et al. 2019).
    """
    places = np.flatnonzero(scores > -np.inf)
    noisy = scores[places] + random.gumbel(size=places.size)
    drawn = places[best(noisy, count)]
    return drawn[np.argsort(-scores[drawn], kind="stable")]


def nothing_left() -> BadOption:
    """The error for options that forbid every token."""
    return BadOption(
        "the options forbid every token of the vocabulary; loosen suppress_tokens, bad_words_ids, "
        "no_repeat_ngram_size or what else forbids tokens, such as a schema"
    )
