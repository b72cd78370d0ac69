"""A checkpoint of the real form and any size: what bench/real_size.py writes is read by all."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import transformers
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import alm
from bench import real_size
from bench.beside.shapes import LLMS, SHAPES, WHISPERS
from tests.conftest import run_export

LIMIT = 512 * 1024  # bytes of a shard here


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real") / "tiny"
    return real_size.make(folder, "tiny", "tiny", shard_bytes=LIMIT)


def test_it_exports_and_answers(config: Path, clip: Path, tmp_path: Path) -> None:
    run_export("--model", config, "--no-simplify", "--out", tmp_path / "out")
    answer = alm.load(tmp_path / "out").generate(
        clip, "transcribe", max_new_tokens=3, min_new_tokens=3, num_beams=1
    )
    assert len(answer.token_ids) == 3


def test_a_shard_is_within_the_limit_or_one_tensor(config: Path) -> None:
    shards = sorted((config.parent / "llm").glob("*.safetensors"))
    assert len(shards) > 1
    for shard in shards:
        with safe_open(shard, "pt") as file:
            assert shard.stat().st_size < LIMIT + 65536 or len(list(file.keys())) == 1


def test_transformers_finds_every_weight(config: Path) -> None:
    folder = config.parent / "llm"
    transformers.logging.set_verbosity_error()
    made: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    model, found = made
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.num_parameters() > LLMS["tiny"].weights  # the norms


def test_the_tokenizer_is_as_large_as_the_model(config: Path) -> None:
    folder = config.parent / "llm"
    words = AutoTokenizer.from_pretrained(folder)
    said = AutoConfig.from_pretrained(folder)
    assert len(words) == said.vocab_size == LLMS["tiny"].vocab
    assert (words.bos_token_id, words.eos_token_id) == (said.bos_token_id, said.eos_token_id)
    assert words.decode(words.encode("Grüße, 语音", add_special_tokens=False)) == "Grüße, 语音"


def test_shapes_name_what_there_is() -> None:
    assert {shape.llm for shape in SHAPES.values()} == set(LLMS)
    assert {shape.whisper for shape in SHAPES.values()} == set(WHISPERS)


def test_the_real_shapes_have_the_published_sizes() -> None:
    assert LLMS["llama-3.2-1b"].weights == pytest.approx(1.2358e9, rel=1e-3)
    assert LLMS["llama-3.2-3b"].weights == pytest.approx(3.2127e9, rel=1e-3)
    turbo = sum(
        math.prod(slot.shape) for slot in real_size.whisper_slots(WHISPERS["large-v3-turbo"])
    )
    assert turbo == pytest.approx(637e6, rel=1e-2)
    beats = sum(math.prod(slot.shape) for slot in real_size.beats_slots(real_size.BEATS))
    assert beats == pytest.approx(90e6, rel=2e-2)
