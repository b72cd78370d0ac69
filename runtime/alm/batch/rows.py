"""A row of the results: what was answered about a file, or why not, as a line of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alm.batch.files import File, Mark, shown
from alm.parsing import CONTROL

BEGIN = b'{"file": "'  # of every row: nothing else is ever cut off or overwritten
Row = dict[str, Any]


def answered(file: File, mark: Mark, made_with: Mapping[str, Any], answer: Row) -> Row:
    """The row of an answer, given as plain data."""
    return {"file": shown(file.given), **answer, **_of(file, mark), "made_with": dict(made_with)}


def failed(file: File, mark: Mark, made_with: Mapping[str, Any], why: str) -> Row:
    """The row of a file that got no answer, with the reason in a sentence."""
    sentence = {"error": " ".join(shown(why).split())}
    return {"file": shown(file.given), **sentence, **_of(file, mark), "made_with": dict(made_with)}


def line(row: Row) -> bytes:
    """The row as one line of UTF-8: control characters and lone surrogates are escaped."""
    text = json.dumps(row, ensure_ascii=False)
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode() + b"\n"


@dataclass(frozen=True)
class Known:
    """What is remembered of a row: where its line stands, in bytes, and what it is about."""

    path: str
    mark: Mark
    failed: bool
    made_with: dict[str, Any]
    start: int = 0
    end: int = 0


def read(text: bytes, start: int = 0) -> Known:
    """What a line says.

    Raises:
        ValueError: it is no row.
    """
    try:
        row = json.loads(text)
        source, made_with = row["source"], row["made_with"]
        path = os.fsdecode(bytes.fromhex(source["path_hex"])) if "path_hex" in source else None
        known = Known(
            source["path"] if path is None else path,
            Mark(source["size"], source["mtime_ns"], source["sha256"]),
            "error" in row,
            made_with,
            start,
            start + len(text),
        )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("no row") from error
    if not isinstance(known.path, str) or not isinstance(made_with, dict):
        raise ValueError("no row")
    return known


def _of(file: File, mark: Mark) -> Row:
    source: Row = {"path": shown(file.path)}
    if source["path"] != file.path:  # bytes that are not UTF-8, of which many look alike
        source["path_hex"] = os.fsencode(file.path).hex()
    source |= {"size": mark.size, "mtime_ns": mark.mtime_ns, "sha256": mark.sha256}
    return {"source": source}
