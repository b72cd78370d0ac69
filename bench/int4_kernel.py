"""MatMulNBits beside the machine's ceilings: python bench/int4_kernel.py --help

Blocks, zero points, accuracy levels, and gate and up in one product or two, at one row (a decoded
token), at eight and at a prompt's. Every case is a process of its own over weights well past any
cache, on random codes; cases alternate over the passes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from bench.beside.base import pin, thread_settings  # noqa: E402
from bench.beside.process import wait_quiet, watched  # noqa: E402
from bench.peers import machine, tell  # noqa: E402

# [in, out] of the products of a layer of Llama 3.2 1B.
LAYER = {
    "qkv": (2048, 3072),
    "o": (2048, 2048),
    "gate and up": (2048, 16384),
    "down": (8192, 2048),
}
ROWS = (1, 8, 111)
PAST_CACHES = 256 * 2**20  # bytes of codes, where each is read once for a few rows
FEW = 24 * 2**20  # of a prompt's products, which compute and do not wait
LEVELS = {0: "the kernel's choice", 1: "float32", 4: "int8"}


@dataclass(frozen=True)
class Case:
    """How the weights are stored and multiplied."""

    block: int = 256
    zeros: bool = True
    level: int = 4
    split: bool = False  # gate and up as two products
    bits: int = 4

    @property
    def label(self) -> str:
        """For a table."""
        zeros = "zero points" if self.zeros else "symmetric"
        split = ", gate and up apart" if self.split else ""
        return f"{self.bits} bits, blocks of {self.block}, {zeros}, {LEVELS[self.level]}{split}"

    def products(self) -> list[tuple[int, int]]:
        """[in, out] of a layer."""
        apart = [(2048, 8192)] * 2
        return [
            shape
            for name, whole in LAYER.items()
            for shape in (apart if self.split and name == "gate and up" else [whole])
        ]

    def bytes(self) -> int:
        """Of a layer: codes, scales, zero points."""
        numbers = sum(i * o for i, o in self.products())
        blocks = numbers // self.block
        return numbers * self.bits // 8 + blocks * 4 + (blocks * self.bits // 8) * self.zeros


CASES = [
    Case(),
    Case(zeros=False),
    *(Case(block=block) for block in (32, 64, 128)),
    *(Case(block=block, zeros=False) for block in (32, 128)),
    Case(level=1),
    Case(level=0),
    Case(split=True),
    Case(bits=8),
]
OURS = Case()


def graph(case: Case, layers: int) -> bytes:
    """A model of so many layers, each of whose products is taken of its own input."""
    from onnx import TensorProto, helper, numpy_helper

    dice = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: list[Any] = []
    inputs: dict[str, Any] = {}
    outputs: list[Any] = []
    for layer in range(layers):
        for place, (rows, columns) in enumerate(case.products()):
            name, blocks = f"{layer}.{place}", rows // case.block
            codes = dice.integers(0, 256, (columns, blocks, case.block * case.bits // 8), np.uint8)
            scales = dice.random((columns, blocks), np.float32) * 1e-3
            stored = {f"{name}.q": codes, f"{name}.s": scales}
            if case.zeros:
                shape = (columns, -(-blocks * case.bits // 8))
                stored[f"{name}.z"] = dice.integers(0, 256, shape, np.uint8)
            weights += [numpy_helper.from_array(array, n) for n, array in stored.items()]
            x = f"x{rows}"
            inputs[x] = helper.make_tensor_value_info(x, TensorProto.FLOAT, ["rows", rows])
            kind: dict[str, Any] = dict(K=rows, N=columns, bits=case.bits, block_size=case.block)
            kind |= dict(accuracy_level=case.level)
            node = helper.make_node(
                "MatMulNBits", [x, *stored], [name], domain="com.microsoft", **kind
            )
            nodes.append(node)
            outputs.append(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", columns])
            )
    made = helper.make_graph(nodes, "products", [*inputs.values()], outputs, weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10).SerializeToString()


def measure(case: Case, rows: int, threads: int, reps: int) -> dict[str, Any]:
    """Milliseconds of a layer, run by run."""
    import onnxruntime

    pin(threads)
    layers = -(-(PAST_CACHES if rows <= 8 else FEW) // case.bytes())
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph(case, layers), settings, ["CPUExecutionProvider"])
    dice = np.random.default_rng(1)
    feeds = {
        each.name: dice.standard_normal((rows, each.shape[1])).astype(np.float32)
        for each in session.get_inputs()
    }
    session.run(None, feeds)
    took: list[float] = []
    for _ in range(reps):
        start = time.perf_counter()
        session.run(None, feeds)
        took.append((time.perf_counter() - start) * 1e3 / layers)
    return {"took": took, "onnxruntime": onnxruntime.__version__}


def run(said: argparse.Namespace) -> dict[str, Any]:
    """All cases and rows, pass by pass, each in a process of its own."""
    found: dict[tuple[int, int], list[list[float]]] = {}
    ceilings: list[dict[str, float]] = []
    version = ""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"

        def one(words: list[str]) -> Any:
            wait_quiet(said.patience)
            words = [sys.executable, *words, "--threads", str(said.threads), "--out", str(out)]
            ended = watched(words, thread_settings(said.threads), 600, ROOT)
            if ended.status:
                raise SystemExit(f"{words}: {ended.last}")
            return json.loads(out.read_text())

        for number in range(said.passes):
            ceilings.append(one(["-m", "bench.beside.bandwidth"]))
            for place, case in enumerate(CASES):
                for rows in ROWS:
                    words = ["bench/int4_kernel.py", "--case", str(place), "--rows", str(rows)]
                    row = one([*words, "--reps", str(said.reps)])
                    found.setdefault((place, rows), []).append(row["took"])
                    version = row["onnxruntime"]
                    ms = statistics.median(row["took"])
                    tell(f"{number + 1}/{said.passes} {case.label}, {rows} rows: {ms:.3f} ms")
    rows = [asdict(CASES[p]) | {"rows": r, "took": took} for (p, r), took in found.items()]
    return {"ceilings": ceilings, "onnxruntime": version, "rows": rows}


def page(made: dict[str, Any], command: str) -> str:
    """The tables, as markdown."""
    best = {name: max(c[name] for c in made["ceilings"]) for name in made["ceilings"][0]}
    lines = [
        "# The kernel of 4 bits",
        "",
        "The products of one layer of Llama 3.2 1B (a token multiplies with 60.8 million numbers",
        "of it), by MatMulNBits of ONNX Runtime on random codes, milliseconds a layer: the median,",
        "and in brackets least and most over all runs of all passes. `x ours` is the ratio to the",
        "first row, which is how `int4` stores a decoder. For up to 8 rows, `x reading` is that to",
        "the time in which the machine reads the bytes of a layer once; for a prompt, `x int8` is",
        "that to the time of its products at the machine's best speed in int8.",
        "",
        f"- {datetime.now():%Y-%m-%d}, {machine()}, onnxruntime {made['onnxruntime']}: `{command}`",
        f"- ceilings: {best['read_gbs']:.0f} GB/s read, {best['fp32_gflops']:.0f} GFLOP/s in "
        f"float32, {best['int8_gflops']:.0f} in int8",
    ]
    numbers = sum(i * o for i, o in LAYER.values())
    for rows in ROWS:
        few = rows <= 8
        lines += ["", f"## {rows} row{'s' * (rows > 1)}", ""]
        lines += [
            f"| | MB | ms | x ours | {'x reading' if few else 'x int8'} |",
            "|---|---|---|---|---|",
        ]
        there = [(Case(**{n: r[n] for n in asdict(OURS)}), r) for r in made["rows"]]
        here = [(case, sum(r["took"], [])) for case, r in there if r["rows"] == rows]
        ours = next(statistics.median(took) for case, took in here if case == OURS)
        for case, took in here:
            ms = statistics.median(took)
            floor = case.bytes() / best["read_gbs"] / 1e6
            if not few:
                floor = 2 * numbers * rows / best["int8_gflops"] / 1e6
            name = f"**{case.label}**" if case == OURS else case.label
            lines.append(
                f"| {name} | {case.bytes() / 1e6:.1f} | {ms:.3f} ({min(took):.3f}-{max(took):.3f}) "
                f"| {ms / ours:.2f} | {ms / floor:.2f} |"
            )
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure all, or one case in this process."""
    parser = argparse.ArgumentParser(description="the 4-bit kernel beside the machine's ceilings")
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--reps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--patience", type=float, default=300, help="seconds to wait for a quiet machine, at most"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/int4_kernel.md")
    parser.add_argument("--case", type=int, help="measure this one here, and write JSON")
    parser.add_argument("--rows", type=int, default=1)
    said = parser.parse_args()
    if said.case is not None:
        row = measure(CASES[said.case], said.rows, said.threads, said.reps)
        said.out.write_text(json.dumps(row))
        return
    made = run(said)
    said.out.write_text(page(made, shlex.join(["python", "bench/int4_kernel.py", *sys.argv[1:]])))
    tell(f"written: {said.out}")


if __name__ == "__main__":
    main()
