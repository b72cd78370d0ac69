"""BEATs: patches of a filterbank in, one feature vector for each patch (8 every 160 ms) out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.ports import Port, Span
from wrappers import Wrapper, dialect, randomised
from wrappers.checkpoint import limits
from wrappers.checkpoint.weights.fit import fill
from wrappers.checkpoint.weights.hollow import hollow
from wrappers.layers.beats_layers import Encoder

MELS = 128
MOST_FRAMES = 2998  # of 30 s
# What the original takes for a key that the checkpoint's cfg leaves out (it has no usable patch
# size; 16 is that of every published checkpoint).
DEFAULTS: dict[str, Any] = {
    "input_patch_size": 16,
    "embed_dim": 512,
    "conv_bias": False,
    "encoder_layers": 12,
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": False,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "relative_position_embedding": False,
    "num_buckets": 320,
    "max_distance": 1280,
    "gru_rel_pos": False,
}


class Beats(Wrapper):
    """fbank -> audio. A row shorter than its batch gives what it gives alone, then zeros.

    (In the original the tail of a short row is the encoder's answer to zeros, so that a clip's
    features depend on its neighbours.)

    Args:
        cfg: the checkpoint's `cfg`.
        most_frames: the longest clip, in frames of 10 ms.
    """

    role = "encoder"

    def __init__(self, cfg: Mapping[str, Any], most_frames: int = MOST_FRAMES) -> None:
        super().__init__()
        self.opset = dialect.current().ENCODER_OPSET
        known = {**DEFAULTS, **cfg}
        limits.check({name: known[name] for name in DEFAULTS}, "BEATs' cfg")
        embed, width, patch = (
            known[key] for key in ("embed_dim", "encoder_embed_dim", "input_patch_size")
        )
        if not 0 < patch <= MELS:
            raise BadCheckpoint(f"BEATs' input_patch_size {patch} does not lie in 1 to {MELS}")
        self.patch, self.patches = patch, MELS // patch  # patches: tokens of one moment
        self.patch_embedding = nn.Conv2d(1, embed, patch, stride=patch, bias=known["conv_bias"])
        self.layer_norm = nn.LayerNorm(embed)
        self.post_extract_proj = nn.Identity() if embed == width else nn.Linear(embed, width)
        self.encoder = Encoder(known, most_frames // patch, self.patches)
        self.inputs = {
            "fbank": Port("float32", ("batch", "frames", MELS)),
            "fbank_lengths": Port("int64", ("batch",), counts="frames"),
        }
        self.outputs = {
            "audio": Port("float32", ("batch", "tokens", width)),
            "audio_lengths": Port("int64", ("batch",), counts="tokens"),
        }
        self.spans = {"frames": Span(patch, min(998, most_frames), most_frames)}

    def forward(self, fbank: Tensor, fbank_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, frames, 128], [batch] -> [batch, tokens, width], [batch]."""
        x = self.patch_embedding(fbank.unsqueeze(1))  # [batch, embed, moments, patches]
        x = x.flatten(2).transpose(1, 2)  # time first: the patches of a moment are neighbours
        x = self.post_extract_proj(self.layer_norm(x))
        lengths = fbank_lengths // self.patch * self.patches
        token = torch.arange(x.shape[1], device=x.device)
        real = (token < lengths.unsqueeze(1)).to(x.dtype)  # [batch, tokens], 1 or 0
        return self.encoder(x, real), lengths


def load_beats(
    state: Mapping[str, Tensor],
    cfg: Mapping[str, Any],
    where: str = "BEATs",
    most_frames: int = MOST_FRAMES,
) -> Beats:
    """BEATs with the weights of a checkpoint's `model`; `where` is the file they came from.

    Raises:
        BadCheckpoint: weights are missing, misshapen or unknown, or the cfg is not supported.
    """
    beats = hollow(lambda: Beats(cfg, most_frames))
    unused = fill(beats, as_ours(state), where)
    # The original has gates that it does not use where there are no relative positions to gate.
    strange = [name for name in unused if not name.startswith("predictor.") and "grep_" not in name]
    if strange:
        raise BadCheckpoint(
            f"{where} has weights that its cfg has no place for: {', '.join(strange)}"
        )
    return beats.requires_grad_(False)


def as_ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The original's weights with constants folded, under the names that Beats has.

    - One table of relative positions is shared by all layers and saved under each of them; the
      original loads layer after layer, which leaves the last layer's in the shared table.
    - Weight norm over dim 2: w = g v / |v|, one norm for each tap of the positional convolution.
    - The gate's eight outputs are only ever summed in fours: eight rows become two.
    """
    ours = dict(state)
    conv = "encoder.pos_conv.0."
    for g_name, v_name in (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ):
        if conv + g_name in ours and conv + v_name in ours:
            g, v = ours.pop(conv + g_name).double(), ours.pop(conv + v_name).double()
            ours[conv + "weight"] = (g * v / v.norm(dim=(0, 1), keepdim=True)).float()
    tables = [name for name in ours if name.endswith("self_attn.relative_attention_bias.weight")]
    if tables:
        tables.sort(key=lambda name: int(name.split(".")[2]))  # encoder.layers.N.self_attn...
        ours["encoder.relative_attention_bias.weight"] = [ours.pop(name) for name in tables][-1]
    for name in [name for name in ours if ".self_attn.grep_linear." in name]:
        if ours[name].shape[0] == 8:
            ours[name] = ours[name].unflatten(0, (2, 4)).sum(1)
    return ours


def tiny() -> Beats:
    """The smallest that computes something, with random weights, for tests."""
    sizes: dict[str, Any] = dict(
        embed_dim=16, encoder_embed_dim=24, encoder_ffn_embed_dim=32, encoder_layers=2
    )
    rest: dict[str, Any] = dict(encoder_attention_heads=2, conv_pos=8, conv_pos_groups=2)
    return randomised(Beats(DEFAULTS | sizes | rest, most_frames=198))
