"""Who spoke when, read out of answers that are whole, damaged, cut or no such answers at all."""

from __future__ import annotations

import random

import pytest
from transformers import MossTranscribeDiarizeFeatureExtractor, MossTranscribeDiarizeProcessor

from alm.errors import BadArtifacts
from alm.facts import PromptFacts
from alm.text.segments import Segment, srt, vtt
from alm.text.spoken import Spoken, shifted
from tests.wrappers.families.tiny_moss import TOKENS
from tests.wrappers.families.tiny_windowed import tokenizer

MARKS = PromptFacts(time_mark="[{}]", speaker_mark="[S{}]")
SPOKEN = Spoken(MARKS)
Found = list[tuple[float, float, str, str]]

# Answers of the published model, as transformers' own tests and documentation have them.
PUBLISHED = (
    "[0.86][S01] Yesterday it was 35 degrees in Barcelona, but today the temperature will go down "
    "to[7.81][7.81][S01] minus 20 degrees.[9.53]",
    "[5.99][S01] following in the tradition of presidents before me.[8.94][8.94][S01] It was an "
    "opportunity to say thank you.[11.74][39.64][S01] Over the[39.97]",
    "[0.48][S01] Hey everyone, welcome back to the show.[2.43][7.14][S01] Hm.[8.3][8.40][S02] "
    "Thanks for having me.[9.42][13.14][S01] That makes sense.[13.92][13.92][S01] Even 20 minutes "
    "a day adds up.[16.17]",
    "[0.48][S01]Welcome everyone[1.66][12.26][S02]The new pipeline is ready[13.81]",
    "[0.48][S01]你好[1.66]\n[12.26][S12]可以开始[00:13.81][1:02][S02]x[01:01:02.5]",
)


def found(text: str, seconds: float = 4000.0) -> Found | None:
    read = SPOKEN.read(text, seconds)[0]
    return None if read is None else [(s.start, s.end, s.speaker, s.text) for s in read]


@pytest.fixture(scope="module")
def processor() -> MossTranscribeDiarizeProcessor:
    return MossTranscribeDiarizeProcessor(
        MossTranscribeDiarizeFeatureExtractor(), tokenizer(TOKENS)
    )


@pytest.mark.parametrize("text", PUBLISHED)
def test_a_whole_answer_is_read_as_transformers_reads_it(
    processor: MossTranscribeDiarizeProcessor, text: str
) -> None:
    want = processor.extract_speaker_dict(text)
    assert isinstance(want, list) and want
    got = found(text)
    assert got is not None
    assert [
        {"Start": start, "End": end, "Speaker": int(who[1:]), "Content": said}
        for start, end, who, said in got
    ] == want
    assert SPOKEN.read(text, 4000)[1] == []


def test_a_sound_in_brackets_is_no_time(processor: MossTranscribeDiarizeProcessor) -> None:
    text = "[1][S01]Ha [laughs] ha[2.5]"
    with pytest.raises(ValueError, match="laughs"):
        processor.extract_speaker_dict(text)
    assert found(text) == [(1, 2.5, "S01", "Ha [laughs] ha")]


# An answer -> its segments in 40 s of sound, and a word of every note.
DAMAGED: dict[str, tuple[Found | None, tuple[str, ...]]] = {
    "": (None, ("names no times",)),
    "It is about trains.": (None, ("names no times",)),
    "[S01]a[S02]b": (None, ("names no times",)),
    "[0.0][S01][2.0]": ([], ()),
    "[9]": ([], ()),
    "[9][S01] ": ([], ()),
    # numbers that were spoken, and sounds
    "[0][S01]第[2024]年，编号[001]继续[4]": ([(0, 4, "S01", "第[2024]年，编号[001]继续")], ()),
    "[1][S01]Ha [laughs] ha[2.5]": ([(1, 2.5, "S01", "Ha [laughs] ha")], ()),
    # no end
    "[1][S01]a[2][3][S02]b": (
        [(1, 2, "S01", "a"), (3, 40, "S02", "b")],
        ("without an end behind the start: 1 of the answer's 2",),
    ),
    "[1][S01]a[3][S02]b[4]": (
        [(1, 3, "S01", "a"), (3, 4, "S02", "b")],
        ("without an end behind the start: 1 of the answer's 2",),
    ),
    "[1][S01]a[2] and[3][S02]b[4]": (
        [(1, 3, "S01", "a[2] and"), (3, 4, "S02", "b")],
        ("without an end",),
    ),
    # cut within a mark
    "[1][S01]a[2][3.5][S0": ([(1, 2, "S01", "a")], ("ends within a mark: '[S0'",)),
    "[1][S01]a[2": ([(1, 40, "S01", "a")], ("without an end", "within a mark: '[2'")),
    "[1][S01]a[": ([(1, 40, "S01", "a")], ("without an end", "within a mark: '['")),
    # times that go backwards
    "[5][S01]a[3][6][S01]b[7]": (
        [(5, 6, "S01", "a"), (6, 7, "S01", "b")],
        ("without an end behind the start",),
    ),
    "[5][S01]a[6][4][S02]b[5.5]": ([(5, 6, "S01", "a"), (4, 5.5, "S02", "b")], ()),
    "[5][S01]a[4][3][S02]b[2]": ([(5, 5, "S01", "a"), (3, 40, "S02", "b")], ("2 of",)),
    # no speaker
    "[0.0]one[2.0][2.0]two[3.0]": (
        [(0, 2, "", "one"), (2, 3, "", "two")],
        ("without a speaker: 2",),
    ),
    "[0][S01]a[1][1]b[2]": (
        [(0, 1, "S01", "a"), (1, 2, "", "b")],
        ("without a speaker: 1",),
    ),
    "[0][Bob]a[1]": ([(0, 1, "", "[Bob]a")], ("without a speaker",)),
    # text without times
    "Sure: [1][S01]a[2] [3][S02]b[4]\nDone.": (
        [(0, 1, "", "Sure:"), (1, 2, "S01", "a"), (3, 40, "S02", "b[4]\nDone.")],
        ("without times: 1 of the answer's 3 segments; they take those around: 'Sure:'", "an end"),
    ),
    # behind the sound
    "[39][S01]a[41][50][S02]b[60]": (
        [(39, 40, "S01", "a"), (40, 40, "S02", "b")],
        ("behind the end of the sound: 1",),
    ),
}


@pytest.mark.parametrize("text", DAMAGED)
def test_of_a_damaged_answer_all_is_read_that_can_be(text: str) -> None:
    want, words = DAMAGED[text]
    read, notes = SPOKEN.read(text, 40.0)
    assert found(text, 40.0) == want
    assert (read is None) == (want is None)
    assert len(notes) == len(words)
    assert all(word in note for word, note in zip(words, notes, strict=True)), notes


def test_no_answer_is_too_damaged() -> None:
    noise = random.Random(0)
    pieces = [
        *"[]S.:0123 a",
        "[1.5]",
        "[S01]",
        "[S",
        "][",
        "[2]",
        "你",
        "\n",
        "[x]",
        "[1:2:3]",
        "-->",
    ]
    for i in range(20_000):
        text = "".join(noise.choices(pieces, k=noise.randrange(30)))
        read, notes = SPOKEN.read(text, 7.0)
        assert all(isinstance(note, str) and note for note in notes)
        if read is None:
            continue
        assert all(0 <= s.start <= s.end <= 7 and s.text for s in read), text
        said = "".join(s.text for s in read)
        assert all(text.count(char) == said.count(char) for char in "a你"), text
        if i % 20 == 0:
            assert srt(read).count(" --> ") >= len(read) and vtt(read).count("\n\n") == len(read)


def test_an_hour_is_read_at_once() -> None:
    text = "".join(f"[{i}.25][S0{i % 3}] some words that were said[{i}.9]" for i in range(20_000))
    read, notes = SPOKEN.read(text, 30_000.0)
    assert read is not None and len(read) == 20_000 and notes == []


def test_other_marks_are_read_alike() -> None:
    other = Spoken(PromptFacts(time_mark="<|{}|>", speaker_mark="(spk-{})"))
    read, notes = other.read("<|0.5|>(spk-3)Hi [1] there<|2|>", 9.0)
    assert read == [Segment(0.5, 2.0, "Hi [1] there", speaker="3")] and not notes
    other = Spoken(PromptFacts(time_mark="<|{}|>", speaker_mark="(Voice{})"))
    read, notes = other.read("<|0.5|>(Voice3)Hi [1] there<|2|>", 9.0)
    assert read == [Segment(0.5, 2.0, "Hi [1] there", speaker="Voice3")] and not notes
    times_alone = Spoken(PromptFacts(time_mark="<{}>"))
    read, notes = times_alone.read("<0.5>Hi<2><2>you<3>", 9.0)
    assert read == [Segment(0.5, 2.0, "Hi"), Segment(2.0, 3.0, "you")] and not notes


def test_without_marks_an_answer_is_plain_text() -> None:
    assert Spoken(PromptFacts()).read(PUBLISHED[0], 9.0) == (None, [])


@pytest.mark.parametrize("mark", ["{}", "[{}", "{}]", "[]", "[{}][{}]"])
def test_marks_that_are_none_are_refused(mark: str) -> None:
    with pytest.raises(BadArtifacts, match="wants one"):
        Spoken(PromptFacts(time_mark=mark))
    with pytest.raises(BadArtifacts, match="wants one"):
        Spoken(PromptFacts(time_mark="[{}]", speaker_mark=mark))


def test_players_are_told_who_speaks_in_the_order_of_time() -> None:
    made = shifted(SPOKEN.read("[2][S01]a <b>[3][1][S02]c[2.5][3]d[4]", 9.0)[0] or [], 60.0)
    assert srt(made) == (
        "1\n00:01:01,000 --> 00:01:02,500\nS02: c\n\n"
        "2\n00:01:02,000 --> 00:01:03,000\nS01: a <b>\n\n"
        "3\n00:01:03,000 --> 00:01:04,000\nd\n"
    )
    assert vtt(made) == (
        "WEBVTT\n\n00:01:01.000 --> 00:01:02.500\n<v S02>c\n"
        "\n00:01:02.000 --> 00:01:03.000\n<v S01>a &lt;b&gt;\n"
        "\n00:01:03.000 --> 00:01:04.000\nd\n"
    )
