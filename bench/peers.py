"""Our decoder and encoder beside other runtimes, in one run: python bench/peers.py --help

Every row is a process of its own in the environment of its runtime, on random weights of a real
shape. `--prepare` makes environments and files (gigabytes, an hour), a run then measures only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from bench.beside import preparing, table  # noqa: E402
from bench.beside.base import TRUTH, Place, thread_settings  # noqa: E402
from bench.beside.preparing import Entry, Failed  # noqa: E402
from bench.beside.process import wait_quiet, watched  # noqa: E402
from bench.beside.shapes import SHAPES  # noqa: E402

CACHE = Path.home() / ".cache" / "alm-peers"


@dataclass(frozen=True)
class Bench:
    """One run over one shape."""

    place: Place
    rows: list[Entry]
    said: argparse.Namespace
    file: Path  # of JSON lines

    def prepare(self) -> None:
        """Make what is not there; a failure is said, and the next row goes on."""
        if self.said.fresh:
            for name in {entry.peer.product for entry in self.rows} - {""}:
                shutil.rmtree(self.place.product(name), ignore_errors=True)
        for entry in self.rows:
            try:
                preparing.ready(entry, self.place, tell, again=True)
            except Failed as failure:
                tell(f"FAILED {self.place.shape} {entry.name}: {failure}")

    def run(self) -> None:
        """Measure all rows, pass by pass."""
        wrong: dict[str, str] = {}
        for entry in self.rows:
            try:
                preparing.ready(entry, self.place, tell, again=False)
            except Failed as failure:
                wrong[entry.name] = str(failure)
        again = [*self.said.only, table.MACHINE] if self.said.only else []
        table.forget(self.file, self.place.shape, again)
        if any(entry.peer.kind == "encoder" for entry in self.rows):
            self._truth()
        for number in range(self.said.passes):
            self._note(table.MACHINE, number, self._ceilings())
            # Each pass begins elsewhere, so that no row is always the first or after the same.
            first = number * len(self.rows) // self.said.passes
            for entry in self.rows[first:] + self.rows[:first]:
                made = self._facts(entry)
                made |= {"failed": wrong[entry.name]} if entry.name in wrong else self._row(entry)
                self._note(entry.name, number, made)

    def _truth(self) -> None:
        """What transformers' encoder hears, with which the others are compared."""
        entry = next(entry for entry in preparing.entries() if entry.name == TRUTH)
        if not self.place.truth.is_file():
            try:
                preparing.ready(entry, self.place, tell, again=False)
            except Failed as failure:
                tell(f"FAILED {self.place.shape} {entry.name}: {failure}")
            else:
                self._row(entry)

    def _row(self, entry: Entry) -> dict[str, Any]:
        words = [preparing.interpreter(entry, self.place), "-m", "bench.beside.worker", "measure"]
        words += [entry.module, entry.name, "--work", str(self.place.work)]
        words += ["--shape", self.place.shape, "--reps", str(self.said.reps)]
        return self._measured(words, preparing.settings(entry, self.place))

    def _ceilings(self) -> dict[str, Any]:
        words = [sys.executable, "-m", "bench.beside.bandwidth"]
        return {"label": "the machine"} | self._measured(words, thread_settings(self.said.threads))

    def _measured(self, words: list[str], settings: dict[str, str]) -> dict[str, Any]:
        wait_quiet(self.said.patience)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "row.json"
            words = [*words, "--threads", str(self.said.threads), "--out", str(out)]
            ended = watched(words, settings, self.said.timeout, ROOT)
            if ended.status or not out.is_file():
                return {"failed": ended.last, "others": ended.others}
            return json.loads(out.read_text()) | {"others": ended.others, "anon_mb": ended.anon_mb}

    def _facts(self, entry: Entry) -> dict[str, Any]:
        peer, synthetic = entry.peer, getattr(entry.family, "SYNTHETIC", False)
        converted = peer.product and not synthetic
        cost = self.place.facts(peer.product).get("cost") if converted else None
        return dict(kind=peer.kind, label=peer.label, ours=peer.ours, note=peer.note, cost=cost)

    def _note(self, name: str, number: int, made: dict[str, Any]) -> None:
        row = dict(shape=self.place.shape, row=name, number=number, threads=self.said.threads)
        row |= dict(date=datetime.now().isoformat(timespec="seconds"), machine=machine())
        row |= dict(command=shlex.join(["python", "bench/peers.py", *sys.argv[1:]]))
        table.append(self.file, row | made)
        short = {key: _rounded(made[key]) for key in SHOWN if key in made}
        tell(f"{self.place.shape} {number + 1}/{self.said.passes} {name}: {short}")


SHOWN = ("failed", "others", "load_s", "prefill", "step", "encode", "worst", "peak_mb", "read_gbs")


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 2) if isinstance(value, float) else value


def machine() -> str:
    """The processor, how many of it, and the memory."""
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", file.read_text()) if file.is_file() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = found[1] if found else platform.processor()
    return f"{name}, {os.cpu_count()} processors, {memory:.0f} GiB"


def tell(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)


def chosen(said: argparse.Namespace, shape: str) -> list[Entry]:
    """The rows that were asked for and that the shape has."""
    rows = preparing.entries(said.ours)
    if strange := set(said.only) - {entry.name for entry in rows}:
        there = " ".join(entry.name for entry in rows)
        raise SystemExit(f"unknown row {', '.join(strange)}; there is: {there}")
    rows = [entry for entry in rows if entry.peer.kind in SHAPES[shape].kinds]
    return [entry for entry in rows if not said.only or entry.name in said.only]


def main() -> None:
    """Prepare, or measure and write the page."""
    parser = argparse.ArgumentParser(description="our decoder and encoder beside other runtimes")
    usual = ["llama32_1b", "whisper_turbo"]
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=usual)
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help="these rows alone")
    parser.add_argument(
        "--ours", nargs="+", default=[], metavar="PART:PRECISION[:DIALECT]", help="more of ours"
    )
    parser.add_argument("--prepare", action="store_true", help="make what a run needs, and stop")
    parser.add_argument("--fresh", action="store_true", help="with --prepare: make the files anew")
    parser.add_argument("--table", action="store_true", help="write the page again, and stop")
    parser.add_argument("--reps", type=int, default=5, help="sequences or windows of a pass")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--patience", type=float, default=300, help="seconds to wait for a quiet machine, at most"
    )
    parser.add_argument("--timeout", type=float, default=1800, help="seconds of a row, at most")
    parser.add_argument("--work", type=Path, default=CACHE, help="environments and files")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    said = parser.parse_args()
    work = said.work.resolve()
    for shape in said.shape:
        # What the tiny shape says is only that everything runs.
        results = work / "results" if shape == "tiny" else said.results
        place = Place(work, shape, said.threads)
        file = results / "peers.jsonl"
        bench = Bench(place, chosen(said, shape), said, file)
        if said.prepare:
            bench.prepare()
            continue
        if not said.table:
            bench.run()
        (results / "peers.md").write_text(table.page(table.read(file)))
        tell(f"written: {results / 'peers.md'}")


if __name__ == "__main__":
    main()
