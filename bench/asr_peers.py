"""Qwen3-ASR-0.6B beside other runtimes that hear: python bench/asr_peers.py --help

The real shape with random weights, which are made so that everybody says as many tokens of 30 s of
speech. `--prepare` makes an environment, the checkpoint and everybody's files (5 GB, ten minutes);
a run then measures, one process at a time, and writes bench/results/asr_peers.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from transformers.audio_utils import mel_filter_bank

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from bench.beside import asr  # noqa: E402
from bench.beside.asr_gguf import MEL  # noqa: E402
from bench.beside.base import Peer, Place, thread_settings  # noqa: E402
from bench.beside.preparing import Entry, Failed, environment  # noqa: E402
from bench.beside.process import QUIET, wait_quiet, watched  # noqa: E402
from bench.peers import CACHE, machine, tell  # noqa: E402
from tests.reference import LIBRISPEECH  # noqa: E402

FAMILY, RATE, SECONDS = "qwen3_asr_0.6b", 16_000, 30
LABELS = {
    "ours": "**ours**, int8 tower and head, int4 decoder",
    "transcribe": "transcribe.cpp, Q8_0 tower and head, Q4_0 decoder",
    "crispasr": "CrispASR, the same",
}
PREAMBLE = """# Qwen3-ASR-0.6B beside others

All layers of the real shape with random weights; {seconds} s of speech, {tokens} tokens of text
from everybody, greedily, threads: {threads}. One process at a time, passes one after another, a run
before those that count in each. Medians, in brackets least and most of all runs; `by pass` are the
medians of each. The first token is from samples in memory to its id: spectrogram, encoder and
prefill. CrispASR is asked for one token and for all of them, and the difference is its tokens'
time. Processor seconds, of all threads, tell more than a clock where others work. Peak memory
counts mapped files; in brackets what is no file. The others' encoders attend across the whole clip
and ours, as transformers', inside of windows of 8 s. Nothing here says how right an answer is.

- {date}, {machine}: `python bench/asr_peers.py --prepare`, then `{command}`
"""


@dataclass(frozen=True)
class Site:
    """Where everything lies, and how much is said by how many threads."""

    work: Path
    tokens: int
    threads: int
    timeout: float

    @property
    def model(self) -> Path:
        return self.work / "models" / FAMILY

    @property
    def made(self) -> Path:
        return self.work / "made" / FAMILY

    @property
    def pcm(self) -> Path:
        return self.made / "clip.npy"

    def files(self, runtime: str) -> Path:
        """What a runtime opens: a folder or a file."""
        return self.made / (runtime if runtime == "ours" else f"{runtime}.gguf")

    def python(self, runtime: str) -> str:
        own = Place(self.work, FAMILY).interpreter(asr.ENVIRONMENT)
        return sys.executable if runtime == "ours" else str(own)

    def call(self, runtime: str, *words: str) -> Any:
        """Run a process in the environment of a runtime; raises Failed with its last words."""
        path = f"{ROOT / 'runtime'}:{ROOT}" if runtime == "ours" else str(ROOT)
        settings = thread_settings(self.threads) | {"PYTHONPATH": path}
        ended = watched([self.python(runtime), *words], settings, self.timeout, ROOT)
        if ended.status:
            raise Failed(ended.last)
        return ended


def clip() -> Any:
    """Speech of the tests, as often as it takes: float32 [samples]."""
    speech = np.concatenate([soundfile.read(file, dtype="float32")[0] for file in LIBRISPEECH])
    return np.resize(speech, SECONDS * RATE)


def prepare(site: Site) -> None:
    """Make what is not there."""
    environment(Entry("", Peer, "asr"), Place(site.work, FAMILY), tell)
    if not site.model.is_dir():
        tell(f"checkpoint {FAMILY}")
        fresh = site.model.with_name(f"{FAMILY}.new")
        site.call("ours", "bench/real_hf.py", "--family", FAMILY, "--out", str(fresh))
        asr.endless(fresh)
        fresh.rename(site.model)
    site.made.mkdir(parents=True, exist_ok=True)
    np.save(site.pcm, clip())
    bank = mel_filter_bank(201, 128, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    np.save(site.made / MEL, np.ascontiguousarray(bank.T, np.float32))
    for runtime in asr.RUNTIMES:
        try:
            make(site, runtime)
        except Failed as failure:
            tell(f"FAILED {runtime}: {failure}")


def make(site: Site, runtime: str) -> None:
    """Make the files of a runtime, unless they are there."""
    files = site.files(runtime)
    fresh = files.with_name(f"new-{files.name}")
    if not files.exists():
        tell(f"files of {runtime}")
        if runtime == "ours":
            words = ["export.py", "--model", str(site.model), "--precision", "auto"]
            site.call(runtime, *words, "--dynamic-batch", "--out", str(fresh))
        else:
            words = ["-m", "bench.beside.asr_gguf", str(site.model), str(fresh)]
            site.call(runtime, *words, "--layout", runtime)
        fresh.rename(files)
    if runtime == "transcribe":
        tell(site.call(runtime, *_words(site, "end_after", runtime)).last)


def _words(site: Site, task: str, runtime: str) -> list[str]:
    words = ["-m", "bench.beside.asr", task, str(site.files(runtime)), "--runtime", runtime]
    words += ["--pcm", str(site.pcm), "--tokens", str(site.tokens)]
    return [*words, "--threads", str(site.threads)]


def row(site: Site, runtime: str, reps: int, patience: float) -> dict[str, Any]:
    """One pass of a runtime."""
    busy = wait_quiet(patience)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        words = [*_words(site, "measure", runtime), "--reps", str(reps), "--out", str(out)]
        ended = site.call(runtime, *words)
        made = json.loads(out.read_text())
    if set(made["tokens"]) != {site.tokens}:
        raise Failed(f"{made['tokens']} tokens were said, not {site.tokens}")
    made |= {"others": ended.others, "anon_mb": ended.anon_mb, "before": busy}
    short = {key: [round(ms) for ms in made[key]] for key in ("first", "step", "total")}
    tell(f"{runtime}: {short}, others {ended.others:.0%}")
    return made


def megabytes(files: Path) -> float:
    """Of a file or a folder, in 10^6 bytes."""
    every = [files] if files.is_file() else [each for each in files.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in every) / 1e6


def spread(passes: list[dict[str, Any]], key: str, scale: float = 1.0, digits: int = 0) -> str:
    """The median of all runs, and least and most; empty where a runtime does not say it."""
    if key not in passes[0]:
        return ""
    every = [value * scale for each in passes for value in each[key]]
    median, least, most = statistics.median(every), min(every), max(every)
    return f"{median:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"


def by_pass(passes: list[dict[str, Any]], key: str, scale: float, digits: int) -> str:
    return " / ".join(f"{statistics.median(each[key]) * scale:.{digits}f}" for each in passes)


def page(site: Site, rows: dict[str, list[dict[str, Any]]]) -> str:
    """All rows, the quickest first."""
    command = shlex.join(["python", "bench/asr_peers.py", *sys.argv[1:]])
    said = dict(date=date.today(), machine=machine(), command=command, seconds=SECONDS)
    lines = [PREAMBLE.format(**said, tokens=site.tokens, threads=site.threads)]
    head = "| | encoder, ms | prefill, ms | first token, ms | ms a token | all, s | by pass "
    head += "| all, processor s "
    lines += [f"{head}| real-time factor | load s | peak MB | files MB |", "|---" * 12 + "|"]

    def all_of(passes: list[dict[str, Any]]) -> float:
        return statistics.median(ms for each in passes for ms in each["total"])

    for name, passes in sorted(rows.items(), key=lambda pair: all_of(pair[1])):
        peak, anon = (max(each[key] for each in passes) for key in ("peak_mb", "anon_mb"))
        load = statistics.median(each["load_s"] for each in passes)
        lines.append(
            f"| {LABELS[name]} | {spread(passes, 'encode')} | {spread(passes, 'prefill')} "
            f"| {spread(passes, 'first')} | {spread(passes, 'step', digits=1)} "
            f"| {spread(passes, 'total', 1e-3, 2)} | {by_pass(passes, 'total', 1e-3, 2)} "
            f"| {spread(passes, 'busy', 1e-3, 2)} "
            f"| {all_of(passes) / 1e3 / SECONDS:.3f} | {load:.1f} | {peak:.0f} ({anon:.0f}) "
            f"| {megabytes(site.files(name)):.0f} |"
        )
    prompts = {name: passes[0].get("prompt") for name, passes in rows.items()}
    lines.append("")
    lines += [
        f"- {LABELS[name]}: prompt of {most[0]:.0f}" for name, most in prompts.items() if most
    ]
    lines += [f"- {passes[0]['versions']}" for passes in rows.values()]
    disturbed = [
        f"{name} ({each['others']:.0%}, pass {number + 1})"
        for name, passes in rows.items()
        for number, each in enumerate(passes)
        if each["others"] > QUIET
    ]
    others = ", ".join(disturbed) or "nobody"
    return "\n".join([*lines, f"- disturbed by others on the processors: {others}", ""])


def main() -> None:
    """Prepare, or measure and write the page."""
    parser = argparse.ArgumentParser(description="Qwen3-ASR-0.6B beside other runtimes")
    parser.add_argument("--only", nargs="+", choices=asr.RUNTIMES, default=list(asr.RUNTIMES))
    parser.add_argument("--prepare", action="store_true", help="make what a run needs, and stop")
    parser.add_argument("--fresh", action="store_true", help="with --prepare: make the files anew")
    parser.add_argument("--tokens", type=int, default=90, help="of text, in both commands")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--reps", type=int, default=3, help="runs of a pass")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--patience", type=float, default=300, help="seconds to wait for quiet")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds of a process")
    parser.add_argument("--work", type=Path, default=CACHE, help="environments and files")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    said = parser.parse_args()
    site = Site(said.work.resolve(), said.tokens, said.threads, said.timeout)
    if said.prepare:
        if said.fresh:
            shutil.rmtree(site.made, ignore_errors=True)
        prepare(site)
        return
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in said.only}
    failed: dict[str, str] = {}
    for number in range(said.passes):
        # Each pass begins with another, so that none is always the first or after the same.
        for name in [*said.only[number % len(said.only) :], *said.only[: number % len(said.only)]]:
            try:
                rows[name].append(row(site, name, said.reps, said.patience))
            except Failed as failure:
                failed[name] = str(failure)
                tell(f"FAILED {name}: {failure}")
    out = said.results / "asr_peers.md"
    lines = [f"- failed: {name}: {words}\n" for name, words in failed.items()]
    out.write_text("".join([page(site, {n: made for n, made in rows.items() if made}), *lines]))
    tell(f"written: {out}")


if __name__ == "__main__":
    main()
