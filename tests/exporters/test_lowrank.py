"""lowrank: the ranks and products of LITEALLM's own code, and what is promised of all others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import WhisperFeatureExtractor

import wrappers
from alm.audio import reader
from alm.errors import BadOption
from alm.ports import Port, Span
from exporters import graph, parity, precisions
from exporters.levers import _moments, lowrank
from exporters.levers._principal import principal
from exporters.matmuls import products
from tests.reference import DATA
from wrappers import Wrapper
from wrappers.checkpoint.weights.hollow import weight
from wrappers.encoders.whisper import Whisper

LITEALLM = DATA / "lowrank"
CALIBRATION, EVALUATION = ("audio_a.wav", "audio_b.flac"), ("audio_c.wav", "audio_e.wav")


class Layer(nn.Module):
    """Three ways from one input, a product of two of them, and an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.q_attn, self.k_attn = nn.Linear(64, 64), nn.Linear(64, 64, bias=False)
        self.v_attn, self.o_attn = nn.Linear(64, 64), nn.Linear(64, 64)
        self.fc1, self.fc2 = nn.Linear(64, 160), nn.Linear(160, 64)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.o_attn(self.q_attn(x).tanh() * self.k_attn(x) + self.v_attn(x))
        return x + self.fc2(self.fc1(x).relu())


class Wide(Wrapper):
    """Layers as an encoder's, wide enough for ranks of 16, and one Linear outside of them."""

    role = "encoder"

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([Layer() for _ in range(layers)])
        self.out = nn.Linear(64, 48)
        self.inputs = {"x": Port("float32", ("batch", "time", 64))}
        self.outputs = {"y": Port("float32", ("batch", "time", 48))}
        self.spans = {"time": Span(1, 60, 200)}
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


def sound(seed: int, rows: int = 150, loud: float = 1.0) -> Tensor:
    """What lies close to a dozen directions, as activations do: [1, rows, 64]."""
    directions = torch.randn(12, 64, generator=torch.Generator().manual_seed(1))
    chance = torch.Generator().manual_seed(seed)
    few = torch.randn(1, rows, 12, generator=chance) * torch.logspace(0, -1, 12)
    return loud * (few @ directions + 0.02 * torch.randn(1, rows, 64, generator=chance) + 0.3)


def hear(part: nn.Module, clips: int = 4, rows: int = 150, loud: float = 1.0) -> Any:
    def run(count: int) -> None:
        for seed in range(count or clips):
            part(sound(seed, rows, loud))

    return run


def calibrated(part: Wrapper, **settings: Any) -> lowrank.Lever:
    lever = lowrank.Lever(**settings)
    lever.calibrate(part, hear(part))
    return lever


def written(model: ir.Model, path: Path) -> Path:
    graph.save(model, path, "encoder")
    return path


def replace(part: Wrapper, lever: lowrank.Lever) -> None:
    """Give the module the matrices that its factors stand for."""
    matrices = {n: weight(part, n).float() for n, _ in part.named_parameters() if "weight" in n}
    for name, made in lever._factors.items():
        down: Any = sum(matrices[other].T @ v for other, v in made.taken)
        linear: Any = part.get_submodule(name.removesuffix(".weight"))
        bias = 0 if linear.bias is None else linear.bias.detach()
        linear.weight = nn.Parameter((down @ made.components.T).T.contiguous(), False)
        linear.bias = nn.Parameter(made.shift + bias, False)


@pytest.fixture(scope="module")
def theirs() -> tuple[Whisper, dict[str, Tensor]]:
    """The reference's encoder, and the log-mel spectrogram [1, 128, 3000] of each clip."""
    part = Whisper(json.loads((LITEALLM / "config.json").read_text("utf-8")))
    weights = load_file(LITEALLM / "model.safetensors")
    part.load_state_dict({n.removeprefix("encoder."): t for n, t in weights.items()})
    extractor: Any = WhisperFeatureExtractor(feature_size=128)
    heard: dict[str, Tensor] = {}
    for name in (*CALIBRATION, *EVALUATION):
        pcm = reader.read(DATA / "kimi_audio" / name, 16_000).pcm
        heard[name] = extractor(pcm, sampling_rate=16_000, return_tensors="pt").input_features
    return part.eval().requires_grad_(False), heard


def test_ranks_products_and_outputs_are_those_of_liteallm(
    theirs: tuple[Whisper, dict[str, Tensor]], tmp_path: Path
) -> None:
    part, heard = theirs

    def listen(count: int) -> None:
        for name in CALIBRATION[: count or None]:
            part(heard[name])

    lever = lowrank.Lever(energy=0.98, below=2.0)  # it replaces also where nothing is spared
    lever.calibrate(part, listen)
    ranks = json.loads((LITEALLM / "ranks.json").read_text("utf-8"))
    assert lever.findings["lowrank"]["ranks"] == ranks and len(ranks) == 24
    truth: Any = np.load(LITEALLM / "oracle.npz")
    compared = 0
    for name, made in lever._factors.items():
        path = name.removesuffix(".weight")
        bias: Any = part.get_submodule(path).bias
        total = (made.shift + (0 if bias is None else bias)).numpy()
        short = path.replace("self_attn.", "")
        assert np.abs(total - truth[f"{short}.bias"]).max() < 1e-5
        if f"{short}.product" in truth:
            product = weight(part, name).T @ made.components @ made.components.T
            assert np.abs(product.numpy() - truth[f"{short}.product"]).max() < 1e-5
            compared += 1
    assert compared == 6
    model = lever.rewrite(graph.trace(part, dynamic_batch=False), "encoder")
    session = graph.opened(written(model, tmp_path / "w.onnx"), part)
    for clip in EVALUATION:
        want = truth[f"{clip[6]}.lowrank"]
        got = session.run({"log_mel": heard[clip].numpy()})["speech"][0]
        assert np.abs(got[: len(want)] - want).max() < 1e-4


def test_by_itself_it_replaces_only_where_operations_are_spared(
    theirs: tuple[Whisper, dict[str, Tensor]],
) -> None:
    part, heard = theirs
    lever = lowrank.Lever(energy=0.98)
    lever.calibrate(part, lambda _: part(heard[CALIBRATION[0]]))
    ranks = lever.findings["lowrank"]["ranks"]
    assert 0 < len(ranks) < 24
    for name, rank in ranks.items():
        outputs, inputs = weight(part, name).shape
        assert rank % 16 == 0 and rank * (inputs + outputs) < inputs * outputs


@pytest.mark.parametrize("shared", lowrank.SHARING)
def test_the_graph_is_the_module_with_the_factors_and_counts_as_it_says(
    shared: str, tmp_path: Path
) -> None:
    part = Wide()
    lever = calibrated(part, energy=0.9, shared=shared)
    found, rows = lever.findings["lowrank"], 64 * 64 * 4 + 2 * 64 * 160
    assert found["ranks"] and all(rank % 16 == 0 for rank in found["ranks"].values())
    assert bool(found["shared"]) == (shared != "none")
    traced = graph.trace(part, dynamic_batch=True)
    leaner = lever.rewrite(traced.clone(), "encoder")
    path = written(leaner, tmp_path / "w.onnx")
    every = list(products(leaner.graph))
    operations = sum(product.sizes[0] * product.sizes[1] for product in every)
    assert operations / (2 * rows + 64 * 48) == pytest.approx(found["operations"], abs=1e-4)
    stored = {product.name: product.sizes[0] * product.sizes[1] for product in every}
    biases = sum(p.numel() for p in part.parameters() if p.ndim == 1)
    assert sum(stored.values()) + biases == lever.findings["weights"]
    assert sum(node.op_type == "Add" for node in leaner.graph) <= 2 + sum(
        node.op_type == "Add" for node in traced.graph
    )  # a bias takes in what is added: only Linears without one gain an Add
    replace(part, lever)
    x = sound(9, 70)
    got = graph.opened(path, part).run({"x": x.numpy()})["y"]
    assert np.abs(got - part(x).numpy()).max() < 1e-4


@pytest.mark.parametrize("shared", lowrank.SHARING)
def test_every_linear_keeps_the_energy_that_was_asked_for(shared: str) -> None:
    part = Wide()
    lever = calibrated(part, energy=0.9, rise=0.0, shared=shared)
    inputs: dict[str, list[Tensor]] = {}
    for name, module in part.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(
                lambda _, x, y, name=name: inputs.setdefault(name, []).append(x[0].flatten(0, 1))
            )
    hear(part)(0)
    assert lever._factors
    for name, made in lever._factors.items():
        every = {n: torch.cat(x).double() for n, x in inputs.items()}
        x, w = every[name.removesuffix(".weight")], part.get_parameter(name).double()
        down = sum(part.get_parameter(other).T.double() @ v.double() for other, v in made.taken)
        wrong = x @ w.T - (x @ down @ made.components.T.double() + made.shift)
        whole = x @ w.T - (x @ w.T).mean(0)
        assert wrong.square().sum() <= (0.1 + 1e-5) * whole.square().sum()


def test_shared_components_spare_what_they_are_for() -> None:
    part = Wide(3)
    found = {how: calibrated(part, energy=0.8, shared=how) for how in lowrank.SHARING}
    operations = {how: lever.findings["lowrank"]["operations"] for how, lever in found.items()}
    weights = {how: lever.findings["weights"] for how, lever in found.items()}
    assert operations["inputs"] < operations["none"] and weights["inputs"] < weights["none"]
    assert weights["layers"] < weights["none"]
    assert min(weights, key=lambda how: weights[how]) == "both"
    pairs = found["layers"].findings["lowrank"]["shared"]
    assert all(a.replace("0", "1") == b for a, b in pairs)  # the third layer stays alone
    for a, b in pairs:
        assert found["layers"]._factors[a].up == found["layers"]._factors[b].up


def test_all_of_the_energy_leaves_all_as_it_is(tmp_path: Path) -> None:
    part = Wide()
    traced = graph.trace(part, dynamic_batch=True)
    plain = written(traced.clone(), tmp_path / "plain.onnx").read_bytes()
    lever = calibrated(part, energy=1.0)
    assert lever.findings["lowrank"]["ranks"] == {}
    assert lever.findings["lowrank"]["operations"] == 1
    same = written(lever.rewrite(traced.clone(), "encoder"), tmp_path / "same.onnx")
    assert same.read_bytes() == plain


@pytest.mark.parametrize("size", [0.45, 0.6, 0.9])
def test_a_size_is_kept_to_and_nearly_reached(size: float) -> None:
    found = calibrated(Wide(), size=size, energy=0.5).findings["lowrank"]
    assert size - 0.15 < found["operations"] <= size


def test_a_size_that_no_rank_gives_is_refused() -> None:
    with pytest.raises(BadOption, match=r"size=0.05 is less than the linears can be brought to"):
        calibrated(Wide(), size=0.05)


def test_attention_and_mlps_have_shares_of_their_own_and_layers_rise() -> None:
    part = Wide(3)
    loose = calibrated(part, attention=0.7, mlp=0.9999)._factors
    assert loose and all("attn" in name for name in loose)
    rising = calibrated(part, energy=0.5, rise=0.49, below=2.0).findings["lowrank"]["ranks"]
    assert rising["layers.2.fc1.weight"] > rising["layers.0.fc1.weight"]


def test_one_clip_is_enough_where_it_is_long_and_too_few_rows_are_refused() -> None:
    part, lever = Wide(), lowrank.Lever(energy=0.9)
    lever.calibrate(part, hear(part, clips=1))
    assert lever.findings["lowrank"]["ranks"]
    words = r"the clips are too few: layers.0.q_attn has 64 numbers, .* give more seconds of sound"
    with pytest.raises(BadOption, match=words):
        lever.calibrate(part, hear(part, clips=1, rows=40))


def test_silence_says_nothing_and_changes_nothing() -> None:
    part, lever = Wide(), lowrank.Lever(energy=0.5)
    lever.calibrate(part, hear(part, loud=0.0))
    assert lever.findings["lowrank"]["ranks"] == {}
    model = graph.trace(part, dynamic_batch=True)
    before = [node.op_type for node in model.graph]
    assert [node.op_type for node in lever.rewrite(model, "encoder").graph] == before


def test_statistics_hold_to_their_memory_by_hearing_the_clips_again() -> None:
    part, heard = Wide(), [0]

    def listen(count: int) -> None:
        heard[0] += 1
        hear(part)(count)

    groups = _moments.groups(part, listen)
    assert groups[0].members == ("layers.0.q_attn", "layers.0.k_attn", "layers.0.v_attn")
    assert [group.width for group in groups[:4]] == [64, 64, 64, 64]  # the narrower side
    whole = [found for _, found in _moments.gather(part, groups, listen)]
    assert heard[0] == 2
    most = 2 * groups[0].bytes
    pieces = list(_moments.gather(part, groups, listen, most))
    assert heard[0] == 2 + -(-len(groups) // 2)
    assert [group for group, _ in pieces] == groups
    for a, (_, b) in zip(whole, pieces, strict=True):
        assert torch.equal(a.covariance(), b.covariance()) and torch.equal(a.mean, b.mean)
    assert not any(module._forward_hooks for module in part.modules())


def test_linears_that_share_an_input_only_at_times_are_known_apart() -> None:
    part = Wide(1)
    before = part.layers[0].forward
    calls = [0]

    def moody(x: Tensor) -> Tensor:
        calls[0] += 1
        part.layers[0].k_attn(x + calls[0] % 2 if calls[0] > 1 else x)  # pyright: ignore
        return before(x)  # pyright: ignore

    part.layers[0].forward = moody

    def listen(_: int) -> None:
        part(sound(0))
        part(sound(1))

    members = [group.members for group in _moments.groups(part, listen)]
    assert ("layers.0.k_attn",) in members


def test_principal_components_come_from_either_square() -> None:
    tall = torch.randn(50, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values, vectors = principal(tall, 30)
    both = torch.linalg.eigvalsh(tall @ tall.T).flip(0)
    assert torch.allclose(values[:20], both[:20]) and values.shape == (30,)
    found = vectors[:, :20]
    assert torch.allclose(found.T @ found, torch.eye(20, dtype=torch.float64), atol=1e-9)
    assert (vectors[:, 20:] == 0).all()
    assert torch.allclose(principal(tall.T, 20)[0], both[:20])


@pytest.mark.parametrize("other", ["int8", "int4", "fp16", "bf16", "int8dq"])
def test_it_goes_first_whatever_it_is_joined_to(other: str, tmp_path: Path) -> None:
    part, made = Wide(), []
    traced = graph.trace(part, dynamic_batch=True)
    for words in (f"{other}+lowrank:energy=0.9", f"lowrank:energy=0.9+{other}"):
        pulled = precisions.pull(words)
        pulled.prepare(part, lambda: torch.zeros(1, 1))
        assert pulled.listens("encoder") and not pulled.listens("decoder")
        pulled.calibrate(part, hear(part))
        made.append(written(pulled.rewrite(traced.clone(), part.role), tmp_path / "w.onnx"))
        made[-1] = made[-1].read_bytes()
    assert made[0] == made[1]
    assert len(made[0]) < 0.75 * len(written(traced, tmp_path / "p.onnx").read_bytes())
    (tmp_path / "w.onnx").write_bytes(made[0])
    clips = [{"x": sound(seed, 40 + seed).numpy()} for seed in (20, 21, 22)]
    measured = parity.measure(
        tmp_path / "w.onnx", parity.Truth(part, True, heard=clips), part.inputs
    )
    assert measured.cases == 3  # of clips
    assert 0.01 < measured.rms < precisions.pull(f"lowrank+{other}").bound("encoder")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("lowrank:energi=0.9", "unknown setting 'energi' of lowrank; there is: energy, attention"),
        ("lowrank:energy=much", "energy of lowrank is a number, not 'much'"),
        ("lowrank:energy", "energy of lowrank is a number, not ''"),
        ("lowrank:energy=1.5", "energy is between 0 and 1, not 1.5"),
        ("lowrank:energy=nan", "energy is between 0 and 1, not nan"),
        ("lowrank:energy=0", "energy and below are above 0"),
        ("lowrank:below=3:size=-1", "size is between 0 and 1, not -1; below is between 0 and 2"),
        ("lowrank:shared=all", "shared is one of none, inputs, layers, both, not 'all'"),
        ("lowrank:size=0.5:size=0.6", "lowrank has its setting size twice"),
        ("int8:block=32", "unknown setting 'block' of int8; int8 has none"),
        ("int4:scheme=8", "unknown setting 'scheme' of int4; int4 has none"),
    ],
)
def test_settings_that_are_none_are_refused(words: str, said: str) -> None:
    with pytest.raises(BadOption, match="^(lowrank: )?" + said.replace("(", r"\(")):
        precisions.pull(words)


@pytest.mark.parametrize("name", ["beats", "granite_speech", "phi4_conformer", "hubert", "glmasr"])
def test_other_encoders_are_the_module_with_the_factors(name: str, tmp_path: Path) -> None:
    from exporters import feeds

    part = wrappers.pick_role("encoder", name).tiny()
    sizes = list(feeds.cases(part.inputs, part.spans, True))[-1]

    def fed(seed: int) -> feeds.Feeds:
        return feeds.make(part.inputs, part.spans, sizes, seed)

    def listen(count: int) -> None:
        for seed in range(count or 3):
            part(*(torch.from_numpy(array) for array in fed(seed).values()))

    lever = lowrank.Lever(energy=0.5, below=2.0, shared="both")
    lever.calibrate(part, listen)
    assert lever.findings["lowrank"]["ranks"]
    model = lever.rewrite(graph.trace(part, dynamic_batch=True), part.role)
    path = written(model, tmp_path / "w.onnx")
    replace(part, lever)
    measured = parity.measure(path, parity.Truth(part, True), part.inputs)
    assert measured.rms < 1e-4
