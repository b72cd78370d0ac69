"""Environments, the random checkpoint, and each peer's own files; what fails is written down."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from bench.beside import ours
from bench.beside.base import MADE, Peer, Place, thread_settings
from bench.beside.process import watched
from bench.beside.shapes import SHAPES

ROOT = Path(__file__).parents[2]
FAMILIES = (
    *("ours", "genai", "open_vino", "llamacpp", "eager"),
    *("ort_encoder", "by_transformers", "by_optimum", "ct2"),
)
TIMEOUT = 4 * 3600.0  # seconds, for a product
Say = Callable[[str], None]


class Failed(Exception):
    """A row cannot be had; the message is what the table says of it."""


@dataclass(frozen=True)
class Entry:
    """A row, and the module that it is in."""

    name: str
    peer: type[Peer]
    module: str

    @property
    def family(self) -> ModuleType:
        return import_module(f"bench.beside.{self.module}")

    @property
    def environment(self) -> str:
        return self.family.ENVIRONMENT


def entries(more_of_ours: Sequence[str] = ()) -> list[Entry]:
    """All rows that there are, ours first."""
    made: list[Entry] = []
    for module in FAMILIES:
        rows: list[type[Peer]] = list(import_module(f"bench.beside.{module}").ROWS)
        if module == "ours":
            there = {row.__name__ for row in rows}
            rows += [ours.variant(spec) for spec in more_of_ours if spec not in there]
        made += [Entry(row.__name__, row, module) for row in rows]
    return made


def interpreter(entry: Entry, place: Place) -> str:
    """The Python that a row runs in."""
    name = entry.environment
    return str(place.interpreter(name)) if name else sys.executable


def environment(entry: Entry, place: Place, say: Say) -> None:
    """Make the environment of a row, unless it is there with the same requirements."""
    name, unwanted = entry.environment, getattr(entry.family, "UNWANTED", [])
    if not name:
        return
    wanted = "\n".join([*entry.family.REQUIREMENTS, *(f"# not {each}" for each in unwanted), ""])
    folder = place.work / "env" / name
    mark = folder / "requirements.txt"
    if mark.is_file() and mark.read_text() == wanted:
        return
    say(f"environment {name}")
    folder.mkdir(parents=True, exist_ok=True)
    pip = [str(place.interpreter(name)), "-m", "pip"]
    steps = [[sys.executable, "-m", "venv", str(folder)]]
    # One command for all of them, so that nothing resolves a torch that is not pinned.
    steps += [[*pip, "install", "--quiet", *entry.family.REQUIREMENTS]]
    steps += [[*pip, "uninstall", "--quiet", "--yes", *unwanted]] if unwanted else []
    for words in steps:
        ended = watched(words, {}, TIMEOUT, ROOT)
        if ended.status:
            raise Failed(f"environment {name}: {_error(ended.said)}")
    mark.write_text(wanted)


def checkpoint(place: Place, say: Say) -> None:
    """Make the random checkpoint that all products are made of, unless it is there."""
    if (place.model / "config.yaml").is_file():
        return
    say(f"checkpoint {place.shape}")
    place.model.parent.mkdir(parents=True, exist_ok=True)
    shape = SHAPES[place.shape]
    words = [sys.executable, "bench/real_size.py", "--llm", shape.llm, "--whisper", shape.whisper]
    ended = watched([*words, "--out", str(place.model)], {}, TIMEOUT, ROOT)
    if ended.status:
        raise Failed(f"checkpoint: {ended.last}")


def product(entry: Entry, place: Place, say: Say, name: str = "") -> None:
    """Make the files of a row, unless they are there, and note what making them cost."""
    name = name or entry.peer.product
    if not name:
        return
    folder = place.product(name)
    if (folder / MADE).is_file():
        return
    maker = _maker(name, entry)
    needed = getattr(maker.family, "NEEDS", {}).get(name)
    if needed:
        product(maker, place, say, needed)
    environment(maker, place, say)
    say(f"files {place.shape}/{name}")
    site = folder.with_name(f".{name}.new")
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    words = [interpreter(maker, place), "-m", "bench.beside.worker", "prepare", maker.module, name]
    words += ["--work", str(place.work), "--shape", place.shape, "--out", str(site)]
    ended = watched(words, settings(maker, place), TIMEOUT, ROOT)
    if ended.status:
        shutil.rmtree(site)
        raise Failed(f"{name}: {_error(ended.said)}")
    shutil.rmtree(site / "cache", ignore_errors=True)
    note = site / MADE
    facts = json.loads(note.read_text()) if note.is_file() else {}
    cost = place.facts(needed)["cost"] if needed else {}
    added = {"seconds": ended.seconds + cost.get("seconds", 0.0)}
    worst = {key: max(value, cost.get(key, 0.0)) for key, value in ended.cost.items()}
    note.write_text(json.dumps({"cost": worst | added} | facts))
    shutil.rmtree(folder, ignore_errors=True)
    site.rename(folder)


def settings(entry: Entry, place: Place) -> dict[str, str]:
    """Environment variables of a process of a row."""
    path = {} if entry.environment else {"PYTHONPATH": str(ROOT / "runtime")}
    return thread_settings(place.threads) | path


def ready(entry: Entry, place: Place, say: Say, again: bool) -> None:
    """Make all that a row needs and is not there.

    Args:
        again: try anew what has failed before.

    Raises:
        Failed: what could not be made, now or before.
    """
    file = place.work / "failed" / place.shape / entry.name.replace(":", "-")
    if file.is_file() and not again:
        raise Failed(file.read_text())
    try:
        environment(entry, place, say)
        checkpoint(place, say)
        product(entry, place, say)
    except Failed as failure:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(failure))
        raise
    file.unlink(missing_ok=True)


def _maker(name: str, entry: Entry) -> Entry:
    """Any row of the family that makes a product; it may be another than the one that uses it."""
    if entry.module == "ours":
        return entry
    owners = [e for e in entries() if name in e.family.PRODUCTS]
    return next((e for e in owners if e.module == entry.module), owners[0])


def _error(said: str) -> str:
    """The line of an output that says what went wrong: the last that names an error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    named = [line for line in lines if "error" in line.lower()]
    return (named or lines or ["nothing was said"])[-1][-400:]
