"""The formulas of `alm plan` against figures that others published."""

from __future__ import annotations

from pathlib import Path

import pytest

from alm import devices
from alm.artifacts.manifest import Part
from alm.plan.estimate import Stored
from alm.plan.planner import WORKING
from tests.runtime.plan.planning import (
    AGX,
    FIGURES,
    FOUR_BITS,
    LLMS,
    NANO,
    NX,
    SUPER,
    THOR,
    image_encoder,
    in_figures,
    model,
    planned,
)  # fmt: skip

HALF = Stored(2, 2)
FITTED = 0.05  # within which the fit has the figures it was made from

Figure = tuple[str, str, float]

# TensorRT Edge-LLM 0.9.0, JetPack 7.2, one row, int4 with lm_head in float16
# (the performance table of its documentation, github.com/NVIDIA/TensorRT-Edge-LLM).
# Tokens a second after 61 tokens:
TOKENS_PER_SECOND: list[Figure] = [
    *[(AGX, "qwen3-0.6b", 186.4), (AGX, "qwen3-1.7b", 98.6)],
    *[(AGX, "qwen3-4b", 53.1), (AGX, "qwen3-8b", 32.5)],
    *[(NX, "qwen3-0.6b", 117.4), (NX, "qwen3-1.7b", 60.4)],
    *[(NX, "qwen3-4b", 31.6), (NX, "qwen3-8b", 19.0)],
    *[(NANO, "qwen3-0.6b", 72.8), (NANO, "qwen3-1.7b", 37.4)],
]
# The same decoders in Qwen3-VL, after 292 tokens:
TOKENS_PER_SECOND_VL: list[Figure] = [
    *[(AGX, "qwen3-1.7b", 98.4), (AGX, "qwen3-4b", 52.4)],
    *[(NX, "qwen3-1.7b", 60.1), (NX, "qwen3-4b", 31.2), (NANO, "qwen3-1.7b", 36.9)],
]
# Milliseconds of a prompt of 61 and of 292 tokens:
PROMPTS = [
    *[(AGX, "qwen3-0.6b", 61, 14.8), (AGX, "qwen3-1.7b", 61, 20.4), (AGX, "qwen3-4b", 61, 42.6)],
    *[(AGX, "qwen3-8b", 61, 65.7), (AGX, "qwen3-1.7b", 292, 50.0), (AGX, "qwen3-4b", 292, 123.7)],
    *[(NX, "qwen3-0.6b", 61, 18.9), (NX, "qwen3-1.7b", 61, 35.4), (NX, "qwen3-4b", 61, 74.9)],
    *[(NX, "qwen3-8b", 61, 127.2), (NX, "qwen3-1.7b", 292, 103.1), (NX, "qwen3-4b", 292, 244.6)],
    *[(NANO, "qwen3-0.6b", 61, 28.7), (NANO, "qwen3-1.7b", 61, 63.1)],
    (NANO, "qwen3-1.7b", 292, 190.9),
]
# Milliseconds of the image encoder of Qwen3-VL in float16.
IMAGES = {AGX: 39.0, NX: 82.1, NANO: 151.1}
# Megabytes while it runs, the embedding table resident.
MEMORY = [
    *[(AGX, "qwen3-0.6b", 1931), (AGX, "qwen3-1.7b", 3302), (AGX, "qwen3-4b", 4911)],
    *[(AGX, "qwen3-8b", 8221), (NX, "qwen3-0.6b", 1937), (NX, "qwen3-1.7b", 3250)],
    *[(NX, "qwen3-4b", 4921), (NX, "qwen3-8b", 7880)],
    *[(NANO, "qwen3-0.6b", 1889), (NANO, "qwen3-1.7b", 3234)],
]
# The same with the image encoder. The 8140 MB of Qwen3-VL-2B on AGX Orin are left out: it is the
# same model that takes 4344 and 4380 on the smaller boards.
MEMORY_VL = [(NX, "qwen3-1.7b", 4344), (NANO, "qwen3-1.7b", 4380), (NX, "qwen3-4b", 5903)]
# Of other software, with nothing fitted to them: embedl's vLLM on AGX Orin and Thor, NVIDIA's blog
# on MLC for Orin Nano Super, hokwangchoi's comparison on the same board (April 2026), Edge-LLM 0.4.
OTHERS = [
    *[(AGX, "llama-3b", HALF, 25.6), (AGX, "llama-3b", FIGURES, 61.2)],  # vLLM
    (AGX, "llama-1b", HALF, 65.0),
    *[(SUPER, "qwen3-1.7b", FIGURES, 60.0), (SUPER, "qwen3-1.7b", FIGURES, 56.0)],
    *[(SUPER, "llama-3b", FOUR_BITS, 43.07), (SUPER, "llama-8b", FOUR_BITS, 19.14)],  # MLC
    *[(SUPER, "qwen2.5-7b", FOUR_BITS, 21.75), (SUPER, "phi-3.5", FOUR_BITS, 38.1)],
    *[(THOR, "llama-1b", HALF, 77.3), (THOR, "llama-1b", FIGURES, 162.5)],  # vLLM
    *[(THOR, "llama-3b", HALF, 34.2), (THOR, "llama-3b", FIGURES, 73.6)],
    (THOR, "llama-8b", FIGURES, 50.8),  # Edge-LLM 0.4
]


@pytest.mark.parametrize(
    ("device", "name", "published", "context"),
    [*((*f, 61) for f in TOKENS_PER_SECOND), *((*f, 292) for f in TOKENS_PER_SECOND_VL)],
)
def test_tokens_a_second_are_within_their_5_percent_of_the_published(
    tmp_path: Path, device: str, name: str, published: float, context: int
) -> None:
    found = in_figures(tmp_path, model(LLMS[name]), device, context=context)
    took = found["per_token"]["value"]
    assert 1e3 / published == pytest.approx(took, rel=FITTED)


@pytest.mark.parametrize(("device", "name", "tokens", "published"), PROMPTS)
def test_prompts_take_the_published_milliseconds_within_10_percent(
    tmp_path: Path, device: str, name: str, tokens: int, published: float
) -> None:
    found = planned(tmp_path, model(LLMS[name], tokens), device)
    assert found["model"]["prompt_tokens"] == tokens
    prompt = in_figures(tmp_path, model(LLMS[name], tokens), device)["clips"][0]["prompt"]
    assert prompt["least"] <= published <= prompt["most"]
    assert prompt["value"] == pytest.approx(published, rel=0.10)


@pytest.mark.parametrize(("device", "published"), IMAGES.items())
def test_an_encoder_takes_the_published_milliseconds_within_10_percent(
    tmp_path: Path, device: str, published: float
) -> None:
    said = model(LLMS["qwen3-1.7b"], 292, *image_encoder())
    took = in_figures(tmp_path, said, device)["clips"][0]["encoders"]
    assert took["value"] == pytest.approx(published, rel=0.10)
    assert took["least"] <= published <= took["most"]


@pytest.mark.parametrize(
    ("device", "name", "published", "front"),
    [*((*each, ()) for each in MEMORY), *((*each, image_encoder()) for each in MEMORY_VL)],
)
def test_a_running_model_takes_the_published_memory_within_5_percent(
    tmp_path: Path, device: str, name: str, published: int, front: tuple[Part, ...]
) -> None:
    llm = LLMS[name]
    took = in_figures(tmp_path, model(llm, 61, *front), device, context=1)["run"]
    table = WORKING * 2 * llm.head  # resident there, a file here
    assert took["value"] + table == pytest.approx(published * 1e6, rel=0.05)


@pytest.mark.parametrize(("device", "name", "stored", "published"), OTHERS)
def test_figures_that_nothing_was_fitted_to_are_within_the_error_bars(
    tmp_path: Path, device: str, name: str, stored: Stored, published: float
) -> None:
    found = in_figures(tmp_path, model(LLMS[name]), device, stored, context=61)
    speed, widest = found["tokens_per_second"], devices.device(device).step_error
    assert 1 / (1 + widest) <= published / speed["value"] <= 1 / (1 - widest)


def test_thor_reads_nvfp4_as_published() -> None:
    """Edge-LLM 0.9.0 after 2048 tokens, 4 bits and a scale of 8 a block of 16 in all products."""
    known = devices.device(THOR)
    for name, published in {
        "qwen3-0.6b": 245.4,
        "qwen3-1.7b": 135.5,
        "qwen3-4b": 73.7,
        "qwen3-8b": 44.4,
    }.items():
        llm = LLMS[name]
        cache = 2 * llm.layers * llm.kv_heads * llm.head_dim * 2 * 2048
        read = (llm.weights + llm.head) * (4 + 8 / 16) / 8 + cache
        assert 1e3 / known.step(read) == pytest.approx(published, rel=0.10), name


def test_bytes_a_token_are_those_of_the_calculation() -> None:
    """GB in fp16, and in int4 with lm_head in fp16 and in int4, counted by hand.

    Each weight of the layers and of lm_head is read once a token, the embedding table is not;
    int4 in groups of 128 with a scale of fp16 and a zero point is 0.5195 bytes a weight.
    """
    for name, sizes in {
        "llama-1b": (2.47, 1.03, 0.64),
        "llama-3b": (6.43, 2.24, 1.66),
        "llama-8b": (15.0, 4.65, 3.87),
        "vicuna-7b": (13.2, 3.60, 3.41),
    }.items():
        llm = LLMS[name]
        for stored, size in zip((HALF, FIGURES, FOUR_BITS), sizes, strict=True):
            read = llm.weights * stored.layers + llm.head * stored.head
            assert read / 1e9 == pytest.approx(size, rel=0.03), (name, stored)


@pytest.mark.parametrize(
    ("name", "kilobytes"), [("llama-1b", 32), ("llama-3b", 112), ("vicuna-7b", 512)]
)
def test_a_token_of_the_cache_has_the_bytes_of_the_calculation(
    tmp_path: Path, name: str, kilobytes: int
) -> None:
    found = planned(tmp_path, model(LLMS[name], 90), NANO)["model"]
    assert found["cache_per_token"] == kilobytes * 1024
    assert found["cache_per_second"] == pytest.approx(kilobytes * 1024 * 88 / 30)
