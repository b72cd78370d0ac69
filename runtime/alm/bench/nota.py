"""The seed contest's way to measure, beside an honest one, so that figures can be compared.

The contest gave its teams nota's audiolm-evaluator; its evaluate_efficiency_salmonn.py is what is
followed here, as far as it has a meaning without torch and a GPU.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from alm.bench.timed_run import Plan, forced_options, summary, timed
from alm.generation.audio_cache import batch
from alm.generation.model import Model
from alm.generation.pipeline import Decoder, Pipeline, assemble, woven
from alm.host import processor

PROTOCOLS = ("nota",)
SECONDS = 10  # of noise
TASK = "asr"
SPECTROGRAM = "log_mel"  # made once, outside of all timers, as the contest's Dataset did

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


def nota(model: Model, plan: Plan, most: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure by the contest's protocol, and the same sound honestly.

    Args:
        most: the peak of this process' memory so far, in bytes.

    Returns:
        Milliseconds and bytes: contest (ttft, tpot, latency, memory), honest, and the difference
        in words.
    """
    warmup, repeats = plan.nota_warmup, plan.nota_repeats
    rules, parts = model.manifest.audio, model.pipeline.parts
    samples = min(SECONDS * int(rules["rate"]), int(rules["window_samples"]))
    pcm = np.random.default_rng().standard_normal(samples).astype(np.float32)
    task = TASK if TASK in model.tasks else next(iter(model.tasks), "What is it?")
    sessions, at_once = model.pipeline.sessions, model.pipeline.at_once
    before = Pipeline([part for part in parts if SPECTROGRAM in part.outputs], sessions)
    inside = Pipeline(
        [part for part in parts if SPECTROGRAM not in part.outputs], sessions, at_once
    )
    given = before.forward(batch([pcm]))
    first: list[float] = []
    second: list[float] = []
    for i in range(warmup + repeats):
        if i % 10 == 0:
            say(f"nota: run {i + 1} of {warmup + repeats}")
        start = time.perf_counter()
        embeds = inside.forward(dict(given))["audio_embeds"][0]
        prompt = model.prompter.build(task)
        inputs, lengths = assemble(model.table, [woven(prompt.pieces, [embeds])])
        decoder = Decoder(model.decoder_session, model.decoder_part, model.table)
        decoder.start(1, inputs.shape[1] + 1)
        logits = decoder.feed(inputs, lengths)
        first.append((time.perf_counter() - start) * 1e3)
        token = logits.argmax(axis=-1)  # between the timers, as there
        start = time.perf_counter()
        decoder.step(token)
        second.append((time.perf_counter() - start) * 1e3)
        gc.collect()  # as there; outside of the timers
    first, second = first[warmup:], second[warmup:]
    peak = max(most, processor.memory()["peak"] or 0)
    processor.forget_peak()
    say("nota: the same sound, honestly")
    options = forced_options(model, plan.new_tokens)
    runs = [timed(model, options, pcm, task) for _ in range(plan.warmup + plan.repeats)]
    return {
        "seconds": samples / rules["rate"],
        "task": task,
        "warmup": warmup,
        "repeats": repeats,
        "contest": {
            "ttft_ms": float(np.mean(first)),
            "tpot_ms": float(np.mean(second)),
            "latency_ms": float(np.mean(first) + np.mean(second)),
            "peak_bytes": peak,
        },
        "honest": {
            **summary(runs[plan.warmup :]),
            "memory": processor.memory(),
        },
        "difference": " ".join(
            DIFFERENCE.format(
                repeats=repeats, seconds=samples / rules["rate"], new=plan.new_tokens
            ).split()
        ),
    }
