"""Where the time and the memory of a model go on this machine: what `alm bench` measures.

Everything is measured in the code that answers: `Times` of its stages and steps, and the `Decoder`.
"""

from __future__ import annotations

import tempfile
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alm.audio import reader
from alm.bench.roofline import roofline
from alm.bench.timed_run import LONGEST, Plan, spread, summary, timed
from alm.generation.parts import Parts
from alm.host import processor
from alm.parsing import numbers
from alm.version import __version__

NOISE_RATE = 44_100  # Hz of the noise that stands in where no audio is given: it is resampled
LOUD = 0.1  # of full scale: the noise's standard deviation
MOST_STEPS = 16  # tokens timed at each context
TASK = "transcribe"

Say = Callable[[str], None]


def measure(
    folder: Path,
    source: str | None,
    plan: Plan,
    *,
    provider: str = "auto",
    threads: int = 0,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Load the model and measure it.

    Args:
        folder: what export.py wrote.
        source: an audio file, run as it is and repeated or cut to each length; None is noise.
        plan: what to measure.
        provider, threads: as `alm.load` takes them.
        say: called with what is being done.

    Returns:
        Plain data: machine, model, load_ms, memory, cold, clips, contexts, roofline and notes.
        Times are milliseconds, sizes bytes.

    Raises:
        As `alm.load` and `Model.generate` do.
    """
    memory = {"before_load": processor.memory()}
    say("loading the model")
    parts = Parts(folder, provider, threads, audio_cache=0)
    memory["after_load"] = processor.memory()
    fresh = processor.forget_peak()
    bench = _Bench(parts, plan, say)
    with tempfile.TemporaryDirectory(prefix="alm-bench-") as scratch:
        clips = list(_clips(source, plan.seconds, parts.rules.rate, Path(scratch)))
        cold = bench.cold(*clips[0])
        measured = [bench.clip(*clip) for clip in clips]
    contexts = bench.contexts()
    memory["after_runs"] = processor.memory()
    say("measuring the machine")  # last, since it takes memory of its own
    machine = _machine()
    return {
        "format": "alm-bench",
        "format_version": 1,
        "alm_edge": __version__,
        "machine": machine,
        "model": _about(parts, threads),
        "plan": {**vars(plan), "prompt": bench.prompt},
        "load_ms": parts.load_ms,
        "memory": memory,
        "peak_counts_from": "the end of loading" if fresh else "the start of the process",
        "cold": cold,
        "clips": measured,
        "contexts": contexts,
        "roofline": roofline(parts, measured, machine, bench.notes),
        "notes": bench.notes,
    }


class _Bench:
    def __init__(self, parts: Parts, plan: Plan, say: Say) -> None:
        self.parts, self.plan, self.say = parts, plan, say
        self.notes: list[str] = []
        tasks = parts.manifest.tasks
        self.prompt = plan.prompt or (TASK if TASK in tasks else next(iter(tasks), "What is it?"))

    # --- whole runs

    def cold(self, name: str, seconds: float, path: Path) -> dict[str, Any]:
        """The first run after loading."""
        self.say(f"{name}: the first run")
        return {"clip": name, "seconds": seconds, **summary([self.once(path)])}

    def clip(self, name: str, seconds: float, path: Path) -> dict[str, Any]:
        """One clip, warm."""
        plan = self.plan
        for i in range(plan.warmup):
            self.say(f"{name}: warm-up {i + 1} of {plan.warmup}")
            self.once(path)
        runs = []
        for i in range(plan.repeats):
            self.say(f"{name}: run {i + 1} of {plan.repeats}")
            runs.append(self.once(path))
        result = summary(runs)
        return {
            "clip": name,
            "seconds": seconds,
            "parts": [part.name for part in self.parts.pipeline.parts],
            "real_time_factor": result["total"]["p50"] / seconds / 1e3,
            "tokens_per_second": 1e3 / result["per_token"]["p50"] if runs[0]["steps"] else None,
            **result,
        }

    def once(self, source: Any) -> dict[str, Any]:
        """What one run took."""
        return timed(self.parts, self.plan.new_tokens, source, self.prompt)

    # --- the decoder alone

    def contexts(self) -> list[dict[str, Any]]:
        """Steps of the decoder at each context that the model has room for."""
        most = self.parts.manifest.facts.dimensions.context
        wanted = [c for c in self.plan.contexts if c <= most]
        if len(wanted) < len(self.plan.contexts):
            self.notes.append(f"contexts beyond the model's {most} tokens were left out")
        return [self.context(tokens) for tokens in wanted or [most]]

    def context(self, tokens: int) -> dict[str, Any]:
        """Prompts and steps that end when `tokens` positions are in the cache."""
        parts, steps = self.parts, min(MOST_STEPS, tokens // 2)
        prompt = tokens - steps
        ids = np.random.default_rng(0).integers(0, parts.table.shape[0], (1, tokens))
        prefills: list[float] = []
        step_ms: list[float] = []
        for i in range(self.plan.warmup + self.plan.repeats):
            self.say(f"context {tokens}: pass {i + 1} of {self.plan.warmup + self.plan.repeats}")
            decoder = parts.decoder()
            decoder.start(1, tokens)
            start = time.perf_counter()
            decoder.feed(parts.table(ids[:, :prompt]), np.array([prompt]))
            stamps = [time.perf_counter()]
            for at in range(prompt, tokens):
                decoder.step(ids[:, at])
                stamps.append(time.perf_counter())
            if i >= self.plan.warmup:
                prefills.append((stamps[0] - start) * 1e3)
                step_ms += list(np.diff(stamps) * 1e3)
        prefill, step = spread(prefills), spread(step_ms)
        return {
            "context": tokens,
            "prompt_tokens": prompt,
            "prefill": prefill,
            "prompt_tokens_per_second": prompt * 1e3 / prefill["p50"],
            "per_token": step,
            "tokens_per_second": 1e3 / step["p50"],
        }


def _machine() -> dict[str, Any]:
    return processor.facts() | {
        "bytes_per_second": processor.bandwidth(),
        "operations_per_second": processor.peak(),
    }


def _about(parts: Parts, threads: int) -> dict[str, Any]:
    manifest = parts.manifest
    return {
        "folder": str(parts.folder),
        "family": manifest.family,
        "provider": parts.provider,
        "threads": threads,
        "bytes": sum(part.bytes for part in manifest.parts),
        "parts": {
            part.name: {"bytes": part.bytes, "precision": part.precision} for part in manifest.parts
        },
    }


def _clips(
    source: str | None, seconds: Sequence[float], rate: int, scratch: Path
) -> Iterator[tuple[str, float, Path]]:
    """Name, seconds and file of each clip; files are 16-bit wav at the rate of the source."""
    if source is None:
        source_rate = NOISE_RATE
        sound = LOUD * np.random.default_rng(0).standard_normal(source_rate * 10)
    else:
        clip = reader.read(source, rate, max_seconds=LONGEST)
        source_rate = clip.source_rate
        sound = (
            clip.pcm
            if source_rate == rate
            else reader.read(source, source_rate, max_seconds=LONGEST).pcm
        )
        yield "as it is", clip.seconds, Path(source)
    for length in seconds:
        samples = max(1, round(length * source_rate))
        path = scratch / f"{length:g}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(source_rate)
            pcm = np.resize(np.clip(sound, -1, 1), samples)  # repeats it where it is too short
            file.writeframes((pcm * 32767).astype("<i2").tobytes())
        yield f"{length:g} s", samples / source_rate, path


def read_plan(
    seconds: str,
    contexts: str,
    new_tokens: int,
    prompt: str,
    warmup: int,
    repeats: int,
) -> Plan:
    """The plan of a command line's options.

    Raises:
        BadOption: lengths that are none.
    """
    return Plan(
        seconds=numbers(seconds, "seconds", float, 0.01, LONGEST),
        contexts=numbers(contexts, "contexts", int, 2, 2**31),
        new_tokens=new_tokens,
        prompt=prompt,
        warmup=warmup,
        repeats=repeats,
    )
