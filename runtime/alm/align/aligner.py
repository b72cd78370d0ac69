"""An aligner's folder, opened: a clip and its text in, the times of the words out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from alm.align import sentences
from alm.align.times import in_order
from alm.align.words import Place, split
from alm.decoder.decoder import assemble, woven
from alm.errors import BadArtifacts
from alm.generation.parts import Parts
from alm.text.segments import Segment, Word
from alm.timings import Stages


class Aligner:
    """An aligner; made by `alm.load(folder, align=...)`. Threads may share it."""

    def __init__(self, folder: Path, provider: str = "auto", threads: int = 0) -> None:
        """Verify the artifacts and open them.

        Raises:
            BadArtifacts: they are no aligner's.
        """
        self.parts = Parts(folder, provider, threads, 0, aligns=True)
        self.facts = self.parts.manifest.facts
        if self.facts.align.step_ms < 1:
            raise BadArtifacts(f"the manifest of {folder} states no step_ms of its labels")
        self.mark_id = self.parts.tokenizer.token_to_id(self.facts.align.mark)
        if self.mark_id is None:
            raise BadArtifacts(
                f"the tokenizer of {folder} does not know {self.facts.align.mark!r:.80}"
            )

    @property
    def most_seconds(self) -> float:
        """The longest piece that is aligned at once."""
        return self.parts.rules.window / self.parts.rules.rate

    @property
    def rate(self) -> int:
        """Samples a second of what it hears."""
        return self.parts.rules.rate

    def segments(
        self,
        pcm: np.ndarray,
        spoken: Sequence[Segment],
        start: float = 0.0,
        stages: Stages | None = None,
    ) -> list[Segment]:
        """What was said, in segments that can be read, with their words' times; see `align`.

        Args:
            pcm: float32 [samples] at the aligner's rate, at most `most_seconds` of them.
            spoken: the text, or what each speaker said of it. No segment has words of two.
            start: of the clip within its recording, in seconds.

        Returns:
            Segments and words in their order, none beyond the clip's end, where the next may begin.
            What has no words stays as it is.
        """
        seconds = len(pcm) / self.rate

        def within(time: float) -> float:
            return round(start + min(time, seconds), 3)

        timed = self.align(pcm, " ".join(segment.text for segment in spoken), stages)
        made: list[Segment] = []
        at = 0  # where the segment's text begins in the whole
        for segment in spoken:
            end = at + len(segment.text)
            words = [
                (
                    Place(place.word, place.start - at, place.end - at),
                    Word(word.text, within(word.start), within(word.end)),
                )
                for place, word in timed
                if at <= place.start < end
            ]
            parts = sentences.segments(segment.text, words)
            made += [replace(part, speaker=segment.speaker) for part in parts] or [segment]
            at = end + 1
        return made

    def align(
        self, pcm: np.ndarray, text: str, stages: Stages | None = None
    ) -> list[tuple[Place, Word]]:
        """The words of the text in their order, with their places in it and their times.

        Args:
            pcm: float32 [samples] at the aligner's rate, at most `most_seconds` of them.
            text: what is said in it.
            stages: counts the time, all of it as `align`.

        Returns:
            Times never fall from word to word. None for a text without words.
        """
        places = split(text)
        if not places:
            return []
        since = time.perf_counter()
        labels = self._labels(pcm, [place.word for place in places])
        if stages:
            stages.add("align", since)
        step = self.facts.align.step_ms
        times = [ms / 1000 for ms in in_order([int(n) * step for n in labels])]
        return [
            (place, Word(text[place.start : place.end], round(start, 3), round(end, 3)))
            for place, start, end in zip(places, times[::2], times[1::2], strict=True)
        ]

    def _labels(self, pcm: np.ndarray, words: list[str]) -> np.ndarray:
        """The labels at the marks: two for each word."""
        least = self.parts.rules.least
        pcm = np.pad(pcm, (0, max(0, least - len(pcm))))
        [embeds], _ = self.parts.audio_encoder.encode([pcm], Stages())
        prompt = self.facts.prompt
        before, after = prompt.clip.split(prompt.placeholder)
        text = after + "".join(word + 2 * self.facts.align.mark for word in words)
        encode = self.parts.tokenizer.encode
        ids = [encode(piece, add_special_tokens=False).ids for piece in (before, text)]
        row, lengths = assemble(self.parts.table, [woven(ids, [embeds])])
        marks = [*np.full(len(ids[0]) + len(embeds), False), *(np.array(ids[1]) == self.mark_id)]
        decoder = self.parts.decoder()
        decoder.start(1, row.shape[1])
        labels = [logits[0].argmax(-1) for logits in decoder.fed(row, lengths)]
        return np.concatenate(labels)[marks]
