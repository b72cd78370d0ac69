"""Repositories that many tests read: the demo's, and those of small families."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alm.triton import repository
from alm.triton.settings import Settings
from tests.conftest import made_once, run_export
from tests.whole.originals import Qwen2Audio
from tests.wrappers.families import tiny_speechgpt

# The client, whose protobuf messages the tests read configurations with, is installed there alone.
collect_ignore = [] if sys.platform == "linux" else ["test_answering.py", "test_ensemble.py"]
collect_ignore += [] if sys.platform == "linux" else ["test_configs.py", "stand_in.py"]

Make = Callable[[Path], object]

# What each asks of Triton: int8 by contrib operators, and graphs of one row that make tokens.
FAMILIES: dict[str, tuple[Make, tuple[str, ...]]] = {
    "qwen2": (Qwen2Audio, ("--dynamic-batch", "--precision", "int8", "--dialect", "ort")),
    "speechgpt": (tiny_speechgpt.make, ()),
}


def packed(folder: Path, out: Path, **settings: object) -> Path:
    """A repository of the folder in `out`, which is given back."""
    repository.pack(folder, out, Settings(**settings), lambda _: None)  # pyright: ignore
    return out


@pytest.fixture(scope="session")
def demo_repository(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in Triton's form, never to be changed."""
    return packed(demo, tmp_path_factory.mktemp("repository") / "models")


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights, exported."""
    name = request.param
    make, words = FAMILIES[name]

    def export(out: Path) -> None:
        model = tmp_path_factory.mktemp(name) / "model"
        make(model)
        run_export("--model", model, *words, "--no-simplify", "--out", out)

    return made_once(tmp_path_factory, f"triton-{name}", export)


@pytest.fixture(scope="session")
def clips() -> list[np.ndarray]:
    """Noise of three lengths at 16 kHz."""
    noise = np.random.default_rng(0).standard_normal(40_000).astype(np.float32)
    return [0.1 * noise[:n] for n in (16_000, 40_000, 9_000)]
