"""Forms that the command line names: a file of a schema or of a grammar, or an expression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alm.errors import BadOption, MissingFile
from alm.grammar import forms

MOST_BYTES = 2**20  # of a file; what is longer is refused before it is read


def given(schema: Path | None, grammar: Path | None, regex: str) -> dict[str, Any]:
    """Keyword arguments of `Model.generate` for what was named, checked without a model.

    Raises:
        BadOption: two at once, a file that is no text, or what `forms.asked` refuses.
        MissingFile: there is no such file.
        MissingPackage: llguidance is not installed.
    """
    said: dict[str, Any] = {}
    for name, file in (("schema", schema), ("grammar", grammar)):
        if file is not None:
            said[name] = _read(name, file)
    if regex:
        said["regex"] = regex
    for form in forms.asked(said):
        if form:
            forms.check(form)
    return said


def _read(name: str, file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise MissingFile(f"there is no file {file}; wanted a {name} for --{name}") from None
    except OSError as error:
        raise BadOption(f"--{name} {file} cannot be read: {error.strerror or error}") from error
    if len(content) > MOST_BYTES:
        raise BadOption(f"--{name} {file} is larger than {MOST_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadOption(f"--{name} {file} is not text in UTF-8") from None
    if not text.strip():
        raise BadOption(f"--{name} {file} is empty")
    return text
