"""The page of a model's facts: python docs/facts.py writes docs/manifest.md from declarations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from alm.facts import SECTIONS

PAGE = Path(__file__).resolve().parent / "manifest.md"
HEAD = """\
# What a manifest states of a model

`manifest.json` lists the parts of a model with their ports, files and hashes, and the facts below.
A family states them (`Checkpoint.facts`), export writes them, and the runtime reads them and
nothing else of the checkpoint. This page is made of their declarations in
[runtime/alm/facts.py](../runtime/alm/facts.py) by `python docs/facts.py`: one more fact is one more
field there. A fact that is not declared is refused when a manifest is loaded.

Besides these there are `generation`, the original's defaults under the names of transformers'
GenerationConfig; `source` (`config`, `llm`, `adapter`, `fingerprint`), by which parts of two
checkpoints are kept apart; and `licence`, as the checkpoint states it.
"""


TAIL = """\
## `parts`

A list in the order of a run. The first of a part's `files` (`name`, `bytes`, `sha256`) is its
graph, or the embedding table, the others hold external data.

| field | meaning |
|---|---|
| `name`, `role` | of the part; the role is `frontend`, `encoder`, `bridge`, `decoder` or `table` |
| `inputs`, `outputs` | ports: dtype and axes, a number where one is fixed; ids are `below` one |
| `spans` | least, usual and most of each dynamic axis |
| `precision` | as it was asked for |
| `storage` | what that stores and needs, below |
| `opset`, `dialect`, `nodes` | of the graph |
| `chunk_rows` | rows at once when several tokens meet a past; absent: any number |
| `pieces` | the axis that is cut into pieces as long as its span, each run alone |
| `simplified` | `yes` with the counts of nodes, or why not |
| `measured` | verdict and errors against the original, weights, and what else was found out |
| `slots` | group -> of each layer the names of its module, which an adapter may change |
| `golden` | the file of its golden vectors; absent where none were kept ([format](format.md)) |

## `golden`

Files of whole runs: `golden/runs.json` and the clips that it names; absent where none were kept.

## `adapters`

Name -> a LoRA's two files, its config and its weights; absent where there is none.

## `storage` and `levers`

`storage` is how a part lies in its graph; `levers` is the same for every lever that the exporter
knew, by name and role. Planner, lint, targets and backends decide by them and know no lever by
name. What is as in float32 is left out. Manifests without them are of the levers' first form and
are read by a table of that time.

| field | meaning |
|---|---|
| `layers` | weights of products: their `dtype`, `block`, `scale` and `zero_point` |
| `head` | the same of `lm_head`, where it differs |
| `as_head` | words in the names of other products that are stored as `lm_head` |
| `computes` | dtypes besides float32 that the graph computes in |
| `cache` | dtype of the KV cache |
| `operators`, `opset` | operators that the lever brings, and the least opset that knows them |
| `backends` | backends that alone run such a graph; absent: any |
| `fitted` | true where it is fitted to clips: then it is taken only where it is asked for |
| `bound` | the most that a part may lose, as root mean square; absent: it must be exact |

So many weights as `block` says share a scale of the dtype `scale`, and a zero point where
`zero_point` is true; without `block`, all of an output do, or of a row of the embedding table.

## `engines`

What `alm build` made: `part`, `file`, `graph` (sha256 of the part's hashes: an engine of another
graph is not run), the maker (`backend`, `version`, `system`, `gpu`, `compute_capability`),
`profiles` (least, usual and most shapes), `fixed` axes, and the `seconds` that it took.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([HEAD, *(line for name in SECTIONS for line in _section(name)), TAIL])


def _section(name: str) -> Iterator[str]:
    kind = SECTIONS[name]
    yield f"## `{name}`\n\n{kind.__doc__}\n"
    yield "| fact | type | meaning | bounds | where it is absent |\n|---|---|---|---|---|"
    for fact in fields(kind):
        meaning = fact.metadata["meaning"]
        cells = (f"`{fact.name}`", _type(fact), meaning, _bounds(fact), _absent(fact))
        yield f"| {' | '.join(cells)} |"
    yield ""


def _type(fact: Field[Any]) -> str:
    text = str(fact.type).removesuffix(" | None")
    if text.startswith("Literal"):
        return "str"
    return {"tuple[str, ...]": "list of str", "tuple[int, ...]": "list of int"}.get(text, text)


def _bounds(fact: Field[Any]) -> str:
    if words := fact.metadata["words"]:
        return ", ".join(f"`{word}`" for word in words)
    if "int" in str(fact.type):
        return f"{fact.metadata['least']:,} to {fact.metadata['most']:,}"
    return ""


def _absent(fact: Field[Any]) -> str:
    if fact.metadata["needed"]:
        return "no model runs"
    if fact.default is MISSING or fact.default in ((), "", None):
        return "none"
    return f"`{str(fact.default).lower()}`"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
