"""How a model's answers are drafted: by what was said before, or by a smaller model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alm.decoder.decoder import assemble, woven
from alm.decoding.options import Options
from alm.drafting.gain import Gain
from alm.drafting.ngrams import Ngrams
from alm.drafting.verified import Cached, Drafter, Verified
from alm.errors import BadOption
from alm.generation.parts import Parts
from alm.ports import FROM_END
from alm.text.prompt import Prompt
from alm.timings import Stages

NGRAMS = "ngrams"


@dataclass(frozen=True)
class Drafting:
    """What drafts for a model; `small` is None where only what was said before does."""

    small: Parts | None = None


def opened(where: str | Path, large: Parts, threads: int) -> Drafting:
    """Drafts of the model in the folder `where`, or of no model where that is "ngrams".

    Raises:
        BadOption: the model cannot be drafted for, or the other cannot draft for it.
        MissingFile, BadArtifacts: see `alm.load`.
    """
    check_large(large)
    if str(where) == NGRAMS:
        return Drafting()
    small = Parts(Path(where), large.provider, threads, audio_cache=0)
    _check_small(small, large)
    return Drafting(small)


def check_large(large: Parts) -> None:
    """Refuse, with BadOption, a model whose drafts could not be verified."""
    if large.stepping:
        raise BadOption("drafts are not for a model that writes a token for each step of sound")
    if FROM_END not in large.decoder_part.inputs:
        raise BadOption(
            f"the decoder of {large.folder} gives the logits of one position, drafts want "
            "those of several; export it again: alm-export --part decoder"
        )


def can(large: Parts, options: Options) -> bool:
    """Whether answers with these options can be drafted for by a text."""
    try:
        check_large(large)
    except BadOption:
        return False
    return options.num_beams == 1


def drafts_of(
    drafting: Drafting | None, large: Parts, options: Options, hypothesis: str
) -> Drafts | None:
    """What drafts a turn's answers; None where nothing is asked to.

    Raises:
        BadOption: drafts cannot follow this search, or this model.
    """
    if not drafting and not hypothesis:
        return None
    check_large(large)
    if options.num_beams > 1:
        raise BadOption(
            f"drafts follow one hypothesis, and {options.num_beams} beams are asked for; "
            "num_beams=1 is greedy"
        )
    return Drafts(drafting or Drafting(), large, hypothesis)


class Drafts:
    """What drafts one turn's answers, window after window; see `Verified`."""

    def __init__(self, drafting: Drafting, large: Parts, hypothesis: str) -> None:
        """`hypothesis` is a text that the answer is likely to repeat."""
        self.small, self.gain, self.ngrams = drafting.small, Gain(), Ngrams()
        self._asked: set[tuple[int, ...]] = set()
        if hypothesis:
            self.ngrams.learn(large.tokenizer.encode(hypothesis, add_special_tokens=False).ids)

    def over(
        self,
        decoder: Cached,
        prompt: Prompt,
        pcms: Sequence[np.ndarray],
        room: tuple[int, int],
    ) -> Verified:
        """The decoder of one row, drafted for.

        Args:
            decoder: with room for the answer.
            prompt: what is asked about the clips.
            pcms: float32 [samples] of each clip.
            room: positions of the whole row, and of its answer.
        """
        # A prompt that comes again, as with each window of a clip, says nothing new.
        for piece in map(tuple, prompt.pieces):
            if piece not in self._asked:
                self.ngrams.learn(piece)
                self._asked.add(piece)
        self.ngrams.begin()
        drafters: list[Drafter] = [self.ngrams]
        if self.small:
            drafters.append(SmallModel(self.small, prompt.asked, pcms, room[1]))
        return Verified(decoder, drafters, self.gain, room[0])


def _check_small(small: Parts, large: Parts) -> None:
    """Refuse, with BadOption, a model that cannot draft for the other."""
    if small.tokenizer.get_vocab() != large.tokenizer.get_vocab():
        raise BadOption(f"{small.folder} has other tokens than {large.folder} and cannot draft")
    if small.stepping or small.manifest.facts.units.count:
        raise BadOption(f"{small.folder} cannot draft: it hears streams or tokens, not clips")
    for what, a, b in (
        ("rate", small.rules.rate, large.rules.rate),
        ("window", small.rules.window, large.rules.window),
    ):
        if a != b:
            raise BadOption(f"{small.folder} cannot draft: its {what} is {a} samples, not {b}")


class SmallModel:
    """The smaller model on one row: its greedy answer behind what was said."""

    def __init__(self, parts: Parts, prompt: str, pcms: Sequence[np.ndarray], most: int) -> None:
        """`most` is how many positions the answer may have."""
        task = prompt in parts.manifest.tasks  # each model has words of its own for it
        built = parts.prompter.build(prompt, len(pcms), verbatim=not task)
        clips, _ = parts.audio_encoder.encode(pcms, Stages())
        row = woven(built.pieces, clips, parts.prompter.markers)
        embeds, lengths = assemble(parts.table, [row])
        context = parts.manifest.facts.dimensions.context
        self._decoder = parts.decoder()
        self._prompt = int(lengths[0])
        self._room = min(most, context - self._prompt)
        self._fed: list[int] = []  # of the answer, what is in the cache
        if self._room > 0:
            self._decoder.start(1, self._prompt + self._room)
            self._decoder.feed(embeds, lengths)

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        """See `Drafter`."""
        most = min(most, self._room - len(ids))
        if most < 1:
            return []
        same = 0
        while same < min(len(ids) - 1, len(self._fed)) and self._fed[same] == ids[same]:
            same += 1
        if same < len(self._fed):
            self._decoder.back(self._prompt + same)
        new = list(map(int, ids[same:]))
        self._fed[same:] = new
        logits, draft = self._fed_to(new), []
        while True:
            draft.append(int(logits.argmax()))
            if len(draft) == most:
                return draft
            logits = self._decoder.step(np.array(draft[-1:]))[0]
            self._fed.append(draft[-1])

    def _fed_to(self, ids: Sequence[int]) -> np.ndarray:
        """Logits [vocab] after these tokens."""
        embeds = self._decoder.table(np.array([ids], np.int64))
        return self._decoder.feed(embeds, np.array([len(ids)]))[0]
