"""Parts of a checkpoint as graphs that run, made as an export makes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from alm.session import Session
from exporters import graph, simplify
from wrappers import Wrapper


def graphs(parts: Mapping[str, Wrapper], folder: Path) -> dict[str, Session]:
    """Each part traced for any batch, simplified, saved and opened."""
    made = {}
    for name, part in parts.items():
        model = simplify.simplify(graph.trace(part, dynamic_batch=True))
        graph.save(model, folder / f"{name}.onnx", part.role)
        made[name] = graph.opened(folder / f"{name}.onnx", part)
    return made


def answered(session: Session, decoder: Wrapper, embeds: Tensor) -> Tensor:
    """Logits [batch, vocab] after a prompt [batch, seq, hidden] and an empty cache."""
    batch, seq, _ = embeds.shape
    sizes = {"batch": batch, "past": 0, "capacity": seq + 4, "wanted": 1}
    feeds = {
        "inputs_embeds": embeds.numpy(),
        "past_lengths": torch.zeros(batch, dtype=torch.int64).numpy(),
        "seq_lengths": torch.full((batch,), seq).numpy(),
    }
    feeds |= {n: port.empty(sizes) for n, port in decoder.inputs.items() if n not in feeds}
    return torch.from_numpy(session.run(feeds)["logits"][:, 0])
