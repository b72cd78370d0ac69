"""prune: what is left is the whole without what went, whatever a part is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import wrappers
from alm.errors import BadOption
from alm.registry import names
from exporters import feeds, graph, parity, precisions
from exporters.levers import prune
from exporters.levers._scores import by_norm, by_taylor, by_weights, staying
from exporters.levers._structures import CHANNELS, HEADS, Site, sites
from wrappers import Wrapper
from wrappers.checkpoint.weights.hollow import attach, hollow
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.dialect import bound
from wrappers.encoders import hubert
from wrappers.layers.decoder import Decoder

ENCODERS = [*wrappers.with_role("encoder"), "wavlm"]
LLMS = wrappers.with_role("llm")
NO_HEADS = {"wavlm", "voxtral_realtime", "olmo2"}  # heads that hang together


def encoder(name: str) -> Wrapper:
    if name == "wavlm":
        return hubert.tiny(name)
    return wrappers.pick_role("encoder", name).tiny()


def decoder(name: str, dialect: str = "ort") -> Decoder:
    with bound(dialect):
        return wrappers.randomised(Decoder(wrappers.pick_role("llm", name).tiny()))


def made(name: str) -> Wrapper:
    return decoder(name) if name in LLMS else encoder(name)


def embeds() -> Tensor:
    return torch.randn(40, 32, generator=torch.Generator().manual_seed(2))


def wide_embeds(part: Wrapper) -> Any:
    width = part.spec.hidden if isinstance(part, Decoder) else 1
    return lambda: torch.randn(60, width, generator=torch.Generator().manual_seed(2))


def hear(part: Wrapper) -> Any:
    def run(count: int) -> None:
        for seed in range(count or 4):
            sizes = list(feeds.cases(part.inputs, part.spans, True))[-1]
            example = feeds.make(part.inputs, part.spans, sizes, seed)
            with torch.no_grad():
                part(*(torch.from_numpy(array) for array in example.values()))

    return run


def half(site: Site) -> Tensor:
    """Every other unit, and not the first."""
    return torch.arange(1, site.units, 2)


def silence(part: Wrapper, every: list[Site]) -> None:
    """Zeros in all that units other than those of `half` are made of."""
    for site in every:
        gone = torch.tensor([u for u in range(site.units) if u not in half(site).tolist()])
        for piece in site.pieces:
            if not piece.name.endswith("grep_a"):
                index = piece.index(gone)
                part.get_parameter(piece.name).index_fill_(piece.axis, index, 0.0)


def numbers(part: Wrapper) -> int:
    return sum(weight.numel() for weight in part.parameters())


def off(part: Wrapper, truth: parity.Truth) -> float:
    """The worst error of the module as it is now, as a share of the largest value above 1."""
    worst = 0.0
    for example, wanted in truth.cases():
        fed = [truth.fed(name, example, port) for name, port in part.inputs.items()]
        with torch.no_grad():
            made = part(*(torch.from_numpy(np.ascontiguousarray(array)) for array in fed))
        outputs = made if isinstance(made, tuple) else (made,)
        for got, want in zip(outputs, wanted, strict=True):
            assert got.shape == want.shape
            error = np.abs(got.double().numpy() - want).max(initial=0.0)
            worst = max(worst, error / max(1.0, np.abs(want).max(initial=0.0)))
    return worst


def pruned(part: Wrapper, **settings: Any) -> tuple[prune.Lever, dict[str, Tensor]]:
    lever = prune.Lever(**settings)
    listen = None if isinstance(part, Decoder) else hear(part)
    return lever, lever.shrink(part, wide_embeds(part), listen)


@pytest.mark.parametrize("name", [*ENCODERS, *LLMS])
def test_units_of_zeros_go_first_and_change_nothing(name: str) -> None:
    part = made(name)
    every = sites(part)
    assert ({site.kind for site in every} == {CHANNELS}) == (name in NO_HEADS)
    silence(part, every)
    truth, before = parity.Truth(part, True), numbers(part)
    lever, ports = pruned(part, ratio=0.5, multiple=1)
    for kind in (HEADS, CHANNELS):
        units = [s.units for s in every if s.kind == kind]
        left = [lever.findings["prune"]["kept"][s.path][0] for s in every if s.kind == kind]
        assert sum(units) - sum(left) == int(0.5 * sum(units))
    assert numbers(part) < before
    assert lever.findings["prune"]["weights"] == round(numbers(part) / before, 4)
    truth.shrunk(part, ports)
    assert off(part, truth) < 1e-5


@pytest.mark.parametrize(
    ("name", "dialect"),
    [("llama", "ort"), ("phi3", "standard"), ("qwen", "decomposed"), ("beats", "")],
)
def test_the_graph_is_the_whole_without_the_units(name: str, dialect: str, tmp_path: Path) -> None:
    part = decoder(name, dialect) if dialect else encoder(name)
    silence(part, sites(part))
    truth, before = parity.Truth(part, True), numbers(part)
    _, ports = pruned(part, ratio=0.5, multiple=1)
    truth.shrunk(part, ports)
    model = graph.trace(part, True)
    assert graph.weight_bytes(model) < 4.2 * before
    graph.save(model, tmp_path / "p.onnx", part.role)
    measured = parity.measure(tmp_path / "p.onnx", truth, part.inputs)
    assert min(measured.worst_abs, measured.worst_rel) < 1e-5
    heads = [port.axes[1] for n, port in part.inputs.items() if n.startswith("past_key_values.1")]
    assert heads == ([2, 2] if name == "qwen" else [1, 1] if dialect else [])
