"""Three runtimes that hear a clip and say so many tokens of it; each runs in a process of its own.

The checkpoint is made so that no runtime ends early: see `endless`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench.beside.asr_gguf import EMBEDDING, Checkpoint
from bench.beside.base import pin

ENVIRONMENT = "asr"
REQUIREMENTS = ["transcribe-cpp==0.4.1", "crispasr==0.8.45", "gguf", "numpy"]
SMALL = 2.0**-6  # exact in bfloat16
EDGE = 256  # ids at either end: single bytes, and special tokens
WORD = re.compile(r"w\d+")  # what asr_gguf.py calls every other token
STAGE = re.compile(r"^ +(\w+) +([\d.]+) ms(?:  \((\d+) steps)?", re.M)
Run = dict[str, float]  # milliseconds; `tokens` is a count


def endless(folder: Path) -> None:
    """Change the weights in place so that tokens differ and the end is never the best.

    Random attention is a mean over the whole prompt, the same at each step, and so is the token
    then: with a small output of attention the MLPs make the next token from the last one alone, as
    if by chance, and 152,000 tokens seldom meet again within a hundred. Ids at either end of the
    vocabulary, where the ends are, get small rows and so small logits.
    """
    for name, bits in Checkpoint(folder, {}, [], {}).words("r+"):
        parts: list[Any] = []
        if name == EMBEDDING:
            parts = [bits[:EDGE], bits[-EDGE:]]
        elif name.startswith("model.language_model") and name.endswith("o_proj.weight"):
            parts = [bits]
        for part in parts:
            values = (part.astype(np.uint32) << 16).view(np.float32) * SMALL
            part[...] = (values.view(np.uint32) >> 16).astype(np.uint16)


@dataclass(frozen=True)
class Asked:
    """What a row is measured on."""

    files: Path
    pcm: Any  # float32 [samples], 16 kHz
    tokens: int
    threads: int


class Ours:
    """alm, as its own bench runs it."""

    def __init__(self, asked: Asked) -> None:
        from alm.generation.parts import Parts

        self.asked = asked
        self.parts = Parts(asked.files, "cpu", asked.threads, audio_cache=0)
        self.versions = f"alm here, onnxruntime {version('onnxruntime')}"

    def run(self) -> Run:
        """One clip, heard and answered."""
        from alm.bench.timed_run import timed

        busy = time.process_time()
        run = timed(self.parts, self.asked.tokens, self.asked.pcm, "transcribe")
        busy = (time.process_time() - busy) * 1e3
        prefill = run["stages"]["prefill"]
        first = run["first_token"]
        return dict(
            encode=first - prefill, prefill=prefill, first=first, total=run["total"],
            step=sum(run["steps"]) / len(run["steps"]), tokens=run["new_tokens"],
            prompt=run["prompt_tokens"], busy=busy,
        )  # fmt: skip


class Transcribe:
    """transcribe.cpp; its own log says what each stage took and how many steps it made."""

    def __init__(self, asked: Asked) -> None:
        os.environ["TRANSCRIBE_PERF_DEBUG"] = "1"
        self.library: Any = import_module("transcribe_cpp")
        self.log: list[str] = []
        self.library.set_log_callback(lambda _, words: self.log.append(words))
        self.asked = asked
        model = self.library.Model(str(asked.files), backend="cpu")
        self.session = model.session(n_threads=asked.threads)
        self.versions = f"transcribe-cpp {version('transcribe-cpp')}, {_kernels()}"

    def said(self) -> list[str]:
        """What it answers, also where its budget ends it."""
        try:
            answer = self.session.run(self.asked.pcm)
        except self.library.OutputTruncated as error:
            answer = error.partial_result
        return WORD.findall(answer.raw_text)

    def run(self) -> Run:
        """One clip, heard and answered."""
        self.log.clear()
        start, busy = time.perf_counter(), time.process_time()
        words = self.said()
        total, busy = (time.perf_counter() - start) * 1e3, (time.process_time() - busy) * 1e3
        found = {name: (float(ms), steps) for name, ms, steps in STAGE.findall("".join(self.log))}
        steps = int(found["step_loop"][1])

        def of(*names: str) -> float:
            return sum(found[name][0] for name in names)

        encode = of("mel", "enc_build", "enc_compute", "enc_d2h")
        prefill = of("prefill_build", "prefill_compute", "prefill_logits")
        if len(words) != steps:  # the end is the last token, and no word
            raise SystemExit(f"{steps} steps, {len(words)} words")
        prompt = int(re.findall(r"T_prompt=(\d+)", "".join(self.log))[-1])
        return dict(
            encode=encode, prefill=prefill, first=encode + prefill, total=total,
            step=of("step_loop") / steps, tokens=steps + 1, prompt=prompt, busy=busy,
        )  # fmt: skip


class Crisp:
    """CrispASR; it is asked for one token and for all, which tells first and further apart."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        session: Any = import_module("crispasr").Session
        self.session = session(str(asked.files), n_threads=asked.threads, use_gpu=False)
        self.versions = f"crispasr {version('crispasr')}"

    def _timed(self, tokens: int) -> tuple[float, int]:
        self.session.set_max_new_tokens(tokens)
        start = time.perf_counter()
        answer = self.session.transcribe(self.asked.pcm)
        took = (time.perf_counter() - start) * 1e3
        return took, len(WORD.findall(" ".join(each.text for each in answer)))

    def run(self) -> Run:
        """One clip, heard and answered twice."""
        first, one = self._timed(1)
        busy = time.process_time()
        total, tokens = self._timed(self.asked.tokens)
        busy = (time.process_time() - busy) * 1e3
        if one != 1:
            raise SystemExit(f"{one} words where one was asked for")
        step = (total - first) / (tokens - 1)
        return dict(first=first, total=total, step=step, tokens=tokens, busy=busy)


RUNTIMES: dict[str, Callable[[Asked], Any]] = {
    "ours": Ours,
    "transcribe": Transcribe,
    "crispasr": Crisp,
}


def _kernels() -> str:
    """Which of the wheel's libraries of kernels is in use (Linux)."""
    found = re.findall(r"(libggml-cpu-\w+)\.so", Path("/proc/self/maps").read_text())
    return found[0] if found else "kernels unknown"


def end_after(asked: Asked) -> None:
    """Make transcribe.cpp, which has no setting of it, end at so many tokens of the clip.

    It says them once, and the last of those that are wanted becomes the file's end token.
    """
    gguf: Any = import_module("gguf")
    fields = gguf.GGUFReader(asked.files, "r+").fields
    end = fields["tokenizer.ggml.eos_token_id"]
    own = fields["tokenizer.ggml.tokens"].contents().index("<|im_end|>")
    end.parts[end.data[0]][0] = own  # in the file, where another number of tokens may have put one
    words = Transcribe(asked).said()
    *before, last = words[: asked.tokens]
    if len(words) < asked.tokens or last in before:
        raise SystemExit(f"{len(words)} tokens, of which {last} is said twice: another seed")
    end.parts[end.data[0]][0] = int(last[1:])
    print(f"{len(words)} tokens were said; {last} is made the end")


def measure(name: str, asked: Asked, reps: int) -> dict[str, Any]:
    """Load, warm up once, then run so often."""
    start = time.perf_counter()
    runtime = RUNTIMES[name](asked)
    row: dict[str, Any] = dict(load_s=time.perf_counter() - start, versions=runtime.versions)
    runtime.run()
    runs = [runtime.run() for _ in range(reps)]
    row |= {key: [run[key] for run in runs] for key in runs[0]}
    # Before anything else is read for the table.
    return row | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Do one thing, and write the outcome as JSON."""
    parser = argparse.ArgumentParser(description="one runtime; see bench/asr_peers.py")
    parser.add_argument("task", choices=["endless", "end_after", "measure"])
    parser.add_argument("files", type=Path)
    parser.add_argument("--runtime", choices=RUNTIMES)
    parser.add_argument("--pcm", type=Path)
    parser.add_argument("--tokens", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reps", type=int, default=1)
    parser.add_argument("--out", type=Path)
    said = parser.parse_args()
    if said.task == "endless":
        endless(said.files)
        return
    pin(said.threads)  # before any library starts threads
    asked = Asked(said.files, np.load(said.pcm), said.tokens, said.threads)
    if said.task == "end_after":
        end_after(asked)
    else:
        said.out.write_text(json.dumps(measure(said.runtime, asked, said.reps)))
    sys.stdout.flush()
    os._exit(0)  # some runtimes hang or abort when they are taken down


if __name__ == "__main__":
    main()
