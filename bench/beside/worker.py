"""One process for one thing: measures a row, or makes a product, in the peer's own environment."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.beside.base import TRUTH, Decoder, Encoder, Place, pin
from bench.beside.shapes import PROMPT, STEPS


def measure(peer: Any, reps: int, truth: Path) -> dict[str, Any]:
    """Load once, warm up once, then measure so often; milliseconds, seconds and MiB.

    What an encoder hears is compared with the file `truth`, which the row TRUTH writes.
    """
    peer.imports()
    start = time.perf_counter()
    peer.load()
    row: dict[str, Any] = dict(load_s=time.perf_counter() - start, versions=peer.versions())
    if isinstance(peer, Decoder):
        runs = [peer.measure(PROMPT, STEPS) for _ in range(reps + 1)][1:]
        row |= dict(prefill=[run[0] for run in runs], step=[run[1] for run in runs])
    elif isinstance(peer, Encoder):
        row["encode"] = [_timed(peer) for _ in range(reps + 1)][1:]
    # Before anything else is read for the table.
    row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row["size_mb"] = peer.megabytes
    if isinstance(peer, Decoder):
        row["step_mb"] = peer.step_megabytes
    elif isinstance(peer, Encoder):
        row |= _compared(peer, truth)
    return row


def _compared(peer: Encoder, truth: Path) -> dict[str, float]:
    """The worst difference from the original, as a share of its largest number."""
    import numpy as np

    heard = peer.heard()
    if type(peer).__name__ == TRUTH:
        truth.parent.mkdir(parents=True, exist_ok=True)
        np.save(truth, heard)
    if not truth.is_file() or getattr(import_module(type(peer).__module__), "SYNTHETIC", False):
        return {}  # weights of its own hear something else
    wanted = np.load(truth)
    if heard.shape != wanted.shape:
        raise SystemExit(f"its output is {heard.shape}, the original's {wanted.shape}")
    return {"worst": float(np.abs(heard - wanted).max() / np.abs(wanted).max())}


def _timed(peer: Encoder) -> float:
    start = time.perf_counter()
    peer.encode()
    return (time.perf_counter() - start) * 1e3


def find(family: Any, row: str) -> Any:
    """The class of a row: a family's own, or a variant of ours."""
    return getattr(family, row, None) or family.variant(row)


def main() -> None:
    """Do it, and write the outcome as JSON."""
    parser = argparse.ArgumentParser(description="one row or one product; see bench/peers.py")
    parser.add_argument("task", choices=["measure", "prepare"])
    parser.add_argument("family")
    parser.add_argument("name")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shape", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    said = parser.parse_args()
    place = Place(said.work, said.shape, said.threads)
    if said.task == "measure":
        pin(said.threads)  # before any library starts threads
    family: Any = import_module(f"bench.beside.{said.family}")
    if said.task == "prepare":
        family.prepare(said.name, place, said.out)
        return
    row = measure(find(family, said.name)(place), said.reps, place.truth)
    said.out.write_text(json.dumps(row))
    sys.stdout.flush()
    os._exit(0)  # some runtimes hang or abort when they are taken down


if __name__ == "__main__":
    main()
