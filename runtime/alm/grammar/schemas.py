"""A JSON schema held against what is kept of it: anything else in it is refused by its name.

A schema may be a stranger's. What it costs is bounded before llguidance sees it, and nothing that
lies outside it is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from alm.errors import BadOption

MOST_LETTERS = 128 * 1024  # of a schema as JSON
MOST_DEEP = 48  # values in each other; llguidance reads 128 deep at most
MOST_SCHEMAS = 2_000  # in each other; 5000 properties of one object take five seconds
MOST_REFERENCES = 500  # different ones
MOST_PATTERN = 2_000  # characters
MOST_INT = 2**63 - 1

INLINE = "%json"  # before a schema in a grammar

# Where the schemas in a schema are: one, a list of them, or a name for each.
ONE = {"additionalProperties", "items"}
LISTS = {"anyOf", "oneOf", "allOf", "prefixItems"}
NAMED = {"properties", "patternProperties", "$defs", "definitions"}
KEPT = {
    *("type", "enum", "const", "$ref", "required", "minProperties", "maxProperties"),
    *("minItems", "maxItems", "minLength", "maxLength", "pattern", "format"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *(ONE | LISTS | NAMED),
}
WHOLE = {"minProperties", "maxProperties", "minItems", "maxItems", "minLength", "maxLength"}
NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
# Words for people, which no JSON can break.
SAID = {
    *("title", "description", "default", "examples", "example", "deprecated", "readOnly"),
    *("writeOnly", "$comment", "$schema", "discriminator"),
}
UNWRITTEN = re.compile(r"[\x00-\x07\x0b\x0e-\x1f]")  # would want an escape that HOW leaves out
# What llguidance is told of every schema, whatever the schema asks for itself.
HOW = {
    "lenient": False,
    "coerce_one_of": False,
    # White space is one space or none: endless lines of it would never end an answer.
    "whitespace_pattern": "[ ]",
    # Each text is then written in one way: a key that is spelled \u0061 is no other key than "a".
    "json_allowed_escapes": 'nrbtf\\"',
}


def read(given: object) -> Any:
    """A schema as plain data, from a dict or from JSON text.

    Raises:
        BadOption: it is neither, or beyond the bounds.
    """
    if isinstance(given, bytes):
        given = given.decode("utf-8", "replace")
    if not isinstance(given, str):
        if not isinstance(given, dict):
            raise BadOption(
                f"a schema is wanted as a dict or as JSON text, not {type(given).__name__}"
            )
        try:
            given = json.dumps(given)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadOption(f"the schema cannot be written as JSON: {error!s:.200}") from error
    if len(given) > MOST_LETTERS:
        raise BadOption(
            f"the schema is {len(given)} characters long, and {MOST_LETTERS} are the most"
        )
    try:
        plain = json.loads(given, parse_constant=_no_number, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadOption):
            raise
        raise BadOption(f"the schema is no JSON: {error!s:.200}") from error
    return plain


def inline(written: str) -> str:
    """A grammar whose schemas, each behind `%json`, are kept.

    Raises:
        BadOption: what is behind it is no JSON, or a schema that cannot be kept.
    """
    first, *rest = written.split(INLINE)
    parts = [first]
    for behind in rest:
        behind = behind.lstrip()
        try:
            plain, end = json.JSONDecoder(object_pairs_hook=_once).raw_decode(behind)
        except (ValueError, RecursionError) as error:
            if isinstance(error, BadOption):
                raise
            raise BadOption(f"the grammar's {INLINE} is followed by no JSON: {error}") from error
        parts.append(f"{INLINE} {json.dumps(kept(plain))}{behind[end:]}")
    return "".join(parts)


def kept(plain: Any) -> dict[str, Any]:
    """The schema as llguidance is given it.

    Raises:
        BadOption: it says what is not kept here, or is beyond the bounds.
    """
    if not isinstance(plain, dict):
        raise BadOption(
            f"a schema is an object such as {{'type': 'object'}}, not {type(plain).__name__}"
        )
    _check_values(plain)
    count, references = 0, set[str]()
    for where, schema in _schemas(plain):
        count += 1
        if count > MOST_SCHEMAS:
            raise BadOption(f"the schema holds more than {MOST_SCHEMAS} schemas")
        _check(where, schema, references)
    if len(references) > MOST_REFERENCES:
        raise BadOption(
            f"the schema has {len(references)} different $ref, and {MOST_REFERENCES} are the most"
        )
    return plain | {"x-guidance": HOW}


def _schemas(plain: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """All schemas in a schema, itself first, and where each stands."""
    level: list[tuple[str, Any]] = [("", plain)]
    while level:
        yield from level
        inner: list[tuple[str, Any]] = []
        for where, schema in level:
            for name, value in schema.items() if isinstance(schema, dict) else ():
                at = f"{where}/{name}"
                if name in ONE:
                    inner.append((at, value))
                elif name in LISTS and isinstance(value, list):
                    inner += [(f"{at}/{i}", one) for i, one in enumerate(value)]
                elif name in NAMED and isinstance(value, dict):
                    inner += [(f"{at}/{key}", one) for key, one in value.items()]
        level = inner


def _check(where: str, schema: Any, references: set[str]) -> None:
    at = f"the schema's {where:.120}" if where else "the schema"
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        more = "; prefixItems lists one for each place" if where.endswith("items") else ""
        raise BadOption(f"{at} is no schema, which is an object, true or false{more}")
    for name in schema:
        if name not in KEPT and name not in SAID:
            raise BadOption(
                f"{at} has {name!r:.80}, which is not kept here; an answer might break it"
            )
    for name in LISTS & schema.keys():
        if not isinstance(schema[name], list):
            raise BadOption(f"{at} has {name!r}, which is a list of schemas")
    for name in NAMED & schema.keys():
        if not isinstance(schema[name], dict):
            raise BadOption(f"{at} has {name!r}, which has a schema for each name")
    for name in (WHOLE | NUMBERS) & schema.keys():
        value, kinds = schema[name], int if name in WHOLE else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or (name in WHOLE and value < 0):
            kind = "whole number, 0 or more" if name in WHOLE else "number"
            raise BadOption(f"{at} has {name!r}, which is a {kind}, not {value!r:.80}")
    # A name that comes twice counts once when it is read.
    least, named = schema.get("minProperties", 0), schema.get("required", [])
    if least > max(1, len(named) if isinstance(named, list) else 0):
        raise BadOption(f"{at} has minProperties {least}, which is kept up to those 'required'")
    reference = schema.get("$ref", "#")
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise BadOption(
            f"{at} has $ref {reference!r:.80}, which lies outside; only #/... is followed"
        )
    references.add(reference)
    patterns = [schema.get("pattern", ""), *schema.get("patternProperties", {})]
    if any(isinstance(one, str) and len(one) > MOST_PATTERN for one in patterns):
        raise BadOption(f"{at} has a pattern of more than {MOST_PATTERN} characters")


def _check_values(plain: Any) -> None:
    """Refuse values that are nested too deep, whole numbers beyond 64 bits, and half characters."""
    level: list[Any] = [plain]
    for _ in range(MOST_DEEP):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, list):
                inner += value
            elif isinstance(value, dict):
                inner += [*value.values(), *value]
            elif isinstance(value, str):
                _check_text(value)
            elif isinstance(value, int) and abs(value) > MOST_INT:
                raise BadOption("the schema has a number of more than 64 bits")
        level = inner
        if not level:
            return
    raise BadOption(f"the schema is nested more than {MOST_DEEP} deep")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadOption("the schema holds half of a character (a lone surrogate)") from None
    if control := UNWRITTEN.search(text):
        raise BadOption(f"the schema holds the control character {control[0]!r}, which is not said")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, each of whose names stands once."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadOption(f"the schema has {twice!r:.80} twice in one object")
    return made


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")
