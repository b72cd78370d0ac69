"""Exports for targets: each has a dialect of its own, a lint, and one of them a builder here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

import alm
from alm import lint
from alm.artifacts import manifest
from alm.doctor.examine import examine, first_wrong
from alm.doctor.finding import OK
from alm.generation.model import Model
from alm.tensorrt import build
from tests.conftest import run_export
from tests.products import LONG

# target -> those whose lint its graphs must pass; dialects decomposed, standard, ort
TARGETS = {"trt-jetpack6": ("trt-jetpack6",), "trt-rtx": ("trt-rtx", "trt-jetpack7"), "cpu": ()}


def sized(sizes: Iterable[str], turn: int) -> list[tuple[str, str]]:
    """A family's small models, each for a target, or the one whose turn it is.

    All of them are compared with the original in torch.
    """
    every = list(zip(sizes, TARGETS, strict=True))
    return every if LONG else [every[turn % len(every)]]


def export_for(target: str, model: Path, folder: Path) -> Model:
    """All parts in float32 as the target wants them, in FOLDER/TARGET, as the CPU runs them.

    Of what is exported for the CPU, this machine proves itself.
    """
    words = ("--precision", "fp32", "--dynamic-batch", "--no-simplify", "--out", folder / target)
    proved = target == "cpu"
    run_export("--model", model, "--target", target, *words, golden=proved)
    if proved:
        findings = [*examine(folder / target, ("cpu",), (1,))]
        assert first_wrong(findings) is None, first_wrong(findings)
        assert {f.verdict for f in findings if f.check == "vectors"} == {OK}
    return alm.load(folder / target, "cpu")


def check_fit(exported: Path) -> None:
    """That graphs pass the lint of the target they are for, and TensorRT-RTX builds its engines."""
    goals = TARGETS[exported.name]
    for target in goals:
        verdict = lint.lint(exported, target)
        assert not verdict.refused, verdict.findings
    if "trt-rtx" in goals:
        pytest.importorskip("tensorrt_rtx")
        build.build(exported, build.Settings("tensorrt-rtx"), print, print)
        said = manifest.load(exported)
        assert {engine.part for engine in said.engines} == {p.name for p in said.parts} - {"embed"}
