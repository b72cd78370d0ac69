"""What a user of the package may write: checked strictly, and run, by test_typed_client."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import alm


def one(model: alm.Model, clip: str) -> str:
    """One clip has one answer."""
    answer: alm.Answer = model.generate(clip, "transcribe", num_beams=1, max_new_tokens=4)
    return answer.text


def several(model: alm.Model, clips: list[str]) -> list[int]:
    """A list of clips has a list of answers, and may have a list of prompts."""
    answers: list[alm.Answer] = model.generate(clips, "transcribe", max_new_tokens=4)
    prompts = ["transcribe"] * len(clips)
    again = model.generate([Path(clip) for clip in clips], prompts, truncate=True, num_beams=1)
    together = model.generate([clips], "Compare.", verbatim=True, max_new_tokens=4, seed=None)
    return [len(answer.token_ids) for answer in (*answers, *again, *together)]


def streamed(model: alm.Model, clip: bytes) -> Iterator[str]:
    """Pieces of text, and no more than one of them."""
    with closing(model.stream(clip, "transcribe", num_beams=1, max_audio_seconds=60)) as pieces:
        yield next(pieces).upper()


def talked(model: alm.Model, clip: str) -> float:
    """Two turns, told as they come."""
    told: list[str] = []
    chat: alm.Conversation = model.chat(num_beams=1, max_new_tokens=4)
    first = chat.ask("Who speaks?", clip, on_text=told.append)
    again = chat.ask("And now?", temperature=0.7, seed=1)
    return first.timings_ms["total"] + again.timings_ms["total"]


def main(folder: str, clip: str) -> None:
    """Use all of it."""
    try:
        model = alm.load(folder, provider="cpu", threads=1)
    except (alm.MissingFile, alm.BadArtifacts) as error:
        raise SystemExit(str(error)) from error
    options: alm.Options = model.options(top_p=0.9)
    beams: int = options.num_beams
    try:
        model.generate(clip, "", num_beams=beams)
    except alm.BadPrompt as error:
        wrong: alm.AlmError = error
        print(type(wrong).__name__, wrong.usage)
    print(one(model, clip), several(model, [clip, clip]), talked(model, clip))
    print(*streamed(model, Path(clip).read_bytes()))


if __name__ == "__main__":
    main(*sys.argv[1:])
