"""What is taken of a schema, a grammar and a `response_format`, and what is refused by its name."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alm.errors import BadOption
from alm.grammar import forms, openai_format
from alm.grammar.following import Plain
from alm.grammar.schemas import MOST_DEEP, MOST_LETTERS, MOST_REFERENCES, MOST_SCHEMAS
from alm.grammar.vocabulary import Vocabulary
from alm.grammar.wanted import Wanted
from alm.text.detokenizer import load_tokenizer
from tests import ROOT
from tests.runtime.grammar.shapes import Schema, begun, drawn, problem, text, thing
from tests.wrappers.families.tiny_hf import chatml


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    path = tmp_path_factory.mktemp("bytes") / "tokenizer.json"
    chatml().save(str(path))
    tokenizer = load_tokenizer(path)
    return Vocabulary(tokenizer, tokenizer.get_vocab_size(), {0})


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("[]", "a schema is an object"),
        (True, "a schema is wanted as a dict or as JSON text, not bool"),
        ("{'a': 1}", "the schema is no JSON"),
        ('{"type": "object", "type": "array"}', "'type' twice in one object"),
        ('{"minimum": NaN}', "NaN is no number of JSON"),
        ({"minimum": 10**30}, "a number of more than 64 bits"),
        ({"a": {1, 2}}, "cannot be written as JSON"),
        (thing(a={"not": {}}), "the schema's /properties/a has 'not', which is not kept here"),
        ({"anyOf": [{}, {"if": {}}]}, "the schema's /anyOf/1 has 'if', which is not kept here"),
        ({"type": "array", "uniqueItems": True}, "'uniqueItems', which is not kept here"),
        ({"requird": ["a"]}, "'requird', which is not kept here"),
        ({"x-guidance": {"lenient": True}}, "'x-guidance', which is not kept here"),
        ({"items": [{}]}, "prefixItems lists one for each place"),
        ({"anyOf": {}}, "'anyOf', which is a list of schemas"),
        ({"properties": []}, "'properties', which has a schema for each name"),
        ({"properties": {"a": 3}}, "/properties/a is no schema"),
        ({"exclusiveMinimum": True}, "'exclusiveMinimum', which is a number, not True"),
        (text(maxLength=1.5), "'maxLength', which is a whole number, 0 or more, not 1.5"),
        ({"minItems": -1}, "'minItems', which is a whole number"),
        ({"type": "object", "minProperties": 2}, "minProperties 2, which is kept up to those"),
        ({"const": "\x07"}, "the control character"),
        ({"const": "\ud800"}, "half of a character"),
        ({"$ref": "https://example.com/schema.json"}, "which lies outside"),
        ({"$ref": "file:///etc/passwd"}, "which lies outside"),
        ({"$ref": "other.json#/a"}, "which lies outside"),
        ({"$ref": "#/$defs/none"}, "the schema cannot be kept: Pointer '/$defs/none'"),
        ({"$ref": "#"}, "no text follows it"),
        ({"enum": []}, "cannot be kept"),
        ({"type": "float"}, "Invalid type: float"),
        ({"allOf": [{"type": "integer"}, {"type": "string"}]}, "Unsatisfiable schema"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf constraints are not"),
        (text(format="colour"), "Unknown format: colour"),
        (text(pattern="a(?=b)"), "look-around"),
        (text(pattern=r"(a)\1"), "backreferences are not supported"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_by_what_it_says(
    vocabulary: Vocabulary, schema: Any, why: str
) -> None:
    with pytest.raises(BadOption) as caught:
        begun(vocabulary, schema=schema)
    assert why in str(caught.value) and "\n" not in str(caught.value)


def nested(depth: int) -> Schema:
    made: Schema = {"type": "integer"}
    for _ in range(depth):
        made = {"type": "array", "items": made}
    return made


def chain(length: int, deep: int = 0) -> Schema:
    """Definitions of which each is the next, so many arrays deep."""
    made: dict[str, Any] = {"d0": {"type": "integer"}}
    for i in range(1, length):
        made[f"d{i}"] = {"$ref": f"#/$defs/d{i - 1}"}
        for _ in range(deep):
            made[f"d{i}"] = {"type": "array", "items": made[f"d{i}"]}
    return {"$defs": made, "$ref": f"#/$defs/d{length - 1}"}


def choices(count: int) -> Schema:
    """All of so many, each any of four: four to that power in all."""
    four = [[thing([f"a{i}"], **{f"a{i}": {"const": j}}) for j in range(4)] for i in range(count)]
    for one in (schema for some in four for schema in some):
        del one["additionalProperties"]
    return {"allOf": [{"anyOf": some} for some in four]}


def terminals(count: int) -> str:
    doubled = "\n".join(f"T{i}: T{i + 1} T{i + 1}" for i in range(count))
    return f'start: T0\n{doubled}\nT{count}: "a"'


BOMBS: dict[str, dict[str, Any]] = {
    "long": {"schema": {"description": "x" * MOST_LETTERS}},
    "deep": {"schema": nested(MOST_DEEP)},
    "deeper than Python": {"schema": "[" * 100_000},
    "deep text": {"schema": '{"items":' * 5_000},
    "many": {"schema": {"anyOf": [{}] * MOST_SCHEMAS}},
    "many references": {"schema": chain(MOST_REFERENCES + 2)},
    "a chain": {"schema": chain(MOST_REFERENCES)},
    "a chain of nests": {"schema": chain(90, 20)},
    "a product": {"schema": choices(6)},
    "a larger product": {"schema": choices(9)},
    "properties": {"schema": thing([], **{f"p{i}": text() for i in range(1_900)})},
    "a pattern": {"schema": text(pattern="(((a{100}){100}){100}){100}")},
    "a long pattern": {"schema": text(pattern="a?" * 1_100)},
    "a multiple": {"schema": {"type": "integer", "multipleOf": 10**9 + 7}},
    "items": {"schema": {"type": "array", "minItems": 10**9, "items": {"type": "integer"}}},
    "terminals": {"grammar": terminals(290)},
    "rules": {"grammar": "start: r0\n" + "\n".join(f"r{i}: r{i + 1}" for i in range(4_000))},
    "brackets": {"grammar": "start: " + "(" * 20_000 + '"a"' + ")" * 20_000},
    "brackets of EBNF": {"grammar": "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000},
    "a repeat": {"grammar": 'start: ("a"{1000}){1000}'},
    "itself": {"grammar": "start: start"},
    "ambiguous": {"grammar": 'start: e\ne: e e | e e e | "a" |'},
    "an expression": {"regex": "(a?){500}a{500}"},
    "a deep expression": {"regex": "(" * 3_000 + ")" * 3_000},
    "schema in a grammar": {"grammar": "start: %json " + json.dumps(choices(9))},
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_cost_too_much_ends_in_a_sentence_or_goes_on_in_bounds(
    vocabulary: Vocabulary, name: str
) -> None:
    ended = list[str]()

    def run() -> None:
        begin = time.process_time()
        try:
            started = begun(vocabulary, **BOMBS[name])
            drawn(vocabulary, frozenset({0}), np.random.default_rng(0), started)
            ended.append("")
        except BadOption as error:
            ended.append(str(error))
        assert time.process_time() - begin < 20  # two seconds on an idle machine

    before = threading.stack_size(512 * 1024)  # as some systems' threads have
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert len(ended) == 1 and "\n" not in ended[0] and len(ended[0]) < 1_000


def test_a_grammar_may_hold_schemas_which_are_held_to_the_same(vocabulary: Vocabulary) -> None:
    begin = begun(vocabulary, grammar='start: "x=" %json {"const": {"a": 3}} "!"')
    ids = drawn(vocabulary, frozenset({0}), np.random.default_rng(0), begin)
    assert ids and vocabulary.text(ids).decode().strip().replace(" ", "") == 'x={"a":3}!'
    for grammar, why in (
        ('start: %json {"not": {}}', "has 'not', which is not kept here"),
        ("start: %json nothing", "%json is followed by no JSON"),
        ('start: a\na[temperature=0.5]: "b"', "sets a rule's temperature"),
        ('start: "a', "the grammar cannot be kept"),
        ('other: "a"', "the grammar cannot be kept"),
        ("start: <|none|>", "unknown special token"),
        ("%import /etc/passwd.INT\nstart: INT", "the grammar cannot be kept"),
        ("root ::= (", "the grammar is no EBNF"),
        (7, "a grammar is wanted as text, not int"),
        ("\x00", "text of 1 to"),
    ):
        with pytest.raises(BadOption) as caught:
            begun(vocabulary, grammar=grammar)
        assert why in str(caught.value), grammar


def test_an_escaped_name_is_no_other_name(vocabulary: Vocabulary) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form, state = begun(vocabulary, schema=schema)
    for byte in b'{"':
        state.take(vocabulary.tokens.index(bytes([byte])))
    state.take(vocabulary.tokens.index(b"\\"))
    may = np.flatnonzero(np.unpackbits(state.mask(), bitorder="little"))
    assert {vocabulary.tokens[token] for token in may} <= {bytes([one]) for one in b'nrbtf\\"'}
    assert form.whole == "JSON of the schema"


def test_forms_are_one_for_all_or_one_for_each() -> None:
    assert forms.asked({}, 2) == [None, None]
    assert forms.asked({"schema": None, "regex": ""}, 1) == [None]
    one, other = forms.regex("a"), forms.regex("b")
    assert forms.asked({"regex": "a"}, 2) == [one, one]
    assert forms.asked({"regex": ["a", None, "b"]}, 3) == [one, None, other]
    for given, count, why in (
        ({"regex": ["a", "b"]}, 3, "there are 2 of regex, and 3 answers"),
        ({"regex": "a", "schema": {}}, 1, "regex and schema are both asked for"),
    ):
        with pytest.raises(BadOption, match=why):
            forms.asked(given, count)


def test_a_class_of_pydantic_is_its_schema() -> None:
    class Point:
        @classmethod
        def model_json_schema(cls) -> Schema:
            return thing(["x"], x={"type": "integer"})

    assert forms.schema(Point) == forms.schema(Point.model_json_schema())


def test_a_response_format_of_openai_is_a_keyword_or_refused_by_name() -> None:
    schema = thing(["a"], a={"type": "integer"})
    said = {"name": "n", "schema": schema, "strict": True, "description": "d"}
    assert openai_format(None) == openai_format({"type": "text"}) == {}
    assert openai_format({"type": "json_object"}) == {"schema": {"type": "object"}}
    assert openai_format({"type": "json_schema", "json_schema": said}) == {"schema": schema}
    for given, why in (
        ([], "is an object, not list"),
        ({}, "of type None is not known"),
        ({"type": "xml"}, "of type 'xml' is not known"),
        ({"type": ["text"]}, "is not known"),
        ({"type": "text", "json_schema": said}, "has 'json_schema', which is not known"),
        ({"type": "json_object", "schema": schema}, "has 'schema', which is not known"),
        ({"type": "json_schema"}, "is an object with a name and a schema"),
        ({"type": "json_schema", "json_schema": {"schema": schema}}, "wants a name"),
        ({"type": "json_schema", "json_schema": said | {"strict": "yes"}}, "strict is true or"),
        ({"type": "json_schema", "json_schema": said | {"more": 1}}, "has 'more', which"),
        ({"type": "json_schema", "json_schema": said | {"schema": {"not": {}}}}, "has 'not'"),
    ):
        with pytest.raises(BadOption) as caught:
            openai_format(given)
        assert why in str(caught.value), given


def test_a_model_that_writes_a_token_a_step_follows_no_form(vocabulary: Vocabulary) -> None:
    stepping = SimpleNamespace(stepping=object(), eos=frozenset({0}))
    with pytest.raises(BadOption, match="for a model that writes a token for each step of sound"):
        Wanted({"regex": "a"}, 1, stepping)  # pyright: ignore
    assert Wanted({}, 1, stepping).following([(0, False)], None) is None  # pyright: ignore


def test_a_copy_of_a_state_goes_its_own_way(vocabulary: Vocabulary) -> None:
    form, state = begun(vocabulary, regex="ab|cd")
    assert isinstance(state, Plain) and form.kind == "regex"
    other = state.copy()
    state.take(vocabulary.tokens.index(b"a"))
    other.take(vocabulary.tokens.index(b"c"))
    for one, letter in ((state, b"b"), (other, b"d")):
        may = np.flatnonzero(np.unpackbits(one.mask(), bitorder="little"))
        assert [vocabulary.tokens[token] for token in may] == [letter]
        one.take(vocabulary.tokens.index(letter))
        assert one.complete
    assert problem({"const": 1}, "2") and not problem({"const": 1}, "1")


def test_a_missing_package_is_answered_with_what_to_type(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["llguidance"] = None
import alm
from alm.grammar import forms, openai_format
assert openai_format({"type": "text"}) == {}
try:
    forms.check(forms.schema({"type": "object"}))
except alm.MissingPackage as error:
    print(error)
"""
    where = {"PYTHONPATH": str(ROOT / "runtime")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=where)
    assert done.stdout == (
        "schemas and grammars need llguidance; try: pip install 'alm-edge[grammar]'\n"
    ), done.stderr
