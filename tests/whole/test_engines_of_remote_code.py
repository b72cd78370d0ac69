"""TensorRT-RTX builds engines of the families that transformers has no class of.

Those of the others are built in test_families.py and in their own tests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.products import some
from tests.whole.targets import check_fit, export_for
from tests.wrappers.families import tiny_kimi, tiny_qwen_audio, tiny_speechgpt

FAMILIES: dict[str, Callable[[Path], Path]] = {
    "kimi_audio": lambda folder: tiny_kimi.GOLDEN / tiny_kimi.MODEL,
    "qwen_audio": lambda folder: tiny_qwen_audio.make(folder),
    "speechgpt": lambda folder: tiny_speechgpt.make(folder),
}


@pytest.mark.parametrize("family", some([*FAMILIES], "speechgpt"))
def test_engines_are_built_of_every_part(family: str, tmp_path: Path) -> None:
    check_fit(export_for("trt-rtx", FAMILIES[family](tmp_path / "model"), tmp_path).folder)
