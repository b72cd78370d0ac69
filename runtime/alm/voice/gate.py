"""Which clips and windows are not asked about, since nobody speaks in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alm.errors import BadOption
from alm.voice.presence import has_speech

NO_SPEECH = "no_speech"  # why an answer is empty: nothing was asked


class Gate:
    """Closed for sound without speech, where transcripts are asked for or the user wants it."""

    def __init__(self, wanted: Any, rate: int, remembers: bool) -> None:
        """`wanted`: True, False, or None: for transcripts, but not in a conversation.

        Raises:
            BadOption: it is something else.
        """
        if wanted not in (None, True, False):
            raise BadOption(f"gate is True, False or None, not {wanted!r:.40}")
        self.wanted, self.rate, self.remembers = wanted, rate, remembers

    def closed(self, pcms: Sequence[np.ndarray], transcribes: bool) -> bool:
        """Whether a prompt about float32 clips [samples] is not asked: there is no speech in them.

        A prompt about no clip is always asked.
        """
        wanted = transcribes and not self.remembers if self.wanted is None else self.wanted
        return bool(wanted and pcms) and not any(has_speech(pcm, self.rate) for pcm in pcms)
