"""One fuzzer in a process of its own: its memory is bounded, and a crash is seen from outside.

python worker.py KIND SOURCES SCRATCH SECONDS SEED INPUTS

SOURCES holds `artifacts`, `checkpoint` and `clip.wav`. What is found lies in SCRATCH/findings, and
the input that was tried last in SCRATCH/input: after a crash that is the one. The last line of
stderr is "N inputs, M findings".
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


def main(kind: str, sources: str, folder: str, seconds: str, seed: str, inputs: str) -> int:
    scratch = Path(folder)
    (scratch / "findings").mkdir(parents=True, exist_ok=True)
    os.chdir(scratch)
    sys.stdin = open(os.devnull)  # noqa: SIM115 -- as long as the process
    fuzzer = kinds.KINDS[kind](Path(sources), scratch)
    judge.main_stdout_to_file(str(scratch / "stdout"))
    judge.finding(lambda: fuzzer.run(fuzzer.make(Random(0))))  # imports what it imports
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    start, count, found = time.monotonic(), 0, 0
    seen: set[str] = set()
    while count < int(inputs) and time.monotonic() - start < float(seconds):
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
    print(f"{count} inputs, {found} findings", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
