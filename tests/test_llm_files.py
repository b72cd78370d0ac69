"""An LLM's file may bring its own attention and layer: greedy tokens of its graphs, every dialect.

Olmo 2 is the one more: a file in a temporary folder, beside those that are there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_decoders import VARIANTS, make, ours

from alm import registry
from alm.artifacts.manifest import Part
from alm.backends import ort
from alm.generation import pipeline
from alm.session import EngineOptions, OneRowChunks
from exporters import graph
from wrappers import dialects, llms
from wrappers.checkpoint import llm_files
from wrappers.checkpoint.weights.tensors import open_folder

DIALECTS = registry.names(dialects)
PROMPT, TOKENS = 9, 24

OLMO2 = '''"""Olmo 2: norms after attention and MLP, and of all of q and k together."""

from transformers import Olmo2Config

from wrappers.layers import decoder
from wrappers.layers.spec import Spec


class Attention(decoder.Attention):
    def __init__(self, spec, window):
        super().__init__(spec, window)
        self.q_norm = decoder.Norm(spec.heads * spec.head_dim, spec.eps, 0.0)
        self.k_norm = decoder.Norm(spec.kv_heads * spec.head_dim, spec.eps, 0.0)

    def before_rope(self, q, k):
        return self.q_norm(q), self.k_norm(k)


class Layer(decoder.Layer):
    def __init__(self, spec, window):
        super().__init__(spec, window)
        del self.input_layernorm
        self.post_feedforward_layernorm = decoder.Norm(spec.hidden, spec.eps, 0.0)

    def forward(self, x, *context):
        y, key, value = self.self_attn(x, *context)
        x = x + self.post_attention_layernorm(y)
        return x + self.post_feedforward_layernorm(self.mlp(x)), key, value


def spec(config):
    return Spec.of(config, activation=config.hidden_act, attention=Attention, layer=Layer)


def tiny():
    sizes = dict(hidden_size=32, intermediate_size=48, vocab_size=67, num_hidden_layers=2)
    return spec(Olmo2Config(**sizes, num_attention_heads=4, max_position_embeddings=64))
'''


@pytest.fixture
def olmo2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The one more LLM, in a folder that the registry also looks in."""
    folder = tmp_path / "llms"
    folder.mkdir()
    (folder / "olmo2.py").write_text(OLMO2, "utf-8")
    llms.__path__.append(str(folder))
    monkeypatch.setitem(VARIANTS, "olmo2", ("Olmo2", {}))
    yield
    llms.__path__.remove(str(folder))
    sys.modules.pop("wrappers.llms.olmo2", None)


@torch.no_grad()
def greedy(truth: Any, config: Any, dialect: str, folder: Path) -> tuple[list[int], list[int]]:
    """Our graph's tokens in the runtime, and transformers', after the same prompt of ids."""
    ids = torch.randint(3, 67, (1, PROMPT), generator=torch.Generator().manual_seed(5))
    # Each token once: left alone, a random model says its favourite again and again.
    more: dict[str, Any] = dict(max_new_tokens=TOKENS, do_sample=False, no_repeat_ngram_size=1)
    wanted = truth.generate(ids, pad_token_id=0, eos_token_id=None, **more)[0, PROMPT:].tolist()
    module, path = ours(truth, config, dialect), folder / "decoder.onnx"
    graph.save(graph.trace(module, dynamic_batch=True), path, "decoder")
    session = ort.open_session(path, EngineOptions("cpu", 1))
    part = Part("decoder", "decoder", (), module.inputs, module.outputs)
    table = truth.get_input_embeddings().weight.numpy()
    runs = pipeline.Decoder(OneRowChunks(session) if module.chunk_rows else session, part, table)
    runs.start(1, PROMPT + TOKENS)
    tokens: list[int] = []
    new = ids[0].numpy()
    for _ in range(TOKENS):
        logits = runs.feed(table[new][None], np.array([len(new)]))
        logits[0, [*ids[0].tolist(), *tokens]] = -np.inf
        tokens.append(int(logits[0].argmax()))
        new = np.array(tokens[-1:])
    return tokens, wanted


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ["qwen3", "qwen3 with biases and a window", "mistral"])
def test_greedy_tokens_of_its_graphs_equal_transformers(
    name: str, dialect: str, tmp_path: Path
) -> None:
    tokens, wanted = greedy(*make(name), dialect, tmp_path)
    assert tokens == wanted


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_more_llm_is_one_file(olmo2: None, dialect: str, tmp_path: Path) -> None:
    truth, config = make("olmo2")
    truth.save_pretrained(tmp_path / "folder")
    spec = llm_files.read_spec(tmp_path / "folder")
    assert spec.attention and spec.layer
    stored = llm_files.named(open_folder(tmp_path / "folder"))
    assert llm_files.faults(spec, stored) == []
    tokens, wanted = greedy(truth, config, dialect, tmp_path)
    assert tokens == wanted
