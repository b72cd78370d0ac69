"""Other families in the browser: small random checkpoints, whose tokens are those of Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alm
from tests.conftest import run_export
from tests.products import some
from tests.web.hosting import STREAMED, Host, hosted
from tests.wrappers.families import (
    tiny_granite_speech,
    tiny_hf,
    tiny_moss,
    tiny_qwen2_5_omni,
    tiny_qwen3_asr,
    tiny_ultravox,
)

pytestmark = pytest.mark.browser

MAKERS: dict[str, Callable[[Path], Any]] = {
    "qwen2_audio": tiny_hf.qwen2_audio,
    "voxtral": tiny_hf.voxtral,
    "qwen3_asr": tiny_qwen3_asr.make,
    "ultravox": lambda folder: tiny_ultravox.make(folder / "model"),
    "qwen2_5_omni": tiny_qwen2_5_omni.make,
    "moss_transcribe_diarize": tiny_moss.make,
    "granite_speech": lambda folder: tiny_granite_speech.make(
        folder, **next(iter(tiny_granite_speech.SIZES.values()))
    ),
}
GREEDY: dict[str, Any] = {"max_new_tokens": 12, "num_beams": 1, "do_sample": False}


@pytest.mark.parametrize("family", some([*MAKERS], "voxtral"))
def test_a_familys_tokens_are_pythons(family: str, web: Path, browser: Any, tmp_path: Path) -> None:
    made = MAKERS[family](tmp_path / "model")
    words = ("--precision", "fp32", "--no-simplify", "--target", "web", "--out", tmp_path / "out")
    run_export("--model", getattr(made, "folder", made), *words)
    model, random = alm.load(tmp_path / "out", "cpu", threads=1), np.random.default_rng(0)
    short, long = (random.standard_normal(n).astype(np.float32) * 0.1 for n in (31_000, 520_000))
    with hosted({"web": web, "model": tmp_path / "out"}) as url:
        browser.get(f"{url}/web/package.json")
        host = Host(url, {}, browser)
        host.run("window.model = await web.openInWorker('/model/', {provider: 'wasm'})")
        for pcm, prompt in ((short, "What is said? “日本語” café"), (long, "Go on")):
            ours = model.generate(pcm, prompt, **GREEDY)
            theirs = host.run(STREAMED, pcm.tolist(), prompt, GREEDY)
            assert theirs["tokenIds"] == ours.token_ids, theirs
            assert theirs["text"] == ours.text and theirs["windows"] == ours.windows
            assert theirs["promptTokens"] == ours.prompt_tokens
        host.run("await model.close()")
