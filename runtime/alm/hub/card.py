"""The page of a model on the hub, README.md: what its manifest says, for people and for the hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alm.artifacts.manifest import NAME, Manifest
from alm.errors import BadOption, MissingFile
from alm.hub.names import Repo
from alm.hub.progress import megabytes
from alm.parsing import is_a, parse, printable
from alm.precision import PLAIN
from alm.version import __version__

HOME = "https://pypi.org/project/alm-edge/"
TASK = "transcribe"
MOST_BYTES = 2**20  # of a file of word errors
# Of the hub's names of licences, those that audio language models have.
LICENCES = (
    *("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"),
    *("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0", "agpl-3.0", "llama2", "llama3", "llama3.1"),
    *("llama3.2", "llama3.3", "gemma", "openrail", "unlicense", "other"),
)


@dataclass(frozen=True)
class Said:
    """What the manifest cannot know."""

    base_models: tuple[str, ...] = ()  # org/name on the hub
    licence: str = ""  # one of the hub's names
    errors: tuple[Mapping[str, Any], ...] = ()  # rows of `read_errors`


def read_errors(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Rows of word errors by precision, as bench/accuracy.py writes them.

    An object whose `rows` have each a `precision` and `errors`, percents by the kind of clip.

    Raises:
        MissingFile, BadOption: there is no such file, or it is another.
    """
    try:
        content = path.read_bytes()
        rows = parse(content.decode("utf-8"))["rows"] if len(content) <= MOST_BYTES else None
    except FileNotFoundError:
        raise MissingFile(f"there is no file {path}; wanted word errors, in JSON") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        rows = None
    if not isinstance(rows, list) or not rows or not all(map(_is_row, rows)):
        raise BadOption(
            f"{path} is no file of word errors: wanted an object with 'rows', each of a "
            "'precision' and its 'errors' in percent, as bench/accuracy.py writes"
        )
    return tuple(rows)


def _is_row(row: Any) -> bool:
    errors = row.get("errors") if isinstance(row, dict) else None
    return (
        isinstance(errors, dict)
        and isinstance(row.get("precision"), str)
        and all(is_a(percent, (int, float)) for percent in errors.values())
    )


def text(manifest: Manifest, repo: Repo, said: Said = Said()) -> str:
    """The card: YAML that the hub reads, then Markdown."""
    sections = (
        _front(manifest, said),
        _opening(manifest, repo),
        _running(manifest, repo),
        _parts(manifest),
        _errors(said.errors),
        _origin(manifest, said),
        _licence(manifest, said),
        _files(manifest),
    )
    return "\n\n".join("\n".join(lines) for lines in map(list, sections) if lines) + "\n"


def _front(manifest: Manifest, said: Said) -> Iterator[str]:
    facts: dict[str, Any] = {"library_name": "alm-edge"}
    if not manifest.facts.align.mark:
        facts["pipeline_tag"] = "audio-text-to-text"
    if name := _licence_name(manifest, said):
        facts["license"] = name
    if said.base_models:
        facts["base_model"] = list(said.base_models)
        if any(part.precision != PLAIN for part in manifest.parts):
            facts["base_model_relation"] = "quantized"
    facts["tags"] = ["alm-edge", "onnx", "audio", "speech", manifest.family]
    yield "---"
    for name, value in facts.items():
        yield f"{name}: {json.dumps(value)}"  # JSON is YAML
    yield "---"


def _opening(manifest: Manifest, repo: Repo) -> Iterator[str]:
    size = sum(part.bytes for part in manifest.parts)
    yield f"# {repo.id.partition('/')[2]}"
    yield ""
    yield (
        f"An audio language model of the family {_word(manifest.family)}, exported to "
        f"{len(manifest.parts)} ONNX parts ({megabytes(size)}) by "
        f"[alm-edge]({HOME}), which runs them without PyTorch."
    )


def _running(manifest: Manifest, repo: Repo) -> Iterator[str]:
    asked = _task(manifest)
    yield "## Run it"
    yield ""
    yield "    pip install 'alm-edge[ort,hub]'"
    if manifest.facts.align.mark:
        yield f"    alm-run --engine DIR --align hub:{repo} clip.wav transcribe"
        return
    yield f'    alm-run --engine hub:{repo} clip.wav "{asked}"'
    yield ""
    yield "```python"
    yield "import alm"
    yield ""
    yield f'model = alm.load("hub:{repo}")'
    yield f"print(model.generate({json.dumps('clip.wav')}, {json.dumps(asked)}).text)"
    yield "```"
    if tasks := sorted(manifest.facts.prompt.tasks):
        yield ""
        yield f"Tasks by name: {', '.join(map(_word, tasks))}."


def _task(manifest: Manifest) -> str:
    tasks = manifest.facts.prompt.tasks
    return TASK if TASK in tasks or not tasks else next(iter(tasks))


def _parts(manifest: Manifest) -> Iterator[str]:
    yield "## Parts"
    yield ""
    rows = (
        (
            part.name,
            part.role,
            part.precision,
            f"{part.bytes:,}",
            *(_error(part.parity.get(name)) for name in ("worst_abs", "rms")),
            part.verdict,
        )
        for part in manifest.parts
    )
    titles = ("part", "role", "precision", ">bytes", ">worst error", ">rms", "verdict")
    yield from _table(titles, rows)
    yield ""
    yield (
        "Each part was compared with its PyTorch module when it was exported. `exact` is off by at "
        "most 1e-3 in float32; `within B` has an error whose root mean square is at most B of that "
        "of the output."
    )


def _errors(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not rows:
        return
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["errors"]))
    yield "## Word errors"
    yield ""
    yield "In percent, by precision and kind of clip."
    yield ""
    table = (
        (
            str(row["precision"]),
            *(f"{row['errors'][k]:g}" if k in row["errors"] else "-" for k in kinds),
        )
        for row in rows
    )
    yield from _table(("precision", *(f">{kind}" for kind in kinds)), table)


def _origin(manifest: Manifest, said: Said) -> Iterator[str]:
    yield "## Made from"
    yield ""
    for model in said.base_models:
        yield f"- base model: [{_word(model)}](https://huggingface.co/{model})"
    for name, value in manifest.facts.source.items():
        yield f"- {_word(name)}: {_word(value)}"
    if manifest.created:
        yield f"- exported: {_word(manifest.created)}"
    tools = ", ".join(f"{_word(n)} {_word(v)}" for n, v in manifest.tools.items())
    if tools:
        yield f"- with: {tools}"
    yield f"- pushed by alm-edge {__version__}"


def _licence(manifest: Manifest, said: Said) -> Iterator[str]:
    yield "## Licence"
    yield ""
    stated = ", ".join(f"{_word(n)}: {_word(v)}" for n, v in manifest.facts.licence.items())
    if said.licence:
        yield f"{_word(said.licence)}."
    if stated:
        yield f"The checkpoint states: {stated}."
    if not said.licence and not stated:
        yield (
            "The checkpoint states none. An export is the same weights in another form: it has the "
            "base model's licence."
        )


def _licence_name(manifest: Manifest, said: Said) -> str:
    """The hub's name of the licence; "" where it is not known."""
    if said.licence:
        return said.licence
    stated = {str(value).strip().lower() for value in manifest.facts.licence.values()}
    if not stated:
        return ""
    return stated.pop() if len(stated) == 1 and stated <= set(LICENCES) else "other"


def _files(manifest: Manifest) -> Iterator[str]:
    files = {file.name: file for file in manifest.with_engines(()).files()}
    yield "## Files"
    yield ""
    rows = ((file.name, f"{file.bytes:,}", f"`{file.sha256}`") for file in files.values())
    yield from _table(("file", ">bytes", "sha256"), rows)
    yield ""
    yield (
        f"`{NAME}` lists these hashes; `alm pull` and every load hold the files against them, and "
        "refuse what differs."
    )


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table; a title with ">" is of numbers."""
    yield "| " + " | ".join(_word(title.removeprefix(">")) for title in titles) + " |"
    yield "|" + "|".join("--:" if title.startswith(">") else "---" for title in titles) + "|"
    for row in rows:
        cells = (cell if cell.startswith("`") else _word(cell) for cell in row)
        yield "| " + " | ".join(cells) + " |"


def _word(text: object) -> str:
    """A manifest's text, shown as it is: Markdown and HTML in it mean nothing."""
    shown = printable(text, 300)
    for sign in "\\`*_[]<>|":
        shown = shown.replace(sign, f"\\{sign}")
    return shown


def _error(value: object) -> str:
    return f"{value:.1e}" if is_a(value, (int, float)) else "-"
