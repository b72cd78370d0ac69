"""Encoders and bridge in ONNX Runtime against eager torch: python bench/encoders.py --layers 4

The shapes of a SALMONN with Whisper-large-v3, random weights; in float32, or what a lever makes of
it with --precision int8, beside the same eager torch. What listens hears noise, so the ranks of
`lowrank` mean nothing unless they are asked for, as `int8+lowrank:size=0.5` does. Every export and
every measurement is a process of its own, so that peak memory is the engine's alone. The peers are
those of transformers: Whisper's encoder, WavLM's for BEATs, which took its attention from there (it
has no patches to embed), and BLIP-2's Q-Former on windows that are already cut.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("whisper", "beats", "qformer")
DIALECTS = ("decomposed", "standard", "ort")
PEERS = {"whisper": ("eager", "sdpa"), "beats": ("eager",), "qformer": ("eager",)}
WHISPER: dict[str, Any] = dict(
    num_mel_bins=128, d_model=1280, encoder_attention_heads=20, encoder_ffn_dim=5120
)
BEATS: dict[str, Any] = dict(
    deep_norm=True, relative_position_embedding=True, max_distance=800, gru_rel_pos=True
)
BRIDGE: dict[str, Any] = dict(
    frames=1500, speech_width=1280, audio_width=768, hidden=768, heads=12, layers=2, queries=1
)
HEARD = 8  # clips; the rows of a linear's inputs must be more than its width
WINDOWS: dict[str, Any] = dict(kernel=17, stride=17, intermediate=3072, out=3072)


def build(part: str, layers: int, dialect: str) -> Any:
    """A part with random weights."""
    from wrappers import randomised
    from wrappers.bridges import qformer
    from wrappers.dialect import bound
    from wrappers.encoders import beats, whisper

    with bound(dialect):
        if part == "whisper":
            return randomised(whisper.build(WHISPER | {"encoder_layers": layers}))
        if part == "beats":
            return randomised(beats.Beats(BEATS | {"encoder_layers": layers}))
    return randomised(qformer.QFormer(qformer.Shape(**BRIDGE, **WINDOWS)))


def sizes(seconds: int) -> dict[str, int]:
    """What the dynamic axes are for one clip of this length."""
    frames = 100 * seconds - 2
    return {"batch": 1, "frames": frames, "tokens": frames // 16 * 8}


def export(
    part: str, layers: int, dialect: str, seconds: int, folder: Path, precision: str
) -> dict[str, Any]:
    """Write the graph, as the exporter would, and feeds for it."""
    import numpy as np

    from exporters import feeds, graph, precisions, simplify

    built, pulled = build(part, layers, dialect), precisions.pull(precision)
    if pulled.shrinks(built.role):
        raise SystemExit(f"{precision}: what is pruned is measured by bench/accuracy.py")
    if pulled.listens(built.role):
        pulled.calibrate(built, lambda count: hear(built, count or HEARD, seconds))
    traced = graph.trace(built, dynamic_batch=False)
    leaner = simplify.simplify(traced)
    kept = min(traced, leaner, key=simplify.node_count)
    nodes = simplify.node_count(kept)
    kept = pulled.rewrite(kept, built.role)
    graph.save(kept, folder / "part.onnx", part)
    np.savez(folder / "feeds.npz", **feeds.make(built.inputs, built.spans, sizes(seconds)))  # pyright: ignore
    return {"nodes": nodes}


def hear(built: Any, count: int, seconds: int) -> None:
    """Run a part on so many clips of noise."""
    import torch

    from exporters import feeds

    for seed in range(count):
        example = feeds.make(built.inputs, built.spans, sizes(seconds), seed)
        with torch.no_grad():
            built(*(torch.from_numpy(array) for array in example.values()))


def engine(folder: Path, threads: int) -> Callable[[], Any]:
    """A run in ONNX Runtime, as the device opens it."""
    import numpy as np

    from alm import backends
    from alm.artifacts.part import Part
    from alm.parsing import File
    from alm.session import BackendOptions

    part = Part("part", "encoder", (File("part.onnx", 0, ""),))
    session = backends.open_session(part, folder, BackendOptions("cpu", threads), trusted=True)
    feeds = dict(np.load(folder / "feeds.npz"))
    return lambda: session.run({name: feeds[name] for name in session.inputs})


def peer(part: str, kind: str, layers: int, seconds: int, threads: int) -> Callable[[], Any]:
    """A run of transformers' module of the same shape."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    if part == "whisper":
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        way: Any = dict(encoder_layers=layers, attn_implementation=kind)
        config = WhisperConfig(**WHISPER, **way)
        encoder, log_mel = WhisperEncoder(config).eval(), torch.randn(1, 128, 3000)
        return lambda: encoder(log_mel)
    if part == "beats":
        from transformers import WavLMConfig
        from transformers.models.wavlm.modeling_wavlm import WavLMEncoder

        wavlm = WavLMEncoder(WavLMConfig(num_hidden_layers=layers)).eval()
        patches = torch.randn(1, sizes(seconds)["tokens"], 768)
        return lambda: wavlm(patches)
    from transformers import Blip2QFormerConfig, Blip2QFormerModel

    config = Blip2QFormerConfig(
        num_hidden_layers=2, cross_attention_frequency=1, encoder_hidden_size=2048
    )
    bridge, project = Blip2QFormerModel(config).eval(), torch.nn.Linear(768, 3072)
    queries, windows = torch.randn(88, 1, 768), torch.randn(88, 17, 2048)
    return lambda: project(bridge(queries, encoder_hidden_states=windows).last_hidden_state)


def timed(run: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Milliseconds of the first run and of later ones, and the process's peak memory in MB."""
    taken: list[tuple[float, float]] = []
    for _ in range(repeats + 2):
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        taken.append((1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)))
    status = Path("/proc/self/status").read_text()  # getrusage's peak is at least the parent's
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    # ONNX Runtime's second run is slow as its first: it plans its memory then.
    wall, cpu = ([pair[i] for pair in taken[2:]] for i in (0, 1))
    return {"first": taken[0][0], "ms": wall, "cpu": min(cpu), "peak": peak}


def in_process(threads: int, **job: Any) -> dict[str, Any]:
    """Do a job in a process of its own."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "runtime")))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(threads)}
    said = subprocess.run(
        [sys.executable, __file__, "--job", json.dumps(job | {"threads": threads})],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(said.stdout.splitlines()[-1])


def work(job: dict[str, Any]) -> dict[str, Any]:
    """What `in_process` asked for."""
    folder, part, layers, seconds = Path(job["folder"]), job["part"], job["layers"], job["seconds"]
    if job["do"] == "export":
        return export(part, layers, job["kind"], seconds, folder, job["precision"])
    if job["do"] == "engine":
        return timed(engine(folder, job["threads"]), job["repeats"])
    return timed(peer(part, job["kind"], layers, seconds, job["threads"]), job["repeats"])


def line(part: str, seconds: int, what: str, found: dict[str, Any], nodes: Any = "") -> str:
    """A row of the table."""
    ms = found["ms"]
    spread = f"{statistics.median(ms):8.1f} ({min(ms):.1f}-{max(ms):.1f})"
    rest = f"{found['cpu']:9.1f}{found['first']:9.1f}{found['peak']:9.0f}"
    return f"{part:8}{seconds:4} s  {what:27}{spread:28}{rest}  {nodes}"


def main() -> None:
    """Print medians and spread."""
    parser = argparse.ArgumentParser(description="encoders in ONNX Runtime against eager torch")
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--dialect", choices=DIALECTS, action="append")
    parser.add_argument("--precision", action="append", help="fp32, or levers: int8, ...")
    parser.add_argument("--layers", type=int, help="of Whisper (32) and BEATs (12)")
    parser.add_argument("--seconds", type=int, action="append", help="clip lengths: 10 and 30")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.job:
        print(json.dumps(work(json.loads(said.job))))
        return
    head = (
        f"{'CPU ms':>9}{'first':>9}{'peak MB':>9}  nodes"  # CPU: the least, less shaken by others
    )
    print(f"{'':43}{'ms: median (least-most)':28}{head}")
    for part in said.part or PARTS:
        layers = said.layers or {"whisper": 32, "beats": 12}.get(part, 2)
        # Whisper hears 30 s whatever there is, and the bridge has one spelling.
        for seconds in [30] if part == "whisper" else said.seconds or (10, 30):
            job = dict(part=part, layers=layers, seconds=seconds, repeats=said.repeats)
            dialects = ["decomposed"] if part == "qformer" else said.dialect or DIALECTS
            for kind, precision in product(dialects, said.precision or ["fp32"]):
                with tempfile.TemporaryDirectory() as folder:
                    job |= dict(kind=kind, folder=folder, precision=precision)
                    nodes = in_process(said.threads, do="export", **job)["nodes"]
                    found = in_process(said.threads, do="engine", **job)
                print(line(part, seconds, f"{precision}, {kind}", found, nodes), flush=True)
            for kind in PEERS[part]:
                found = in_process(said.threads, do="peer", **job | {"kind": kind})
                print(line(part, seconds, f"transformers, {kind}", found), flush=True)


if __name__ == "__main__":
    main()
