"""The bridge: the original's numbers, transformers' Q-Former, windows of every kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from demo.random_checkpoint import Recipe, make
from tests.wrappers.parts.tracing import traced
from wrappers.bridges.qformer import QFormer, Shape
from wrappers.families.salmonn import Salmonn

GOLDEN = Shape(
    frames=40,
    speech_width=16,
    audio_width=8,
    hidden=16,
    heads=4,
    layers=2,
    intermediate=32,
    queries=1,
    kernel=17,
    stride=17,
    out=12,
)
# The original's windows: seconds per window and between windows -> kernel, stride, windows.
WINDOWS = {
    (0.333333, 0.333333): (17, 17, 88),
    (0.5, 0.25): (25, 12, 123),  # 12.5 rounds to even
    (1.0, 1.0): (50, 50, 30),
    (0.5, 0.5): (25, 25, 60),
    (0.2, 0.2): (10, 10, 150),
    (0.25, 0.25): (12, 12, 125),
    (0.1, 0.1): (5, 5, 300),
}


def named_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """A sine over the elements, its phase from the name; around 1 for the scale of a norm."""
    size = int(torch.tensor(shape).prod())
    phase = sum(name.encode()) % 97
    wave = torch.sin(0.1 * (torch.arange(size) % 1009).double() + phase).reshape(shape)
    norms = ("LayerNorm.weight", "ln_speech.weight", "ln_audio.weight")
    return 1 + 0.1 * wave if any(norm in name for norm in norms) else 0.2 * wave


def random_bridge(shape: Shape) -> QFormer:
    torch.manual_seed(0)
    bridge = QFormer(shape).eval().requires_grad_(False)
    for name, weight in bridge.named_parameters():
        weight.normal_(1.0 if "orm.weight" in name else 0.0, 0.5 if weight.ndim == 1 else 0.3)
    return bridge


def blip2(bridge: QFormer) -> Blip2QFormerModel:
    """transformers' Q-Former with the same weights."""
    shape = bridge.shape
    config = Blip2QFormerConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        cross_attention_frequency=1,
        encoder_hidden_size=shape.speech_width + shape.audio_width,
    )
    bert = "speech_Qformer.bert."
    state = {n[len(bert) :]: w for n, w in bridge.state_dict().items() if n.startswith(bert)}
    theirs = {
        n.replace("embeddings.LayerNorm", "layernorm").replace(
            "ttention.self.", "ttention.attention."
        ): w
        for n, w in state.items()
    }
    model = Blip2QFormerModel(config).eval().requires_grad_(False)
    model.load_state_dict(theirs)
    return model


def by_transformers(bridge: QFormer, speech: Tensor, audio: Tensor | None) -> Tensor:
    """One clip as the original does it: norm, pad, unfold, Q-Former, project."""
    shape, frames = bridge.shape, bridge.ln_speech(speech)
    if audio is not None:
        tail = speech.shape[1] - audio.shape[1]
        normed = torch.nn.functional.pad(bridge.ln_audio(audio), (0, 0, 0, tail))
        frames = torch.cat((frames, normed), -1)
    windows = frames.unfold(1, shape.kernel, shape.stride)  # [1, windows, width, kernel]
    windows = windows.flatten(0, 1).mT
    queries = bridge.speech_query_tokens.expand(len(windows), -1, -1)
    said = blip2(bridge)(query_embeds=queries, encoder_hidden_states=windows)
    return bridge.speech_llama_proj(said.last_hidden_state).reshape(1, shape.tokens, -1)


def test_the_bridge_gives_the_golden_numbers() -> None:
    bridge = QFormer(GOLDEN).double().eval()
    state = {n: named_weight(n, tuple(w.shape)) for n, w in bridge.state_dict().items()}
    bridge.load_state_dict(state)
    b, t, c = (torch.arange(n).double() for n in (2, 40, 16))
    speech = torch.sin(0.3 * b[:, None, None] + 0.07 * t[:, None] + 0.5 * c)
    audio = torch.cos(0.2 * b[:, None, None] + 0.05 * t[:24, None] + 0.4 * c[:8])
    with torch.no_grad():
        got = bridge(speech, audio, torch.tensor([24, 24]))
    assert got.shape == (2, 2, 12)
    assert float(got.mean()) == pytest.approx(0.1654731106, abs=2e-9)
    assert float(got.std()) == pytest.approx(0.4257156576, abs=2e-9)
    first = [-0.368501532, 0.013591539, 0.777106344, 0.349899224, -0.393277930, 0.068679933]
    last = [-0.376619042, 0.018835645, 0.784917603, 0.344198948, -0.400756299, 0.074816940]
    assert got[0, 0, :6].tolist() == pytest.approx(first, abs=2e-9)
    assert got[1, 1, :6].tolist() == pytest.approx(last, abs=2e-9)


@pytest.mark.parametrize("audio_width", [8, 0])
@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize(
    "kernel, stride",
    [(17, 17), (25, 12), (5, 9), (70, 70), (70, 3), (1, 1)],
    ids=["side by side", "overlapping", "with gaps", "one", "one of any stride", "frame by frame"],
)
def test_the_bridge_is_what_transformers_computes(
    kernel: int, stride: int, queries: int, audio_width: int
) -> None:
    shape = dataclasses.replace(
        GOLDEN, frames=70, queries=queries, kernel=kernel, stride=stride, audio_width=audio_width
    )
    bridge = random_bridge(shape)
    speech = torch.randn(1, 70, 16)
    audio = torch.randn(1, 48, 8) if audio_width else None
    wanted = by_transformers(bridge, speech, audio)
    got = bridge(speech, audio, torch.tensor([48])) if audio_width else bridge(speech)
    assert got.shape == wanted.shape == (1, shape.windows * queries, 12)
    assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_queries_read_the_frames_where_they_are_few() -> None:
    salmonn = dataclasses.replace(
        GOLDEN, frames=1500, speech_width=1280, audio_width=768, hidden=768, heads=12, out=3072
    )
    assert salmonn.windows == 88 and salmonn.reads_frames
    assert dataclasses.replace(salmonn, kernel=1500, stride=1500).reads_frames
    assert dataclasses.replace(salmonn, queries=8).reads_frames
    assert not dataclasses.replace(salmonn, queries=32).reads_frames
    assert not dataclasses.replace(salmonn, kernel=1, stride=1).reads_frames


@pytest.mark.parametrize(
    ("queries", "kernel", "reads"), [(1, 17, True), (2, 17, True), (1, 1, False), (3, 1, False)]
)
def test_the_graph_computes_what_the_module_does(
    queries: int, kernel: int, reads: bool, tmp_path: Path
) -> None:
    shape = dataclasses.replace(GOLDEN, frames=70, queries=queries, kernel=kernel, stride=kernel)
    assert shape.reads_frames == reads
    bridge = random_bridge(shape)
    example = torch.randn(2, 70, 16), torch.randn(2, 48, 8), torch.tensor([48, 24])
    graph = traced(bridge, example, tmp_path)
    attentions = 1 if queries == 1 else 2  # of one query among itself nothing is to be weighed
    assert graph.nodes["Softmax"] == attentions * shape.layers
    for lengths in ([48], [24, 48, 0]):
        count = len(lengths)
        feeds = torch.randn(count, 70, 16), torch.randn(count, 48, 8), torch.tensor(lengths)
        (got,) = graph.run(*feeds)
        wanted = bridge(*feeds)
        assert abs(got - wanted.numpy()).max() < 1e-5 * float(wanted.abs().max())


def test_rows_of_a_ragged_batch_equal_themselves_alone() -> None:
    bridge = random_bridge(dataclasses.replace(GOLDEN, frames=70, kernel=25, stride=12))
    speech, audio = torch.randn(3, 70, 16), torch.randn(3, 64, 8)
    lengths = torch.tensor([64, 16, 0])
    together = bridge(speech, audio, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = by_transformers(bridge, speech[row : row + 1], audio[row : row + 1, :length])
        assert (together[row] - alone[0]).abs().max() < 1e-5


def test_past_the_audio_there_are_zeros_and_not_the_norms_bias() -> None:
    bridge = random_bridge(GOLDEN)
    padded = bridge._padded(torch.randn(2, 24, 8), torch.tensor([24, 5]))
    assert padded.shape == (2, 40, 8)
    assert bridge.ln_audio.bias.abs().min() > 0
    assert not padded[0, 24:].any() and not padded[1, 5:].any()
    assert padded[0, :24].any(-1).all() and padded[1, :5].any(-1).all()


def test_audio_longer_than_the_speech_is_cut() -> None:
    bridge = random_bridge(GOLDEN)
    speech, audio = torch.randn(1, 40, 16), torch.randn(1, 48, 8)
    longer = bridge(speech, audio, torch.tensor([48]))
    assert torch.equal(longer, bridge(speech, audio[:, :40], torch.tensor([40])))


@pytest.fixture(scope="module")
def thirty_seconds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose Whisper hears 30 s."""
    recipe = Recipe(
        speech_width=16, audio_width=0, bridge_width=48, llm_options=dict(hidden_size=32)
    )
    return make(tmp_path_factory.mktemp("windows") / "model", recipe)


def shape_with(config: Path, **settings: Any) -> Shape:
    said = yaml.safe_load(config.read_text())
    said["model"] |= settings
    other = config.with_name("other.yaml")
    other.write_text(yaml.safe_dump(said))
    return Salmonn(other).qformer_shape


@pytest.mark.parametrize("seconds", WINDOWS, ids=str)
def test_windows_are_those_of_the_original(
    thirty_seconds: Path, seconds: tuple[float, float]
) -> None:
    window, stride = seconds
    shape = shape_with(thirty_seconds, second_per_window=window, second_stride=stride)
    assert (shape.kernel, shape.stride, shape.windows) == WINDOWS[seconds]


def test_without_windows_the_queries_read_the_whole_clip(thirty_seconds: Path) -> None:
    shape = shape_with(thirty_seconds, window_level_Qformer=False)
    assert (shape.kernel, shape.windows, shape.tokens) == (1500, 1, 1)
