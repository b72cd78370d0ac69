"""Units of a clip as tokens: a part numbers what it hears, and each number is a token."""

from __future__ import annotations

import numpy as np

from alm.errors import BadArtifacts
from alm.facts import UnitFacts

NAME = "units"  # of the tensor; behind a clip's end it is below zero


class Units:
    """The manifest's `units`: how the numbers of a clip become tokens."""

    def __init__(self, facts: UnitFacts) -> None:
        self.count, self.first, self.merged = facts.count, facts.first, facts.merged

    def ids(self, units: np.ndarray) -> np.ndarray:
        """Units int64 [frames] of a clip, below zero behind its end -> its tokens int64 [n].

        Raises:
            BadArtifacts: a unit that is none of those that the manifest counts.
        """
        own = units[units >= 0].astype(np.int64)
        if own.size and int(own.max()) >= self.count:
            raise BadArtifacts(
                f"a part gave the unit {int(own.max())}, and the manifest counts {self.count}"
            )
        if self.merged and own.size:
            own = own[np.concatenate(([True], own[1:] != own[:-1]))]
        return own + self.first
