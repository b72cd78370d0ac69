"""Tokenizers: sentencepiece is converted and agrees, what cannot agree is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE

from alm.errors import BadCheckpoint, MissingFile
from demo.random_checkpoint import tokenizer as byte_level
from tests.wrappers.checkpoint.checkpoints import CORPUS, sentencepiece_folder
from wrappers.checkpoint.text.tokenizer_files import special_id, tokenizer_json

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
LLAMA: dict[str, Any] = {}
GEMMA = dict(add_dummy_prefix=False, user_defined_symbols=["\n", "\n\n"])
UNIGRAM = dict(model_type="unigram")
LLAMA_SAYS = dict(tokenizer_class="LlamaTokenizer", bos_token="<s>", eos_token="</s>")


def trained(folder: Path, said: dict[str, Any], options: dict[str, Any]) -> Path:
    """A folder with a small sentencepiece model and the least that must be beside it."""
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return sentencepiece_folder(folder, said, **options)


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
    ],
    ids=["Llama", "Llama, not legacy", "Llama, legacy", "Gemma"],
)
def test_a_sentencepiece_model_is_converted_and_agrees(
    tmp_path: Path, options: dict[str, Any], said: dict[str, Any]
) -> None:
    agree(trained(tmp_path, said, options))


@pytest.mark.parametrize(
    "options, text",
    [
        (UNIGRAM, "disagree on '"),  # LlamaTokenizer takes its pieces for merges
        (dict(normalization_rule_name="nfkc"), "disagree on 'ﬁ"),
        (dict(remove_extra_whitespaces=True), "disagree on ' leading space'"),
    ],
    ids=["Unigram", "with a normaliser", "dropping spaces"],
)
def test_a_model_that_its_class_cannot_follow_is_refused(
    tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    folder = trained(tmp_path, LLAMA_SAYS, options)
    with pytest.raises(BadCheckpoint, match=text) as caught:
        tokenizer_json(folder, CORPUS)
    assert "put a tokenizer.json beside it" in str(caught.value)


def test_prompts_are_among_the_texts_that_must_agree(tmp_path: Path) -> None:
    """A user-defined piece cuts the text, and what follows the cut gets a marker of its own."""
    options = dict(user_defined_symbols=["<Speech>"])
    folder = trained(tmp_path, LLAMA_SAYS, options)
    tokenizer_json(folder, [])
    with pytest.raises(BadCheckpoint, match="disagree on 'USER: <Speech>a'"):
        tokenizer_json(folder, ["USER: <Speech>a"])


def test_a_ready_tokenizer_is_taken_as_it_is(tmp_path: Path) -> None:
    byte_level().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer.model").write_bytes(b"never read")
    assert tokenizer_json(tmp_path, CORPUS) == (tmp_path / "tokenizer.json").read_text("utf-8")


def test_neither_of_the_two_files_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no tokenizer.json and no tokenizer.model"):
        tokenizer_json(tmp_path, [])


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe\x00", b'{"version": "1.0"}', b""])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_broken_tokenizer_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(LLAMA_SAYS))
    with pytest.raises(BadCheckpoint, match=f"{name} (is no|could not)"):
        tokenizer_json(tmp_path, [])


# --- BOS and EOS


def named(folder: Path, file: str, **said: Any) -> int | None:
    (folder / file).write_text(json.dumps(said))
    return special_id(folder, byte_level(), "bos_token")


def test_a_special_token_is_named_as_a_string_or_as_an_added_token(tmp_path: Path) -> None:
    file = "tokenizer_config.json"
    assert named(tmp_path, file, bos_token="<s>") == 1
    added = dict(__type="AddedToken", content="</s>", lstrip=False)
    assert named(tmp_path, file, bos_token=added) == 2
    assert named(tmp_path, file, bos_token=None) is None
    assert named(tmp_path, file, bos_token="<nobody knows>") is None


def test_the_older_file_names_what_the_newer_does_not(tmp_path: Path) -> None:
    assert named(tmp_path, "special_tokens_map.json", bos_token=dict(content="</s>")) == 2
    assert named(tmp_path, "tokenizer_config.json", model_max_length=1) == 2
    assert named(tmp_path, "tokenizer_config.json", bos_token="<s>") == 1


def test_a_broken_tokenizer_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(BadCheckpoint, match="tokenizer_config.json is not JSON"):
        special_id(tmp_path, byte_level(), "bos_token")


def _byte_level(folder: Path) -> Tokenizer:
    """vocab.json and merges.txt as GPT-2 and Qwen save them, and the tokenizer they are of."""
    folder.mkdir()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<|endoftext|>", *alphabet, "th", "the", "Ġthe"]
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n", "utf-8"
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"})
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    made = Tokenizer(BPE(vocab, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    return made


def test_a_vocabulary_with_merges_is_converted(tmp_path: Path) -> None:
    truth = _byte_level(tmp_path / "gpt2")
    ours = Tokenizer.from_str(tokenizer_json(tmp_path / "gpt2", []))
    for text in ("the other the", " hi ", "Grüße, 语音 🙂", "two  spaces\n"):
        assert ours.encode(text, add_special_tokens=False).ids == truth.encode(text).ids


def test_merges_that_are_no_merges_are_one_sentence(tmp_path: Path) -> None:
    _byte_level(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "merges.txt").write_text("#version: 0.2\nno-pair\n")
    with pytest.raises(BadCheckpoint):
        tokenizer_json(tmp_path / "gpt2", [])
