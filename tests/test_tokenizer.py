"""Tokenizers: sentencepiece is converted and agrees, what cannot agree is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer

from alm.errors import BadCheckpoint, MissingFile
from demo.random_checkpoint import tokenizer as byte_level
from wrappers._prompts import SALMONN_TASKS
from wrappers._tokenizer import special_id, tokenizer_json

CORPUS = [
    *SALMONN_TASKS.values(),
    "USER: <Speech> </Speech> ASSISTANT: the quick brown fox jumps over the lazy dog 0123456789",
    "Describe  the  speech.  What is said, who says it, where and when?",
]
TEXTS = [
    "USER: <Speech>",
    "</Speech> Recognize the speech and give me the transcription.\nASSISTANT:",
    " leading space",
    "   three of them, and  two inside,   and trailing   ",
    "请将语音中的内容写下来。",
    "Hören Sie sich die Rede an",
    "line\nline\n\n\tline\r\n",
    "🙂 and 👩‍👩‍👧",
    "▁ is the marker itself",
    "ﬁ ① Ａ e\u0301",  # what a normaliser would change
    "",
    " ",
]
LLAMA = dict(model_type="bpe", byte_fallback=True, add_dummy_prefix=True)
GEMMA = LLAMA | dict(add_dummy_prefix=False, user_defined_symbols=["\n", "\n\n"])
UNIGRAM = dict(model_type="unigram", byte_fallback=True, add_dummy_prefix=True)
PLAIN = dict(normalization_rule_name="identity", remove_extra_whitespaces=False)
LLAMA_SAYS = dict(tokenizer_class="LlamaTokenizer", bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    file.write_text("\n".join(CORPUS * 3), "utf-8")
    return file


def trained(corpus: Path, folder: Path, said: dict[str, Any], **more: Any) -> Path:
    """A folder with a small sentencepiece model, as LLMs without a tokenizer.json have it."""
    options = PLAIN | more
    sentencepiece.SentencePieceTrainer.train(  # pyright: ignore
        input=str(corpus),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=460,
        hard_vocab_limit=False,
        character_coverage=0.98,
        minloglevel=9,
        **options,
    )
    (folder / "tokenizer.vocab").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def truth(folder: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))  # pyright: ignore


def agree(folder: Path) -> None:
    """The conversion gives sentencepiece's ids, and its text back."""
    made = Tokenizer.from_str(tokenizer_json(folder, CORPUS))
    pieces = truth(folder)
    for text in [*TEXTS, *CORPUS]:
        ids = made.encode(text, add_special_tokens=False).ids
        assert ids == pieces.encode(text), text  # pyright: ignore
        decoded = made.decode(ids, skip_special_tokens=True)
        assert decoded.removeprefix(" ") == pieces.decode(ids).removeprefix(" "), text  # pyright: ignore


@pytest.mark.parametrize(
    "options, said",
    [
        (LLAMA, LLAMA_SAYS),
        (LLAMA, LLAMA_SAYS | dict(legacy=False)),
        (LLAMA, LLAMA_SAYS | dict(legacy=True, add_bos_token=True, add_eos_token=False)),
        (GEMMA, dict(tokenizer_class="GemmaTokenizer", bos_token="<s>", eos_token="</s>")),
        (UNIGRAM, LLAMA_SAYS),
    ],
    ids=["Llama", "Llama, not legacy", "Llama, legacy", "Gemma", "Unigram"],
)
def test_a_sentencepiece_model_is_converted_and_agrees(
    corpus: Path, tmp_path: Path, options: dict[str, Any], said: dict[str, Any]
) -> None:
    agree(trained(corpus, tmp_path, said, **options))
