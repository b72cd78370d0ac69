"""Runs of a model that can be compared: each forced to the same length, all stages timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alm.audio import reader
from alm.generation.conversation import Conversation, finish
from alm.generation.keywords import InputOptions
from alm.generation.parts import Parts
from alm.generation.turn import Question
from alm.timings import Times

LONGEST = 24 * reader.HOUR  # whoever asks for such a clip gets it


@dataclass(frozen=True)
class Plan:
    """What to measure.

    `seconds` are the lengths of the clips, `contexts` the tokens in the cache when steps are timed.
    """

    seconds: tuple[float, ...] = (1, 5, 10, 30, 60)
    contexts: tuple[int, ...] = (128, 512, 1024)
    new_tokens: int = 64
    warmup: int = 1
    repeats: int = 5
    prompt: str = ""  # "": the task "transcribe", or the first that the model has


def timed(parts: Parts, new_tokens: int, source: Any, prompt: str) -> dict[str, Any]:
    """One run, forced to its length: milliseconds by stage, and what they were spent on.

    It is greedy, so that a step is a step of one row.
    """
    times = Times()
    options = {"num_beams": 1, "do_sample": False, "min_new_tokens": 0}
    conversation = Conversation(
        parts.endless(),
        InputOptions(max_audio_seconds=LONGEST, gate=False),
        options | {"max_new_tokens": new_tokens},
    )
    answer = finish(conversation.turn([Question(prompt, [source])], times=times))[0]
    return {
        "stages": dict(times.ms),
        "overlap": times.overlap_ms,
        "total": answer.timings_ms["total"],
        "first_token": times.first_ms,
        "steps": times.step_ms,
        "windows": answer.windows,
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": len(answer.token_ids),
    }


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several runs of one clip, as mean, p50 and p90 of each stage."""
    names = list(dict.fromkeys(name for run in runs for name in run["stages"]))
    stages = {name: spread([run["stages"].get(name, 0.0) for run in runs]) for name in names}
    return {
        "windows": runs[0]["windows"],
        "prompt_tokens": runs[0]["prompt_tokens"],
        "new_tokens": runs[0]["new_tokens"],
        "stages": stages,
        "overlap_ms": float(np.mean([run["overlap"] for run in runs])),
        "first_token": spread([run["first_token"] for run in runs]),
        "per_token": spread([ms for run in runs for ms in run["steps"]] or [0.0]),
        "total": spread([run["total"] for run in runs]),
    }


def spread(ms: Sequence[float]) -> dict[str, float]:
    """Mean, median and 90th percentile."""
    p50, p90 = np.percentile(ms, (50, 90))
    return {"mean": float(np.mean(ms)), "p50": float(p50), "p90": float(p90)}
