"""Token ids into text as they come."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from alm.errors import BadArtifacts
from alm.text import detokenizer
from alm.text.detokenizer import Joiner, Stops, TextStream
from demo import random_checkpoint

HALF = "\ufffd"
SPEECH = "naïve 🙂👩‍👩‍👧 voilà 语音识别 e\u0301tude ... done </s> the quick brown fox"


@cache
def bytes_bpe() -> Tokenizer:
    """Byte-level BPE: every token is bytes."""
    return random_checkpoint.tokenizer()


@cache
def byte_fallback() -> Tokenizer:
    """As LLaMA-2's: words marked with ▁, and one token a byte for what it does not know."""
    words = ["▁", "▁the", "▁a", "he", "▁语音", "s", "</", ">", "\n", "o", "n", ".", "▁▁"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *words]
    made = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, [], byte_fallback=True))
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.decoder = fused(1)  # pyright: ignore
    return made


def fused(spaces: int) -> decoders.Sequence:
    """LLaMA-2's decoder, but for how many leading spaces a text loses."""
    bytes_and_words = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*bytes_and_words, decoders.Strip(" ", spaces, 0)])


@cache
def stripping() -> Tokenizer:
    """The same, and a text loses up to three spaces at its beginning."""
    made = Tokenizer.from_str(byte_fallback().to_str())
    made.decoder = fused(3)  # pyright: ignore
    return made


@cache
def metaspace() -> Tokenizer:
    """As T5's: words marked with ▁, which the first word loses."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()  # pyright: ignore
    made.decoder = decoders.Metaspace()  # pyright: ignore
    trainer: Any = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>"
    )
    made.train_from_iterator([SPEECH, *random_checkpoint.SENTENCES], trainer)
    return made


@cache
def wordpiece() -> Tokenizer:
    """As BERT's: a word's later pieces begin with ##."""
    names = ["[UNK]", "[CLS]", "hello", "##ing", ".", "'", "s", "world", "##s"]
    made = Tokenizer(models.WordPiece({n: i for i, n in enumerate(names)}))
    made.add_special_tokens(["[CLS]"])
    made.decoder = decoders.WordPiece()  # pyright: ignore
    return made


MAKERS = [bytes_bpe, byte_fallback, stripping, metaspace, wordpiece]
kinds = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


def whole(tokenizer: Tokenizer, ids: list[int], stops: list[str]) -> tuple[str, int]:
    """What is right: the text, and how many tokens it took, by decoding all at every token."""
    for count in range(1, len(ids) + 1):
        said = tokenizer.decode(ids[:count], skip_special_tokens=True)
        cuts = [said.find(stop) for stop in stops if stop in said]
        if cuts:
            return said[: min(cuts)], count
    return tokenizer.decode(ids, skip_special_tokens=True), len(ids)


def sequences(tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Random ids: any, few different ones, and real text with noise in it."""
    dice, size = random.Random(1), tokenizer.get_vocab_size()
    real = tokenizer.encode(SPEECH, add_special_tokens=False).ids
    made = []
    for _ in range(count):
        few = [dice.randrange(size) for _ in range(4)]
        pool = dice.choice([range(size), range(min(size, 200)), range(size - 9, size), few])
        ids = [dice.choice(pool) for _ in range(dice.randrange(30))]
        at = dice.randrange(len(real))
        made.append(dice.choice([ids, ids[:5] + real[at : at + 20] + ids[5:9]]))
    return made


@kinds
def test_the_pieces_joined_are_the_whole_text_and_no_piece_splits_a_character(
    make: Callable[[], Tokenizer],
) -> None:
    tokenizer = make()
    for ids in sequences(tokenizer, 400):
        stream, sent = TextStream(tokenizer), ""
        for token in ids:
            piece = stream.push(token)
            assert not piece.endswith(HALF)
            sent += piece
        assert sent + stream.finish() == tokenizer.decode(ids) == stream.text
        assert stream.finish() == "" and not stream.stopped


@kinds
def test_nothing_of_a_stop_string_or_after_it_is_ever_sent(make: Callable[[], Tokenizer]) -> None:
    tokenizer = make()
    dice, stopped = random.Random(2), 0
    for ids in sequences(tokenizer, 400):
        said = tokenizer.decode(ids)
        at = [dice.randrange(len(said) + 1) for _ in range(3)]
        stops = [said[i : i + dice.randrange(1, 5)] for i in at] + ["", "</s>", "not there"]
        right, count = whole(tokenizer, ids, [stop for stop in stops if stop])
        stream, checker = TextStream(tokenizer, stops), Stops(tokenizer, stops)
        sent = ""
        for number, token in enumerate(ids, 1):
            sent += stream.push(token)
            assert right.startswith(sent)
            assert stream.stopped == checker.reached(ids[:number])
            if stream.stopped:
                assert number == count and sent == right
                stopped += 1
                break
        assert sent + stream.finish() == right == checker.cut(stream.ids)
    assert stopped > 100


def pieces(tokenizer: Tokenizer, said: str, stops: list[str]) -> list[str]:
    stream = TextStream(tokenizer, stops)
    found = [stream.push(i) for i in tokenizer.encode(said, add_special_tokens=False).ids]
    return [*found, stream.finish()]


@pytest.mark.parametrize(
    "character", ["🙂", "语", "é", "e\u0301", "👩‍👩‍👧", "\u200d", "\U0010ffff"]
)
def test_a_character_comes_whole_with_its_last_byte(character: str) -> None:
    tokenizer = bytes_bpe()
    sent = pieces(tokenizer, f"a{character}b", [])
    assert "".join(sent) == f"a{character}b"
    assert set("".join(sent)) == set().union(*sent)  # no piece holds anything else
    assert [piece for piece in sent if piece] == ["a", *character, "b"]


def test_a_text_may_end_inside_a_character() -> None:
    for tokenizer in (bytes_bpe(), byte_fallback()):
        ids = tokenizer.encode("s语", add_special_tokens=False).ids[:-1]
        stream = TextStream(tokenizer)
        assert "".join(stream.push(token) for token in ids) == "s"
        assert set(stream.finish()) == {HALF}


def test_bytes_that_spoil_a_character_before_them_were_waited_for() -> None:
    tokenizer = byte_fallback()
    good = [3 + byte for byte in "音".encode()]
    bad = [*good, 3 + 0xE8, tokenizer.token_to_id("s")]
    stream = TextStream(tokenizer)
    assert "".join(stream.push(token) for token in bad) == HALF * 4 + "s"
    stream = TextStream(tokenizer)
    assert "".join(stream.push(token) for token in [*good, bad[-1]]) == "音s"


@pytest.mark.parametrize(
    ("said", "stops", "right"),
    [
        ("yes</e>no", ["</e>"], "yes"),
        ("</e>", ["</e>"], ""),
        ("</e", ["</e>"], "</e"),
        ("a < b </ c", ["</e>"], "a < b </ c"),
        ("one###two", ["##", "###"], "one"),
        ("one###two", ["###", "####"], "one"),
        ("abc", ["bcd", "b"], "a"),
        ("aab", ["ab"], "a"),
        ("ababac", ["abac"], "ab"),
        ("x\n\ny", ["\n\n"], "x"),
        ("ok语音", ["音"], "ok语"),
        ("ok🙂!", ["k🙂"], "o"),
        ("ok", [""], "ok"),
    ],
)
def test_text_ends_where_the_first_stop_string_begins(
    said: str, stops: list[str], right: str
) -> None:
    sent = pieces(bytes_bpe(), said, stops)
    assert "".join(sent) == right


def test_what_may_begin_a_stop_string_is_held_back_and_no_more_than_that() -> None:
    sent = pieces(bytes_bpe(), "<</<x", ["</s>", "/x"])
    assert [piece for piece in sent if piece] == ["<", "</", "<x"]


def test_special_tokens_are_no_text() -> None:
    tokenizer = bytes_bpe()
    stream = TextStream(tokenizer, ["</s>"])
    letter = tokenizer.encode("a", add_special_tokens=False).ids[0]
    assert [stream.push(token) for token in (1, letter, 0, letter, 2)] == ["", "a", "", "a", ""]
    assert not stream.stopped


def test_a_token_costs_the_same_wherever_it_stands() -> None:
    for tokenizer in (bytes_bpe(), byte_fallback()):
        line = tokenizer.encode("s he语 ", add_special_tokens=False).ids * 400
        seconds = []
        for ids in (line[:400], line[:3200]):
            stream, start = TextStream(tokenizer, ["</s>", "###"]), time.thread_time()
            for token in ids:
                stream.push(token)
            seconds.append(time.thread_time() - start)
        assert seconds[1] < 8 * 5 * seconds[0]  # decoding all at every token: 64 times


def test_texts_are_joined_as_if_each_were_stripped() -> None:
    dice = random.Random(3)
    for _ in range(300):
        texts = [dice.choices(["", " ", "a", " b", "c ", "\n", "d e"], k=4) for _ in range(3)]
        sent: list[str] = []
        joiner = Joiner("|")
        for each in texts:
            for piece in each:
                sent.append(joiner.push(piece))
            joiner.end()
        right = [stripped for each in texts if (stripped := "".join(each).strip())]
        assert "".join(sent) == "|".join(right)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"model": {"type": "BPE"}}', b"[" * 99])
def test_what_is_no_tokenizer_is_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(BadArtifacts, match=r"is no tokenizer.json: [^\n]*$"):
        detokenizer.load_tokenizer(tmp_path / "tokenizer.json")
