"""An LLM file may bring its attention, MLP and layer: greedy tokens of its graphs, every dialect.

Arcee is the one more: a file in a temporary folder, beside those that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alm import registry
from alm.artifacts.manifest import Part
from alm.decoder import decoder as running
from alm.session import BackendOptions
from exporters import graph
from tests.one_more import one_more
from tests.products import pairs, some
from tests.wrappers.parts.test_decoders import VARIANTS, make, ours
from wrappers import dialects, llms
from wrappers.checkpoint import llm_files
from wrappers.checkpoint.weights.tensors import open_folder

DIALECTS = registry.names(dialects)
PROMPT, TOKENS = 9, 24


@pytest.fixture
def arcee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The one more LLM, in a folder that the registry also looks in."""
    biases = dict(attention_bias=True, mlp_bias=True)
    monkeypatch.setitem(VARIANTS, "arcee", ("Arcee", biases))
    with one_more(llms, "arcee", tmp_path):
        yield


@torch.no_grad()
def greedy(truth: Any, config: Any, dialect: str, folder: Path) -> tuple[list[int], list[int]]:
    """Our graph's tokens in the runtime, and transformers', after the same prompt of ids."""
    ids = torch.randint(3, 67, (1, PROMPT), generator=torch.Generator().manual_seed(5))
    # Each token once: left alone, a random model says its favourite again and again.
    more: dict[str, Any] = dict(max_new_tokens=TOKENS, do_sample=False, no_repeat_ngram_size=1)
    wanted = truth.generate(ids, pad_token_id=0, eos_token_id=None, **more)[0, PROMPT:].tolist()
    module, path = ours(truth, config, dialect), folder / "decoder.onnx"
    graph.save(graph.trace(module, dynamic_batch=True), path, "decoder")
    session = graph.opened(path, module, BackendOptions("cpu", 1))
    part = Part("decoder", "decoder", (), module.inputs, module.outputs)
    table: Any = llm_files.scaled(truth.get_input_embeddings().weight, module.spec).numpy()
    runs = running.Decoder(session, part, table)
    runs.start(1, PROMPT + TOKENS)
    tokens: list[int] = []
    new = ids[0].numpy()
    for _ in range(TOKENS):
        logits = runs.feed(table[new][None], np.array([len(new)]))
        logits[0, [*ids[0].tolist(), *tokens]] = -np.inf
        tokens.append(int(logits[0].argmax()))
        new = np.array(tokens[-1:])
    return tokens, wanted


NAMES = [
    *("qwen3", "qwen3 with biases and a window", "mistral", "granite"),
    *("smollm3 with a window", "olmo2", "olmo2 with biases, tied"),
    *("phi3", "phi3 turned in part, with a window"),
    *("gemma3", "gemma3 with biases and a cap, not tied"),
    *("qwen3 moe", "mixtral"),
    "qwen3 moe of another activation",
    "qwen2 moe with a window, without biases, normed",
]


# What has more in it stands for the plain one.
PLAIN = {"qwen3", "olmo2", "phi3", "gemma3", "qwen3 moe of another activation"}
SOME = some(NAMES, *(name for name in NAMES if name not in PLAIN))


# test_ort_dialect.py steps the graphs of that dialect against transformers.
@pytest.mark.parametrize(("name", "dialect"), pairs(SOME, ("decomposed", "standard")))
def test_greedy_tokens_of_its_graphs_equal_transformers(
    name: str, dialect: str, tmp_path: Path
) -> None:
    tokens, wanted = greedy(*make(name), dialect, tmp_path)
    assert tokens == wanted


@pytest.mark.parametrize("dialect", some(DIALECTS, "standard"))
def test_one_more_llm_is_one_file(arcee: None, dialect: str, tmp_path: Path) -> None:
    truth, config = make("arcee")
    truth.save_pretrained(tmp_path / "folder")
    spec = llm_files.read_spec(tmp_path / "folder")
    assert spec.mlp and spec.attention is spec.layer is None
    stored = llm_files.named(open_folder(tmp_path / "folder"))
    assert llm_files.faults(spec, stored) == []
    tokens, wanted = greedy(truth, config, dialect, tmp_path)
    assert tokens == wanted
