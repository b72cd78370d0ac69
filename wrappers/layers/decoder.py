"""The decoder of every LLM family: one graph for prompt, chunk and single token.

Tensors are named as in the checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from alm.ports import (
    CACHE_IN,
    CACHE_OUT,
    FIRST,
    FROM_END,
    MOST_FROM_END,
    PROMPT,
    Port,
    Span,
    is_carried,
    is_slot,
)
from wrappers import Wrapper, dialect
from wrappers.layers.decoder_layers import Layer, Norm
from wrappers.layers.rope import Rope
from wrappers.layers.spec import Spec

HEADROOM = 2.0  # of an integer cache, over the largest value met in calibration


class Body(nn.Module):
    """What checkpoints call `model`, without the embedding, which is a part of its own."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        windows = spec.windows or (0,) * spec.layers
        layer = spec.layer or Layer
        self.layers = nn.ModuleList(layer(spec.at(i), window) for i, window in enumerate(windows))
        self.attending = [i for i in range(spec.layers) if spec.at(i).heads]
        for i, attention in self.attentions():
            attention.rotates = spec.rotated[i] if spec.rotated else True
        self.norm = Norm(spec.hidden, spec.eps, spec.norm_offset)

    def attentions(self) -> Iterator[tuple[int, Any]]:
        """The layers that attend, by number, each one's attention; only these have a cache."""
        return ((i, self.layers[i].self_attn) for i in self.attending)


class Decoder(Wrapper):
    """inputs_embeds and a KV cache in, logits of a row's last positions and the longer cache out.

    `past_lengths` gives how many positions a row has in the cache, `seq_lengths` how many of the
    `seq` new ones are real (rows are padded on the right). An empty cache is a prompt, seq = 1 is a
    step, all between is a chunk.

    Where rotary frequencies are those of a row's prompt while it is answered, `prompt_lengths`
    gives its length; 0 is one of the trained length.

    `logits_from_end` gives whose logits are wanted, counted from a row's last real position, which
    is 0; positions before the first are the first. Left out, they are the last one's.

    Where rows `slide` and slot and position are one, `first_position` gives the position that slot
    0 has by now, so that the keys of a window can be moved to the front. It is a float, as angles
    are computed in.
    """

    role = "decoder"

    def __init__(self, spec: Spec, *, every: bool = False, head_bias: bool = False) -> None:
        """`every`: logits of all positions, zeros where a row is padding, not of the last alone."""
        super().__init__()
        self.spec, self.every = spec, every
        self.dialect = dialect.current()
        self.model = Body(spec)
        self.lm_head = nn.Linear(spec.hidden, spec.vocab, bias=head_bias)
        kinds = tuple(dict.fromkeys(spec.ropes)) or ("",)
        turned = partial(Rope, spec.config, spec.head_dim, partial=spec.partial)
        self.rope: Any = spec.rope(spec.config, spec.head_dim) if spec.rope else turned(kinds[0])
        self.other_ropes = nn.ModuleDict({kind: turned(kind) for kind in kinds[1:]})
        self.conditioned = None
        if spec.condition:
            self.conditioned = spec.condition[1](spec.hidden)
        self.opset = self.dialect.OPSET
        self.chunk_rows = self.dialect.CHUNK_ROWS
        self.merge_error: float | None = None
        self.keep_state_in("float32")

    @property
    def facts(self) -> dict[str, Any]:
        """How far merging an adapter moved logits; weights that a step reads, if not all."""
        mlps = (getattr(layer, "mlp", None) for layer in self.model.layers)  # pruned ones lack it
        idle = sum(getattr(mlp, "idle", 0) for mlp in mlps)
        reads = {"active_weights": sum(w.numel() for w in self.parameters()) - idle}
        merged = {} if self.merge_error is None else {"merge_error": self.merge_error}
        return merged | (reads if idle else {})

    def keep_state_in(self, dtype: str) -> None:
        """Set the ports, with a KV cache of this dtype."""
        spec, axis, cache_dtype = self.spec, self.dialect.CACHE_AXIS, dtype
        for _, attention in self.model.attentions():
            attention.cache_dtype = held = getattr(torch, cache_dtype)
            attention.compute_dtype = held if held.is_floating_point else torch.float32
        grown = "total" if axis == "past" else axis
        wide = spec.head_dim + -spec.head_dim % self.dialect.HEAD_MULTIPLE
        self.inputs = {
            "inputs_embeds": Port("float32", ("batch", "seq", spec.hidden)),
            "past_lengths": Port("int64", ("batch",), counts="past"),
            "seq_lengths": Port("int64", ("batch",), counts="seq"),
        }
        positions = "seq" if self.every else "wanted"
        self.outputs = {"logits": Port("float32", ("batch", positions, spec.vocab))}
        if self.dialect.TRACKS_POSITIONS:
            self.inputs[f"{CACHE_IN}positions"] = Port("int64", ("batch", axis), counts="past")
            self.outputs[f"{CACHE_OUT}positions"] = Port("int64", ("batch", grown))
        for i in self.model.attending:
            kv_heads = spec.at(i).kv_heads
            for kind in ("key", "value"):
                shape = ("batch", kv_heads, axis, wide)
                after = ("batch", kv_heads, grown, wide)
                self.inputs[f"{CACHE_IN}{i}.{kind}"] = Port(cache_dtype, shape)
                self.outputs[f"{CACHE_OUT}{i}.{kind}"] = Port(cache_dtype, after)
        # Behind the caches, where only those look that know of them.
        self.given = [FIRST] if spec.slides and not self.dialect.TRACKS_POSITIONS else []
        self.given += [spec.condition[0]] if spec.condition else []
        self.inputs |= {name: Port("float32", ("batch",)) for name in self.given}
        if self.rope.by_prompt:
            self.inputs[PROMPT] = Port("int64", ("batch",), counts=axis)
            self.given.append(PROMPT)
        if not self.every:
            self.inputs[FROM_END] = Port("int64", ("batch", "wanted"), counts="seq")
            self.given.append(FROM_END)
        most = spec.context
        self.spans = {"seq": Span(1, min(128, most), most), "past": Span(0, min(256, most), most)}
        if axis not in self.spans:
            self.spans[axis] = Span(1, min(512, most), most)
        if not self.every:
            self.spans["wanted"] = Span(1, 1, MOST_FROM_END)

    def fresh(self, batch: int, positions: int) -> list[Tensor]:
        """What a call takes behind its lengths: of rows without a past, with room for so many.

        Slots of adapters are left out: a call without them is one of the base.
        """
        sizes = {"batch": batch, "past": 0, "capacity": positions, "wanted": 1}
        behind = [port for name, port in list(self.inputs.items())[3:] if not is_slot(name)]
        return [torch.from_numpy(port.empty(sizes)) for port in behind]

    @property
    def state_scales(self) -> dict[str, Tensor]:
        """Port -> what a step of an integer cache is worth [1, kv_heads, 1, wide]."""
        return {
            f"{CACHE_IN}{i}.{kind}": scale.view(1, self.spec.at(i).kv_heads, 1, -1)
            for i, attention in self.model.attentions()
            for kind, scale in attention.scales.items()
        }

    @torch.no_grad()
    def calibrate(self, embeds: Tensor) -> None:
        """Set the scales of an integer cache from what embeds [seq, hidden] leave in it.

        A number of a head gets its own scale, with HEADROOM for what was not seen here.
        """
        seq = len(embeds)
        lengths = torch.tensor([0]), torch.tensor([seq])
        outputs = self(embeds[None].float(), *lengths, *self.fresh(1, seq))
        kept = dict(zip(self.outputs, outputs, strict=True))
        for i, attention in self.model.attentions():
            attention.scales = {
                kind: (HEADROOM / 127 * kept[f"{CACHE_OUT}{i}.{kind}"][0].abs().amax(1))
                .flatten()
                .clamp(min=1e-6)
                for kind in ("key", "value")
            }

    def forward(
        self, inputs_embeds: Tensor, past_lengths: Tensor, seq_lengths: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        count = sum(map(is_carried, self.inputs))
        given = dict(zip(self.given, past[count:], strict=False))  # the last may be left out
        past = past[:count]
        steps = torch.arange(inputs_embeds.shape[1])[None]
        positions = past_lengths[:, None] + steps  # [batch, seq]
        present: list[Tensor] = []
        if self.dialect.TRACKS_POSITIONS:
            real = steps < seq_lengths[:, None]
            keys = self.dialect.extend_positions(past[0], positions, real)
            present, past = [keys], past[1:]
        else:
            keys = torch.arange(past[0].shape[2])[None]  # slot and position are one
        distance = (positions[:, :, None] - keys[:, None, :])[:, None]  # [batch, 1, seq, keys]
        ropes = (self.rope, *self.other_ropes.values())
        at = positions, given.get(PROMPT, past_lengths + seq_lengths)
        if FIRST in given:
            at = at[0] + given[FIRST][:, None], at[1] + given[FIRST]
        turned = {rope.of: rope(*at) for rope in ropes}
        told: dict[str, Tensor] = {}
        if self.spec.condition and self.conditioned is not None:
            told = {"condition": self.conditioned(given[self.spec.condition[0]])}

        # Logits that are wanted alone: all would be 57 MB for a prompt of 111. So the last layer
        # that attends needs keys and values of all positions, and no more of the others.
        wanted = None
        if not self.every:
            from_end = given.get(FROM_END, torch.zeros_like(seq_lengths)[:, None])
            wanted = (seq_lengths[:, None] - 1 - from_end).clamp(min=0)
        narrows = max(self.model.attending, default=0)
        x, held = inputs_embeds, iter(past)
        if self.spec.input_scale != 1.0:
            x = x * self.spec.input_scale
        for i, layer in enumerate(self.model.layers):
            cache = [next(held), next(held)] if i in self.model.attending else []
            rope = turned[self.spec.ropes[i] if self.spec.ropes else ""]
            last = wanted if i == narrows else None
            x, *kept = layer(x, rope, distance, past_lengths, *cache, rows=last, **told)
            present += kept
        logits = self._logits(x)
        if self.every:
            real = steps < seq_lengths[:, None]
            logits = torch.where(real[..., None], logits, torch.zeros_like(logits))
        return logits, *present

    def _logits(self, x: Tensor) -> Tensor:
        logits = self.lm_head(self.model.norm(x))
        if self.spec.logit_divisor != 1.0:
            logits = logits / self.spec.logit_divisor
        if self.spec.logit_softcap:
            cap = self.spec.logit_softcap
            logits = cap * torch.tanh(logits / cap)
        return logits
