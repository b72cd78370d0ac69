"""int4gptq: what its codes lose, that they are what is stored, and what an export says of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig

import alm
from alm import targets
from alm.artifacts import manifest
from alm.errors import BadOption
from alm.precision import Wanted, closest_first
from alm.timings import Stages
from exporters import answering, calibration, graph, precisions
from exporters.levers import _compensated, _nbits, int4, int4gptq, int4head8, int4mixed
from exporters.levers._compensated import Compensation
from tests.conftest import run_export
from tests.exporters.test_export import fails
from tests.products import some
from tests.reference import DIGITS, LIBRISPEECH
from tests.wrappers.families import tiny_hf, tiny_qwen3_asr, tiny_voxtral_realtime
from wrappers import Wrapper, open_checkpoint, randomised
from wrappers.dialect import bound
from wrappers.layers.decoder import Decoder
from wrappers.llms import llama, phi3, qwen2_moe

SCHEMES = [int4.SCHEME, int4mixed.SCHEME, _nbits.Scheme(4, 64, symmetric=True)]
WIDE: dict[str, Any] = dict(
    hidden_size=128,
    intermediate_size=224,
    vocab_size=96,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_hidden_layers=2,
)


def inputs(rows: int, width: int, seed: int = 0) -> Tensor:
    """What hangs together, as activations do [rows, width]."""
    chance = torch.Generator().manual_seed(seed)
    ways = torch.randn(width // 6, width, generator=torch.Generator().manual_seed(99))
    few = torch.randn(rows, width // 6, generator=chance)
    return few @ ways + 0.3 * torch.randn(rows, width, generator=chance)


def matrix(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3)) / columns**0.5


def lost(found: _nbits.Quantized, scheme: _nbits.Scheme, w: Tensor, x: Tensor) -> float:
    read = torch.from_numpy(_nbits.dequantize(found, scheme, w.shape[1]))
    return float((x @ (read - w).T).square().mean() / (x @ w.T).square().mean()) ** 0.5


def second(x: Tensor) -> Tensor:
    return x.double().T @ x.double() / len(x)


@pytest.mark.parametrize("loud", [True, False])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("columns", [96, 256, 330])
def test_less_is_lost_of_what_hangs_together_in_the_same_bytes(
    scheme: _nbits.Scheme, columns: int, loud: bool
) -> None:
    w, heard, new = matrix(72, columns), inputs(2000, columns), inputs(500, columns, 1)
    nearest = _nbits.quantize(w, scheme)
    found = _compensated.quantize(w, scheme, Compensation(second(heard), loud))
    for ours, theirs in zip(found, nearest, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert np.array_equal(found.scales, nearest.scales)
    assert np.array_equal(found.zeros, nearest.zeros)
    assert lost(found, scheme, w, heard) < 0.8 * lost(nearest, scheme, w, heard)
    assert lost(found, scheme, w, new) < 0.8 * lost(nearest, scheme, w, new)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("loud", [True, False])
def test_inputs_that_do_not_hang_together_give_the_nearest_codes(
    scheme: _nbits.Scheme, loud: bool
) -> None:
    w = matrix(40, 200)
    sizes = torch.linspace(0.5, 3, 200, dtype=torch.float64)
    for h in (torch.eye(200, dtype=torch.float64), torch.diag(sizes)):
        found = _compensated.quantize(w, scheme, Compensation(h, loud))
        for ours, theirs in zip(found, _nbits.quantize(w, scheme), strict=True):
            assert np.array_equal(ours, theirs)


def test_silence_and_what_is_not_finite_give_the_nearest_codes() -> None:
    w, nan = matrix(8, 64), torch.full((64, 64), float("nan"), dtype=torch.float64)
    for h in (torch.zeros(64, 64, dtype=torch.float64), nan):
        found = _compensated.quantize(w, int4.SCHEME, Compensation(h))
        for ours, theirs in zip(found, _nbits.quantize(w, int4.SCHEME), strict=True):
            assert np.array_equal(ours, theirs)


def test_fewer_rows_than_columns_and_dead_columns_are_no_trouble() -> None:
    w, x = matrix(32, 256), inputs(60, 256)
    x[:, 17] = 0
    found = _compensated.quantize(w, int4.SCHEME, Compensation(second(x)))
    assert lost(found, int4.SCHEME, w, x) < 0.5 * lost(
        _nbits.quantize(w, int4.SCHEME), int4.SCHEME, w, x
    )
    read = _nbits.dequantize(found, int4.SCHEME, 256)
    worst = np.abs(read - w.numpy())[:, 17].max()
    assert worst <= np.abs(w.numpy()).max() / 4  # a column that is not heard is kept as it is


def test_pieces_of_rows_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    w, how = matrix(50, 96), Compensation(second(inputs(400, 96)))
    whole = _compensated.quantize(w, int4.SCHEME, how)
    monkeypatch.setattr(_compensated, "ROWS", 7)
    monkeypatch.setattr(_compensated, "COLUMNS", 40)
    pieces = _compensated.quantize(w, int4.SCHEME, how)
    same = np.mean(pieces.packed == whole.packed)
    assert same > 0.99  # sums in another order, and a code between two is either


def decoder(spec: Any, dialect: str) -> Decoder:
    with bound(dialect):
        return randomised(Decoder(spec))


def listener(part: Decoder) -> Callable[[int], None]:
    """Prompts and a step behind each, of embeddings that hang together."""

    def hear(count: int) -> None:
        for seed in range(count or 6):
            embeds = inputs(40, part.spec.hidden, seed)[None]
            cache = part.fresh(1, 48)
            with torch.no_grad():
                part(embeds, torch.tensor([0]), torch.tensor([40]), *cache)

    return hear


def stored(model: ir.Model) -> dict[str, tuple[np.ndarray, int]]:
    """What every MatMulNBits multiplies with [out, in], and its bits, by the weight's name."""
    found: dict[str, tuple[np.ndarray, int]] = {}
    for node in model.graph:
        if node.op_type != "MatMulNBits":
            continue
        values: Any = [value.const_value.numpy() for value in node.inputs[1:4]]  # pyright: ignore
        bits, block = (node.attributes[n].as_int() for n in ("bits", "block_size"))
        scheme, columns = _nbits.Scheme(bits, block), node.attributes["K"].as_int()
        name = str(node.inputs[1].name).rpartition(".q")[0]  # pyright: ignore
        found[name] = _nbits.dequantize(_nbits.Quantized(*values), scheme, columns), bits
    return found


GRAPHS = [*product(("llama", "phi3"), ("ort", "standard", "decomposed"))]


@pytest.mark.parametrize(
    ("kind", "dialect"),
    some(GRAPHS, ("llama", "ort"), ("phi3", "standard"), ("llama", "decomposed")),
)
def test_the_graph_holds_what_the_lever_chose(kind: str, dialect: str) -> None:
    spec = llama.spec(LlamaConfig(**WIDE)) if kind == "llama" else phi3.tiny()
    part = decoder(spec, dialect)
    traced = graph.trace(part, dynamic_batch=True)
    plain = int4head8.Lever().rewrite(traced.clone(), "decoder")
    lever = int4gptq.Lever()
    lever.calibrate(part, listener(part))
    assert lever.findings["compensated"]["linears"] == len(lever._codes)
    model = lever.rewrite(traced, "decoder")
    assert [node.op_type for node in model.graph] == [node.op_type for node in plain.graph]
    assert graph.weight_bytes(model) == graph.weight_bytes(plain)
    ours, theirs = stored(model), stored(plain)
    assert ours.keys() == theirs.keys()
    chosen = dict(lever._codes)
    other = 0
    for name, (weights, bits) in ours.items():
        if bits == 8:
            assert name.startswith("lm_head") and np.array_equal(weights, theirs[name][0])
            continue
        first, rows = name.removesuffix(".joined"), len(weights)
        names = [n for n in chosen if n == first]
        while sum(len(chosen[n].scales) for n in names) < rows:  # queries, keys, values in one
            names.append(list(chosen)[list(chosen).index(names[-1]) + 1])
        of = [_nbits.dequantize(chosen.pop(n), int4.SCHEME, weights.shape[1]) for n in names]
        assert np.array_equal(weights, np.concatenate(of))
        other += not np.array_equal(weights, theirs[name][0])
    assert not chosen and other == len(ours) - 1


def test_codes_lose_less_of_a_decoders_logits_than_the_nearest() -> None:
    part = decoder(llama.spec(LlamaConfig(**WIDE)), "standard")
    lever = int4gptq.Lever()
    lever.calibrate(part, listener(part))
    embeds, seen = inputs(40, 128, 50)[None], {}

    def logits() -> Tensor:
        cache = part.fresh(1, 48)
        return part(embeds, torch.tensor([0]), torch.tensor([40]), *cache)[0]

    want = logits()
    weights = {n: part.get_parameter(n).detach().clone() for n in lever._codes}
    for way in ("nearest", "ours"):
        for name, w in weights.items():
            found = lever._codes[name] if way == "ours" else _nbits.quantize(w, int4.SCHEME)
            read = _nbits.dequantize(found, int4.SCHEME, w.shape[1])
            part.get_parameter(name).data.copy_(torch.from_numpy(read))
        seen[way] = float((logits() - want).square().mean())
    assert seen["ours"] < seen["nearest"]


def test_experts_and_what_is_not_heard_have_the_codes_of_int4head8() -> None:
    part = decoder(qwen2_moe.tiny(), "ort")
    lever = int4gptq.Lever()
    lever.calibrate(part, listener(part))
    traced = graph.trace(part, dynamic_batch=True)
    model = lever.rewrite(traced.clone(), "decoder")
    plain = int4head8.Lever().rewrite(traced.clone(), "decoder")
    ours, theirs = ({n: v for n, v in m.graph.initializers.items()} for m in (model, plain))
    assert ours.keys() == theirs.keys()
    same = {n for n in ours if np.array_equal(_values(ours[n]), _values(theirs[n]))}
    assert {n for n in ours if "experts" in n} <= same
    unheard = int4gptq.Lever().rewrite(traced, "decoder")
    values = unheard.graph.initializers
    assert all(np.array_equal(_values(values[n]), _values(theirs[n])) for n in theirs)


def _values(value: Any) -> np.ndarray:
    return value.const_value.numpy()


def test_other_parts_are_left_to_int8_and_nothing_is_heard() -> None:
    class Encoder(Wrapper):
        role = "encoder"

    def hear(_: int) -> None:
        raise AssertionError("an encoder is not fitted")

    lever = int4gptq.Lever()
    lever.calibrate(Encoder(), hear)
    assert not lever.findings
    pulled = precisions.pull("lowrank+int4gptq+kv8")
    assert pulled.listens("encoder") and pulled.listens("decoder") and not pulled.listens("bridge")


def test_no_target_and_no_plan_takes_it_unasked() -> None:
    levers = precisions.declared()
    assert levers["int4gptq"]["decoder"].layers == levers["int4head8"]["decoder"].layers
    goal = targets.find("cpu")
    assert targets.automatic(goal, "decoder", levers) == "int4head8"
    assert targets.find_lever(goal, "decoder", levers, Wanted(4, 8)) == "int4head8"
    assert "int4gptq" in closest_first(levers, "decoder")
    assert "int4gptq" not in closest_first(levers, "decoder", unasked=True)


def test_margins_and_circles_are_counted() -> None:
    Said = answering.Said
    circling, straight = Said((1, 2, 3, 4) * 3, 2.0), Said((1, 2, 3, 4) * 2, 3.0)
    assert circling.circles and not straight.circles and not Said((), -1.0).circles
    found = answering.compared([straight, straight], [circling, Said((), -0.5)])
    assert found == {
        "answers": 2,
        "equal": 0.0,
        "least_margin": {"original": 3.0, "graph": -0.5},
        "missing": {"original": 0.0, "graph": 0.5},
        "circling": {"original": 0.0, "graph": 0.5},
    }
    none = Said((), -3.0)
    found = answering.compared([straight, none], [straight, none])
    assert found["least_margin"] == {"original": 3.0, "graph": 3.0} and found["equal"] == 1
    assert answering.compared([none], [none])["least_margin"]["graph"] == -3.0


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for path in DIGITS[:3]:
        shutil.copy(path, folder)
    return folder


def test_clips_are_wanted(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", checkpoint, "--out", tmp_path / "out", "--precision", "int4gptq")
    said = fails(capsys, 2, *words)
    assert "precision int4gptq of part decoder is fitted to what is heard" in said
    assert "--calibrate DIR" in said


@pytest.mark.parametrize(
    ("family", "why"), [(tiny_voxtral_realtime, "hears a stream"), (None, "has no task")]
)
def test_models_that_are_asked_nothing_are_refused(
    family: Any, why: str, clips: Path, tmp_path: Path
) -> None:
    if family:
        family.make(tmp_path / "model")
    else:
        tiny_qwen3_asr.aligner(tmp_path / "model")
    opened = open_checkpoint(tmp_path / "model")
    found = calibration.find(clips, opened.facts)
    part = opened.part("decoder", "ort")
    with pytest.raises(BadOption, match=f"part decoder cannot be fitted to clips yet: .*{why}"):
        answering.Audience(opened, "ort", "decoder", part, found)


def test_an_export_says_how_it_answers_in_the_same_bytes_each_time(
    checkpoint: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[dict[str, bytes]] = []
    for name in ("one", "other"):
        out = tmp_path / name
        words = ["--model", checkpoint, "--out", out, "--part", "decoder", "--dynamic-batch"]
        run_export(*words, "--precision", "fp32,decoder=int4gptq+kv8", "--calibrate", clips)
        made.append({p.name: p.read_bytes() for p in out.iterdir() if ".onnx" in p.name})
    assert made[0] == made[1]
    assert "answers" in capsys.readouterr().err
    (part,) = manifest.load(tmp_path / "one").parts
    assert part.storage.cache == "int8" and part.storage.fitted
    assert part.measured["calibrated"]["clips"] == 3
    assert part.measured["compensated"]["linears"]
    answers = part.measured["answers"]
    assert answers["answers"] >= 3 and 0 <= answers["equal"] <= 1
    assert all(np.isfinite(margin) for margin in answers["least_margin"].values())
    assert part.measured["parity"]["verdict"] == "within bound"


@pytest.mark.parametrize("dialect", some(["standard", "ort"], "ort"))
def test_what_a_decoder_hears_is_what_the_runtime_feeds(dialect: str, tmp_path: Path) -> None:
    """The float32 graphs of a Qwen2-Audio answer as the module does, and as `alm` answers."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for path in (LIBRISPEECH[0], DIGITS[0]):  # the first is longer than the window
        shutil.copy(path, clips)
    tiny_hf.qwen2_audio(tmp_path / "model", 8)
    opened = open_checkpoint(tmp_path / "model")
    found = calibration.find(clips, opened.facts)
    part = opened.part("decoder", dialect).eval()
    audience = answering.Audience(opened, dialect, "decoder", part, found)
    audience.hear()
    out = tmp_path / "out"
    run_export("--model", tmp_path / "model", "--out", out, "--dialect", dialect)
    (held,) = [p for p in manifest.load(out).parts if p.role == "decoder"]
    graphs = audience.answers(out / held.files[0].name, held.inputs, held.outputs)
    assert [said.ids for said in graphs] == [said.ids for said in audience.said]
    assert len(audience.said) >= len(found.paths)
    model = alm.load(out)
    tasks, number = list(opened.facts.prompt.tasks), 0
    plain: dict[str, Any] = dict(max_new_tokens=answering.MOST_TOKENS, repetition_penalty=1.0)
    for path in found.paths:
        rules = model.parts.rules
        for piece in rules.windows(rules.read(path, 3600.0, Stages()), truncate=False)[0]:
            answer = model.generate(piece.pcm, tasks[number % len(tasks)], **plain)
            ids = [token for token in answer.token_ids if token not in model.parts.eos]
            assert tuple(ids) == audience.said[number].ids
            number += 1
    (feed, *_) = audience.feeds(2)
    assert feed["past_lengths"].tolist() == [0]
    assert feed["inputs_embeds"].shape[1] == feed["seq_lengths"][0]
