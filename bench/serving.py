"""`alm serve` under load: python bench/serving.py --help

A server of the demo model as a process of its own, asked by clients on the same machine: how many
requests a second at so many rows, and whether a long time at twice its capacity loses a request,
answers one wrongly, or lets memory, threads or descriptors grow.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import requests

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from demo.clips import EXAMPLES, FOLDER, Example  # noqa: E402

ALM = "import sys; from alm.cli.alm_commands import main; sys.exit(main())"
ROWS = (1, 2, 4, 8)
CLIENTS = 8
PAUSE = 0.05  # seconds that a refused client waits; shorter than Retry-After, to keep the load up


class Load(NamedTuple):
    """What clients saw."""

    statuses: Counter[int]
    wrong: int
    seconds: list[float]  # of each request that was answered


@contextmanager
def server(folder: Path, *words: str) -> Iterator[tuple[int, str]]:
    """`alm serve`: its process and its address."""
    line = [sys.executable, "-c", ALM, "serve", str(folder), "--port", "0", *words]
    path = os.pathsep.join([str(ROOT / "runtime"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        line, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert process.stderr
    try:
        yield process.pid, process.stderr.readline().split()[0]
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def ask(session: requests.Session, url: str, example: Example) -> tuple[int, str]:
    """Status and text of one request: a transcription, or a question about a sound."""
    data = (FOLDER / example.file).read_bytes()
    said = session.post(
        f"{url}/v1/audio/transcriptions", files={"file": (example.file, data)}, timeout=120
    )
    return said.status_code, said.json().get("text", "")


def load(url: str, clients: int, seconds: float, right: dict[str, str]) -> Load:
    """So many clients, each asking as soon as it was answered."""
    found = Load(Counter(), 0, [])
    wrong: list[str] = []
    end = time.monotonic() + seconds

    def client(i: int) -> None:
        example = EXAMPLES[i % len(EXAMPLES)]
        with requests.Session() as session:
            while time.monotonic() < end:
                start = time.monotonic()
                status, text = ask(session, url, example)
                found.statuses[status] += 1
                if status == 200:
                    found.seconds.append(time.monotonic() - start)
                    wrong.extend([text] if text != right[example.file] else [])
                else:
                    time.sleep(PAUSE)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return found._replace(wrong=len(wrong))


def state(pid: int) -> tuple[float, int, int]:
    """MiB, threads and descriptors of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    size = int(lines["VmRSS"].split()[0]) / 1024
    return size, int(lines["Threads"]), len(os.listdir(f"/proc/{pid}/fd"))


def by_rows(folder: Path, seconds: float, threads: int) -> Iterator[str]:
    """The table of rows."""
    yield "| rows | requests a second | median ms | 95 % within ms | wrong |"
    yield "|---|---|---|---|---|"
    for rows in ROWS:
        words = ("--rows", str(rows), "--waiting", "64", "--threads", str(threads))
        with server(folder, *words) as (_, url):
            right = alone(url)
            load(url, CLIENTS, seconds / 4, right)
            found = load(url, CLIENTS, seconds, right)
        times = sorted(found.seconds)
        late = times[int(0.95 * len(times))] * 1e3
        middle = statistics.median(times) * 1e3
        line = (
            f"| {rows} | {len(times) / seconds:.1f} | {middle:.0f} | {late:.0f} | {found.wrong} |"
        )
        print(line, flush=True)
        yield line


def alone(url: str) -> dict[str, str]:
    """What each clip is answered while nobody else asks."""
    with requests.Session() as session:
        return {example.file: ask(session, url, example)[1] for example in EXAMPLES}


def soak(folder: Path, minutes: float, threads: int) -> Iterator[str]:
    """The table of a long time at twice the capacity."""
    yield "| minute | answered | refused (429) | other | wrong | MiB | threads | descriptors |"
    yield "|---|---|---|---|---|---|---|---|"
    words = ("--rows", "4", "--waiting", "4", "--threads", str(threads))
    with server(folder, *words) as (pid, url):
        right = alone(url)
        load(url, 16, 5, right)
        for minute in range(max(1, round(minutes)) + 1):
            found = load(url, 16, 60, right) if minute else Load(Counter(), 0, [])
            counts = dict(found.statuses)
            ok, refused = counts.pop(200, 0), counts.pop(429, 0)
            size, alive, files = state(pid)
            line = (
                f"| {minute} | {ok} | {refused} | {sum(counts.values())} | {found.wrong} "
                f"| {size:.1f} | {alive} | {files} |"
            )
            print(line, flush=True)
            yield line


def main() -> None:
    """Measure, print, and write into --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "artifacts", help="the demo's export")
    parser.add_argument("--seconds", type=float, default=20, help="of each number of rows")
    parser.add_argument("--minutes", type=float, default=5, help="at twice the capacity")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/serving.md")
    said = parser.parse_args()
    import onnxruntime

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines: list[Any] = [
        "# `alm serve` under load",
        "",
        f"`python bench/serving.py --seconds {said.seconds:g} --minutes {said.minutes:g}`, "
        f"{date.today()}, {platform.machine()} with {platform.system()}, {cores} cores, clients "
        f"and server on them, ONNX Runtime {onnxruntime.__version__}, {said.threads} thread a "
        "graph, the demo model of 3.9 million parameters. Clips are remembered, so that encoders "
        "run once: what is measured is the server and the decoder.",
        "",
        f"## {CLIENTS} clients, each asking as soon as it was answered",
        "",
        *by_rows(said.folder, said.seconds, said.threads),
        "",
        "## 16 clients where 4 are answered and 4 wait",
        "",
        *soak(said.folder, said.minutes, said.threads),
        "",
    ]
    said.out.write_text("\n".join(lines), "utf-8")


if __name__ == "__main__":
    main()
