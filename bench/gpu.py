"""Everything of docs/gpu.md in one command: python bench/gpu.py --help

    python bench/gpu.py --pack gpu.tar        # here: code, wheel, the demo's artifacts
    tar xf gpu.tar && cd alm-gpu              # there
    pip install -r requirements.txt
    python bench/gpu.py                       # ten minutes at most; bench/results/gpu/NAME.md

Providers are looked for, and with each the models are proved by `alm doctor` and timed by `alm
bench`: the demo, and checkpoints of the real size whose random weights are made there.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from bench.beside import gpu_pack, gpu_page  # noqa: E402
from bench.beside.gpu_steps import ALM, FAILED, LEAST, Row, Run, asked  # noqa: E402

SECONDS = 570.0  # of the whole run
MOST = {"providers": 60.0, "make": 120.0, "export": 240.0, "build": 200.0, "doctor": 90.0}
MOST |= {"bench": 90.0}
CLIP = ROOT / "demo" / "lamp.wav"
HERE = (
    "import json, sys; from alm import backends; json.dump(backends.here(), open(sys.argv[1], 'w'))"
)


@dataclass(frozen=True)
class Way:
    """How a model is exported for a provider, and what builds its engines."""

    target: str
    precision: str
    backend: str = ""

    def folder(self, model: str) -> str:
        """The name of its artifacts."""
        return f"{model}-{self.target}-{self.precision}"


# The demo is carried in float32, in which its words are known; the others weigh half of that.
WAYS = {
    "cuda": Way("cpu", "fp16"),
    "tensorrt": Way("trt-jetpack7", "fp16", "tensorrt"),
    "tensorrt-rtx": Way("trt-rtx", "fp16", "tensorrt-rtx"),
    "ort-tensorrt": Way("trt-jetpack6", "fp16"),
    "ort-tensorrt-rtx": Way("trt-rtx", "fp16"),
    "cpu": Way("cpu", "fp32"),
}
# Model -> what makes its checkpoint at a folder; the demo's lies in the repository.
REAL: dict[str, Callable[[Path], list[str]]] = {
    "demo": lambda out: [],
    "qwen3-asr-0.6b": lambda out: _made("real_hf", out, "--family", "qwen3_asr_0.6b"),
    "salmonn-3b": lambda out: _made("real_size", out, "--llm", "llama-3.2-3b"),
}
TINY: dict[str, Callable[[Path], list[str]]] = {
    "salmonn-tiny": lambda out: _made("real_size", out, "--llm", "tiny", "--whisper", "tiny")
}


def _made(script: str, out: Path, *words: str) -> list[str]:
    return [str(ROOT / "bench" / f"{script}.py"), *words, "--out", str(out)]


def measure(run: Run, said: argparse.Namespace, work: Path) -> None:
    """All steps, in the order in which they matter most."""
    run.machine |= machine()
    providers = said.provider or found(run, work)
    if not providers:
        run.skip(Row("models"), "no provider for a GPU is here: docs/gpu.md says what to install")
    for model, maker in (TINY if said.tiny else REAL).items():
        for provider in providers:
            if said.model and model not in said.model:
                continue
            one(run, model, maker, provider, said, work)


def found(run: Run, work: Path) -> list[str]:
    """The providers for a GPU that can be used here."""
    file = work / "providers.json"
    row = Row("providers")
    run.step(row, ["-c", HERE, str(file)], MOST["providers"])
    here = json.loads(file.read_text("utf-8")) if file.is_file() else []
    run.machine["providers"] = ", ".join(here)
    return [name for name in WAYS if name in here and name != "cpu"]


def one(
    run: Run,
    model: str,
    maker: Callable[[Path], list[str]],
    provider: str,
    said: argparse.Namespace,
    work: Path,
) -> None:
    """A model with a provider: exported where it is not there, built, proved and timed."""
    if provider not in WAYS:
        run.skip(Row("export", model, provider), f"there is: {', '.join(WAYS)}")
        return
    way = WAYS[provider]
    folder = carried(said.artifacts, way, model) or work / way.folder(model)
    if not folder.is_dir() and not exported(run, model, maker, provider, folder, work):
        return
    told: Callable[[str], Row] = lambda step: Row(step, model, provider)  # noqa: E731
    if way.backend:
        words = ["-c", ALM, "build", str(folder), "--backend", way.backend]
        if not run.step(told("build"), words, MOST["build"]):
            return
    for step, words in (
        ("doctor", ["doctor", str(folder)]),
        ("bench", ["bench", str(folder), str(CLIP), *said.plan]),
    ):
        out = work / f"{step}-{model}-{provider}.json"
        given = ["-c", ALM, *words, "--provider", provider, "--out", str(out)]
        run.step(told(step), given, MOST[step], out)


def carried(artifacts: Path, way: Way, model: str) -> Path | None:
    """The folder of a model that is there already: for the way, or else in float32."""
    plain = Way(way.target, "fp32")
    names = [artifacts / each.folder(model) for each in (way, plain)]
    return next((path for path in names if path.is_dir()), None)


def exported(
    run: Run,
    model: str,
    maker: Callable[[Path], list[str]],
    provider: str,
    folder: Path,
    work: Path,
) -> bool:
    """Make the checkpoint, once, and export it for the provider; whether it is there."""
    way, checkpoint = WAYS[provider], work / "checkpoints" / model
    making = maker(checkpoint)
    if making and not checkpoint.is_dir():
        earlier = [row for row in run.rows if (row.step, row.model) == ("make", model)]
        if earlier and earlier[0].verdict == FAILED:
            return run.skip(Row("export", model, provider), "its checkpoint could not be made")
        if not run.step(Row("make", model), making, MOST["make"]):
            return False
    config = checkpoint / "config.yaml"
    source = str(config if config.is_file() else checkpoint) if making else "demo"
    words = ["export.py", "--model", source, "--target", way.target, "--precision", way.precision]
    words += ["--dynamic-batch", "--no-simplify", "--out", str(folder)]
    return run.step(Row("export", model, provider), words, MOST["export"])


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.is_file() else None
    fields = "--query-gpu=name,driver_version,memory.total,compute_cap"
    gpu = asked(("nvidia-smi", fields, "--format=csv,noheader"))
    versions = {}
    for name in ("onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "torch"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "GPU": "; ".join(gpu) or "none",
        "processor": named[1] if named else platform.processor(),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def packed(target: Path, providers: list[str], work: Path) -> None:
    """The archive, with the demo exported for these providers."""
    run = Run(work / "pack.json", 3600.0, work / "cache")
    for name in providers:
        way = WAYS[name]
        folder = work / Way(way.target, "fp32" if way.target == "cpu" else way.precision).folder(
            "demo"
        )
        words = ["export.py", "--target", way.target, "--precision", folder.name.rpartition("-")[2]]
        words += ["--dynamic-batch", "--out", str(folder)]
        if not folder.is_dir() and not run.step(Row("export", "demo", name), words, 1800.0):
            raise SystemExit(f"the demo was not exported for {name}")
    folders = sorted(path for path in work.iterdir() if (path / "manifest.json").is_file())
    names = gpu_pack.pack(target, folders)
    print(f"{target}: {len(names)} files, {target.stat().st_size / 1e6:.1f} MB")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description="all of docs/gpu.md on this machine")
    made.add_argument("--pack", type=Path, metavar="FILE", help="write the archive, run nothing")
    made.add_argument("--name", default=platform.node() or "machine", help="of the result")
    made.add_argument("--provider", action="append", help="these alone; cpu only if it is said")
    made.add_argument("--model", action="append", choices=[*REAL, *TINY], help="these alone")
    made.add_argument("--tiny", action="store_true", help="a tiny checkpoint in their place")
    made.add_argument("--seconds", type=float, default=SECONDS, help="of the whole run")
    made.add_argument("--artifacts", type=Path, default=ROOT / "artifacts", help="what is there")
    made.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "gpu")
    return made


def planned(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What a command line asks for, with the options of `alm bench` as `plan`."""
    said = parser().parse_args(words)
    said.plan = ["--seconds", "30", "--contexts", "512", "--repeats", "7", "--warmup", "2"]
    if said.tiny:
        said.plan = ["--seconds", "4", "--contexts", "16", "--repeats", "3", "--new-tokens", "8"]
    return said


def main() -> int:
    """Measure and write NAME.json and NAME.md, or pack."""
    said = planned()
    with tempfile.TemporaryDirectory(prefix="alm-gpu-") as scratch:
        if said.pack:
            packed(said.pack, said.provider or ["cuda", "tensorrt", "tensorrt-rtx"], Path(scratch))
            return 0
        run = Run(said.out / f"{said.name}.json", max(said.seconds, LEAST), Path(scratch) / "cache")
        measure(run, said, Path(scratch))
    run.save()
    written = said.out / f"{said.name}.md"
    written.write_text(gpu_page.page(said.name, run.machine, run.rows), "utf-8")
    print(f"written: {written}")
    return 0 if any(row.step == "bench" and row.verdict == "ok" for row in run.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
