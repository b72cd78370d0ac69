"""What an answer shall look like: a JSON schema, a grammar or a regular expression, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from alm.errors import BadArtifacts, BadOption
from alm.grammar import schemas
from alm.grammar.roomy import roomy
from alm.grammar.vocabulary import library
from alm.parsing import printable
from alm.text.rust import calm

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MOST_GRAMMAR = 64 * 1024  # characters of a grammar, and of a regular expression a tenth
MOST_RULES = 300  # of terminals that are doubled by each other 990 take 14 seconds
MOST_FUEL = 300_000  # of llguidance's, for the terminals of a grammar; its own bound is a million
# Before an answer, and stripped from it: models put a space or lines between a prompt and `{`.
GAP = "start: gap? @answer\ngap: /[ \\n]{1,2}/\n"
RULE = re.compile(r"^[ \t]*[!?]*[\w-]+(?:\[[^\]\n]*\])?(?:\.-?\d+)?[ \t]*:", re.MULTILINE)
RULE_EBNF = "::="
TEMPERATURE = re.compile(r"[\[,]\s*temperature\s*=")


class Asked(TypedDict, total=False):
    """Keyword arguments of `Model.generate`; `openai_format` gives them."""

    schema: Any


@dataclass(frozen=True)
class Form:
    """What an answer shall look like; made by `schema`, `grammar` or `regex`."""

    kind: Literal["schema", "grammar", "regex"]
    text: str  # of one grammar of llguidance, in JSON

    @property
    def whole(self) -> str:
        """What an answer of this form is that was not cut, in words."""
        return {"schema": "JSON of the schema", "grammar": "of the grammar"}.get(
            self.kind, "what the regular expression matches"
        )

    def llg(self) -> str:
        """The grammar as llguidance takes it, with the gap before an answer."""
        return json.dumps(
            {"grammars": [{"lark_grammar": GAP}, {"name": "answer"} | json.loads(self.text)]}
        )

    def matcher(self, tokenizer: LLTokenizer) -> LLMatcher:
        """What follows it token by token, at the beginning of an answer.

        Raises:
            BadOption: llguidance does not take it, or takes it in part, or no text follows it.
            MissingPackage: llguidance is not installed.
        """
        llguidance, text = library(), self.llg()
        with self.calm():
            limits = llguidance.LLParserLimits(
                verbose_errors=False, initial_lexer_fuel=MOST_FUEL, max_grammar_size=MOST_FUEL
            )
            how: Any = {"log_level": 0, "limits": limits}
            made = roomy(lambda: llguidance.LLMatcher(tokenizer, text, **how))
            begun = made.deep_copy()  # behind all of the gap, where only an answer may follow
            begun.consume_tokens(tokenizer.greedy_tokenize("  "))
            begun.compute_bitmask()
        errors = made.get_error(), begun.get_error(), *made.get_grammar_warnings()
        if why := next(filter(None, errors), ""):
            raise self.refused(why)
        return made

    @contextmanager
    def calm(self) -> Iterator[None]:
        """In this block an error or a panic of llguidance is a BadOption, and prints nothing."""
        try:
            with calm(f"the {self.kind}"):
                yield
        except BadArtifacts as error:
            raise self.refused(str(error)) from error

    def refused(self, why: str) -> BadOption:
        """The error for what llguidance says is wrong with it."""
        why = why.partition("<backtrace>")[0].replace("<non-verbose/>", "").strip()
        if "NoExtension" in why:
            why = "no text follows it"
        elif why.startswith("panic") or "too big" in why or "uel exhausted" in why:
            why = f"it is too large to be followed ({why})"
        return BadOption(f"the {self.kind} cannot be kept: {printable(' '.join(why.split()), 400)}")


def schema(given: object) -> Form:
    """The form of a JSON schema.

    Args:
        given: the schema as a dict or as JSON text, or a class of pydantic.

    Raises:
        BadOption: it is none, is beyond the bounds of `schemas`, or says what cannot be kept.
    """
    if callable(make := getattr(given, "model_json_schema", None)):
        given = make()
    plain = schemas.kept(schemas.read(given))
    return Form("schema", json.dumps({"json_schema": plain}))


def grammar(text: object) -> Form:
    """The form of a grammar in llguidance's Lark, or in EBNF as llama.cpp writes it (GBNF).

    Raises:
        BadOption: it is no text, too long, or holds what cannot be kept.
    """
    written = _text(text, "grammar", MOST_GRAMMAR)
    rules = max(len(RULE.findall(written)), written.count(RULE_EBNF))
    if rules > MOST_RULES:
        raise BadOption(f"the grammar has {rules} rules, and {MOST_RULES} are the most")
    if TEMPERATURE.search(written):
        raise BadOption("the grammar sets a rule's temperature, which is not done here")
    if RULE_EBNF in written:
        written = _converted(written)
    return Form("grammar", json.dumps({"lark_grammar": schemas.inline(written)}))


def regex(text: object) -> Form:
    """The form of a regular expression, in the syntax of Rust's crate regex; it matches all.

    Raises:
        BadOption: it is no text, or too long.
    """
    written = _text(text, "regex", MOST_GRAMMAR // 10)
    made = json.loads(library().LLMatcher.grammar_from_regex(written))
    return Form("regex", json.dumps({"lark_grammar": made["grammars"][0]["lark_grammar"]}))


MAKERS = {"schema": schema, "grammar": grammar, "regex": regex}


def asked(given: Mapping[str, Any], count: int = 1) -> list[Form | None]:
    """The form of each of `count` answers.

    Args:
        given: `schema`, `grammar` or `regex`, one of them at most; a list has one for each answer,
            in which None is no form.
        count: how many answers there are; 0 if that is not known yet.

    Raises:
        BadOption: two at once, another count, or what is wrong with one of them.
    """
    said = {name: value for name, value in given.items() if value is not None and value != ""}
    if not said:
        return [None] * count
    if len(said) > 1:
        raise BadOption(f"{' and '.join(said)} are both asked for; an answer has one form")
    ((name, value),) = said.items()
    if not isinstance(value, list | tuple):
        return [MAKERS[name](value)] * max(1, count)
    if count and len(value) != count:
        raise BadOption(f"there are {len(value)} of {name}, and {count} answers")
    return [None if one is None else MAKERS[name](one) for one in value]


def check(form: Form) -> None:
    """Refuse, with BadOption, what llguidance does not take, before a model is loaded.

    A grammar may name tokens of the model's, so it is looked at later.
    """
    if form.kind != "grammar":
        look = library().LLMatcher.validate_grammar_with_warnings
        with form.calm():
            wrong, said = roomy(lambda: look(form.llg()))
        if wrong or said:
            raise form.refused(said[0])


def openai_format(response_format: object) -> Asked:
    """OpenAI's `response_format` as keyword arguments of `Model.generate`.

    Args:
        response_format: `{"type": "text"}`, `{"type": "json_object"}`, or `{"type": "json_schema",
            "json_schema": {"name": ..., "schema": ..., "strict": ...}}`; None is text. The schema
            is kept to the letter, `strict` or not.

    Raises:
        BadOption: anything else, by its name; the schema as in `schema`.
    """
    if response_format is None:
        return {}
    if not isinstance(response_format, Mapping):
        raise BadOption(f"response_format is an object, not {type(response_format).__name__}")
    kind = response_format.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise BadOption(
            f"response_format of type {kind!r:.80} is not known; there is text, json_object and "
            "json_schema"
        )
    _only(response_format, {"type"} | ({kind} & {"json_schema"}), "response_format")
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"schema": {"type": "object"}}
    said = response_format.get("json_schema")
    if not isinstance(said, Mapping) or "schema" not in said:
        raise BadOption("response_format's json_schema is an object with a name and a schema")
    _only(said, {"name", "schema", "strict", "description"}, "response_format's json_schema")
    if not isinstance(said.get("name"), str):
        raise BadOption("response_format's json_schema wants a name, as text")
    if not isinstance(said.get("strict"), bool | None):
        raise BadOption("response_format's strict is true or false")
    schema(said["schema"])
    return {"schema": said["schema"]}


def _only(given: Mapping[Any, Any], known: set[Any], where: str) -> None:
    for name in given:
        if name not in known:
            raise BadOption(f"{where} has {name!r:.80}, which is not known here")


def _text(text: object, what: str, most: int) -> str:
    if not isinstance(text, str):
        raise BadOption(f"a {what} is wanted as text, not {type(text).__name__}")
    if not text.strip() or len(text) > most or "\0" in text:
        raise BadOption(f"a {what} is text of 1 to {most} characters, and this has {len(text)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadOption(f"the {what} holds bytes that are not UTF-8") from None
    return text


def _converted(written: str) -> str:
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        return any_to_lark(written)
    except (Exception, RecursionError) as error:
        raise BadOption(f"the grammar is no EBNF: {printable(error, 300)}") from error
