"""What a model thinks is told apart from its answer, in a whole text as in pieces of it."""

from __future__ import annotations

import random

import pytest

from alm.errors import BadArtifacts
from alm.text.thoughts import Thoughts, ThoughtStream

MARKED = Thoughts("<think>{}</think>")
# A text, whether the prompt has begun the thought -> the thought and the answer.
CASES = {
    ("<think>\nwhy\n</think>\n\nso", False): ("\nwhy\n", "\n\nso"),
    ("why\n</think>\n\nso", True): ("why\n", "\n\nso"),
    ("\n <think>why</think>so", True): ("why", "so"),
    ("<think></think>", False): ("", ""),
    ("</think>so", True): ("", "so"),
    ("</think>so", False): ("", "</think>so"),
    ("so <think>why</think>", False): ("", "so <think>why</think>"),
    ("<think>a</think>b</think>c", False): ("a", "b</think>c"),
    ("<think>why </thi", False): ("why </thi", ""),
    ("why <", True): ("why <", ""),
    ("so <", False): ("", "so <"),
    ("<thi", False): ("", "<thi"),
    ("<thi", True): ("<thi", ""),
    ("<think>", False): ("", ""),
    ("", True): ("", ""),
    ("  ", False): ("", "  "),
    ("<<think>why</think>so", False): ("", "<<think>why</think>so"),
}


@pytest.mark.parametrize("text, begun", CASES)
def test_thought_and_answer_are_told_apart(text: str, begun: bool) -> None:
    assert MARKED.split(text, begun) == CASES[text, begun]


def in_pieces(text: str, begun: bool, sizes: list[int]) -> tuple[str, str]:
    """The thought, its marks in it, and the answer of a text that comes in pieces."""
    stream, at = ThoughtStream(MARKED, begun), 0
    got: list[tuple[str, str]] = []
    for size in sizes:
        got.append(stream.push(text[at : at + size]))
        at += size
    got += [stream.push(text[at:]), stream.finish()]
    return "".join(thought for thought, _ in got), "".join(answer for _, answer in got)


def shown(text: str, begun: bool) -> str:
    """A thought between its marks, as far as they are there."""
    thought, _ = MARKED.split(text, begun)
    closed = "</think>" in text
    there = begun or text.lstrip().startswith("<think>")
    return f"<think>{thought}{'</think>' if closed else ''}" if there else ""


@pytest.mark.parametrize("text, begun", [case for case in CASES if case[0]])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pieces_joined_are_the_thought_and_the_answer(text: str, begun: bool, size: int) -> None:
    sizes = [size] * (len(text) // size)
    assert in_pieces(text, begun, sizes) == (shown(text, begun), MARKED.split(text, begun)[1])


def test_any_text_in_any_pieces_is_read_as_the_whole_is() -> None:
    noise = random.Random(0)
    words = ("<think>", "</think>", "<", "</", "think", ">", "a", " ", "\n", "why", "é")
    for _ in range(4000):
        text = "".join(noise.choice(words) for _ in range(noise.randrange(1, 9)))
        begun = noise.random() < 0.5
        sizes = [noise.randrange(0, 6) for _ in range(noise.randrange(9))]
        thought, answer = in_pieces(text, begun, sizes)
        assert answer == MARKED.split(text, begun)[1], (text, begun, sizes)
        assert thought == shown(text, begun), (text, begun, sizes)


def test_an_answer_comes_as_soon_as_it_is_one() -> None:
    stream = ThoughtStream(MARKED, begun=False)
    assert [stream.push(piece) for piece in ("<t", "ea", "!")] == [
        ("", ""),
        ("", "<tea"),
        ("", "!"),
    ]
    stream = ThoughtStream(MARKED, begun=True)
    given = ("why", " </", "thin", "g </think>so", " it")
    wanted = [("<think>why", ""), (" ", ""), ("", ""), ("</thing </think>", "so"), ("", " it")]
    assert [stream.push(piece) for piece in given] == wanted


def test_without_marks_everything_is_the_answer() -> None:
    none = Thoughts()
    assert none.split("<think>a</think>b", True) == (None, "<think>a</think>b")
    assert Thoughts("", "rest").later("a") is None
    assert not none.begun_by("<think>\n") and none.later("<think>a</think>b") is None
    stream = ThoughtStream(none, begun=False)
    assert stream.push("<thi") == ("", "<thi") and stream.finish() == ("", "")


def test_a_turn_may_begin_the_thought() -> None:
    assert MARKED.begun_by("<|User|>{}<|Assistant|><think>\n")
    assert not MARKED.begun_by("<|Assistant|><think>\n\n</think>\n\n")


def test_later_turns_have_what_is_behind_the_last_thought() -> None:
    text = "a</think>b</think>\n\n so \n"
    wanted = {"rest": "\n\n so \n", "lines": " so \n", "spaces": "so \n", "words": "so", "": None}
    for left_out, later in wanted.items():
        thoughts = Thoughts("<think>{}</think>", left_out)
        assert thoughts.later(text) == later
        assert thoughts.later("<think>not at its end") is None


@pytest.mark.parametrize("template", ["<think>", "{}", "<think>{}", "{}</think>", "<{}>{}</>"])
def test_a_template_wants_a_place_between_two_marks(template: str) -> None:
    with pytest.raises(BadArtifacts, match="wants one {} between"):
        Thoughts(template)
