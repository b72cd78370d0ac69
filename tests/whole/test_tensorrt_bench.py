"""bench/tensorrt_engines.py on a checkpoint of the published form and a tiny shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import real_size, tensorrt_engines


@pytest.mark.tensorrt
def test_a_row_says_what_was_exported_kept_and_built_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="it is optional: pip install tensorrt-rtx")
    config = real_size.make(tmp_path / "checkpoint", "tiny", "tiny")
    row = tensorrt_engines.measure(config, tmp_path / "work", "trt-jetpack7", "int4dq")
    assert row.failed == "" and row.dialect == "standard"
    assert row.lint == "`trt-jetpack7`, `trt-rtx`"
    assert row.engine > row.graph > 2 * 4 * 256 * 512 / 2  # bytes of two layers in 4 bits
    assert len(row.cells()) == len(tensorrt_engines.HEAD.split("|"))
    assert not (tmp_path / "work").exists()


def test_an_export_that_fails_is_a_row_with_its_error(tmp_path: Path) -> None:
    row = tensorrt_engines.measure(
        tmp_path / "none.yaml", tmp_path / "work", "trt-jetpack7", "fp16"
    )
    assert row.failed.startswith("export: error: ") and "none.yaml" in row.failed
    assert row.cells()[:3] == ("trt-jetpack7", "`fp16`", "")
