"""One fuzzer in a process of its own: its memory is bounded, and a crash is seen from outside.

python worker.py KIND,KIND SOURCES SCRATCH SECONDS SEED INPUTS

SOURCES holds `artifacts`, `checkpoint` and `clip.wav`. Each kind has a folder in SCRATCH: what is
found lies in its findings, and the input that was tried last in its `input`: after a crash that is
the one. A line of stderr is "N inputs, M findings".
"""

from __future__ import annotations

import faulthandler
import os
import resource
import sys
import time
from pathlib import Path
from random import Random

import judge
import kinds

MOST_SECONDS = 60  # for one input on a busy machine
ROOM = 3 * 2**30  # bytes of address space that inputs may take, many threads' stacks among them


def main(names: str, sources: str, folder: str, seconds: str, seed: str, inputs: str) -> int:
    sys.stdin = open(os.devnull)  # noqa: SIM115 -- as long as the process
    judge.main_stdout_to_file(str(Path(folder) / "stdout"))
    count = found = 0
    for kind in names.split(","):
        share = float(seconds) / len(names.split(","))
        tried, wrong = attack(kind, Path(sources), Path(folder) / kind, share, seed, int(inputs))
        count, found = count + tried, found + wrong
    print(f"{count} inputs, {found} findings", file=sys.stderr)
    return 1 if found else 0


def attack(
    kind: str, sources: Path, scratch: Path, seconds: float, seed: str, inputs: int
) -> tuple[int, int]:
    """Try inputs of one kind; how many there were, and how many findings."""
    (scratch / "findings").mkdir(parents=True, exist_ok=True)
    os.chdir(scratch)
    fuzzer = kinds.KINDS[kind](sources, scratch)
    judge.finding(lambda: fuzzer.run(fuzzer.make(Random(0))))  # imports what it imports
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, most))
    start, count, found = time.monotonic(), 0, 0
    seen: set[str] = set()
    while count < inputs and time.monotonic() - start < seconds:
        try:
            content = fuzzer.make(Random(f"{seed} {count}"))
        except (RecursionError, RuntimeError):  # too deep to copy; torch cannot change a tensor
            count += 1
            continue
        (scratch / "input").write_bytes(content)
        faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
        began = time.monotonic()
        wrong = judge.finding(lambda content=content: fuzzer.run(content))
        count += 1
        took = time.monotonic() - began
        if not wrong and took > MOST_SECONDS / 3:
            wrong = f"took {took:.0f} s"
        if wrong:
            found += 1
            if (key := wrong[-160:]) not in seen:
                seen.add(key)
                (scratch / "findings" / f"{kind}-{seed}-{count - 1}").write_bytes(content)
                print(f"{kind} {seed} {count - 1}: {wrong}", file=sys.stderr, flush=True)
    faulthandler.cancel_dump_traceback_later()
    return count, found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
