"""The shapes that are measured, as numbers: what is random is only the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PROMPT = 111  # positions: a question of SALMONN around its 88 audio embeddings
STEPS = 64  # tokens decoded after it
CAPACITY = 256  # positions of a cache, where a runtime wants to know them ahead
FRAMES = 3000  # of a 30 s window of log-mel


@dataclass(frozen=True)
class Llm:
    """A Llama; input and output embeddings are one matrix.

    `context` is cut: some exporters bake rotary tables of the whole context into the graph, which
    would count as weights. Llama 3.2's stretched frequencies are left out, they cost no time.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int = 128256
    context: int = 4096

    @property
    def queries(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key (or value) heads."""
        return self.kv_heads * self.head_dim

    @property
    def weights(self) -> int:
        """Numbers that a decoded token multiplies with: the layers' and the head's."""
        attention = self.hidden * 2 * (self.queries + self.keys)
        return self.layers * (attention + 3 * self.hidden * self.ffn) + self.vocab * self.hidden


LLMS = {
    "llama-3.2-1b": Llm(2048, 16, 32, 8, 64, 8192),
    "llama-3.2-3b": Llm(3072, 28, 24, 8, 128, 8192),
    "tiny": Llm(256, 2, 4, 2, 64, 512, vocab=1024, context=512),
}


@dataclass(frozen=True)
class Ears:
    """The two encoders and the bridge that fit together."""

    width: int
    layers: int
    heads: int
    ffn: int
    beats: dict[str, Any]  # what differs from BEATS below
    bridge: int  # the Q-Former's width
    mels: int = 128
    positions: int = 1500

    @property
    def flops(self) -> int:
        """Floating-point operations of Whisper's encoder on one window."""
        frames, width = self.positions, self.width
        products = 2 * frames * (4 * width * width + 2 * width * self.ffn)
        scores = 4 * frames * frames * width
        convolutions = 2 * 3 * (2 * frames * self.mels * width + frames * width * width)
        return self.layers * (products + scores) + convolutions


BEATS: dict[str, Any] = dict(  # the cfg of the published iter3+ checkpoints
    input_patch_size=16,
    embed_dim=512,
    conv_bias=False,
    encoder_layers=12,
    encoder_embed_dim=768,
    encoder_ffn_embed_dim=3072,
    encoder_attention_heads=12,
    activation_fn="gelu",
    layer_norm_first=False,
    deep_norm=True,
    conv_pos=128,
    conv_pos_groups=16,
    relative_position_embedding=True,
    num_buckets=320,
    max_distance=800,
    gru_rel_pos=True,
)
SMALL_BEATS = dict(
    embed_dim=32,
    encoder_layers=2,
    encoder_embed_dim=48,
    encoder_ffn_embed_dim=96,
    encoder_attention_heads=4,
    conv_pos=16,
    conv_pos_groups=4,
)
WHISPERS = {
    "large-v3-turbo": Ears(1280, 32, 20, 5120, beats={}, bridge=768),
    "tiny": Ears(64, 2, 2, 256, beats=SMALL_BEATS, bridge=96),
}


@dataclass(frozen=True)
class Shape:
    """What is measured together: which checkpoint, and which kinds of rows."""

    llm: str
    whisper: str
    kinds: tuple[str, ...] = field(default=("decoder",))


SHAPES = {
    "llama32_1b": Shape("llama-3.2-1b", "large-v3-turbo"),
    "llama32_3b": Shape("llama-3.2-3b", "large-v3-turbo"),
    "whisper_turbo": Shape("tiny", "large-v3-turbo", ("encoder",)),
    "tiny": Shape("tiny", "tiny", ("decoder", "encoder")),
}
