"""Qwen-Audio's prompts and tokenizer, against the authors' ids and tiktoken's rule."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import regex
from tokenizers import Tokenizer

from alm.text.prompt import Prompter
from tests.wrappers.families import tiny_qwen_audio
from tests.wrappers.families.tiny_qwen_audio import (
    PIECES,
    QUIET,
    RATE,
    TOKENS,
    asked,
    clip,
    ranks,
    said,
)
from wrappers import open_checkpoint
from wrappers.checkpoint.text import qwen_tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen_audio.make(tmp_path_factory.mktemp("qwen_audio"))


def prompter(folder: Path) -> Prompter:
    made = open_checkpoint(folder)
    tokenizer = Tokenizer.from_str(made.tokenizer_json)
    return Prompter(tokenizer, made.facts.prompt, made.facts.tokens)


@pytest.mark.parametrize("form", ["chat", "base"])
def test_prompts_are_those_of_the_authors_code(folder: Path, tmp_path: Path, form: str) -> None:
    path = folder if form == "chat" else tiny_qwen_audio.make(tmp_path, "raw")
    writes = prompter(path)
    queries = {k: v for k, v in said("published").items() if v["kind"] == form}
    assert queries
    for name, sequence in queries.items():
        turn = sequence["turns"][0]
        writes.start = QUIET if sequence.get("system") == "" else writes.facts.start
        words, names = asked(turn["query"])
        lengths = [(len(clip(n)[: 30 * RATE]) // 160 + 1) // 2 // 2 + 2 for n in names]
        prompt = writes.build(words, len(names), verbatim=True)
        ids = writes.ids(prompt, [np.zeros((n, 1)) for n in lengths])
        assert len(ids) == turn["prompt_tokens"], name
        assert ids == turn["prompt"] or not turn["prompt"], name


def encoded(text: str, pieces: dict[bytes, int]) -> list[int]:
    """tiktoken's rule, written down: of all neighbours the pair of the lowest rank, leftmost."""
    ids: list[int] = []
    for match in regex.findall(qwen_tokens.PATTERN, text):
        whole = match.encode()
        parts = [whole] if whole in pieces else [bytes([byte]) for byte in whole]
        while True:
            pairs = zip(parts, parts[1:], strict=False)
            joined = [pieces.get(a + b, len(pieces)) for a, b in pairs]
            if not joined or min(joined) == len(pieces):
                break
            at = joined.index(min(joined))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        ids += [pieces[part] for part in parts]
    return ids


def test_every_piece_and_random_texts_are_tokenized_as_tiktoken_does(
    folder: Path,
) -> None:
    tokenizer = Tokenizer.from_str(open_checkpoint(folder).tokenizer_json)
    pieces = ranks()
    for piece, rank in pieces.items():
        shown = tokenizer.decode([rank], skip_special_tokens=False)
        assert shown == piece.decode(errors="replace")
        text = piece.decode(errors="ignore")
        if text.encode() == piece:
            assert tokenizer.encode(text, add_special_tokens=False).ids == encoded(text, pieces)
    chance = random.Random(3)
    letters = [*PIECES, "a", "A", " ", "\n", "\r\n", "7", "42", "語", "🙂", "e\u0301", "I'll", "--"]
    for _ in range(2000):
        text = "".join(chance.choices(letters, k=chance.randint(1, 12)))
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        normal = unicodedata.normalize("NFC", text)
        assert ids == encoded(normal, pieces), text
        assert tokenizer.decode(ids, skip_special_tokens=False) == normal


def test_special_tokens_have_the_ids_and_manners_of_the_authors(folder: Path) -> None:
    tokenizer = Tokenizer.from_str(open_checkpoint(folder).tokenizer_json)
    known = len(ranks())
    wanted = {
        **{"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<|extra_0|>": 3},
        **{"<|extra_204|>": 207, "[[[AUDIO:modality]]]": 208, "<|startoftranscript|>": 209},
        **{"<|unknown|>": 215, "<|en|>": 216, "<|it|>": 223, "<|zh_tr|>": 224, "<|sil|>": 226},
        **{"<|0.00|>": 228, "<|0.29|>": 257, "<|30.00|>": 3228, "<|caption_audiocaps|>": 3229},
        **{"<|midi_pitch_127|>": 3375, "<|midi_velocity_0|>": 3377, "<|speech_edit|>": 3519},
        **{"<audio>": 3520, "</audio>": 3521},
    }
    for name, place in wanted.items():
        assert tokenizer.encode(f"a{name}b", add_special_tokens=False).ids[1] == known + place
    assert tokenizer.get_vocab_size() == known + TOKENS
    # Times and the like are shown in an answer, control tokens are not.
    shown = tokenizer.decode([known + 228, 65, known + 2, known], skip_special_tokens=True)
    assert shown == "<|0.00|>A"
    # In a user's words to the chat model the first are tokens, the others text.
    ids = prompter(folder)._literal_ids("<|0.00|><|im_end|><|extra_7|>")
    assert ids[0] == known + 228 and not {known + 2, known + 10} & set(ids)
