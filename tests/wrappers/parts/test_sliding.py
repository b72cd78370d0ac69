"""A row that outgrows its cache: what a window no longer sees is let go, and nothing changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import wrappers
from alm import registry
from alm.artifacts.manifest import Part
from alm.decoder.decoder import Decoder as Runs
from alm.session import BackendOptions
from exporters import graph
from tests.products import some
from wrappers import dialects
from wrappers.dialect import bound
from wrappers.layers.decoder import Decoder
from wrappers.llms import voxtral_realtime_text

WINDOW, PROMPT, STEPS = 6, 9, 70  # the tiny one's window


@pytest.mark.parametrize("dialect", some(registry.names(dialects), "standard"))
def test_logits_are_those_of_a_cache_that_holds_all(dialect: str, tmp_path: Path) -> None:
    with bound(dialect):
        module = wrappers.randomised(Decoder(voxtral_realtime_text.tiny()))
    path = tmp_path / "decoder.onnx"
    graph.save(graph.trace(module, dynamic_batch=True), path, "decoder")
    session = graph.opened(path, module, BackendOptions("cpu", 1))
    part = Part("decoder", "decoder", (), module.inputs, module.outputs)
    noise = np.random.default_rng(0).standard_normal((PROMPT + STEPS, 32)).astype(np.float32)

    def run(most: int, delay: float) -> tuple[np.ndarray, Runs]:
        runs = Runs(session, part, lambda ids: noise[ids], conditions={"delay": delay, "no": 1.0})  # pyright: ignore
        runs.start(1, most)
        logits = [runs.feed(noise[None, :PROMPT], np.array([PROMPT]))]
        for at in range(PROMPT, PROMPT + STEPS):
            if runs.held >= most:
                runs.slide(WINDOW - 1)
                assert runs.held == WINDOW - 1
            logits.append(runs.step(np.array([at])))
        return np.concatenate(logits), runs

    whole, _ = run(PROMPT + STEPS, 3.0)
    scale = float(np.abs(whole).max())
    for most in (PROMPT + 1, 23, 64):
        slid, runs = run(most, 3.0)
        assert np.abs(slid - whole).max() < 1e-5 * scale
        held = {max(session.fetch(kept).shape[1:]) for kept in runs.cache.kept.values()}
        assert max(held) <= 64  # the step in which caches of fixed capacity come
    told, _ = run(PROMPT + STEPS, 9.0)
    assert np.abs(told - whole).max() > 1e-2 * scale
