"""A decoder of the real size for TensorRT: exported, held against the lint, parsed and built.

    python bench/real_size.py --out CHECKPOINT
    python bench/tensorrt_engines.py CHECKPOINT/config.yaml --out DIR

A row is one dialect in one precision: export.py for the target, `alm lint` for every target of that
dialect, `alm build --backend tensorrt-rtx`, each a process of its own whose time and memory are
watched. TensorRT-RTX builds without a GPU, so this says what is parsed and built, and nothing of
speed. A row that fails says why, and the next one begins.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from alm.artifacts import manifest  # noqa: E402
from bench.beside.process import Ended, watched  # noqa: E402

PART, BACKEND = "decoder", "tensorrt-rtx"
# The target to export for, and those that take the same dialect.
TARGETS = {"trt-jetpack6": (), "trt-jetpack7": ("trt-rtx",)}
PRECISIONS = ("int4dq", "int8dq", "fp16", "fp32")
ALM = "import sys; from alm.cli.alm_commands import main; sys.exit(main())"
TIMEOUT = 1800.0  # seconds of one step
HEAD = "dialect|precision|graph MB|export s|its peak MB|relative error"
HEAD += "|keeps the rules of|build s|its peak MB|engine MB"


@dataclass
class Row:
    """What became of one export; what was not reached is left empty."""

    target: str
    precision: str
    dialect: str = ""
    graph: int = 0  # bytes, weights included
    error: float = 0.0  # the worst against torch, of the largest value
    exported: Ended | None = None
    lint: str = ""  # the targets whose rules it keeps
    built: Ended | None = None
    engine: int = 0  # bytes
    failed: str = ""

    def cells(self) -> tuple[str, ...]:
        """As a row of the table."""
        return (
            self.dialect or self.target,
            f"`{self.precision}`",
            _mb(self.graph),
            *_cost(self.exported),
            f"{self.error:.1e}" if self.error else "",
            self.lint,
            *_cost(self.built),
            _mb(self.engine),
        )


def measure(config: Path, out: Path, target: str, precision: str) -> Row:
    """Export, lint and build one; the folder `out` is made and removed."""
    row = Row(target, precision)
    words = ["--model", str(config), "--out", str(out), "--part", PART]
    words += ["--target", target, "--precision", precision]
    try:
        row.exported = _run(str(ROOT / "export.py"), *words)
        if row.exported.status and not (out / manifest.NAME).is_file():
            row.failed = f"export: {row.exported.last}"
            return row
        part = manifest.load(out).part(PART)
        assert part is not None
        row.dialect, row.graph = part.dialect, part.bytes
        row.error = float(part.measured["parity"]["worst_rel"])
        row.lint = ", ".join(_linted(out, each) for each in (target, *TARGETS[target]))
        row.built = _run("-c", ALM, "build", str(out), "--backend", BACKEND, "--part", PART)
        engine = manifest.load(out).engine(PART, BACKEND)
        row.engine = engine.file.bytes if engine else 0
        row.failed = f"build: {row.built.last}" if row.built.status else ""
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return row


def _linted(folder: Path, target: str) -> str:
    """The target, where the lint finds nothing that would not build; else that it does."""
    said = _run("-c", ALM, "lint", str(folder), "--target", target, "--part", PART)
    return f"`{target}`" if said.status == 0 else f"not `{target}`"


def _run(*words: str) -> Ended:
    path = os.pathsep.join((str(ROOT / "runtime"), str(ROOT)))
    return watched([sys.executable, *words], {"PYTHONPATH": path}, TIMEOUT, ROOT)


def rows(
    config: Path, out: Path, targets: Sequence[str], precisions: Sequence[str]
) -> Iterator[Row]:
    """The rows, the smallest precision first: where memory ends the others are done."""
    for target in targets:
        for precision in precisions:
            yield measure(config, out / f"{target}-{precision}", target, precision)


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f}" if size else ""


def _cost(ended: Ended | None) -> tuple[str, str]:
    return (f"{ended.seconds:.0f}", f"{ended.peak_mb * 2**20 / 1e6:.0f}") if ended else ("", "")


def main() -> None:
    """Print the table in Markdown, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description="a decoder of the real size, for TensorRT")
    parser.add_argument("config", type=Path, help="of bench/real_size.py")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder with room")
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--precision", action="append", choices=PRECISIONS)
    said = parser.parse_args()
    out = said.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    columns = HEAD.split("|")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    wanted = (said.target or list(TARGETS), said.precision or list(PRECISIONS))
    failures: list[str] = []
    for row in rows(said.config.resolve(), out, *wanted):
        print(f"| {' | '.join(row.cells())} |", flush=True)
        failures += [f"- {row.target} {row.precision}, {row.failed}"] if row.failed else []
    print("", *failures, sep="\n")


if __name__ == "__main__":
    main()
