"""Every layout in its own runtime beside ours: the same greedy tokens, or not.

    python -m venv GENAI && GENAI/bin/pip install onnxruntime-genai
    npm install --prefix NODE --ignore-scripts @huggingface/transformers
    python bench/layouts.py --genai GENAI/bin/python --node NODE

A row is a small model of a family, exported with the layout, and two clips. Ours answers them, and
the other runtime's own package does, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

import alm  # noqa: E402
from alm.audio import reader  # noqa: E402
from alm.generation.model import Model  # noqa: E402
from demo.random_checkpoint import Recipe  # noqa: E402
from demo.random_checkpoint import make as make_salmonn  # noqa: E402
from tests.wrappers.families import tiny_hf  # noqa: E402

STEPS = 24
TIMEOUT = 600.0  # seconds of an export or an answer
CLIPS = (ROOT / "demo" / "lamp.wav", ROOT / "demo" / "siren.wav")
TASKS = ("transcribe", "describe")
BESIDE = ROOT / "bench" / "beside"
RESULT = ROOT / "bench" / "results" / "layouts.md"


@dataclass(frozen=True)
class Case:
    """A model exported with a layout."""

    layout: str
    family: str
    precision: str = "fp32"


CASES = (
    *(Case("genai", "demo"), Case("genai", "demo", "int4")),
    *(Case("genai", "salmonn"), Case("genai", "voxtral")),
    *(Case("transformers.js", "voxtral"), Case("transformers.js", "voxtral", "int4")),
)


@dataclass(frozen=True)
class Runtimes:
    """Where the other runtimes are."""

    genai: Path | None  # a Python that has onnxruntime-genai
    node: Path | None  # a folder with @huggingface/transformers in its node_modules


def checkpoint(family: str, folder: Path) -> str:
    """A small random model, or the trained demo: what --model takes."""
    makers: dict[str, Callable[[Path], Any]] = {
        "salmonn": lambda out: make_salmonn(out, Recipe(window_seconds=4)),
        "voxtral": tiny_hf.voxtral,
    }
    if family == "demo":
        return "demo"
    makers[family](folder)
    return str(folder / "config.yaml" if family == "salmonn" else folder)


def export(case: Case, work: Path) -> Path:
    """Export the model with the layout; the folder."""
    model = checkpoint(case.family, work / "checkpoint")
    words = ["--model", model, "--dynamic-batch", "--layout", case.layout]
    words += ["--precision", case.precision, "--out", str(work / "artifacts")]
    _run([sys.executable, "export.py", *words])
    return work / "artifacts"


def theirs(
    case: Case,
    runtimes: Runtimes,
    folder: Path,
    pcm: np.ndarray,
    task: str,
    model: Model,
    rows: int,
) -> dict[str, Any]:
    """What the other runtime says of a clip: `tokens`, `text`, `version`."""
    clip = folder.parent / "clip"
    if case.layout == "genai":
        np.save(clip.with_suffix(".npy"), pcm)
        script = str(BESIDE / "genai_layout.py")
        words = [str(folder), f"{clip}.npy", task, str(rows), str(STEPS)]
        return _said([str(runtimes.genai), script, *words])
    pcm.astype("<f4").tofile(clip.with_suffix(".f32"))
    facts = model.manifest.facts.prompt
    turn = facts.start + facts.turns.get(task, facts.turn)
    prompt = turn.replace("{clips}", facts.placeholder).replace("{}", facts.tasks[task])
    script = str(BESIDE / "transformers_js_layout.mjs")
    words = [str(folder / case.layout), f"{clip}.f32", prompt, str(STEPS)]
    return _said(["node", script, str(runtimes.node), *words])


def compare(case: Case, runtimes: Runtimes, work: Path) -> str:
    """A row of the table.

    Raises:
        SystemExit: an export or the other runtime failed.
    """
    folder = export(case, work)
    model = alm.load(folder, "cpu", 1)
    rules = model.manifest.facts.audio
    greedy: dict[str, Any] = dict(num_beams=1, do_sample=False, repetition_penalty=1.0)
    equal, words, version = [], 0, ""
    for clip, task in zip(CLIPS, TASKS, strict=True):
        pcm = reader.read(clip, rules.rate, rules.channel).pcm[: rules.window_samples]
        ours = model.generate((pcm, rules.rate), task, max_new_tokens=STEPS, gate=False, **greedy)
        said = theirs(case, runtimes, folder, pcm, task, model, ours.audio_tokens)
        equal.append(said["tokens"] == ours.token_ids)
        words, version = words + len(ours.token_ids), said["version"]
        print(case, task, ours.text, said, flush=True)
    verdict = f"{words} of {words} equal" if all(equal) else f"differ: {equal}"
    return f"| `{case.layout}` | {version} | {case.family} | `{case.precision}` | {verdict} |"


def _said(words: list[str]) -> dict[str, Any]:
    return json.loads(_run(words).splitlines()[-1])


def _run(words: list[str]) -> str:
    path = os.pathsep.join((str(ROOT / "runtime"), str(ROOT)))
    env = os.environ | {"PYTHONPATH": path, "ORT_DISABLE_TELEMETRY": "1"}
    ended = subprocess.run(
        words, env=env, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT
    )
    if ended.returncode:
        raise SystemExit(ended.stderr[-2000:] or ended.stdout[-2000:])
    return ended.stdout


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description="each layout in its own runtime, beside ours")
    parser.add_argument("--genai", type=Path, help="a Python that has onnxruntime-genai")
    parser.add_argument("--node", type=Path, help="a folder with @huggingface/transformers")
    parser.add_argument("--family", action="append", help="these alone; nothing is written")
    said = parser.parse_args()
    runtimes = Runtimes(said.genai, said.node)
    there = {"genai": said.genai, "transformers.js": said.node}
    rows: list[str] = []
    for case in CASES:
        if there[case.layout] and case.family in (said.family or [case.family]):
            with tempfile.TemporaryDirectory(prefix="alm-layouts-") as folder:
                rows.append(compare(case, runtimes, Path(folder)))
            print(rows[-1], flush=True)
    if not said.family and all(there.values()):
        RESULT.write_text("\n".join([*head(), *rows]) + "\n", "utf-8")


def head() -> list[str]:
    """What stands above the rows."""
    return [
        "# Layouts in their own runtimes",
        "",
        f"`python bench/layouts.py --genai GENAI/bin/python --node NODE`, {date.today()}, two",
        "cores of an x86 machine: greedy tokens of two clips, at most 24 each, ours beside theirs.",
        "`demo` is trained, the others are random and small.",
        "",
        "| layout | its runtime | model | precision | tokens |",
        "|---|---|---|---|---|",
    ]


if __name__ == "__main__":
    main()
