"""prune: what is left is the whole without what went, whatever a part is made of."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor

import alm
import wrappers
from alm.artifacts import manifest
from alm.errors import BadOption
from alm.facts import Facts
from exporters import feeds, graph, parity, precisions
from exporters import part as part_step
from exporters.bundle import Bundle
from exporters.levers import prune
from exporters.levers._scores import by_norm, by_taylor, by_weights, scaled, staying
from exporters.levers._structures import CHANNELS, HEADS, Site, sites
from tests.conftest import run_export
from tests.exporters.test_export import fails
from tests.products import some
from wrappers import Checkpoint, Wrapper
from wrappers.checkpoint.weights.hollow import attach, hollow
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.dialect import bound
from wrappers.encoders import hubert
from wrappers.layers.decoder import Decoder

ENCODERS = [*wrappers.with_role("encoder"), "wavlm"]
LLMS = wrappers.with_role("llm")
NO_HEADS = {"wavlm", "voxtral_realtime", "olmo2"}  # heads that hang together


def encoder(name: str) -> Wrapper:
    if name == "wavlm":
        return hubert.tiny(name)
    return wrappers.pick_role("encoder", name).tiny()


def decoder(name: str, dialect: str = "ort") -> Decoder:
    with bound(dialect):
        return wrappers.randomised(Decoder(wrappers.pick_role("llm", name).tiny()))


def made(name: str) -> Wrapper:
    return decoder(name) if name in LLMS else encoder(name)


def embeds(part: Wrapper) -> Any:
    width = part.spec.hidden if isinstance(part, Decoder) else 1
    return lambda: torch.randn(60, width, generator=torch.Generator().manual_seed(2))


def hear(part: Wrapper) -> Any:
    def run(count: int) -> None:
        for seed in range(count or 4):
            sizes = list(feeds.cases(part.inputs, part.spans, True))[-1]
            example = feeds.make(part.inputs, part.spans, sizes, seed)
            with torch.no_grad():
                part(*(torch.from_numpy(array) for array in example.values()))

    return run


def half(site: Site) -> Tensor:
    """Every other unit, and not the first."""
    return torch.arange(1, site.units, 2)


def silence(part: Wrapper, every: list[Site]) -> None:
    """Zeros in all that units other than those of `half` are made of."""
    for site in every:
        gone = torch.tensor([u for u in range(site.units) if u not in half(site).tolist()])
        for piece in site.pieces:
            if not piece.name.endswith("grep_a"):
                index = piece.index(gone)
                part.get_parameter(piece.name).index_fill_(piece.axis, index, 0.0)


def numbers(part: Wrapper) -> int:
    return sum(weight.numel() for weight in part.parameters())


def off(part: Wrapper, truth: parity.Truth) -> float:
    """The worst error of the module as it is now, as a share of the largest value above 1."""
    worst = 0.0
    for example, wanted in truth.cases():
        fed = [truth.fed(name, example, port) for name, port in part.inputs.items()]
        with torch.no_grad():
            made = part(*(torch.from_numpy(np.ascontiguousarray(array)) for array in fed))
        outputs = made if isinstance(made, tuple) else (made,)
        for got, want in zip(outputs, wanted, strict=True):
            assert got.shape == want.shape
            error = np.abs(got.double().numpy() - want).max(initial=0.0)
            worst = max(worst, error / max(1.0, np.abs(want).max(initial=0.0)))
    return worst


def pruned(part: Wrapper, **settings: Any) -> tuple[prune.Lever, dict[str, Tensor]]:
    lever = prune.Lever(**settings)
    listen = None if isinstance(part, Decoder) else hear(part)
    return lever, lever.shrink(part, embeds(part), listen)


@pytest.mark.parametrize("name", [*ENCODERS, *LLMS])
def test_units_of_zeros_go_first_and_change_nothing(name: str) -> None:
    part = made(name)
    every = sites(part)
    assert ({site.kind for site in every} == {CHANNELS}) == (name in NO_HEADS)
    silence(part, every)
    truth, before = parity.Truth(part, True), numbers(part)
    lever, ports = pruned(part, ratio=0.5, multiple=1)
    for kind in (HEADS, CHANNELS):
        units = [s.units for s in every if s.kind == kind]
        left = [lever.findings["prune"]["kept"][s.path][0] for s in every if s.kind == kind]
        assert sum(units) - sum(left) == int(0.5 * sum(units))
    assert numbers(part) < before
    assert lever.findings["prune"]["weights"] == round(numbers(part) / before, 4)
    truth.shrunk(part, ports)
    assert off(part, truth) < 1e-5


@pytest.mark.parametrize(
    ("name", "dialect"),
    [("llama", "ort"), ("phi3", "standard"), ("qwen", "decomposed"), ("beats", "")],
)
def test_the_graph_is_the_whole_without_the_units(name: str, dialect: str, tmp_path: Path) -> None:
    part = decoder(name, dialect) if dialect else encoder(name)
    silence(part, sites(part))
    truth, before = parity.Truth(part, True), numbers(part)
    _, ports = pruned(part, ratio=0.5, multiple=1)
    truth.shrunk(part, ports)
    model = graph.trace(part, True)
    assert graph.weight_bytes(model) < 4.2 * before
    graph.save(model, tmp_path / "p.onnx", part.role)
    measured = parity.measure(tmp_path / "p.onnx", truth, part.inputs)
    assert min(measured.worst_abs, measured.worst_rel) < 1e-5
    heads = [port.axes[1] for n, port in part.inputs.items() if n.startswith("past_key_values.1")]
    assert heads == ([2, 2] if name == "qwen" else [1, 1] if dialect else [])


@pytest.mark.parametrize("name", ["whisper", "llama"])
def test_a_ratio_of_nothing_is_the_whole_to_the_byte(name: str, tmp_path: Path) -> None:
    part = made(name)
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path in paths:
        graph.save(graph.trace(part, True), path, "encoder")
        _, ports = pruned(part, ratio=0.0, by="weights")
        assert not ports
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("name", ["whisper", "glmasr", "qwen3"])
def test_a_ratio_is_kept_to(name: str, ratio: float) -> None:
    for multiple in (1, 8):
        part = made(name)
        every = sites(part)
        lever, _ = pruned(part, ratio=ratio, multiple=multiple)
        found = lever.findings["prune"]["kept"]
        for kind in (HEADS, CHANNELS):
            here = [site for site in every if site.kind == kind]
            units = sum(site.units for site in here)
            left = sum(found[site.path][0] for site in here)
            if multiple == 1:
                assert left == max(units - int(ratio * units), len(here))
            assert left >= units - ratio * units - 1e-9
        channels = [found[site.path][0] for site in every if site.kind == CHANNELS]
        assert all(count >= 1 and count % multiple == 0 for count in channels)


def test_norm_and_weights_are_those_of_all_rows_and_columns_of_a_unit() -> None:
    part = made("qwen2")
    (site,) = [s for s in sites(part) if s.path == "model.layers.0.self_attn"]
    attention: Any = part.get_submodule(site.path)
    q, k, v, o = (getattr(attention, f"{n}_proj").weight for n in "qkvo")
    d = 8  # of a head; each of keys and values has two of queries
    units = [
        torch.cat([w[at * d * n : (at + 1) * d * n].flatten() for w, n in ((q, 2), (k, 1), (v, 1))])
        for at in range(2)
    ]
    units = [torch.cat((u, o[:, 16 * i : 16 * i + 16].flatten())) for i, u in enumerate(units)]
    norms = torch.stack([u.double().norm() for u in units])
    means = torch.stack([u.double().abs().mean() for u in units])
    assert torch.allclose(by_norm(part, [site])[site.path], norms / norms.mean())
    assert torch.allclose(by_weights(part, [site])[site.path], means / means.mean())


def test_taylor_is_how_far_the_output_moves_with_a_unit() -> None:
    part = encoder("whisper")
    every = sites(part)
    example = feeds.make(part.inputs, part.spans, {"batch": 1}, 3)
    fed = [torch.from_numpy(array) for array in example.values()]

    def listen(_: int) -> None:
        for _ in range(100):
            part(*fed)

    scores = by_taylor(part, every, listen)
    assert "forward" not in part.__dict__ and not any(p.requires_grad for p in part.parameters())
    whole = part(*fed)
    for site in every[:2]:
        for unit in (0, 1):
            gates = {s.path: torch.ones(s.units) for s in every}
            gates[site.path][unit] = 1 - 1e-2
            with scaled(part, every, gates.__getitem__):
                moved = float((part(*fed) - whole).norm() / whole.norm()) / 1e-2
            assert float(scores[site.path][unit]) == pytest.approx(moved, rel=0.25)


def idle(part: Wrapper, layer: str) -> None:
    """A layer that gives back what it is given."""
    for site in sites(part):
        if site.path.startswith(layer):
            for _, weight in part.get_submodule(site.out).named_parameters():
                weight.zero_()


@pytest.mark.parametrize(
    "name", ["whisper", "glmasr", "glm4_voice", "qwen3_asr", "llama", "gemma2"]
)
def test_a_layer_that_changes_nothing_goes_first(name: str, tmp_path: Path) -> None:
    part = made(name)
    layer = "model.layers.1" if name in LLMS else "layers.0"
    idle(part, layer)
    truth = parity.Truth(part, True)
    lever, ports = pruned(part, ratio=0.0, layers=1)
    assert lever.findings["prune"]["layers"] == [layer]
    assert lever.findings["prune"]["likeness"][layer] == pytest.approx(1, abs=1e-4)
    truth.shrunk(part, ports)
    assert off(part, truth) < 1e-5
    if isinstance(part, Decoder):
        assert not any(".1." in port for port in (*part.inputs, *part.outputs))
        assert part.spec.at(1).kv_heads == 0 and part.spec.kv_heads == 2
        model = graph.trace(part, True)
        graph.save(model, tmp_path / "p.onnx", part.role)
        measured = parity.measure(tmp_path / "p.onnx", truth, part.inputs)
        assert min(measured.worst_abs, measured.worst_rel) < 1e-5


def test_layers_that_hand_on_more_stay() -> None:
    part = encoder("wavlm")
    lever, _ = pruned(part, ratio=0.0, layers=1)
    assert lever.findings["prune"]["layers"] == ["encoder.layers.1"]  # the first makes the bias
    with pytest.raises(BadOption, match="only 0 hand on nothing but what they were given"):
        pruned(encoder("voxtral_realtime"), layers=1)
    with pytest.raises(BadOption, match="layers=2 is all of 2 layers; leave one"):
        pruned(encoder("whisper"), layers=2)


@pytest.mark.parametrize("name", ["whisper", "llama"])
@pytest.mark.parametrize("by", prune.BY)
def test_a_budget_is_kept_to(name: str, by: str) -> None:
    part = made(name)
    told = hear(part) if name == "whisper" else prune._shown(part, embeds(part))  # pyright: ignore
    truth = prune._Truth(part, told)
    lever, _ = pruned(part, budget=0.3, by=by, multiple=1)
    assert 0 < lever.findings["prune"]["ratio"] < prune.MOST
    if isinstance(part, Decoder):  # whose cache has other ports now
        assert lever.findings["dimensions"] == {
            "heads": part.spec.heads,
            "kv_heads": part.spec.kv_heads,
        }
        return
    assert 0.02 < truth.off(part) <= 0.3 + 1e-6


def test_weights_that_are_read_when_needed_stay_so() -> None:
    whole = decoder("llama")
    spec = wrappers.pick_role("llm", "llama").tiny()
    weights = Weights("here")
    weights.add_tensors(dict(whole.state_dict()))
    with bound("ort"):
        part = attach(hollow(lambda: Decoder(spec)), weights)
    for each in (whole, part):
        pruned(each, ratio=0.5, by="taylor", layers=1)
    assert all(weight.is_meta for weight in part.parameters())
    assert numbers(part) == numbers(whole)
    truth = parity.Truth(whole, True)
    assert off(part, truth) < 1e-6


@pytest.mark.parametrize(
    ("other", "name"),
    some(
        [*product(["int8", "int4", "fp16", "bf16", "kv8"], ["whisper", "llama"])],
        *(("int8", "whisper"), ("fp16", "whisper"), ("int4", "llama"), ("kv8", "llama")),
    ),
)
def test_it_goes_first_whatever_it_is_joined_to(other: str, name: str, tmp_path: Path) -> None:
    made_files: list[bytes] = []
    for words in (f"{other}+prune:ratio=0.5", f"prune:ratio=0.5+{other}"):
        settings = part_step.Settings("ort", {"small": words}, True, None)
        whole = Checkpoint(
            family="test",
            parts={"small": lambda: made(name)},
            embedding=lambda: torch.randn(67, 32, generator=torch.Generator().manual_seed(0)),
            tokenizer_json=Tokenizer(WordLevel({"a": 0}, unk_token="a")).to_str(),
            facts=Facts(),
        )
        out = tmp_path / words.replace(":", "-")
        with Bundle(out) as bundle:
            one = part_step.export("small", whole, settings, bundle, lambda _: None).part
            made_files.append((bundle.folder / "small.onnx").read_bytes())
        assert one.measured["parity"]["verdict"] == "within bound"
        assert one.measured["prune"]["weights"] < 1
        assert one.measured["weights"] < numbers(made(name))
        if name == "llama":
            cache = one.inputs["past_key_values.0.key"]
            assert cache.dtype == {"kv8": "int8", "fp16": "float16"}.get(other, "float32")
    assert made_files[0] == made_files[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("prune:ratio=1", "ratio is 0 or more and below 1, not 1"),
        ("prune:ratio=nan", "ratio is 0 or more and below 1, not nan"),
        ("prune:by=luck", "by is one of weights, l2, taylor, not 'luck'"),
        ("prune:layers=1.5", "layers is a whole number or a share below 1, not 1.5"),
        ("prune:layers=-1:budget=2", "layers is .*, not -1; budget is between 0 and 1, not 2"),
        ("prune:multiple=0", "multiple is 1 to 1024, not 0"),
        ("prune:share=0.5", "unknown setting 'share' of prune; there is: ratio, by, layers"),
        (
            "prune+prune:ratio=0.5",
            "prune.prune:ratio=0.5 leaves out something twice; say all",
        ),
    ],
)
def test_settings_that_are_none_are_refused(words: str, said: str) -> None:
    with pytest.raises(BadOption, match=f"^(prune: )?{said}"):
        precisions.pull(words)


def test_clips_are_wanted_where_they_are_needed_alone() -> None:
    for words, wants in {
        "prune": False,
        "prune:by=weights": False,
        "prune:by=taylor": True,
        "prune:layers=1": True,
        "prune:budget=0.1": True,
    }.items():
        pulled = precisions.pull(words)
        assert pulled.listens("encoder") == wants and pulled.hears("encoder")
        assert not pulled.listens("decoder") and not pulled.hears("bridge")
    with pytest.raises(BadOption, match="prune: by=taylor, .* are of what is heard; give clips"):
        prune.Lever(by="taylor").shrink(encoder("whisper"), embeds(encoder("whisper")), None)


def test_what_stays_is_what_is_worth_most_and_one_of_each() -> None:
    every = [Site(path, CHANNELS, 4, (), "", 1) for path in "ab"]
    scores = {"a": torch.tensor([1.0, 9, 2, 8]), "b": torch.tensor([3.0, 4, 5, 6])}
    scores = {path: values.double() for path, values in scores.items()}
    kept = staying(scores, every, 0.5, 1)
    assert {path: units.tolist() for path, units in kept.items()} == {"a": [1, 3], "b": [2, 3]}
    kept = staying(scores, every, 0.9, 1)
    assert {path: units.tolist() for path, units in kept.items()} == {"a": [1], "b": [3]}
    kept = staying(scores, every, 0.5, 3)
    assert {path: units.tolist() for path, units in kept.items()} == {
        "a": [1, 2, 3],
        "b": [1, 2, 3],
    }


def test_an_export_prunes_says_so_and_answers(
    checkpoint: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard = tmp_path / "clips"
    heard.mkdir()
    shutil.copy(clip, heard)
    words = ["--model", checkpoint, "--dialect", "ort"]
    encoders = "whisper=lowrank:energy=0.6:below=2+prune:by=taylor:ratio=0.5"
    precision = f"fp32,{encoders},beats=prune:ratio=0.5,decoder=int4+kv8+prune:by=taylor:layers=1"
    said = fails(capsys, 2, *words, "--precision", precision, "--out", tmp_path / "none")
    assert "of part whisper is fitted to what is heard; give a folder of clips" in said
    out = tmp_path / "out"
    run_export(*words, "--precision", precision, "--out", out, "--calibrate", heard)
    found = manifest.load(out)
    whisper, beats, llm = (found.part(name) for name in ("whisper", "beats", "decoder"))
    assert whisper and beats and llm
    for part in (whisper, beats):
        assert part.measured["calibrated"]["clips"] == 1
        assert part.measured["prune"]["weights"] < 1
        assert part.measured["parity"]["cases"] == 1
    assert whisper.measured["lowrank"]["ranks"] and "calibrated" not in llm.measured
    assert len(llm.measured["prune"]["layers"]) == 1
    caches = [port.axes[1] for name, port in llm.inputs.items() if name.endswith(".key")]
    assert found.facts.dimensions.kv_heads == max(int(heads) for heads in caches)
    assert len(caches) == found.facts.dimensions.layers - 1
    model = alm.load(out)
    assert isinstance(model.generate(clip, "transcribe", max_new_tokens=4).text, str)
    assert model.manifest == found
