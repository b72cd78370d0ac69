"""The dialect of ONNX Runtime's own operators, as the runtime drives it: a cache written in place.

Its graphs against transformers and against the torch module, which test_decoders.py compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from alm.artifacts.manifest import File, Part
from alm.backends import ort
from alm.decoder import decoder as running
from alm.errors import BadArtifacts
from alm.onnxfile import summary
from alm.session import BackendOptions, Session
from exporters import graph
from tests.products import some
from tests.wrappers.parts.test_decoders import VARIANTS, make, ours
from wrappers.layers.decoder import Decoder
from wrappers.layers.decoder_layers import Norm

ROOM = 64  # positions of a row, and of the cache
NO_TABLE: Any = None  # embeddings are fed


class Exported(NamedTuple):
    """A tiny LLM three times: transformers', ours in torch, and ours as a graph."""

    truth: Any
    module: Decoder
    path: Path
    session: Session

    @property
    def hidden(self) -> int:
        return self.module.spec.hidden

    def start(self, rows: int, room: int = ROOM) -> running.Decoder:
        """The graph behind an empty cache."""
        part = Part("decoder", "decoder", (), self.module.inputs, self.module.outputs)
        runs = running.Decoder(self.session, part, NO_TABLE)
        runs.start(rows, room)
        return runs


ONE = BackendOptions("cpu", 1)
Export = Callable[[str, str], Exported]

# The others differ from these in numbers only.
EVERY = [name for name in VARIANTS if name not in ("llama", "linear", "yarn", "qwen2")]
# Of the rest test_llm_files.py steps graphs in other dialects.
SOME = some(
    EVERY,
    *("llama3", "dynamic", "qwen3 with biases and a window", "granite", "smollm3 with a window"),
    *("olmo2 with biases, tied", "phi3 turned in part, with a window"),
    *("gemma3 with biases and a cap, not tied", "qwen3 moe of another activation"),
)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """A variant by name and dtype of its cache, exported once."""

    @cache
    @torch.no_grad()
    def made(name: str, held: str) -> Exported:
        truth, config = make(name)
        module, path = ours(truth, config, "ort"), tmp_path_factory.mktemp("ort") / "decoder.onnx"
        if held == "int8":
            module.calibrate(torch.randn(60, config.hidden_size))
        module.keep_state_in(held)
        graph.save(graph.trace(module, dynamic_batch=True), path, "decoder")
        return Exported(truth, module, path, graph.opened(path, module, ONE))

    return made


@pytest.fixture(scope="module", params=SOME)
def variant(request: pytest.FixtureRequest, export: Export) -> Exported:
    return export(request.param, "float32")


@pytest.fixture(scope="module")
def llama(export: Export) -> Exported:
    return export("llama3", "float32")


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def embeds(model: Exported, rows: int, seq: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed)
    return noise.standard_normal((rows, seq, model.hidden)).astype(np.float32)


def feed(runs: running.Decoder, new: np.ndarray, lengths: list[int] | None = None) -> np.ndarray:
    """Logits [rows, vocab] after `new`, all of it real where no lengths are given."""
    return runs.feed(new, np.array(lengths or [new.shape[1]] * len(new)))


class Eager:
    """The torch module, its rows one by one and with no padding."""

    def __init__(self, model: Exported, rows: int) -> None:
        self.module, self.lengths = model.module, [0] * rows
        self.caches: list[list[Tensor]] = [model.module.fresh(1, ROOM) for _ in range(rows)]

    def feed(self, new: np.ndarray, lengths: list[int]) -> np.ndarray:
        said = []
        for row, length in enumerate(lengths):
            counts = torch.tensor([self.lengths[row]]), torch.tensor([length])
            piece = torch.from_numpy(new[row : row + 1, :length])
            logits, *self.caches[row] = self.module(piece, *counts, *self.caches[row])
            self.lengths[row] += length
            said.append(logits[:, 0].numpy())
        return np.concatenate(said)


def off(got: np.ndarray, want: np.ndarray) -> float:
    """The worst error, as a share of the largest value."""
    return float(np.abs(got - want).max() / np.abs(want).max())


def test_prompt_chunk_and_steps_equal_transformers(variant: Exported) -> None:
    kind = variant.module.rope.kind
    new, pieces = embeds(variant, 2, 12), [7, 3, 1, 1]
    runs, done, wanted, got = variant.start(2), 0, [], []
    for piece in pieces:
        got.append(feed(runs, new[:, done : done + piece]))
        done += piece
        if kind not in ("dynamic", "longrope"):  # see test_decoders.py for those
            seen = torch.from_numpy(new[:, :done])
            wanted.append(variant.truth(inputs_embeds=seen, use_cache=False).logits[:, -1].numpy())
    if wanted:
        assert off(np.stack(got), np.stack(wanted)) < 2e-5


def test_padded_rows_of_different_length_equal_themselves_alone(variant: Exported) -> None:
    runs, alone = variant.start(3), Eager(variant, 3)
    calls = ([9, 4, 1], [1, 1, 1], [1, 1, 1], [3, 1, 2], [1, 1, 1], [2, 5, 1], [1, 1, 1])
    for seed, lengths in enumerate(calls):
        new = embeds(variant, 3, max(lengths), seed)
        assert off(feed(runs, new, lengths), alone.feed(new, lengths)) < 1e-5, (seed, lengths)


def test_a_row_may_begin_with_one_token_and_fill_its_room(llama: Exported) -> None:
    runs, alone = llama.start(2), Eager(llama, 2)
    for seed, lengths in enumerate(([1, 1], [1, 1], [5, 2], [ROOM - 8, 1], [1, 1])):
        new = embeds(llama, 2, max(lengths), seed)
        assert off(feed(runs, new, lengths), alone.feed(new, lengths)) < 1e-5, (seed, lengths)
    assert runs.lengths.tolist() == [ROOM, 6]
    assert all(runs.session.fetch(k).shape[2] == ROOM for k in runs.cache.kept.values())  # pyright: ignore


def test_what_lies_behind_a_row_is_never_read(llama: Exported) -> None:
    said = []
    for rubbish in (0.0, np.nan):
        runs = llama.start(2)
        for name in runs.cache.kept:
            runs.session.fetch(runs.cache.kept[name])[:] = rubbish  # pyright: ignore
        calls = ([6, 2], [1, 1], [1, 3], [1, 1])
        said.append([feed(runs, embeds(llama, 2, max(c), i), c) for i, c in enumerate(calls)])
    for clean, dirty in zip(*said, strict=True):
        np.testing.assert_array_equal(clean, dirty)


def test_a_step_writes_its_own_slots_and_moves_nothing(llama: Exported) -> None:
    runs = llama.start(2)
    feed(runs, embeds(llama, 2, 6), [6, 3])
    arrays: dict[str, np.ndarray] = {n: runs.session.fetch(k) for n, k in runs.cache.kept.items()}  # pyright: ignore
    before = {name: array.copy() for name, array in arrays.items()}
    feed(runs, embeds(llama, 2, 1, seed=1))
    for name, kept in runs.cache.kept.items():
        after: np.ndarray = runs.session.fetch(kept)  # pyright: ignore
        assert after.ctypes.data == arrays[name].ctypes.data
        changed = (after != before[name]).any((1, 3))
        assert [np.flatnonzero(row).tolist() for row in changed] == [[6], [3]]


def test_rows_that_change_places_go_on_as_what_they_became(llama: Exported) -> None:
    runs = llama.start(3)
    prompt, steps = embeds(llama, 3, 5), embeds(llama, 3, 2, seed=1)
    feed(runs, prompt)
    feed(runs, steps[:, :1])
    runs.reorder(np.array([2, 0, 0]))
    got = feed(runs, steps[:, 1:])
    joined = np.concatenate((prompt, steps[:, :1]), 1)[[2, 0, 0]]
    assert off(got, feed(llama.start(3), np.concatenate((joined, steps[:, 1:]), 1))) < 1e-5


def test_the_operator_refuses_what_is_fed_row_by_row(llama: Exported) -> None:
    """As soon as it does not, CHUNK_ROWS can go."""
    runs, file = llama.start(2), File(llama.path.name, 0, "")
    runs.session = ort.open_session(Part("decoder", "decoder", (file,)), llama.path.parent, ONE)
    feed(runs, embeds(llama, 2, 4))
    with pytest.raises(BadArtifacts, match="batch_size must be 1 when sequence_length > 1"):
        feed(runs, embeds(llama, 2, 2))


def test_queries_keys_and_values_are_one_product_and_heads_one_node(variant: Exported) -> None:
    nodes, spec = summary.read(variant.path).nodes, variant.module.spec
    assert nodes["com.microsoft::GroupQueryAttention"] == spec.layers
    assert nodes["com.microsoft::RotaryEmbedding"] == 2 * spec.layers
    dense = [layer.mlp for layer in variant.module.model.layers if not hasattr(layer.mlp, "gate")]
    mlps = sum(isinstance(each, nn.Linear) for mlp in dense for each in mlp.modules())  # pyright: ignore
    products, least = nodes["MatMul"] + nodes.get("Gemm", 0), 2 * spec.layers + mlps + 1
    assert products >= least if len(dense) < spec.layers else products == least
    routers = {"Softmax", "Where"} if len(dense) < spec.layers else set()
    often = {n for n in nodes if nodes[n] >= spec.layers}
    assert not {"Transpose", "Softmax", "Where"} & often - routers


def test_the_graph_is_valid_and_a_norm_is_one_node_once_loaded(
    variant: Exported, tmp_path: Path
) -> None:
    onnx.checker.check_model(variant.path)
    settings, loaded = onnxruntime.SessionOptions(), tmp_path / "loaded.onnx"
    settings.optimized_model_filepath, settings.log_severity_level = str(loaded), 3
    onnxruntime.InferenceSession(variant.path, settings, providers=["CPUExecutionProvider"])
    nodes, spec = summary.read(loaded).nodes, variant.module.spec
    norms = sum(isinstance(each, Norm) for each in variant.module.modules())
    assert nodes["SimplifiedLayerNormalization"] == norms >= 2 * spec.layers + 1
    # `dynamic` rope has two powers, of how much its base grows with the length and of that base.
    rope: Any = variant.module.rope
    assert nodes.get("Pow", 0) == (2 if rope.kind == "dynamic" else 0) and "Sqrt" not in nodes


@pytest.fixture(scope="module", params=["llama3", "llama with its own head size", "gemma2"])
def integer(request: pytest.FixtureRequest, export: Export) -> tuple[Exported, Exported]:
    """The same LLM with a cache of int8, and of float32."""
    return export(request.param, "int8"), export(request.param, "float32")


def test_a_cache_of_int8_costs_little(integer: tuple[Exported, Exported]) -> None:
    ours, plain = (each.start(3) for each in integer)
    for seed, lengths in enumerate(([9, 4, 1], [1, 1, 1], [3, 1, 2], [1, 1, 1], [1, 1, 1])):
        new = embeds(integer[0], 3, max(lengths), seed)
        assert off(feed(ours, new, lengths), feed(plain, new, lengths)) < 0.1, (seed, lengths)


def test_a_cache_of_int8_holds_the_rounded_one(integer: tuple[Exported, Exported]) -> None:
    ours, plain = (each.start(2) for each in integer)
    new = embeds(integer[0], 2, 7)
    for runs in (ours, plain):
        feed(runs, new)
    scales = integer[0].module.state_scales
    name = "past_key_values.0.value"  # of the first layer, which no rounding came before
    held, exact = (r.session.fetch(r.cache.kept[name])[:, :, :7] for r in (ours, plain))  # pyright: ignore
    assert held.dtype == np.int8
    steps = np.clip(exact / scales[name].numpy(), -128, 127)
    assert np.abs(held - steps).max() <= 0.501


def test_a_cache_of_int8_is_written_in_place_and_its_rows_change_places(
    integer: tuple[Exported, Exported],
) -> None:
    runs, prompt = integer[0].start(2), embeds(integer[0], 2, 6)
    feed(runs, prompt)
    places = [runs.session.fetch(k).ctypes.data for k in runs.cache.kept.values()]  # pyright: ignore
    runs.reorder(np.array([1, 0]))
    step = embeds(integer[0], 2, 1, seed=1)
    got = feed(runs, step)
    assert places == [runs.session.fetch(k).ctypes.data for k in runs.cache.kept.values()]  # pyright: ignore
    again = integer[0].start(2)
    feed(again, prompt[::-1].copy())
    np.testing.assert_array_equal(got, feed(again, step))
