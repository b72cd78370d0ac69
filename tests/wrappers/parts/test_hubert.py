"""HuBERT, wav2vec 2.0 and WavLM against transformers, whose clips are each heard alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from alm.errors import BadCheckpoint
from wrappers.checkpoint.weights.hollow import attach, filled, hollow
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.dialect import bound
from wrappers.encoders import hubert

SIZES: dict[str, Any] = dict(
    hidden_size=36,
    intermediate_size=50,
    num_hidden_layers=3,
    num_attention_heads=3,
    conv_dim=(20,) * 7,
    num_conv_pos_embedding_groups=4,
    layerdrop=0.0,
)
LARGE: dict[str, Any] = dict(
    do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True, num_conv_pos_embeddings=19
)
MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "base": (HubertConfig, HubertModel, {}),
    "large": (HubertConfig, HubertModel, LARGE | {"layer_norm_eps": 1e-3}),
    "bare": (HubertConfig, HubertModel, dict(feat_proj_layer_norm=False, hidden_act="gelu_new")),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model, dict(conv_stride=(5, 2, 2, 2, 2, 2, 1))),
    "wav2vec2_large": (Wav2Vec2Config, Wav2Vec2Model, LARGE),
}
# Near distances have a row of the table each, here up to 4; 17 frames also pass the furthest of 9.
RELATIVE: dict[str, Any] = dict(num_buckets=16, max_bucket_distance=9, num_attention_heads=6)
MODELS |= {
    "wavlm": (WavLMConfig, WavLMModel, {}),
    "wavlm_near": (WavLMConfig, WavLMModel, RELATIVE),
    "wavlm_large": (WavLMConfig, WavLMModel, LARGE | RELATIVE | {"num_buckets": 13}),
}
LENGTHS = (400, 719, 6_011)


def original(name: str) -> Any:
    config, model, settings = MODELS[name]
    torch.manual_seed(3)
    made = model(config(**SIZES | settings)).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight += 0.1 * torch.randn_like(weight)  # norms and biases as well
    return made


def ours(model: Any, layer: int, **settings: Any) -> hubert.Hubert:
    weights = Weights("hubert")
    weights.add_tensors(model.state_dict())
    config = hubert.known(model.config.to_dict(), "config.json")
    part = hollow(lambda: hubert.Hubert(config, layer, 10**6, **settings))
    part = attach(part, hubert.folded(weights))
    return filled(part) if layer else part  # without its weights in memory it computes the same


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Clips of several lengths with noise behind their ends, which nobody may hear."""
    noise = torch.Generator().manual_seed(1)
    pcm = 0.2 * torch.randn(len(LENGTHS), max(LENGTHS), generator=noise) + 0.05
    return pcm, torch.tensor(LENGTHS)


@pytest.mark.parametrize("dialect", ["decomposed", "standard", "ort"])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_every_layer_is_that_of_transformers(name: str, dialect: str) -> None:
    model = original(name)
    pcm, lengths = batch()
    wanted = [
        model(row[None, :n], output_hidden_states=True).hidden_states
        for row, n in zip(pcm, LENGTHS, strict=True)
    ]
    for layer in (0, 2, 3):
        with bound(dialect):
            speech, frames = ours(model, layer)(pcm, lengths)
        for row, count, states in zip(speech, frames.tolist(), wanted, strict=True):
            assert count == states[layer].shape[1]
            scale = max(1.0, float(states[layer].abs().max()))
            assert float((row[:count] - states[layer][0]).abs().max()) < 1e-4 * scale
            assert not row[count:].any()


@pytest.mark.parametrize("name", ["large", "wav2vec2_large", "wavlm_large"])
@torch.no_grad()
def test_a_batch_is_what_transformers_makes_of_it_under_its_mask(name: str) -> None:
    """Of models that norm each frame; the others' first norm hears the padding there."""
    model, (pcm, lengths) = original(name), batch()
    mask = (torch.arange(pcm.shape[1]) < lengths[:, None]).long()
    settings: dict[str, Any] = dict(attention_mask=mask, output_hidden_states=True)
    states = model(pcm * mask, **settings).hidden_states[2]
    speech, frames = ours(model, 2)(pcm, lengths)
    for got, want, count in zip(speech, states, frames.tolist(), strict=True):
        assert float((got[:count] - want[:count]).abs().max()) < 1e-4 * float(want.abs().max())


@torch.no_grad()
def test_distances_beyond_the_furthest_share_a_row() -> None:
    """Of 20 s, with the published table: distances of up to 998 frames, 800 the furthest."""
    model = original("wavlm")
    pcm = 0.2 * torch.randn(1, 20 * 16_000, generator=torch.Generator().manual_seed(4))
    speech, frames = ours(model, 3)(pcm, torch.tensor([pcm.shape[1]]))
    state = model(pcm, output_hidden_states=True).hidden_states[3]
    assert int(frames[0]) == state.shape[1] == 999
    assert float((speech - state).abs().max()) < 1e-4 * float(state.abs().max())


@pytest.mark.parametrize("name", ["base", "large"])
@torch.no_grad()
def test_a_clip_is_normalized_as_the_feature_extractor_does(name: str) -> None:
    model = original(name)
    pcm, lengths = batch()
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    speech, frames = ours(model, 2, normalize=hubert.NORMALIZE_EPS)(pcm, lengths)
    for row, n, got, count in zip(pcm, LENGTHS, speech, frames.tolist(), strict=True):
        heard = extractor(row[:n].numpy(), sampling_rate=16_000, return_tensors="pt").input_values
        state = model(heard, output_hidden_states=True).hidden_states[2][0]
        assert float((got[:count] - state).abs().max()) < 1e-4 * float(state.abs().max())


@torch.no_grad()
def test_silence_is_normalized_with_fairseqs_epsilon() -> None:
    pcm = 1e-3 * torch.randn(1, 2000, generator=torch.Generator().manual_seed(2))
    model = original("base")
    got = ours(model, 1, normalize=1e-5)(pcm, torch.tensor([2000]))[0]
    heard = torch.nn.functional.layer_norm(pcm, pcm.shape)
    state = model(heard, output_hidden_states=True).hidden_states[1]
    assert float((got - state).abs().max()) < 1e-4 * float(state.abs().max())


@pytest.mark.parametrize("samples", LENGTHS)
def test_frames_and_the_shortest_clip_are_counted(samples: int) -> None:
    known = hubert.known({"model_type": "hubert"}, "config.json")
    assert hubert.least_samples(known) == 400
    assert hubert.frames_of(known, 399) == 0
    model = HubertModel(HubertConfig(**SIZES))
    count = model._get_feat_extract_output_lengths(torch.tensor(samples))  # pyright: ignore
    assert hubert.frames_of(known, samples) == int(count)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (dict(model_type="unispeech"), "model_type: 'unispeech'.* hubert, wav2vec2, wavlm"),
        (
            dict(model_type="wavlm", num_buckets=3),
            "num_buckets 3; it must",
        ),
        (dict(model_type="wavlm", max_bucket_distance="far"), "max_bucket_distance: 'far'"),
        (dict(conv_pos_batch_norm=True), "conv_pos_batch_norm: True"),
        (dict(adapter_attn_dim=16), "adapter_attn_dim: 16"),
        (dict(feat_extract_norm="batch"), "feat_extract_norm: 'batch'"),
        (dict(conv_kernel=[10, 0]), r"conv_kernel: \[10, 0\]"),
        (dict(conv_stride=[5]), "different lengths"),
        (dict(num_conv_pos_embeddings=0), "num_conv_pos_embeddings: 0"),
        (dict(hidden_size=2**20), "hidden_size"),
    ],
)
def test_what_is_not_followed_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(BadCheckpoint, match=said):
        hubert.known({"model_type": "hubert", **changed}, "config.json")


@pytest.mark.parametrize(
    ("changed", "layer", "said"),
    [
        ({}, 13, "layer 13 of HuBERT is asked for, which has 12"),
        (dict(hidden_size=50, num_attention_heads=4, num_conv_pos_embedding_groups=2), 1, "heads"),
        (dict(hidden_size=50), 1, "num_conv_pos_embedding_groups"),
        (dict(hidden_act="mish"), 1, "'mish'"),
        (
            dict(model_type="wavlm", max_bucket_distance=80),
            1,
            "max_distance 80; it must",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changed: dict[str, Any], layer: int, said: str) -> None:
    known = hubert.known({"model_type": "hubert", **changed}, "config.json")
    with pytest.raises(BadCheckpoint, match=said):
        hollow(lambda: hubert.Hubert(known, layer, 16_000))
