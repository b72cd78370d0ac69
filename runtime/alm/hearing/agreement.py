"""How much of a text that is heard again and again is certain: what two runs agree on.

LocalAgreement-2 (Machacek, Dabre and Bojar, "Turning Whisper into Real-Time Transcription System",
2023, arXiv 2307.14743): the longest common beginning of two runs in a row, of which the second
heard more, is taken for certain, and no later run takes it back.
"""

from __future__ import annotations

import re

# Scripts without spaces between words are compared by character: kana, CJK, Thai, Lao, Khmer,
# Burmese. Elsewhere a unit is a word with the space before it.
_ALONE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_UNIT = re.compile(rf"\s*[{_ALONE}]|\s*[^\s{_ALONE}]+")


def units(text: str) -> list[str]:
    """The words of a text, each with the white space before it."""
    return _UNIT.findall(text)


class Agreement:
    """The runs over one utterance, each of which heard more of it."""

    def __init__(self) -> None:
        self._certain: list[str] = []
        self._before: list[str] = []

    @property
    def certain(self) -> str:
        """The beginning that no later run takes back."""
        return "".join(self._certain)

    def push(self, text: str) -> str:
        """Take another run's text; gives it behind what is certain, which may have grown.

        A word of what is certain stands where the run has another in its place.
        """
        now = units(text.strip())
        for place in range(len(self._certain), min(len(now), len(self._before))):
            if now[place].strip() != self._before[place].strip():
                break
            self._certain.append(now[place])
        self._before = now
        return self.certain + "".join(now[len(self._certain) :])
