"""What a step of a mixture of experts costs, by experts and by those a token passes.

    python bench/experts.py --experts 32,64,128 --active 2,4,8

One layer of Qwen3-30B-A3B's shape with random weights, exported by the exporter itself: in the
dialect `ort`, where experts are one operator, and as plain products. It takes weights of one layer
in memory: 2.4 GB in float32 for 128 experts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from transformers import Qwen3MoeConfig

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from alm.host import processor  # noqa: E402
from alm.session import BackendOptions, Session  # noqa: E402
from exporters import graph, precisions  # noqa: E402
from wrappers.checkpoint.weights.hollow import attach, hollow  # noqa: E402
from wrappers.checkpoint.weights.tensors import Weights  # noqa: E402
from wrappers.dialect import bound  # noqa: E402
from wrappers.layers.decoder import Decoder  # noqa: E402
from wrappers.llms import qwen3_moe  # noqa: E402

SHAPE: dict[str, Any] = dict(
    hidden_size=2048,
    moe_intermediate_size=768,
    num_hidden_layers=1,
    num_attention_heads=32,
    num_key_value_heads=4,
    head_dim=128,
    vocab_size=256,  # the head is not what is measured
    norm_topk_prob=True,
)
PAST, CAPACITY = 100, 256


def exported(folder: Path, dialect: str, precision: str, experts: int, active: int) -> Decoder:
    """Write decoder.onnx of random weights, one tensor at a time."""
    config = Qwen3MoeConfig(**SHAPE, num_experts=experts, num_experts_per_tok=active)
    with bound(dialect):
        part = hollow(lambda: Decoder(qwen3_moe.spec(config)))
    weights = Weights("random")
    for name, weight in part.named_parameters():
        shape = tuple(weight.shape)
        weights.add(name, shape, lambda shape=shape: torch.randn(shape) * shape[-1] ** -0.5)
    attach(part, weights)
    model = graph.trace(part, dynamic_batch=False)
    graph.save(precisions.pull(precision).rewrite(model, "decoder"), folder / "d.onnx", "decoder")
    return part


def with_active(path: Path, active: int) -> None:
    """Have a token pass so many experts: a number in the graph's one node of them."""
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type in ("MoE", "QMoE") and attribute.name == "k":
                attribute.i = active
    path.write_bytes(model.SerializeToString())


def median(session: Session, part: Decoder, rows: int, repeats: int) -> float:
    """Milliseconds of processor time of a call with so many rows after a past."""
    made = np.random.default_rng(0)
    sizes = {"batch": 1, "seq": rows, "past": PAST, "capacity": CAPACITY, "wanted": 1}
    fed = {n: np.zeros(port.shape(sizes), port.dtype) for n, port in part.inputs.items()}
    fed |= {"past_lengths": np.array([PAST]), "seq_lengths": np.array([rows])}
    took: list[float] = []
    for _ in range(repeats + 2):
        fed["inputs_embeds"] = made.standard_normal((1, rows, 2048)).astype(np.float32)
        start = time.process_time()
        session.run(fed)
        took.append(1e3 * (time.process_time() - start))
    return statistics.median(took[2:])


def rows_of(
    dialect: str, precision: str, experts: int, actives: list[int], repeats: int
) -> Iterator[str]:
    """A line of the table for each number of experts that a token passes."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "d.onnx"
        part = exported(path.parent, dialect, precision, experts, max(actives))
        size = sum(file.stat().st_size for file in path.parent.iterdir()) / 1e6
        for active in actives if dialect == "ort" else actives[-1:]:
            with_active(path, active)
            session = graph.opened(path, part, BackendOptions("cpu", 1))
            times = [median(session, part, rows, repeats) for rows in (1, 64)]
            cells = (dialect, precision, experts, active, f"{size:.0f}")
            yield f"| {' | '.join(map(str, cells))} | {times[0]:.2f} | {times[1]:.0f} |"
            del session


def numbers(words: str) -> list[int]:
    """ "2,4" as numbers."""
    return [int(word) for word in words.split(",")]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    asked.add_argument("--experts", default="32,64,128", type=numbers)
    asked.add_argument("--active", default="2,4,8", type=numbers)
    asked.add_argument("--repeats", default=31, type=int)
    asked.add_argument("--forms", default="ort:int4,ort:fp32,standard:int4", help="dialect:lever")
    given = asked.parse_args()
    torch.set_num_threads(1)
    machine = processor.facts()["processor"]
    print(f"{machine}, one thread, processor time, medians of {given.repeats}")
    print("| dialect | precision | experts | active | MB | a step, ms | 64 rows, ms |")
    print("|---|---|---|---|---|---|---|")
    for form in given.forms.split(","):
        dialect, _, precision = form.partition(":")
        for experts in given.experts:
            for line in rows_of(dialect, precision, experts, given.active, given.repeats):
                print(line, flush=True)


if __name__ == "__main__":
    main()
