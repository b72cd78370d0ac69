"""The encoders: what the originals compute, rows that do not hear each other, and the graphs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from alm.errors import BadCheckpoint
from tests.reference import SALMONN
from tests.wrappers.parts.tracing import traced
from wrappers.checkpoint.weights.fit import fill
from wrappers.dialect import bound
from wrappers.encoders import whisper
from wrappers.encoders.beats import Beats, load_beats
from wrappers.layers.beats_layers import buckets

DATA_DEPENDENT = {"STFT", "DFT", "NonZero", "Loop", "If", "Scan", "ScatterND", "ScatterElements"}
ATTENTIONS = {"Softmax", "Attention", "MultiHeadAttention"}
FUSED = {"decomposed": "Softmax", "standard": "Attention", "ort": "MultiHeadAttention"}

TINY_WHISPER: dict[str, Any] = {
    "num_mel_bins": 20,
    "max_source_positions": 30,
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "activation_function": "gelu",
    "scale_embedding": True,
}
TINY_BEATS: dict[str, Any] = {
    "input_patch_size": 16,
    "embed_dim": 32,
    "conv_bias": False,
    "encoder_layers": 2,
    "encoder_embed_dim": 48,
    "encoder_ffn_embed_dim": 96,
    "encoder_attention_heads": 4,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": True,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "relative_position_embedding": True,
    "num_buckets": 32,
    "max_distance": 16,
    "gru_rel_pos": True,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "as published": {},
    "pre-norm": {"layer_norm_first": True, "deep_norm": False},
    "no DeepNorm": {"deep_norm": False},
    "no gate": {"gru_rel_pos": False},
    "no relative positions": {"relative_position_embedding": False},
    "relu and conv bias": {"activation_fn": "relu", "conv_bias": True},
    "no projection": {"embed_dim": 48},
    "patches of 8, odd kernel": {"input_patch_size": 8, "conv_pos": 7},
}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def full(fbank: Tensor) -> Tensor:
    """Lengths of a batch without padding."""
    return torch.full((len(fbank),), fbank.shape[1])


def wave_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """A weight that is a sine of its name and position, so that nobody need store it."""
    size, phase = math.prod(shape), sum(name.encode()) % 97
    wave = torch.sin(0.1 * (torch.arange(size) % 1009).double() + phase)
    near_one = ("layer_norm.weight", "weight_g", "grep_a")
    wave = 1 + 0.1 * wave if any(word in name for word in near_one) else 0.2 * wave
    wave = wave * 2.5 if "relative_attention_bias" in name else wave
    return wave.reshape(shape).float()


def beats_shapes(cfg: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The original's names and shapes."""
    embed, width, hidden = (
        cfg[key] for key in ("embed_dim", "encoder_embed_dim", "encoder_ffn_embed_dim")
    )
    heads, patch, taps = (
        cfg[key] for key in ("encoder_attention_heads", "input_patch_size", "conv_pos")
    )
    shapes: dict[str, tuple[int, ...]] = {"patch_embedding.weight": (embed, 1, patch, patch)}
    shapes |= {"patch_embedding.bias": (embed,)} if cfg["conv_bias"] else {}
    linear = {"post_extract_proj": (width, embed)} if embed != width else {}
    norms = {"layer_norm": embed, "encoder.layer_norm": width}
    conv = "encoder.pos_conv.0."
    shapes |= {conv + "bias": (width,), conv + "weight_g": (1, 1, taps)}
    shapes |= {conv + "weight_v": (width, width // cfg["conv_pos_groups"], taps)}
    for layer in (f"encoder.layers.{i}." for i in range(cfg["encoder_layers"])):
        linear |= {f"{layer}self_attn.{x}_proj": (width, width) for x in ("q", "k", "v", "out")}
        linear |= {layer + "fc1": (hidden, width), layer + "fc2": (width, hidden)}
        norms |= {layer + "self_attn_layer_norm": width, layer + "final_layer_norm": width}
        if cfg["relative_position_embedding"]:
            table = (cfg["num_buckets"], heads)
            shapes[layer + "self_attn.relative_attention_bias.weight"] = table
        if cfg["gru_rel_pos"]:
            linear[layer + "self_attn.grep_linear"] = (8, width // heads)
            shapes[layer + "self_attn.grep_a"] = (1, heads, 1, 1)
    for name, shape in linear.items():
        shapes |= {name + ".weight": shape, name + ".bias": shape[:1]}
    for name, size in norms.items():
        shapes |= {name + ".weight": (size,), name + ".bias": (size,)}
    return shapes


def beats_state(cfg: Mapping[str, Any]) -> dict[str, Tensor]:
    """A checkpoint's `model` with wave weights; the shared table is saved under every layer."""
    shared = "encoder.layers.0.self_attn.relative_attention_bias.weight"
    return {
        name: wave_weight(shared if "relative_attention_bias" in name else name, shape)
        for name, shape in beats_shapes(cfg).items()
    }


def plain_beats(state: Mapping[str, Tensor], cfg: Mapping[str, Any], fbank: Tensor) -> Tensor:
    """BEATs as its authors' code goes: nothing is folded, nothing masked."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[name + ".weight"], state[name + ".bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[name + ".weight"], state[name + ".bias"])

    width, heads, patch = (
        cfg[key] for key in ("encoder_embed_dim", "encoder_attention_heads", "input_patch_size")
    )
    x = F.conv2d(
        fbank[:, None],
        state["patch_embedding.weight"],
        state.get("patch_embedding.bias"),
        stride=patch,
    )
    x = norm("layer_norm", x.flatten(2).transpose(1, 2))
    x = linear("post_extract_proj", x) if cfg["embed_dim"] != width else x
    batch, tokens, _ = x.shape
    conv = "encoder.pos_conv.0."
    direction = F.normalize(state[conv + "weight_v"].flatten(0, 1), dim=0)
    kernel = state[conv + "weight_g"] * direction.view_as(state[conv + "weight_v"])
    near = F.conv1d(
        x.transpose(1, 2),
        kernel,
        state[conv + "bias"],
        padding=cfg["conv_pos"] // 2,
        groups=cfg["conv_pos_groups"],
    )
    near = near[:, :, :-1] if cfg["conv_pos"] % 2 == 0 else near
    x = x + F.gelu(near).transpose(1, 2)
    first = cfg["layer_norm_first"]
    x = x if first else norm("encoder.layer_norm", x)
    alpha = (2 * cfg["encoder_layers"]) ** 0.25 if cfg["deep_norm"] else 1.0
    for layer in (f"encoder.layers.{i}." for i in range(cfg["encoder_layers"])):
        attn = layer + "self_attn."

        def attention(x: Tensor, attn: str = attn) -> Tensor:
            q, k, v = (
                linear(attn + name, x).view(batch, tokens, heads, -1).transpose(1, 2)
                for name in ("q_proj", "k_proj", "v_proj")
            )
            logits = q @ k.transpose(2, 3) / math.sqrt(width // heads)
            if cfg["relative_position_embedding"]:
                table = state["encoder.layers.0.self_attn.relative_attention_bias.weight"]
                distance = torch.arange(tokens)[None, :] - torch.arange(tokens)[:, None]
                bucket = buckets(distance, cfg["num_buckets"], cfg["max_distance"])
                bias = table[bucket].permute(2, 0, 1)
                if cfg["gru_rel_pos"]:
                    gates = linear(attn + "grep_linear", q).view(batch, heads, tokens, 2, 4)
                    a, b = gates.sum(-1).sigmoid().chunk(2, -1)
                    bias = (a * (b * state[attn + "grep_a"] - 1.0) + 2.0) * bias
                logits = logits + bias
            heard = (logits.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width)
            return linear(attn + "out_proj", heard)

        def feed_forward(x: Tensor, layer: str = layer) -> Tensor:
            activation = {"gelu": F.gelu, "relu": F.relu}[cfg["activation_fn"]]
            return linear(layer + "fc2", activation(linear(layer + "fc1", x)))

        if first:
            x = x + attention(norm(layer + "self_attn_layer_norm", x))
            x = x + feed_forward(norm(layer + "final_layer_norm", x))
        else:
            x = norm(layer + "self_attn_layer_norm", alpha * x + attention(x))
            x = norm(layer + "final_layer_norm", alpha * x + feed_forward(x))
    return norm("encoder.layer_norm", x) if first else x


def wave_fbank() -> Tensor:
    row, frame, mel = torch.arange(2), torch.arange(64), torch.arange(128)
    phase = 0.01 * frame[None, :, None] * (row[:, None, None] + 1) + 0.05 * mel
    return torch.sin(phase.double()).float()


def close(got: Tensor, wanted: Any, atol: float = 1e-5) -> None:
    torch.testing.assert_close(got, torch.as_tensor(wanted, dtype=got.dtype), atol=atol, rtol=0)


@pytest.mark.parametrize(
    "activation", ["gelu", "gelu_new", "gelu_fast", "quick_gelu", "relu", "silu"]
)
def test_whisper_is_what_transformers_computes(activation: str) -> None:
    config: Any = TINY_WHISPER | {"activation_function": activation}
    torch.manual_seed(0)
    original = WhisperEncoder(WhisperConfig(**config)).eval()
    encoder = whisper.build(config)
    assert fill(encoder, original.state_dict(), "whisper") == []
    log_mel = noise(2, 20, 60)
    with torch.inference_mode():
        close(encoder(log_mel), original(log_mel).last_hidden_state)


def test_whisper_takes_what_its_config_leaves_out_as_transformers_does() -> None:
    config = WhisperConfig()
    for key, value in whisper.DEFAULTS.items():
        assert getattr(config, key) == value


def test_whisper_names_an_activation_that_it_does_not_know() -> None:
    with pytest.raises(BadCheckpoint, match="'glu' is unknown; known are gelu"):
        whisper.build(TINY_WHISPER | {"activation_function": "glu"})


def test_whisper_refuses_heads_that_do_not_divide_its_width() -> None:
    with pytest.raises(BadCheckpoint, match="32 is not divisible by its 5 heads"):
        whisper.build(TINY_WHISPER | {"encoder_attention_heads": 5})


def test_every_missing_and_misshapen_weight_is_named_at_once() -> None:
    encoder = whisper.build(TINY_WHISPER)
    state = dict(encoder.state_dict())
    del state["conv1.bias"], state["layers.1.fc2.weight"]
    state["layer_norm.weight"] = torch.zeros(7)
    with pytest.raises(BadCheckpoint) as caught:
        fill(encoder, state, "w.safetensors")
    words = ("w.safetensors", "conv1.bias, layers.1.fc2.weight", "layer_norm.weight is [7] and not")
    assert all(word in str(caught.value) for word in words)


def test_weights_in_half_precision_are_widened() -> None:
    encoder = whisper.build(TINY_WHISPER)
    fill(encoder, {k: v.half() for k, v in encoder.state_dict().items()}, "w")
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}


def test_whisper_is_what_the_original_computed() -> None:
    encoder = whisper.build(json.loads((SALMONN / "whisper/config.json").read_text("utf-8")))
    state = load_file(SALMONN / "whisper/model.safetensors")
    fill(encoder, {k.removeprefix("encoder."): v for k, v in state.items()}, "whisper")
    truth = np.load(SALMONN / "oracle.npz")
    close(encoder(torch.from_numpy(truth["a.mel"])[None])[0], truth["a.whisper"])


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_beats_is_what_the_original_computed(name: str) -> None:
    saved = torch.load(SALMONN / "beats.pt", weights_only=True)
    truth = np.load(SALMONN / "oracle.npz")
    fbank = torch.from_numpy(truth[f"{name}.fbank"])[None]
    audio, lengths = load_beats(saved["model"], saved["cfg"], "beats.pt")(fbank, full(fbank))
    close(audio[0], truth[f"{name}.beats"])
    assert lengths.tolist() == [audio.shape[1]]


def test_beats_gives_the_golden_numbers() -> None:
    beats = load_beats(beats_state(TINY_BEATS), TINY_BEATS)
    audio, lengths = beats(wave_fbank(), torch.tensor([64, 64]))
    assert audio.shape == (2, 32, 48) and lengths.tolist() == [32, 32]
    close(audio[0, 0, :6], [-0.0986616, 0.3350507, -0.2442776, -0.0751631, -1.3106119, 1.1684940])
    close(audio[1, 31, :6], [-0.1128933, 0.3410616, -0.2304122, -0.0842577, -1.3014761, 1.1708890])
    close(audio.mean(), -0.002861233)
    close(audio.std(), 0.937427097)
    close(audio.abs().sum(), 2409.8199, atol=5e-3)


def test_beats_gives_the_golden_numbers_under_a_mask() -> None:
    beats = load_beats(beats_state(TINY_BEATS), TINY_BEATS)
    # Tokens 20 and on: half a moment of patches, which only a mask can say and no length.
    real = torch.ones(2, 32)
    real[1, 20:] = 0
    x = beats.patch_embedding(wave_fbank()[:, None]).flatten(2).transpose(1, 2)
    audio = beats.encoder(beats.post_extract_proj(beats.layer_norm(x)), real)
    close(audio[1, 0, :6], [-0.1274531, 0.3349277, -0.2705534, -0.0516332, -1.3219634, 1.1644285])
    assert (audio[1, 20:] == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_beats_of_each_kind_is_the_plain_formula(variant: str) -> None:
    cfg = TINY_BEATS | VARIANTS[variant]
    state = beats_state(cfg)
    fbank = noise(2, 77, 128)
    audio, lengths = load_beats(state, cfg)(fbank, full(fbank))
    close(audio, plain_beats(state, cfg, fbank))
    assert lengths.tolist() == [audio.shape[1]] * 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_short_row_of_a_batch_has_the_features_that_it_has_alone(variant: str) -> None:
    cfg = TINY_BEATS | VARIANTS[variant]
    beats = load_beats(beats_state(cfg), cfg)
    fbank, frames = noise(4, 100, 128), [100, 37, 16, 99]
    together, lengths = beats(fbank, torch.tensor(frames))
    for row, count in enumerate(frames):
        alone, _ = beats(fbank[row : row + 1, :count], torch.tensor([count]))
        tokens = int(lengths[row])
        assert tokens == alone.shape[1]
        close(together[row, :tokens], alone[0])
        assert (together[row, tokens:] == 0).all()


def test_a_row_too_short_for_a_patch_is_all_zeros() -> None:
    beats = load_beats(beats_state(TINY_BEATS), TINY_BEATS)
    audio, lengths = beats(noise(2, 64, 128), torch.tensor([64, 15]))
    assert lengths.tolist() == [32, 0] and (audio[1] == 0).all() and audio.isfinite().all()


def test_distances_fall_into_the_buckets_of_the_original() -> None:
    right = {0: 0, 1: 161, 79: 239, 80: 240, 81: 240, 100: 247, 200: 271, 400: 295, 799: 319}
    left = {800: 319, 2000: 319, -1: 1, -79: 79, -80: 80, -100: 87, -799: 159}
    known = right | left
    assert buckets(torch.tensor(list(known)), 320, 800).tolist() == list(known.values())


def test_the_last_layers_copy_of_the_shared_table_wins() -> None:
    state = beats_state(TINY_BEATS)
    wanted, _ = load_beats(state, TINY_BEATS)(wave_fbank(), torch.tensor([64, 64]))
    state["encoder.layers.0.self_attn.relative_attention_bias.weight"] = torch.ones(32, 4)
    got, _ = load_beats(state, TINY_BEATS)(wave_fbank(), torch.tensor([64, 64]))
    assert torch.equal(got, wanted)


def test_the_newer_names_of_weight_norm_are_the_same_weights() -> None:
    old, conv = beats_state(TINY_BEATS), "encoder.pos_conv.0."
    new = {k: v for k, v in old.items() if "weight_g" not in k and "weight_v" not in k}
    new[conv + "parametrizations.weight.original0"] = old[conv + "weight_g"]
    new[conv + "parametrizations.weight.original1"] = old[conv + "weight_v"]
    fbank = wave_fbank()
    got, wanted = (load_beats(state, TINY_BEATS)(fbank, full(fbank))[0] for state in (new, old))
    assert torch.equal(got, wanted)


def test_the_classifier_of_a_finetuned_beats_is_left_out() -> None:
    head = {"predictor.weight": torch.zeros(5, 48), "predictor.bias": torch.zeros(5)}
    load_beats(beats_state(TINY_BEATS) | head, TINY_BEATS)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"activation_fn": "glu"}, "'glu' is unknown; known are gelu, relu"),
        ({"layer_norm_first": True}, "exclude each other"),
        ({"encoder_attention_heads": 5}, "48 is not divisible by its 5 heads"),
        ({"input_patch_size": -1}, "input_patch_size -1"),
        ({"encoder_layers": 1}, "no place for: encoder.layers.1"),
        ({"encoder_ffn_embed_dim": 95}, "fc1.weight is .* not .*fc2.weight is"),
        ({"encoder_layers": 3}, "b.pt does not .* missing: encoder.layers.2.self_attn.grep_a, enc"),
    ],
)
def test_a_cfg_that_beats_cannot_follow_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadCheckpoint, match=complaint):
        load_beats(beats_state(TINY_BEATS), TINY_BEATS | change, "b.pt")


@pytest.mark.parametrize("dialect", FUSED)
def test_the_whisper_graph_computes_what_the_module_does(dialect: str, tmp_path: Path) -> None:
    with bound(dialect):
        encoder = whisper.build(TINY_WHISPER)
    graph = traced(encoder, (noise(2, 20, 60),), tmp_path, encoder.opset)
    assert not graph.nodes.keys() & (DATA_DEPENDENT | {"Shape"})
    assert {name: graph.nodes[name] for name in ATTENTIONS if name in graph.nodes} == {
        FUSED[dialect]: TINY_WHISPER["encoder_layers"]
    }
    for rows in (1, 2, 3):
        log_mel = noise(rows, 20, 60, seed=rows)
        np.testing.assert_allclose(graph.run(log_mel)[0], encoder(log_mel).numpy(), atol=1e-4)


def pooled(cut: bool = False, **change: Any) -> whisper.Whisper:
    """A Whisper that leaves padding out and averages pairs, with the weights of a plain one."""
    torch.manual_seed(0)
    plain = WhisperEncoder(WhisperConfig(**(TINY_WHISPER | change)))
    encoder = whisper.build(TINY_WHISPER | change, pooled=True, cut=cut)
    assert fill(encoder, plain.state_dict(), "whisper") == []
    return encoder


def test_a_pooled_whisper_does_not_hear_what_is_behind_a_clip() -> None:
    encoder, log_mel = pooled(), noise(2, 20, 60)
    samples = torch.tensor([32 * 160, 31 * 160 + 1])  # 32 frames of the spectrogram, both of them
    speech, counts = encoder(log_mel, samples)
    assert speech.shape == (2, 15, 32) and counts.tolist() == [8, 8]
    changed = log_mel.clone()
    changed[:, :, 34:] += 1  # beyond what the convolutions of frame 31 see
    close(encoder(changed, samples)[0][:, :8], speech[:, :8])
    assert (
        encoder(changed, torch.tensor([60 * 160] * 2))[0][:, :8] - speech[:, :8]
    ).abs().max() > 1e-2


def test_a_cut_whisper_gives_a_clip_what_it_gives_it_in_the_whole_window() -> None:
    whole, cut, log_mel = pooled(), pooled(cut=True), noise(2, 20, 60)
    given = F.pad(log_mel, (0, whisper.AHEAD))
    for frames in (4, 7, 32, 59, 60):
        samples = torch.tensor([frames * 160, 3 * 160])
        want, counts = whole(log_mel, samples)
        pairs = (frames + 1) // 2
        speech, cut_counts = cut(given[:, :, : 2 * pairs + whisper.AHEAD], samples)
        assert cut_counts.tolist() == counts.tolist() and speech.shape[1] == pairs // 2
        for row, count in enumerate(counts.tolist()):
            close(speech[row, :count], want[row, :count])


@pytest.mark.parametrize("dialect", FUSED)
def test_the_graph_of_a_cut_whisper_takes_any_number_of_frames(
    dialect: str, tmp_path: Path
) -> None:
    with bound(dialect):
        encoder = pooled(cut=True)
    graph = traced(encoder, (noise(2, 20, 40), torch.tensor([6_000, 500])), tmp_path, encoder.opset)
    assert not graph.nodes.keys() & DATA_DEPENDENT
    for frames, samples in ((6, [600]), (62, [9_600, 1, 4_801]), (33, [4_900, 2_000])):
        log_mel, lengths = noise(len(samples), 20, frames), torch.tensor(samples)
        (speech, counts), wanted = graph.run(log_mel, lengths), encoder(log_mel, lengths)
        np.testing.assert_allclose(speech, wanted[0].numpy(), atol=1e-4)
        np.testing.assert_array_equal(counts, wanted[1].numpy())


def test_a_whole_window_pooled_is_the_mean_of_pairs_before_the_norm() -> None:
    encoder, plain = pooled(), whisper.build(TINY_WHISPER)
    plain.load_state_dict(encoder.state_dict())
    said: list[Tensor] = []
    hook = plain.layer_norm.register_forward_pre_hook(lambda _, given: said.append(given[0]))
    plain(noise(1, 20, 60))
    hook.remove()
    wanted = plain.layer_norm(F.avg_pool1d(said[0].transpose(1, 2), 2).transpose(1, 2))
    speech, counts = encoder(noise(1, 20, 60), torch.tensor([60 * 160]))
    close(speech, wanted)
    assert counts.tolist() == [15]


def test_an_odd_last_frame_is_left_out_of_the_pairs() -> None:
    encoder = pooled(max_source_positions=31)
    speech, counts = encoder(noise(1, 20, 62), torch.tensor([62 * 160]))
    assert speech.shape[1] == 15 == int(counts) == encoder.outputs["speech"].axes[1]


@pytest.mark.parametrize("dialect", FUSED)
def test_the_graph_of_a_pooled_whisper_computes_what_the_module_does(
    dialect: str, tmp_path: Path
) -> None:
    with bound(dialect):
        encoder = pooled()
    graph = traced(encoder, (noise(2, 20, 60), torch.tensor([9_600, 500])), tmp_path, encoder.opset)
    assert not graph.nodes.keys() & DATA_DEPENDENT
    assert graph.nodes[FUSED[dialect]] == TINY_WHISPER["encoder_layers"]
    for samples in ([9_600], [1, 321, 9_599], [0, 4_801]):
        log_mel, lengths = noise(len(samples), 20, 60), torch.tensor(samples)
        (speech, counts), wanted = graph.run(log_mel, lengths), encoder(log_mel, lengths)
        np.testing.assert_allclose(speech, wanted[0].numpy(), atol=1e-4)
        np.testing.assert_array_equal(counts, wanted[1].numpy())
        assert np.isfinite(speech).all()


@pytest.mark.parametrize("dialect", FUSED)
@pytest.mark.parametrize("variant", ["as published", "no relative positions"])
def test_the_beats_graph_computes_what_the_module_does(
    dialect: str, variant: str, tmp_path: Path
) -> None:
    cfg = TINY_BEATS | VARIANTS[variant]
    with bound(dialect):
        beats = load_beats(beats_state(cfg), cfg)
    graph = traced(beats, (noise(2, 100, 128), torch.tensor([100, 70])), tmp_path, beats.opset)
    assert not graph.nodes.keys() & (DATA_DEPENDENT | {"ReduceL2", "GatherND"})
    assert graph.nodes[FUSED[dialect]] == cfg["encoder_layers"]
    for rows, frames in ((1, 16), (1, 98), (2, 333), (3, 50)):
        fbank, lengths = noise(rows, frames, 128), frames - 15 * torch.arange(rows)
        audio, counts = graph.run(fbank, lengths)
        wanted, wanted_counts = beats(fbank, lengths)
        np.testing.assert_allclose(audio, wanted.numpy(), atol=1e-4)
        np.testing.assert_array_equal(counts, wanted_counts.numpy())
        assert all((row[count:] == 0).all() for row, count in zip(audio, counts, strict=True))
    audio, counts = graph.run(noise(2, 64, 128), torch.tensor([64, 15]))
    assert counts.tolist() == [32, 0] and (audio[1] == 0).all() and np.isfinite(audio).all()


def test_where_no_dialect_is_bound_attention_is_written_for_all_engines(tmp_path: Path) -> None:
    encoder = whisper.build(TINY_WHISPER)
    graph = traced(encoder, (noise(2, 20, 60),), tmp_path, encoder.opset)
    assert encoder.opset <= 20 and graph.nodes["Softmax"] == TINY_WHISPER["encoder_layers"]


def test_the_portable_graphs_need_no_newer_opset_than_18(tmp_path: Path) -> None:
    encoder = whisper.build(TINY_WHISPER)
    graph = traced(encoder, (noise(2, 20, 60),), tmp_path, opset=18)
    np.testing.assert_allclose(
        graph.run(noise(2, 20, 60))[0], encoder(noise(2, 20, 60)).numpy(), atol=1e-4
    )


def test_the_bias_is_not_repeated_for_each_row() -> None:
    bias = Beats(TINY_BEATS).encoder.relative_attention_bias
    assert bias is not None and bias(24).shape == (1, 4, 24, 24)


@pytest.mark.parametrize("patch", [8, 16, 128])
def test_the_bias_of_two_tokens_is_the_tables_for_their_distance(patch: int) -> None:
    beats = load_beats(
        beats_state(TINY_BEATS | {"input_patch_size": patch}),
        TINY_BEATS | {"input_patch_size": patch},
        most_frames=5 * patch,
    )
    bias, tokens = beats.encoder.relative_attention_bias, 4 * beats.patches
    assert bias is not None
    token = torch.arange(tokens)
    rows = buckets(token - token[:, None], TINY_BEATS["num_buckets"], TINY_BEATS["max_distance"])
    assert torch.equal(bias(tokens)[0], bias.weight[rows].permute(2, 0, 1))
