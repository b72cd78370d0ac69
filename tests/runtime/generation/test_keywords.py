"""Options of an answer by keyword: their names for type checkers and at run time."""

from __future__ import annotations

from dataclasses import fields

import pytest

from alm.decoding.options import Options
from alm.errors import BadOption
from alm.generation.keywords import Decoding, choose

NAMES = [field.name for field in fields(Options)]


def test_type_checkers_know_exactly_the_options_that_there_are() -> None:
    assert sorted(Decoding.__annotations__) == sorted(NAMES)
    assert not Decoding.__required_keys__


def test_none_is_as_good_as_unsaid_for_every_option() -> None:
    assert choose({}, dict.fromkeys(NAMES)) == choose({}, {})


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("max_tokens", "max_new_tokens"),
        ("num_beam", "num_beams"),
        ("temprature", "temperature"),
        ("topk", "top_k"),
        ("repetition_penality", "repetition_penalty"),
    ],
)
def test_a_near_name_of_an_unknown_option_is_offered(said: str, meant: str) -> None:
    with pytest.raises(BadOption, match=f"unknown option '{said}'; did you mean {meant}\\?$"):
        choose({}, {said: 1})


def test_a_name_near_to_nothing_is_answered_with_all_of_them() -> None:
    with pytest.raises(BadOption, match="unknown option 'colour'; there is: bad_words_ids, "):
        choose({}, {"colour": "red"})
