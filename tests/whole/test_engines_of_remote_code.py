"""TensorRT-RTX builds engines of the families that transformers has no class of.

Those of the others are built in test_families.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from alm import lint
from alm.artifacts import manifest
from alm.tensorrt import build
from tests.conftest import run_export
from tests.wrappers.families import tiny_kimi, tiny_qwen_audio, tiny_speechgpt

FAMILIES: dict[str, Callable[[Path], Path]] = {
    "kimi_audio": lambda folder: tiny_kimi.GOLDEN / tiny_kimi.MODEL,
    "qwen_audio": lambda folder: tiny_qwen_audio.make(folder),
    "speechgpt": lambda folder: tiny_speechgpt.make(folder),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_engines_are_built_of_every_part(family: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    path, out = FAMILIES[family](tmp_path / "model"), tmp_path / "out"
    words = ("--precision", "fp32", "--no-simplify", "--dynamic-batch", "--out", out)
    run_export("--model", path, "--target", "trt-rtx", *words)
    verdict = lint.lint(out, "trt-rtx")
    assert not verdict.refused, verdict.findings
    build.build(out, build.Settings("tensorrt-rtx"), print, print)
    said = manifest.load(out)
    graphs = {part.name for part in said.parts if part.role != "table"}
    assert {engine.part for engine in said.engines} == graphs
