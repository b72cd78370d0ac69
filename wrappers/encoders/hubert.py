"""HuBERT, wav2vec 2.0 and WavLM: samples in, one feature vector for every 20 ms out, of any layer.

The base models norm after each layer and, behind the first convolution, each channel over the whole
clip; the large ones (`do_stable_layer_norm`) norm before each layer and in every convolution. The
attention of WavLM also has a bias of relative positions, gated by its input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.ports import Port, Span
from wrappers import Wrapper, dialect, randomised
from wrappers.checkpoint import limits
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.layers.hubert_layers import Convolutions, Encoder, over_own

RATE = 16_000
NORMALIZE_EPS = 1e-7  # of transformers' feature extractor; fairseq has 1e-5
FAMILIES = ("hubert", "wav2vec2", "wavlm")
# What transformers takes for a key that config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "feat_extract_norm": "group",
    "feat_proj_layer_norm": True,
    "conv_dim": (512,) * 7,
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    "conv_bias": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "layer_norm_eps": 1e-5,
    "do_stable_layer_norm": False,
    "num_buckets": 320,  # this and the next are WavLM's
    "max_bucket_distance": 800,
}
# Settings that are followed with these values alone.
ELSE: dict[str, Any] = {"conv_pos_batch_norm": False, "adapter_attn_dim": None}
# Whole numbers from 1 to these.
COUNTS = {
    "num_conv_pos_embeddings": 2**12,
    "num_conv_pos_embedding_groups": 2**12,
    "max_bucket_distance": 2**20,
}
POS_CONV = "encoder.pos_conv_embed.conv."
GATE = ".attention.gru_rel_pos_linear."
WEIGHT_NORM = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


class Hubert(Wrapper):
    """pcm, pcm_lengths -> speech, speech_lengths: transformers' hidden_states[layer].

    A row of n samples is what it is alone, about n / 320 - 1 frames; then come zeros. Weights have
    the names of transformers' HubertModel, Wav2Vec2Model and WavLMModel. The norm behind all layers
    of a stable model is none of a layer's, there as in fairseq's `output_layer`, and is never run.

    Args:
        config: the model's config.json, as `known` gives it.
        layer: how many layers are run; 0 is what goes into the first.
        most: samples of the longest clip.
        normalize: the epsilon with which each clip is brought to mean 0 and variance 1; 0: it is
            heard as it is.

    Raises:
        BadCheckpoint: sizes that do not go into each other, or layers that are not there.
    """

    role = "encoder"

    def __init__(
        self,
        config: Mapping[str, Any],
        layer: int,
        most: int,
        *,
        normalize: float = 0.0,
    ) -> None:
        super().__init__()
        self.dialect = dialect.current()
        self.opset = self.dialect.ENCODER_OPSET
        self.known, self.normalize = config, normalize
        width, dims = config["hidden_size"], config["conv_dim"]
        if not 0 <= layer <= config["num_hidden_layers"]:
            raise BadCheckpoint(
                f"layer {layer} of HuBERT is asked for, which has {config['num_hidden_layers']}"
            )
        self.feature_extractor = Convolutions(config)
        self.feature_projection: Any = nn.Module()
        if config["feat_proj_layer_norm"]:
            self.feature_projection.layer_norm = nn.LayerNorm(dims[-1], config["layer_norm_eps"])
        self.feature_projection.projection = nn.Linear(dims[-1], width)
        self.encoder = Encoder(config, layer, max(1, frames_of(config, most)))
        self.inputs = {
            "pcm": Port("float32", ("batch", "samples")),
            "pcm_lengths": Port("int64", ("batch",), counts="samples"),
        }
        self.outputs = {
            "speech": Port("float32", ("batch", "frames", width)),
            "speech_lengths": Port("int64", ("batch",), counts="frames"),
        }
        least = least_samples(config)
        self.spans = {"samples": Span(least, max(least, min(10 * RATE, most)), most)}

    def forward(self, pcm: Tensor, pcm_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, samples], [batch] -> [batch, frames, width], [batch]."""
        if self.normalize:  # over its own samples
            own = torch.arange(pcm.shape[1]) < pcm_lengths[:, None]
            pcm = over_own(pcm, own.to(pcm.dtype), self.normalize)
        x, lengths = self.feature_extractor(pcm, pcm_lengths)
        projection = self.feature_projection
        x = projection.layer_norm(x) if self.known["feat_proj_layer_norm"] else x
        real = (torch.arange(x.shape[1]) < lengths[:, None]).to(x.dtype)
        return self.encoder(projection.projection(x), real), lengths


def known(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings, what the config leaves out as transformers takes it.

    Raises:
        BadCheckpoint: another model's, or a setting that is not followed; all of them named.
    """
    if config.get("model_type") not in FAMILIES:
        raise BadCheckpoint(
            f"{where} says model_type: {config.get('model_type')!r:.60}, and of encoders of "
            f"samples these are known: {', '.join(FAMILIES)}"
        )
    limits.check(config, where)
    held = {**DEFAULTS, **{k: config[k] for k in DEFAULTS if config.get(k) is not None}}
    wrong = [f"{k}: {config[k]!r:.60}" for k, no in ELSE.items() if config.get(k, no) not in (no,)]
    if held["feat_extract_norm"] not in ("group", "layer"):
        wrong.append(f"feat_extract_norm: {held['feat_extract_norm']!r:.60}")
    for name in ("conv_dim", "conv_kernel", "conv_stride"):
        sizes = held[name]
        plain = isinstance(sizes, list | tuple) and 0 < len(sizes) <= 32
        if not plain or not all(type(n) is int and 0 < n <= 2**14 for n in sizes):
            wrong.append(f"{name}: {sizes!r:.60}")
    for name, most in COUNTS.items():
        if type(held[name]) is not int or not 0 < held[name] <= most:
            wrong.append(f"{name}: {held[name]!r:.60}")
    if not wrong and len({len(held[k]) for k in ("conv_dim", "conv_kernel", "conv_stride")}) > 1:
        wrong.append("conv_dim, conv_kernel and conv_stride of different lengths")
    if config["model_type"] != "hubert":
        held["feat_proj_layer_norm"] = True  # which they always have
    held["relative"] = config["model_type"] == "wavlm"
    if wrong:
        raise BadCheckpoint(f"{where} says what is not followed: {'; '.join(wrong)}")
    return held


def least_samples(known: Mapping[str, Any]) -> int:
    """Samples that make one frame."""
    least = 1
    for kernel, stride in reversed([*zip(known["conv_kernel"], known["conv_stride"], strict=True)]):
        least = (least - 1) * stride + kernel
    return least


def frames_of(known: Mapping[str, Any], samples: int) -> int:
    """Frames of a clip."""
    for kernel, stride in zip(known["conv_kernel"], known["conv_stride"], strict=True):
        samples = max(0, samples - kernel + stride) // stride
    return samples


def folded(weights: Weights) -> Weights:
    """transformers' weights with what is constant computed.

    - The weight norm of the positions, w = g v / |v|, of which there is one for each tap.
    - The eight outputs of WavLM's gates are only ever summed in fours: eight rows become two.
    """
    made = Weights(weights.where)
    for name, shape in weights.shapes.items():
        if GATE in name and shape[:1] == (8,):
            made.add(
                name, (2, *shape[1:]), lambda n=name: weights[n].float().unflatten(0, (2, 4)).sum(1)
            )
    for names in WEIGHT_NORM:
        g, v = (POS_CONV + name for name in names)
        if g in weights and v in weights:
            made.add(
                POS_CONV + "weight", weights.shapes[v], lambda g=g, v=v: _normed(weights, g, v)
            )
            break
    return weights.over(made)


def _normed(weights: Weights, g: str, v: str) -> Tensor:
    scale, taps = weights[g].double(), weights[v].double()
    return (scale * taps / taps.norm(dim=(0, 1), keepdim=True)).float()


def tiny(model_type: str = "hubert") -> Hubert:
    """The smallest that computes something, with random weights, for tests."""
    sizes: dict[str, Any] = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2)
    sizes |= dict(num_attention_heads=2, conv_dim=(16, 12), conv_kernel=(10, 3), conv_stride=(5, 2))
    sizes |= dict(num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)
    sizes |= dict(model_type=model_type, num_buckets=16, max_bucket_distance=40)
    return randomised(Hubert(known(sizes, "tiny"), 2, 2000, normalize=NORMALIZE_EPS))
