"""Numbers among a clip's embeddings: the seconds that are past, by which a model tells the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from alm.errors import BadArtifacts
from alm.facts import PromptFacts


class Markers:
    """After every `marker_rows` embeddings of a clip, the seconds so far: `5`, `10` and so on.

    A number stands there once the clip is that long, which `marker_rate` embeddings of 1,000 s
    say. Where those of `marker_seconds` are no whole number, as with 62.5 in 5 s, the places lag
    behind the seconds a little, as they do in the original.
    """

    def __init__(self, prompt: PromptFacts, encode: Callable[[str], list[int]]) -> None:
        """`encode` gives the ids of a text that stands alone.

        Raises:
            BadArtifacts: more numbers than the embeddings have places for.
        """
        self.seconds, self.rows = prompt.marker_seconds, prompt.marker_rows
        self.rate, self._encode = prompt.marker_rate, encode
        if self.seconds and not 0 < self.rows * 1000 <= self.seconds * self.rate:
            raise BadArtifacts(
                f"the manifest's prompt has marker_rows {self.rows} for marker_seconds "
                f"{self.seconds}, of which marker_rate {self.rate} makes fewer"
            )

    def places(self, rows: int) -> list[tuple[int, list[int]]]:
        """For a clip of so many embeddings: how many stand before a number, and its ids."""
        if not self.seconds:
            return []
        count = rows * 1000 // (self.seconds * self.rate)
        return [(i * self.rows, self._encode(str(i * self.seconds))) for i in range(1, count + 1)]

    def woven(self, embeds: np.ndarray) -> list[np.ndarray]:
        """Embeddings [n, hidden] -> them and the numbers' ids int64 [n], in their order."""
        row: list[np.ndarray] = []
        for begin, end, number in self._stretches(len(embeds)):
            row.append(embeds[begin:end])
            if number:
                row.append(np.array(number, np.int64))
        return row

    def ids(self, rows: int, held: Sequence[int]) -> list[int]:
        """The ids of a clip of so many embeddings, of which each is `held`."""
        ids: list[int] = []
        for begin, end, number in self._stretches(rows):
            ids += [*held] * (end - begin) + number
        return ids

    def _stretches(self, rows: int) -> Iterator[tuple[int, int, list[int]]]:
        """Where embeddings stand together, and the ids behind them; none behind the last."""
        done = 0
        for before, number in self.places(rows):
            yield done, before, number
            done = before
        if done < rows:
            yield done, rows, []
