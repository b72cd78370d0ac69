"""Mistral's tekken.json: converted, it joins bytes by rank as tiktoken does, or is refused."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from alm.errors import BadCheckpoint, MissingFile
from tests.wrappers.families.tiny_hf import PIECES, TEKKEN_SPECIALS, TEKKEN_TOKENS, tekken
from wrappers.checkpoint.text.tekken_json import converted
from wrappers.checkpoint.text.tokenizer_files import tokenizer_json

TEXTS = [
    "the thing in the thinking",
    "lang:en",
    "  two  spaces\n\nand a line ",
    "Grüße, 语音 🙂 ö",
    "1234 /path/\r\n",
    "e\u0301 ﬁ ① Ａ",
    "",
]
# What Python's `re` has for the pattern: \p{L} is a word's character that is no digit and no _.
LETTER = r"[^\W\d_]"
SPLIT = re.compile(
    rf"(?:[^\r\n\w]|_)?{LETTER}+|\d| ?(?:[^\s\w]|_)+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def made(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda said: None) -> Tokenizer:
    said = tekken()
    change(said)
    (folder / "tekken.json").write_text(json.dumps(said))
    return Tokenizer.from_str(converted(folder / "tekken.json"))


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def by_rank(text: str, ranks: dict[bytes, int]) -> list[int]:
    """Byte pairs as tiktoken joins them: the union of lowest rank first, the leftmost of these."""
    found: list[int] = []
    for match in SPLIT.findall(text):
        pieces = [bytes([byte]) for byte in match.encode()]
        if match.encode() in ranks:
            pieces = [match.encode()]
        while True:
            unions = [a + b for a, b in zip(pieces, pieces[1:], strict=False)]
            known = [ranks[union] for union in unions if union in ranks]
            if not known:
                break
            at = next(i for i, union in enumerate(unions) if ranks.get(union) == min(known))
            pieces[at : at + 2] = [unions[at]]
        found += [TEKKEN_SPECIALS + ranks[piece] for piece in pieces]
    return found


def ranks_of(said: dict[str, Any]) -> dict[bytes, int]:
    room = said["config"]["default_vocab_size"] - said["config"]["default_num_special_tokens"]
    pieces = [base64.b64decode(each["token_bytes"]) for each in said["vocab"][:room]]
    return {piece: rank for rank, piece in enumerate(pieces)}


def test_text_is_joined_by_rank_and_comes_back(tmp_path: Path) -> None:
    whole = tekken()
    whole["config"]["default_vocab_size"] = TEKKEN_SPECIALS + len(whole["vocab"])
    tokenizer, ranks = made(tmp_path, lambda said: said.update(whole)), ranks_of(whole)
    assert len(ids(tokenizer, "lang")) == len(ids(tokenizer, " the")) == 1
    noise = np.random.default_rng(0)
    words = ["".join(noise.choice(list("theinglan öA1 \n/"), 40)) for _ in range(50)]
    for text in [*TEXTS, *words]:
        assert ids(tokenizer, text) == by_rank(text, ranks), text
        assert tokenizer.decode(ids(tokenizer, text)) == text


def test_pieces_beyond_the_vocabulary_are_cut_off(tmp_path: Path) -> None:
    tokenizer = made(tmp_path)
    assert tokenizer.get_vocab_size() == 300 < TEKKEN_SPECIALS + 256 + len(PIECES)
    assert ids(tokenizer, "the") == [TEKKEN_SPECIALS + 256 + PIECES.index("the")]
    assert len(ids(tokenizer, "in")) == 2


def test_special_tokens_keep_their_ids_and_are_filled_up(tmp_path: Path) -> None:
    tokenizer = made(tmp_path)
    for number, text in TEKKEN_TOKENS.items():
        assert tokenizer.token_to_id(text) == number and ids(tokenizer, text) == [number]
    assert tokenizer.id_to_token(39) == "<SPECIAL_39>"
    assert ids(tokenizer, "[INST]the[/INST]") == [3, *ids(tokenizer, "the"), 4]
    assert tokenizer.decode([3, *ids(tokenizer, "the"), 4]) == "the"


def test_a_file_that_lists_no_special_tokens_has_the_usual_ones(tmp_path: Path) -> None:
    tokenizer = made(tmp_path, lambda said: said.pop("special_tokens"))
    assert [tokenizer.token_to_id(t) for t in ("<s>", "[INST]", "[TOOL_CONTENT]")] == [1, 3, 19]
    assert tokenizer.id_to_token(20) == "<SPECIAL_20>"


def test_nothing_is_put_in_front_of_a_text(tmp_path: Path) -> None:
    assert made(tmp_path).encode("the", add_special_tokens=True).ids == ids(made(tmp_path), "the")


def test_a_folder_with_only_this_file_has_a_tokenizer(tmp_path: Path) -> None:
    text = made(tmp_path).to_str()
    assert json.loads(tokenizer_json(tmp_path, [])) == json.loads(text)


def piece(said: dict[str, Any], at: int, **change: Any) -> None:
    said["vocab"][at].update(change)


CASES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "no config": ("it lacks 'config'", lambda s: s.pop("config")),
    "no pattern": ("it lacks 'pattern'", lambda s: s["config"].pop("pattern")),
    "no pieces": ("it lacks 'vocab'", lambda s: s.pop("vocab")),
    "a pattern that is none": ("could not be converted", lambda s: s["config"].update(pattern="(")),
    "too few pieces": ("are not the 960", lambda s: s["config"].update(default_vocab_size=1000)),
    "no room for the bytes": ("not the 10", lambda s: s["config"].update(default_vocab_size=50)),
    "a piece twice": ("259 different", lambda s: piece(s, 258, token_bytes="IHQ=")),
    "other ranks": ("not in the order of their ranks", lambda s: piece(s, 258, rank=7)),
    "a byte missing": ("not every byte", lambda s: piece(s, 65, token_bytes="enp6")),
    "no base64": ("tekken.json is no tekken.json", lambda s: piece(s, 65, token_bytes="?")),
    "a token beyond its place": (
        "special tokens are not the first 40",
        lambda s: s["special_tokens"][0].update(rank=40),
    ),
    "a token twice": (
        "two of its special tokens are the same",
        lambda s: s["special_tokens"][0].update(token_str="<s>"),
    ),
    "a token that is a piece": (
        "'the' is a special token and a piece",
        lambda s: s["special_tokens"][0].update(token_str="the"),
    ),
    "special tokens that are none": (
        "is no tekken.json",
        lambda s: s.update(special_tokens=["<s>"]),
    ),
    "a count that is none": (
        "is no tekken.json",
        lambda s: s["config"].update(default_num_special_tokens="many"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, case: str) -> None:
    said, change = CASES[case]
    with pytest.raises(BadCheckpoint, match=re.escape(said)) as caught:
        made(tmp_path, change)
    assert "\n" not in str(caught.value)


def test_a_damaged_or_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="there is no file"):
        converted(tmp_path / "tekken.json")
    (tmp_path / "tekken.json").write_text("{")
    with pytest.raises(BadCheckpoint, match="tekken.json is not JSON"):
        tokenizer_json(tmp_path, [])
