"""Answers that are drafted are those that are not, on a real decoder in every dialect."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import alm
from alm.errors import BadOption, MissingFile
from alm.generation import drafts
from alm.generation.answers import Answer
from alm.text.prompt import Prompt
from tests.conftest import in_dialect
from tests.runtime.generation.test_model import core, noise

LONG: dict[str, Any] = dict(num_beams=1, max_new_tokens=40, min_new_tokens=40)
WAYS: dict[str, dict[str, Any]] = {
    "greedy": LONG,
    "sampled": LONG | dict(do_sample=True, seed=3, temperature=0.7, top_p=1.0),
    "penalty": LONG | dict(repetition_penalty=1.2),
}


@pytest.fixture(scope="module", params=["standard", "decomposed", "ort"])
def folder(
    request: pytest.FixtureRequest,
    artifacts: Path,
    checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The tiny model, its decoder in each dialect."""
    return in_dialect(request.param, artifacts, checkpoint, tmp_path_factory)


def said(answer: Answer) -> dict[str, Any]:
    counted = ("drafted_tokens", "accepted_tokens")
    return {name: value for name, value in core(answer).items() if name not in counted}


def test_every_answer_is_the_same_and_some_of_it_was_guessed(folder: Path) -> None:
    clips: list[np.ndarray] = [noise(30_000, 1), noise(100_000, 2)]  # the second has two windows
    plain, ngrams, itself = (
        alm.load(folder, provider="cpu", threads=1, draft=draft)
        for draft in (None, "ngrams", folder)
    )
    for way, options in WAYS.items():
        for clip in clips:
            wanted = plain.generate(clip, "describe", **options)
            assert (wanted.drafted_tokens, wanted.accepted_tokens) == (0, 0)
            told = plain.generate(clip, "describe", hypothesis=wanted.text, **options)
            found = [model.generate(clip, "describe", **options) for model in (ngrams, itself)]
            assert [said(each) for each in (*found, told)] == [said(wanted)] * 3, way
            assert found[1].drafted_tokens > 0
            assert all(each.accepted_tokens <= each.drafted_tokens for each in found)
            if way == "greedy":  # a model that drafts for itself is right
                assert found[1].accepted_tokens > found[1].drafted_tokens // 2
                assert "draft" in found[1].timings_ms
    chats = [model.chat(**LONG) for model in (plain, ngrams)]
    for words, heard in (("describe", clips[:1]), ("And now?", []), ("And now?", [])):
        wanted, found = (chat.ask(words, *heard) for chat in chats)
        assert said(found) == said(wanted)
    batch = [noise(9000, seed) for seed in range(3)]
    together = [model.generate(batch, "describe", **LONG) for model in (plain, itself)]
    assert [said(each) for each in together[0]] == [said(each) for each in together[1]]


def test_the_text_streams_as_it_does_without(artifacts: Path) -> None:
    plain, drafted = (alm.load(artifacts, draft=draft) for draft in (None, artifacts))
    pieces = [list(model.stream(noise(9000), "describe", **LONG)) for model in (plain, drafted)]
    assert pieces[0] == pieces[1] and len(pieces[0]) > 5
    stream = drafted.stream(noise(9000), "describe", **LONG)
    next(stream)
    stream.close()  # half-way
    assert list(drafted.stream(noise(9000), "describe", **LONG)) == pieces[0]


def test_beams_cannot_be_drafted_for(artifacts: Path) -> None:
    model = alm.load(artifacts, draft="ngrams")
    asked: list[dict[str, Any]] = [{"num_beams": 3}, {"num_beams": 2, "hypothesis": "x"}]
    for options in asked:
        with pytest.raises(BadOption, match="drafts follow one hypothesis, and [23] beams"):
            model.generate(noise(9000), "describe", **options)


def test_a_folder_that_cannot_draft_is_refused(artifacts: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="there is no folder"):
        alm.load(artifacts, draft=tmp_path / "none")
    with pytest.raises(MissingFile, match="there is no folder ngram;"):
        alm.load(artifacts, draft="ngram")


def model(**other: Any) -> Any:
    """What of a model is looked at before it drafts."""
    settings: dict[str, Any] = dict(words={"a": 0}, rate=16000, window=9, stepping=None, units=0)
    settings |= dict(wanted=True) | other
    return SimpleNamespace(
        folder="small",
        tokenizer=SimpleNamespace(get_vocab=lambda: settings["words"]),
        rules=SimpleNamespace(rate=settings["rate"], window=settings["window"]),
        manifest=SimpleNamespace(
            facts=SimpleNamespace(units=SimpleNamespace(count=settings["units"]))
        ),
        stepping=settings["stepping"],
        decoder_part=SimpleNamespace(inputs={drafts.FROM_END: 0} if settings["wanted"] else {}),
    )


@pytest.mark.parametrize(
    "other, why",
    [
        (dict(words={"b": 0}), "small has other tokens than"),
        (dict(rate=8000), "its rate is 8000 samples, not 16000"),
        (dict(window=8), "its window is 8 samples, not 9"),
        (dict(stepping=object()), "it hears streams or tokens"),
        (dict(units=3), "it hears streams or tokens"),
    ],
)
def test_a_small_model_must_fit_the_large_one(other: dict[str, Any], why: str) -> None:
    drafts._check_small(model(), model())
    with pytest.raises(BadOption, match=why):
        drafts._check_small(model(**other), model())


def test_windows_are_guessed_by_the_answers_before_them() -> None:
    asked, decoder = Prompt([[1, 2, 3], [4, 5]], joined=True), SimpleNamespace()
    turn: Any = drafts.Drafts(drafts.Drafting(), model(), "")
    turn.over(decoder, asked, [], (99, 40))
    assert turn.ngrams.propose([6, 7, 8], 4) == []
    turn.over(decoder, asked, [], (99, 40))
    assert turn.ngrams.propose([6], 4) == [7, 8]
    assert turn.ngrams.propose([6, 1, 2], 4) == [3]


def test_an_older_decoder_and_a_stream_cannot_be_verified() -> None:
    drafts.check_large(model())
    with pytest.raises(BadOption, match="gives the logits of one position.*export it again"):
        drafts.check_large(model(wanted=False))
    with pytest.raises(BadOption, match="a token for each step of sound"):
        drafts.check_large(model(stepping=object()))
