"""LLMs of transformers whose layers are pruned by hand here, and their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from demo.random_checkpoint import tokenizer

SIZES: dict[str, Any] = dict(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
WHOLE = (4, 2, 96)
Layer = tuple[int, int, int]  # heads of queries, of keys, and how wide the MLP is; 0: none


@dataclass(frozen=True)
class Pruned:
    """An LLM, what is left of its layers, and what its config.json says in the end."""

    kind: str
    layers: Sequence[Layer]
    options: dict[str, Any] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)  # None: the key is taken out
    biases: bool = False  # of o_proj and down_proj, as FLAP adds them
    all_saved: bool = False  # what layers lack lies in the folder all the same

    def make(self, folder: Path) -> Any:
        """Save the folder, and give the model as transformers runs it."""
        torch.manual_seed(0)
        made = tokenizer()
        sizes = SIZES | dict(vocab_size=made.get_vocab_size()) | self.options
        config = getattr(transformers, f"{self.kind}Config")(**sizes)
        config._attn_implementation = "eager"
        model = getattr(transformers, f"{self.kind.removesuffix('Text')}ForCausalLM")(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(
                    0, 2.5 * parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.5
                )
            whole = model.state_dict()
            for layer, left in zip(model.model.layers, self.layers, strict=True):
                _prune(layer, left, self.biases)
        model.config.save_pretrained(folder)
        state = (whole if self.all_saved else {}) | model.state_dict()
        if config.tie_word_embeddings:
            del state["lm_head.weight"]
        save_file(
            {n: t.clone().contiguous() for n, t in state.items()}, folder / "model.safetensors"
        )
        file = folder / "config.json"
        plain = json.loads(file.read_text()) | self.said
        file.write_text(json.dumps({k: v for k, v in plain.items() if v is not None}))
        made.save(str(folder / "tokenizer.json"))
        said = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>")
        (folder / "tokenizer_config.json").write_text(json.dumps(said))
        return model


class Nothing(nn.Module):
    """In the place of attention or an MLP that was pruned; so is its norm, which sees nothing."""

    def forward(self, *_: Any, hidden_states: Tensor | None = None, **__: Any) -> Any:
        if hidden_states is None:
            return torch.zeros_like(_[0])
        return torch.zeros_like(hidden_states), None


class Passed(nn.Module):
    """In the place of a norm that was pruned."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def _prune(layer: Any, left: Layer, biases: bool) -> None:
    heads, kv_heads, wide = left
    attention, mlp = layer.self_attn, layer.mlp
    sandwich = hasattr(layer, "pre_feedforward_layernorm")
    if heads:
        d = attention.head_dim
        for name, rows in (
            ("q_proj", heads * d),
            ("k_proj", kv_heads * d),
            ("v_proj", kv_heads * d),
        ):
            _keep(getattr(attention, name), rows, 0)
        _keep(attention.o_proj, rows=heads * d, axis=1)
        for name, rows in (("q_norm", heads * d), ("k_norm", kv_heads * d)):
            norm = getattr(attention, name, None)
            if norm is not None and len(norm.weight) > d:  # of the whole width, not of a head
                norm.weight = nn.Parameter(norm.weight[:rows].clone())
        attention.num_key_value_groups = heads // kv_heads
    else:
        layer.self_attn, layer.input_layernorm = Nothing(), Passed()
        if sandwich:
            layer.post_attention_layernorm = Passed()
    if wide:
        for linear in (mlp.gate_proj, mlp.up_proj):
            _keep(linear, wide, 0)
        _keep(mlp.down_proj, wide, 1)
    else:
        layer.mlp = Nothing()
        for name in ("pre", "post") if sandwich else ():
            setattr(layer, f"{name}_feedforward_layernorm", Passed())
        if not sandwich:
            layer.post_attention_layernorm = Passed()
    for linear in (attention.o_proj, mlp.down_proj) if biases else ():
        linear.bias = nn.Parameter(torch.randn(linear.out_features))


def _keep(linear: nn.Linear, rows: int, axis: int) -> None:
    """The last of a linear's outputs (axis 0) or inputs (axis 1) are left."""
    size = linear.weight.shape[axis]
    linear.weight = nn.Parameter(linear.weight.narrow(axis, size - rows, rows).clone())
    linear.out_features, linear.in_features = linear.weight.shape
    if linear.bias is not None and axis == 0:
        linear.bias = nn.Parameter(linear.bias[size - rows :].clone())
