"""A tokenizer's tokens as bytes, which is how a grammar reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from alm.errors import BadOption, MissingPackage

if TYPE_CHECKING:
    from llguidance import LLTokenizer
    from tokenizers import Tokenizer

REPLACEMENT = "\ufffd"
# Control characters stand before a text that is encoded, so that no space is put before it.
BEFORE = ("\x02", "\n", "")
# Decoders that change no token's bytes: they join tokens, or strip an answer's ends.
PLAIN = {"Fuse", "Strip"}


class Vocabulary:
    """The bytes of every token that an answer may hold, of one tokenizer and decoder.

    What `LLTokenizer` asks for: `tokens`, `special_token_ids`, and a call that encodes. It wants
    every text encoded, so that bytes of which no token consists stand behind the `size` real ones.
    """

    def __init__(self, tokenizer: Tokenizer, size: int, eos: Iterable[int]) -> None:
        """`size` is how many logits the decoder gives; tokens beyond them are never said.

        Raises:
            BadOption: the bytes of its tokens are not known.
        """
        self._tokenizer = tokenizer
        self.tables: dict[Any, Any] = {}  # of the marks of thoughts, made once; see `thinking`
        added = tokenizer.get_added_tokens_decoder()
        hidden = {token for token, text in added.items() if text.special} | set(eos)
        self.size = size
        self.tokens, self._bytes = [b""] * size, [b""] * size
        turn = _turned(json.loads(tokenizer.to_str()).get("decoder"))
        for text, token in tokenizer.get_vocab(with_added_tokens=True).items():
            if token >= size:
                continue
            if token in hidden:  # said, it would not be seen: only a grammar that names it gets it
                self.tokens[token] = text.encode("utf-8", "replace")
            else:
                self.tokens[token] = self._bytes[token] = turn(text)
        self.special_token_ids = sorted(token for token in hidden if token < size)
        self.ends = [token for token in self.special_token_ids if token in set(eos)]
        self._check()
        known = set(self._bytes)
        self._bytes += [bytes([byte]) for byte in range(256) if bytes([byte]) not in known]
        self.tokens += self._bytes[size:]
        if not self.ends:
            self.ends = [len(self.tokens)]
            self.special_token_ids += self.ends
            self.tokens.append(b"<end>")
        self.eos_token_id, self.bos_token_id = self.ends[0], None

    def __call__(self, text: bytes | str) -> list[int]:
        """The tokens by which the tokenizer writes a text, which join to the same bytes."""
        wanted = text if isinstance(text, bytes) else text.encode()
        try:
            words = wanted.decode()
        except UnicodeDecodeError:
            return self._longest(wanted)
        for before in BEFORE:
            ids = self._encoded(before + words)
            lead = self._encoded(before) if before else []
            if ids[: len(lead)] != lead:
                continue
            ids = ids[len(lead) :]
            if self.text(ids) == wanted:
                return ids
        return self._longest(wanted)

    def text(self, ids: Iterable[int]) -> bytes:
        """The bytes that these tokens say; special ones say none."""
        return b"".join(self._bytes[token] for token in ids if token < len(self._bytes))

    @cached_property
    def llg(self) -> LLTokenizer:
        """The same for llguidance, which builds a tree of it: a third of a second for 128k tokens.

        Raises:
            MissingPackage: llguidance is not installed.
        """
        llguidance = library()
        wrapped = llguidance.TokenizerWrapper(self)
        return llguidance.LLTokenizer(wrapped, eos_token=self.ends)

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        return {said: token for token, said in reversed([*enumerate(self._bytes)]) if said}

    def _longest(self, text: bytes) -> list[int]:
        """The longest token that fits, again and again."""
        ids: list[int] = []
        most = max(map(len, self._by_bytes), default=1)
        while text:
            sizes = range(min(most, len(text)), 0, -1)
            size = next(n for n in sizes if text[:n] in self._by_bytes)
            ids.append(self._by_bytes[text[:size]])
            text = text[size:]
        return ids

    def _check(self) -> None:
        """Hold the bytes against what the tokenizer decodes to, of all tokens that are whole text.

        Raises:
            BadOption: they are others.
        """
        whole = [(token, text) for token, text in enumerate(map(_text, self._bytes)) if text]
        whole.sort(key=lambda pair: pair[1][0] == " ")  # a decoder may strip the first one's space
        said = self._tokenizer.decode([token for token, _ in whole], skip_special_tokens=True)
        if said != "".join(text for _, text in whole):
            raise _unknown("decodes them to other text than their bytes")


def of(tokenizer: Tokenizer, size: int, eos: Iterable[int]) -> Vocabulary:
    """The vocabulary of a tokenizer, made once; see `Vocabulary`."""
    key = size, frozenset(eos)
    with _lock:
        made = _made.setdefault(tokenizer, {})
        if key not in made:
            made[key] = Vocabulary(tokenizer, size, eos)
        return made[key]


def library() -> Any:
    """The package llguidance.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        import llguidance
    except ImportError as error:
        raise MissingPackage(
            "schemas and grammars need llguidance; try: pip install 'alm-edge[grammar]'"
        ) from error
    return llguidance


_lock = Lock()
_made: WeakKeyDictionary[Tokenizer, dict[Any, Vocabulary]] = WeakKeyDictionary()


def _text(said: bytes) -> str:
    """A token's text; "" of one that is a part of a character, or not what it decodes to alone."""
    try:
        text = said.decode()
    except UnicodeDecodeError:
        return ""
    return "" if REPLACEMENT in text else text


def _turned(decoder: Any) -> Callable[[str], bytes]:
    """What makes bytes of a token as this decoder of a tokenizer.json does.

    Raises:
        BadOption: a decoder whose tokens have no bytes of their own.
    """
    steps = [decoder] if decoder else []
    while any(step.get("type") == "Sequence" for step in steps):
        steps = [one for step in steps for one in step.get("decoders", [step])]
    kinds = [step.get("type") for step in steps]
    if "ByteLevel" in kinds:
        others = set(kinds) - {"ByteLevel"} - PLAIN
        if others:
            raise _unknown(f"joins ByteLevel with {sorted(others)[0]}")
        return _byte_level
    replaced: list[tuple[str, str]] = []
    for step in steps:
        if step["type"] == "Metaspace":
            replaced.append((step["replacement"], " "))
        elif step["type"] == "Replace" and "String" in step["pattern"]:
            replaced.append((step["pattern"]["String"], step["content"]))
        elif step["type"] not in PLAIN and step["type"] != "ByteFallback":
            raise _unknown(f"decodes by {step['type']}")
    if not replaced:
        raise _unknown("has no decoder that says where spaces are")
    fallback = "ByteFallback" in kinds

    def pieces(text: str) -> bytes:
        if fallback and len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            try:
                return bytes([int(text[3:5], 16)])
            except ValueError:
                pass
        for old, new in replaced:
            text = text.replace(old, new)
        return text.encode("utf-8", "replace")

    return pieces


def _byte_level(text: str) -> bytes:
    """The bytes of a token of GPT-2's alphabet; of one that is not written in it, its own."""
    if all(letter in _BYTES for letter in text):
        return bytes(_BYTES[letter] for letter in text)
    return text.encode("utf-8", "replace")


def _alphabet() -> dict[str, int]:
    """GPT-2's `bytes_to_unicode`, turned round: printable bytes are themselves."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + n): b for n, b in enumerate(others)}


_BYTES = _alphabet()


def _unknown(why: str) -> BadOption:
    return BadOption(
        f"this model's answers cannot follow a schema or grammar: its tokenizer {why}, so that "
        "nobody knows the bytes of its tokens"
    )
