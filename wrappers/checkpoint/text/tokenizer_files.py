"""The tokenizer of a folder as one tokenizer.json; others are converted, and checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from alm.errors import BadArtifacts, BadCheckpoint, MissingFile
from alm.text.detokenizer import load_tokenizer
from alm.text.rust import calm
from wrappers.checkpoint.plain_files import read_json, refuse_pointer, unreadable
from wrappers.checkpoint.text import tekken_json

# Texts on which a converted tokenizer must agree with sentencepiece, besides the model's prompts.
PROBES = (
    "Hello world",
    " leading space",
    "two  spaces\nand a line",
    "Grüße, 语音 🙂",
    "1234",
    "ﬁ ① Ａ",  # a normaliser would change these
    "",
)
PLAIN = PROBES[:5]  # what every byte-level vocabulary gives back as it was
VOCAB, MERGES = "vocab.json", "merges.txt"


def tokenizer_json(folder: Path, prompts: Iterable[str]) -> str:
    """The text of a tokenizer.json that tokenizes as the folder's own tokenizer does.

    Raises:
        MissingFile: neither tokenizer.json nor tokenizer.model, tekken.json or vocab.json with
            merges.txt; or a Git LFS pointer.
        BadCheckpoint: unreadable, or no conversion agrees with sentencepiece on the prompts.
    """
    ready = folder / "tokenizer.json"
    if ready.is_file():
        refuse_pointer(ready)
        return _tried(ready, prompts)
    tekken = folder / "tekken.json"
    if tekken.is_file():
        return tekken_json.converted(tekken)
    pieces = folder / "tokenizer.model"
    if not pieces.is_file() and (folder / VOCAB).is_file() and (folder / MERGES).is_file():
        return _byte_pairs(folder)
    if not pieces.is_file():
        raise MissingFile(
            f"{folder} holds no tokenizer.json and no tokenizer.model, and no tekken.json "
            f"or {VOCAB} with {MERGES}"
        )
    refuse_pointer(pieces)
    return _converted(pieces, [*PROBES, *prompts])


def _tried(ready: Path, prompts: Iterable[str]) -> str:
    """A tokenizer.json that loads, and encodes the prompts without an error or a panic of Rust."""
    try:
        content = ready.read_bytes()
        tokenizer = load_tokenizer(ready, content)
        for text in prompts:
            tokenizer.encode(text)
        return content.decode()
    except OSError as error:
        raise unreadable(ready, error) from error
    except BadArtifacts as error:
        raise BadCheckpoint(str(error)) from error
    except UnicodeDecodeError as error:
        raise BadCheckpoint(f"{ready} is no tokenizer.json: it is not UTF-8") from error


def _byte_pairs(folder: Path) -> str:
    """vocab.json and merges.txt as the class that the folder names reads them.

    Raises:
        BadCheckpoint: transformers cannot read them, or what it makes loses text.
    """
    for name in (VOCAB, MERGES):
        refuse_pointer(folder / name)
    vocab = read_json(folder / VOCAB)
    tokenizer = next(_candidates(folder))
    odd = [piece for piece, number in vocab.items() if tokenizer.token_to_id(piece) != number]
    if odd:
        raise BadCheckpoint(
            f"{folder}: {VOCAB} gives {odd[0]!r:.60} the id {vocab[odd[0]]!r:.20}, and "
            f"transformers' conversion gives it {tokenizer.token_to_id(odd[0])}; "
            "put a tokenizer.json beside it"
        )
    back = [tokenizer.decode(_ids(tokenizer, t), skip_special_tokens=False) for t in PLAIN]
    lost = [text for text, again in zip(PLAIN, back, strict=True) if again != text]
    if lost:
        raise BadCheckpoint(
            f"{folder}: {VOCAB} and {MERGES} could not be converted: {lost[0]!r} does not come "
            "back from its tokens; put a tokenizer.json beside them"
        )
    return tokenizer.to_str()


def _converted(pieces: Path, texts: list[str]) -> str:
    from sentencepiece import SentencePieceProcessor

    try:
        truth = SentencePieceProcessor(model_file=str(pieces))  # pyright: ignore
    except (RuntimeError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise BadCheckpoint(f"{pieces} is no sentencepiece model: {reason}") from error
    disagreement = ""
    for candidate in _candidates(pieces.parent):
        bad = [t for t in texts if _ids(candidate, t) != truth.encode(t)]  # pyright: ignore
        if not bad:
            return candidate.to_str()
        disagreement = bad[0]
    raise BadCheckpoint(
        f"{pieces} could not be converted: tokenizer.json and sentencepiece disagree on "
        f"{disagreement!r}; put a tokenizer.json beside it"
    )


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def _candidates(folder: Path) -> Iterator[Tokenizer]:
    """transformers' conversion, then the same with sentencepiece's way of marking spaces.

    transformers lets a leading space stand for the marker that sentencepiece always adds.
    """
    from transformers import AutoTokenizer

    refused = f"transformers cannot convert {folder}"
    try:
        with calm(refused):
            loaded = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            backend = loaded.backend_tokenizer
    except BadArtifacts as error:  # whatever the class that tokenizer_config.json names raises
        if _own_code(folder):
            raise BadCheckpoint(
                f"{folder} brings a tokenizer as code of its own, which never runs here; save a "
                "tokenizer.json with it where you trust it, and put that there"
            ) from error
        reason = str(error.__cause__ or "").split("\n")[0]
        raise BadCheckpoint(f"{refused}: {reason}" if reason else str(error)) from error
    yield backend
    plain: dict[str, Any] = json.loads(backend.to_str())
    plain["pre_tokenizer"] = None
    marked = Tokenizer.from_str(json.dumps(plain))
    spaces = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    marked.normalizer = normalizers.Sequence(spaces)  # pyright: ignore
    yield marked


def _own_code(folder: Path) -> bool:
    """Whether tokenizer_config.json names Python code of its own as the tokenizer."""
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(read_json(path).get("auto_map"))


def special_id(folder: Path, tokenizer: Tokenizer, token: str) -> int | None:
    """The id of `bos_token` or the like, as tokenizer_config.json or its older sibling names it."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        value = read_json(path).get(token) if path.is_file() else None
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            return tokenizer.token_to_id(text)
    return None
