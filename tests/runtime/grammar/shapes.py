"""Schemas of every kind, tokenizers of every kind, and answers drawn from what may follow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from alm.grammar.following import Following, Plain, State
from alm.grammar.forms import Form, asked
from alm.grammar.vocabulary import Vocabulary
from alm.text.detokenizer import load_tokenizer
from tests.wrappers.families.tiny_hf import chatml, tekken
from wrappers.checkpoint.text.tekken_json import converted

Schema = dict[str, Any]


def thing(required: Sequence[str] = (), **properties: Any) -> Schema:
    """An object of these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": [*required],
        "additionalProperties": False,
    }


def text(**more: Any) -> Schema:
    return {"type": "string", **more}


LIST = {
    "$defs": {
        "node": thing(
            ["v", "next"],
            v={"type": "integer"},
            next={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        )
    },
    "$ref": "#/$defs/node",
}
SCHEMAS: dict[str, Schema] = {
    "an object of anything": {"type": "object"},
    "anything": {},
    "required and optional": thing(["a"], a={"type": "integer"}, b=text()),
    "an open object": {"type": "object", "properties": {"a": {"type": "integer"}}},
    "other names": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "additionalProperties": text(maxLength=3),
    },
    "names by pattern": {
        "type": "object",
        "patternProperties": {"^n_": {"type": "integer"}},
        "additionalProperties": False,
    },
    "how many properties": {"type": "object", "minProperties": 1, "maxProperties": 2},
    "strange names": thing(["a/b"], **{"a/b": {"type": "null"}, 'é"\n': {"type": "null"}}),
    "an enum": {"enum": ["a", 'b\n"q\\', "é語🙂", 1, 1.5, None, True, {"x": [1, "a"]}, []]},
    "a constant": {"const": {"a": ["\u2028/", "</s>"]}},
    "a bounded integer": {"type": "integer", "minimum": -17, "maximum": 123},
    "a bounded number": {"type": "number", "exclusiveMinimum": -0.5, "maximum": 3.25},
    "a multiple": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 1000},
    "an array": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    "a tuple": {
        "type": "array",
        "prefixItems": [{"type": "integer"}, text(maxLength=4)],
        "items": False,
        "minItems": 2,
    },
    "a list that holds itself": LIST,
    "nested": thing(
        ["who"],
        who=thing(
            ["name", "tags"], name=text(maxLength=8), tags={"type": "array", "items": text()}
        ),
        when=text(format="date-time"),
    ),
    "any of": {"anyOf": [{"type": "integer"}, thing(["k"], k={"const": "x"})]},
    "one of": {"oneOf": [thing(["k"], k={"const": "x"}), thing(["k"], k={"const": "y"})]},
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": text()}, "required": ["b"]},
        ]
    },
    "a pattern": text(pattern="^[A-Z]{2}-[0-9]{3}$"),
    "characters outside ASCII": text(pattern="^[à-ÿ語🙂]{2,4}$"),
    "a length in characters": text(minLength=2, maxLength=5),
    "several types": {"type": ["string", "null", "integer"]},
    "formats": thing(
        ["a", "b", "c"], a=text(format="uuid"), b=text(format="ipv4"), c=text(format="date")
    ),
    "a name that is optional and null": thing(a={"anyOf": [{"type": "integer"}, {"type": "null"}]}),
}


def problem(schema: Schema, answer: str) -> str:
    """What is wrong with an answer, by another library than the one that made it; "" is nothing."""
    try:
        value = json.loads(answer)
    except ValueError as error:
        return f"{error}: {answer!r}"
    check = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return next((f"{error.message}: {answer!r}" for error in check.iter_errors(value)), "")


# --- tokenizers


def llama() -> Tokenizer:
    """As LLaMA's: spaces are U+2581, rare characters are bytes as <0x00>, a first space goes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = ["\u2581", *'{}[]":,-.0123456789', *"abcdefghilmnorstuwy", "é", "語"]
    longer = [
        "\u2581{",
        '{"',
        '":',
        '",',
        "\u2581\u2581",
        '"}',
        "\u2581the",
        "12",
        "true",
        "\u2581[",
    ]
    vocab = {piece: i for i, piece in enumerate([*pieces, *letters, *longer])}
    model = models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    made = Tokenizer(model)
    steps = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    made.normalizer = normalizers.Sequence(steps)  # pyright: ignore
    made.decoder = decoders.Sequence(  # pyright: ignore
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.add_special_tokens([AddedToken(one, normalized=False) for one in pieces[:3]])
    return made


def metaspace() -> Tokenizer:
    """A Unigram with Metaspace, whose vocabulary lacks most characters."""
    letters = [
        "\u2581",
        *map(chr, range(33, 127)),
        "\n",
        "é",
        '\u2581"',
        '{"',
        "\u2581{",
        "語",
        "🙂",
    ]
    scored = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((one, -2.0) for one in letters)]
    made = Tokenizer(models.Unigram(scored, 0))
    made.pre_tokenizer = pre_tokenizers.Metaspace()  # pyright: ignore
    made.decoder = decoders.Metaspace()  # pyright: ignore
    made.add_special_tokens([AddedToken(one, normalized=False) for one in ("<unk>", "<s>", "</s>")])
    return made


def many_specials() -> Tokenizer:
    """Bytes, 300 special tokens that would not be seen, and plain added tokens that are."""
    made = chatml()
    made.add_special_tokens([f"<|control_{i}|>" for i in range(300)])
    made.add_tokens(["<think>", "</think>", ' {"', "\n\n", "<é>"])
    return made


def tokenizers(folder: Path) -> Iterator[tuple[str, Tokenizer, frozenset[int]]]:
    """Each with its name and the tokens that end an answer."""
    (folder / "tekken.json").write_text(json.dumps(tekken()))
    mistral = Tokenizer.from_str(converted(folder / "tekken.json"))
    for name, made, eos in (
        ("bytes of ChatML", chatml(), (0, 2)),
        ("tekken", mistral, (2,)),
        ("llama", llama(), (2,)),
        ("metaspace", metaspace(), (2,)),
        ("many special tokens", many_specials(), (0, 2, 400)),
    ):
        path = folder / f"{name}.json"
        made.save(str(path))
        yield name, load_tokenizer(path), frozenset(eos)


# --- answers


def begun(vocabulary: Vocabulary, **form: Any) -> tuple[Form, State]:
    """A form, and an answer at its beginning."""
    (made,) = asked(form)
    assert made
    return made, Plain(made.matcher(vocabulary.llg), made, vocabulary.size)


def drawn(
    vocabulary: Vocabulary,
    eos: frozenset[int],
    random: np.random.Generator,
    begin: tuple[Form, State],
    most: int = 250,
) -> list[int] | None:
    """Tokens drawn from those that may follow; None where `most` of them did not end."""
    form, state = begin
    rows = Following([form], [state.copy()], beams=False)
    ends = {token for token, said in enumerate(vocabulary.tokens) if said[-1:] in b'"]}'}
    ids: list[int] = []
    size = vocabulary.size + 40  # logits may be more than there are tokens
    while len(ids) < most:
        scores = np.zeros(size, np.float32)
        rows.restrict(0, ids, scores)
        may = np.flatnonzero(scores == 0)
        if len(ids) > 24 and random.random() < 0.5:  # towards an end
            near = [token for token in may if token in ends or token in eos]
            may = np.array(near) if near else may
        token = int(random.choice(may))
        if token in eos:
            assert rows.lack(0, [*ids, token], eos) == ""
            return ids
        ids.append(token)
        if rows.complete(0, ids):
            assert rows.lack(0, ids, eos) == ""
            return ids
    return None
