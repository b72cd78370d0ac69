"""Whatever may follow is drawn, token by token: the text always parses, by every tokenizer."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel

from alm.errors import BadOption
from alm.grammar.following import State
from alm.grammar.vocabulary import Vocabulary, of
from alm.text.detokenizer import load_tokenizer
from tests.runtime.grammar.shapes import SCHEMAS, begun, drawn, llama, problem, tokenizers

NAMES = ("bytes of ChatML", "tekken", "llama", "metaspace", "many special tokens")
Made = dict[str, tuple[Tokenizer, frozenset[int], Vocabulary]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return {
        name: (tokenizer, eos, Vocabulary(tokenizer, tokenizer.get_vocab_size() + 9, eos))
        for name, tokenizer, eos in tokenizers(tmp_path_factory.mktemp("tokenizers"))
    }


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_drawn_is_json_of_its_schema(made: Made, name: str) -> None:
    tokenizer, eos, vocabulary = made[name]
    random, ends = np.random.default_rng(0), dict.fromkeys(SCHEMAS, 0)
    for what, schema in SCHEMAS.items():
        if name == "metaspace" and what == "a constant":
            continue  # a Unigram without bytes cannot write it: see below
        begin = begun(vocabulary, schema=schema)
        for _ in range(8):
            ids = drawn(vocabulary, eos, random, begin)
            if ids is None:
                continue
            ends[what] += 1
            said = tokenizer.decode(ids, skip_special_tokens=True).strip()
            assert problem(schema, said) == "", (what, ids)
    assert sum(ends.values()) > 5 * len(SCHEMAS), ends


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_drawn_matches_its_expression(made: Made, name: str) -> None:
    tokenizer, eos, vocabulary = made[name]
    random = np.random.default_rng(1)
    for wanted in ("yes|no", "[0-9]{3}-[a-z]+", "(the |a )(cat|dog)", r'\{"a": "[^"\\]{0,9}"\}'):
        begin = begun(vocabulary, regex=wanted)
        for _ in range(8):
            if (ids := drawn(vocabulary, eos, random, begin)) is None:
                continue
            said = tokenizer.decode(ids, skip_special_tokens=True).strip()
            assert re.fullmatch(wanted, said), said


def may(state: State) -> set[int]:
    """The tokens that may follow."""
    return set(np.flatnonzero(np.unpackbits(state.mask(), bitorder="little")).tolist())


@pytest.mark.parametrize("name", NAMES)
def test_every_end_counts_and_only_where_the_form_may_end(made: Made, name: str) -> None:
    _, eos, vocabulary = made[name]
    _, state = begun(vocabulary, regex="[0-9]{2,}")
    allowed = list[set[int]]()
    for digit in b"12":
        allowed.append(may(state))
        state.take(next(i for i, said in enumerate(vocabulary.tokens) if said == bytes([digit])))
    allowed.append(may(state))
    assert [eos & one for one in allowed] == [set(), set(), eos]
    hidden = {i for i, said in enumerate(vocabulary.tokens) if not said}
    assert len(hidden) >= 9 and not hidden & allowed[2]
    assert state.whole and not state.complete


def test_a_special_token_comes_only_where_a_grammar_names_it(made: Made) -> None:
    _, eos, vocabulary = made["many special tokens"]
    special = vocabulary.tokens.index(b"<|control_7|>")
    _, state = begun(vocabulary, regex="(?s).*")
    free = np.flatnonzero(np.unpackbits(state.mask(), bitorder="little"))
    assert special not in free and vocabulary.tokens.index(b"<think>") in free
    assert not (set(vocabulary.special_token_ids) - eos) & set(free.tolist())
    _, state = begun(vocabulary, grammar='start: "a" <|control_7|>')
    state.take(vocabulary.tokens.index(b"a"))
    assert np.flatnonzero(np.unpackbits(state.mask(), bitorder="little")).tolist() == [special]


def test_a_text_is_encoded_as_the_tokenizer_writes_it(made: Made) -> None:
    for name, (_, _, vocabulary) in made.items():
        for text in ('{"the answer": 12}', " {", "語é", "</s>", "<|im_end|>", "a\n\nb", "\xff"):
            ids = vocabulary(text.encode())
            joined = b"".join(vocabulary.tokens[token] for token in ids)
            assert joined == text.encode(), (name, text)
            assert not set(ids) & set(vocabulary.special_token_ids)
    vocabulary = made["llama"][2]
    assert vocabulary(b"\xe8\xaa") == vocabulary(b"\xe8") + vocabulary(b"\xaa")


def test_what_a_vocabulary_cannot_write_is_refused(made: Made) -> None:
    _, eos, vocabulary = made["metaspace"]
    begin = begun(vocabulary, schema=SCHEMAS["a constant"])
    with pytest.raises(BadOption, match="no token of the model's vocabulary goes on from here"):
        drawn(vocabulary, eos, np.random.default_rng(0), begin)


def test_a_vocabulary_is_made_once_for_a_model(tmp_path: Path) -> None:
    llama().save(str(tmp_path / "tokenizer.json"))
    one, two = (load_tokenizer(tmp_path / "tokenizer.json") for _ in range(2))
    assert of(one, 300, {2}) is of(one, 300, {2})
    assert of(one, 300, {2}) is not of(two, 300, {2})
    assert of(one, 300, {2}) is not of(one, 301, {2})


@pytest.mark.parametrize("decoder", [None, decoders.WordPiece(), decoders.CTC(), decoders.Fuse()])
def test_tokens_without_bytes_of_their_own_are_refused(tmp_path: Path, decoder: object) -> None:
    made = Tokenizer(WordLevel({"<unk>": 0, "a": 1, "##b": 2}, unk_token="<unk>"))
    if decoder:
        made.decoder = decoder  # pyright: ignore
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BadOption, match="nobody knows the bytes of its tokens"):
        Vocabulary(load_tokenizer(tmp_path / "tokenizer.json"), 3, {0})
