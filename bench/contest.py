"""The seed contest's way to measure, beside an honest one: python bench/contest.py artifacts

The contest gave its teams nota's audiolm-evaluator; its evaluate_efficiency_salmonn.py is what is
followed here, as far as it has a meaning without torch and a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alm.artifacts.manifest import Part
from alm.bench.timed_run import summary, timed
from alm.cli import terminal
from alm.generation.parts import Parts
from alm.host import processor

SECONDS = 10  # of noise
TASK = "asr"
SPECTROGRAM = "log_mel"  # made once, outside of all timers, as the contest's Dataset did
COLUMNS = 100  # of the paragraph

DIFFERENCE = """
The contest's latency is the time to the first token plus one step, the mean of {repeats} runs of
{seconds:g} s of unseeded white noise. Reading the file, resampling and Whisper's log-mel are
outside of its timers (BEATs' filterbank is inside), and so is choosing the first token; an answer
of any length counts as one token, and the time per token is that of the very first step. Its memory
is the peak since the process began, loading included: of the GPU's allocator there, of this process
here. It did not wait for the GPU before its end stamps, which has no counterpart here: on a CPU a
call returns when its work is done. Its prefill gave logits of every position, this decoder gives
those of the last. The honest figures are of the same sound from its samples to the text with all
stages inside, {new} tokens long, medians and 90th percentiles, and the peak of memory is counted
from the end of loading where the system allows it.
"""


@dataclass(frozen=True)
class Counts:
    """How often each way runs. The contest's own are 10 and 100."""

    warmup: int = 10
    repeats: int = 100
    honest_warmup: int = 1
    honest_repeats: int = 5
    new_tokens: int = 64  # of an honest answer


def measure(parts: Parts, counts: Counts) -> dict[str, Any]:
    """Measure by the contest's protocol, and the same sound honestly.

    Returns:
        Milliseconds and bytes: contest (ttft, tpot, latency, memory), honest, and the difference
        in words.
    """
    rate, tasks = parts.rules.rate, parts.manifest.tasks
    samples = min(SECONDS * rate, parts.rules.window)
    pcm = np.random.default_rng().standard_normal(samples).astype(np.float32)
    task = TASK if TASK in tasks else next(iter(tasks), "What is it?")
    first, second = _contest(parts, pcm, task, counts)
    peak = processor.memory()["peak"] or 0
    processor.forget_peak()
    total = counts.honest_warmup + counts.honest_repeats
    runs = [timed(parts, counts.new_tokens, pcm, task) for _ in range(total)]
    words = DIFFERENCE.format(
        repeats=counts.repeats, seconds=samples / rate, new=counts.new_tokens
    ).split()
    return {
        "seconds": samples / rate,
        "task": task,
        "warmup": counts.warmup,
        "repeats": counts.repeats,
        "contest": {
            "ttft_ms": float(np.mean(first)),
            "tpot_ms": float(np.mean(second)),
            "latency_ms": float(np.mean(first) + np.mean(second)),
            "peak_bytes": peak,
        },
        "honest": {**summary(runs[counts.honest_warmup :]), "memory": processor.memory()},
        "difference": " ".join(words),
    }


def _contest(parts: Parts, pcm: Any, task: str, counts: Counts) -> tuple[list[float], list[float]]:
    """Milliseconds to the first token and of the step after it, of the runs that count."""
    inside = [part for part in parts.pipeline.parts if SPECTROGRAM not in part.outputs]
    first: list[float] = []
    second: list[float] = []
    for _ in range(counts.warmup + counts.repeats):
        run = timed(parts, 2, pcm, task)
        first.append(first_token(run, inside))
        second.append(run["steps"][0])
        gc.collect()  # as there; outside of the timers
    return first[counts.warmup :], second[counts.warmup :]


def first_token(run: Mapping[str, Any], inside: Sequence[Part]) -> float:
    """The contest's time to the first token of a run of ours, in milliseconds.

    The parts `inside` of its timers, building the prompt and the prefill; as there, the token is
    chosen between the timers.
    """
    stages = run["stages"]
    names = [*(part.name for part in inside), "prompt", "prefill"]
    return sum(stages[name] for name in names) - run["overlap"]


def show(measured: Mapping[str, Any]) -> None:
    """Print both ways side by side, and how they differ."""
    title = "the contest's protocol"
    terminal.printer()(title, "|>contest|>honest|", _rows(measured["contest"], measured["honest"]))
    print()
    print(textwrap.fill(measured["difference"], COLUMNS))


def _rows(contest: Mapping[str, Any], honest: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    def both(name: str) -> str:
        return f"{honest[name]['p50']:.2f} (p90 {honest[name]['p90']:.2f})"

    yield "first token, ms", f"{contest['ttft_ms']:.2f}", both("first_token"), ""
    yield "per token, ms", f"{contest['tpot_ms']:.2f}", both("per_token"), ""
    yield "latency, ms", f"{contest['latency_ms']:.2f}", both("total"), ""
    peaks = (contest["peak_bytes"], honest["memory"]["peak"] or 0)
    yield "peak memory, MB", *(f"{peak / 1e6:.0f}" for peak in peaks), ""
    yield "tokens", "1", str(honest["new_tokens"]), ""


def main(words: list[str]) -> None:
    """Load the model, measure it and print the table or the JSON."""
    own = Counts()
    parser = argparse.ArgumentParser(description="the seed contest's way to measure")
    parser.add_argument("engine", type=Path, nargs="?", default=Path("artifacts"))
    parser.add_argument("--warmup", type=int, default=own.warmup)
    parser.add_argument("--repeats", type=int, default=own.repeats)
    parser.add_argument("--new-tokens", type=int, default=own.new_tokens)
    parser.add_argument("--provider", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print everything as data")
    asked = parser.parse_args(words)
    parts = Parts(asked.engine, asked.provider, asked.threads, audio_cache=0)
    counts = Counts(asked.warmup, asked.repeats, new_tokens=asked.new_tokens)
    measured = measure(parts, counts)
    if asked.json:
        print(json.dumps(measured, indent=2))
    else:
        show(measured)


if __name__ == "__main__":
    main(sys.argv[1:])
