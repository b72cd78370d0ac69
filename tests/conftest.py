"""What many tests share: tiny models, made and exported once."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock  # of torch

import export
from alm.cli import exit_status
from demo.random_checkpoint import Recipe, make
from tests.reference import SALMONN
from tests.tracing.traced_once import traced_once

TINY = Recipe(window_seconds=4)
OURS = {"alm", "wrappers", "exporters", "export", "demo", "bench", "tests"}

# Tests on references that lie beside the checkout: nothing is to be seen of them in a bare clone.
REFERENCES = Path(__file__).resolve().parents[2] / "shared" / "oracle"
collect_ignore = [
    f"wrappers/families/test_{name.replace('-', '_')}_oracle.py"
    for name in ("qwen-audio", "speechgpt")
    if not (REFERENCES / name).is_dir()
]

# torch and transformers make millions of objects and hardly a circle; `run_export` collects those.
gc.set_threshold(100_000, 50, 1000)


def _one_core() -> None:
    """Each of several workers keeps to a core of its own.

    ONNX Runtime's threads wait for each other by spinning: two workers with two threads each took
    three times the processor time, and five times as long, on two cores.
    """
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(os.environ[WORKER][2:]) % len(cores)]})


WORKER = "PYTEST_XDIST_WORKER"
if WORKER in os.environ:
    _one_core()
else:
    torch.set_num_threads(2)


def pytest_configure(config: pytest.Config) -> None:
    """A warning that our own code causes is an error; pyproject.toml lists other people's."""
    config.addinivalue_line("filterwarnings", rf"error:::({'|'.join(sorted(OURS))})(\.|$)")


@pytest.fixture(scope="session", autouse=True)
def _own_hash_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hashes are remembered here, not in the home folder of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_table_of_operators() -> Iterator[None]:
    """torch makes its table of operators anew for every export: half a second, hundreds of times.

    An export only reads it.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        made = ONNXRegistry.from_torchlib
    except (ImportError, AttributeError):  # another torch: slower, and as right
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        once = staticmethod(functools.cache(made))
        patch.setattr(ONNXRegistry, "from_torchlib", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _parts_traced_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A part whose like was traced before, by any worker, gets its graph from a file."""
    with traced_once(shared_by_workers(tmp_path_factory) / "traces"):
        yield


def run_export(*words: str | Path, golden: bool = False) -> None:
    """export.py with these words; it must succeed.

    Golden vectors, which ask the original once more, are kept where they are wanted.
    """
    words = (*words, *(() if golden else ("--no-golden",)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporting tools; our own code runs elsewhere too
        assert exit_status.run(export.app, [str(word) for word in (*words, "--debug")]) == 0
    gc.collect()
    gc.freeze()  # what torch keeps of its traces: an export looks for garbage 30 times


def shared_by_workers(factory: pytest.TempPathFactory) -> Path:
    """The folder that all workers of this run have in common."""
    root = factory.getbasetemp()
    return root.parent if WORKER in os.environ else root


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one of the workers of this run makes, and that all of them read."""
    root = shared_by_workers(factory)
    folder, done = root / name, root / f"{name}.done"
    with FileLock(root / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed half-way
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """config.yaml of a tiny random SALMONN with BEATs and LoRA, whose window is 4 s."""
    return made_once(tmp_path_factory, "checkpoint", lambda out: make(out, TINY)) / "config.yaml"


@pytest.fixture(scope="session")
def artifacts(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, exported whole: dialect standard, float32, any batch. Never to be changed."""
    words = ("--model", checkpoint, "--dynamic-batch", "--dialect", "standard", "--out")
    return made_once(
        tmp_path_factory, "artifacts", lambda out: run_export(*words, out, golden=True)
    )


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model exported as `make demo` does it: where words matter. Never to be changed."""
    export = functools.partial(run_export, "--dynamic-batch", "--out", golden=True)
    return made_once(tmp_path_factory, "demo", export)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wav of 1.5 s at 16 kHz: a chirp in noise."""
    path = tmp_path_factory.mktemp("clip") / "chirp.wav"
    time = np.arange(24000) / 16000
    noise = np.random.default_rng(0).standard_normal(len(time))
    soundfile.write(path, 0.3 * np.sin(900 * time**2) + 0.02 * noise, 16000)
    return path


@pytest.fixture(scope="session")
def oracle() -> Path:
    """The folder of SALMONN's reference outputs."""
    return SALMONN


@pytest.fixture(scope="session")
def oracle_standard(oracle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference checkpoint exported for a batch of one, dialect standard."""
    out = tmp_path_factory.mktemp("oracle") / "standard"
    words = ("--part", "all", "--precision", "fp32", "--dialect", "standard", "--out", out)
    run_export("--model", oracle / "config.yaml", *words)
    return out


@pytest.fixture(scope="session")
def oracle_decomposed(oracle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference checkpoint exported for any batch, dialect decomposed."""
    out = tmp_path_factory.mktemp("oracle") / "decomposed"
    words = ("--dialect", "decomposed", "--dynamic-batch", "--out", out)
    run_export("--model", oracle / "config.yaml", *words)
    return out


@pytest.fixture(scope="session")
def oracle_ort(oracle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference checkpoint exported for any batch, dialect ort."""
    out = tmp_path_factory.mktemp("oracle") / "ort"
    words = ("--dialect", "ort", "--dynamic-batch", "--out", out)
    run_export("--model", oracle / "config.yaml", *words)
    return out


def in_dialect(
    dialect: str, artifacts: Path, checkpoint: Path, factory: pytest.TempPathFactory
) -> Path:
    """The artifacts with their decoder in this dialect; those themselves where it is standard."""
    if dialect == "standard":
        return artifacts
    out = Path(shutil.copytree(artifacts, factory.mktemp("dialect") / dialect))
    words = ("--part", "decoder", "--dynamic-batch", "--dialect", dialect)
    run_export("--model", checkpoint, *words, "--out", out)
    return out


@pytest.fixture
def own(artifacts: Path, tmp_path: Path) -> Path:
    """A copy of the artifacts that a test may spoil."""
    return Path(shutil.copytree(artifacts, tmp_path / "artifacts"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first, or one worker would end alone with the last of them."""
    first = ("parts", "families", "whole", "fuzz", "exporters", "one_more")

    def place(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return first.index(folder) if folder in first else len(first)

    items.sort(key=place)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long and from which seed tests/fuzz looks for inputs that break something."""
    group = parser.getgroup("fuzz")
    group.addoption("--fuzz-seconds", type=float, default=45, help="of all fuzzers together")
    group.addoption("--fuzz-seed", type=int, default=0, help="another one makes other inputs")
    group.addoption("--fuzz-inputs", type=int, default=10**9, help="of each kind, at most")
