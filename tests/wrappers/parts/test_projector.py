"""The projector: frames joined into rows, layers named as checkpoints name them, sizes refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.ports import Port, Span
from tests.wrappers.parts.tracing import traced
from wrappers import randomised
from wrappers.bridges.projector import Projector, tiny
from wrappers.dialect import bound


def test_it_is_the_layers_that_its_names_say() -> None:
    part = randomised(Projector([8, 12, 6], frames=5, norm=True))
    plain = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 6), nn.LayerNorm(6))
    state = {name.removeprefix("layers."): value for name, value in part.state_dict().items()}
    plain.load_state_dict(state)
    speech = torch.randn(2, 5, 8)
    torch.testing.assert_close(part(speech), plain(speech))


@pytest.mark.parametrize(
    ("widths", "options", "names"),
    [
        ([8, 6], {}, ["layers.0.weight", "layers.0.bias"]),
        ([8, 6], dict(bias=False), ["layers.0.weight"]),
        (
            [8, 6],
            dict(bias=False, norm=True),
            ["layers.0.weight", "layers.1.weight", "layers.1.bias"],
        ),
        ([8, 7, 6], dict(bias=False), ["layers.0.weight", "layers.2.weight"]),
        ([8, 7, 6, 5], dict(bias=False), ["layers.0.weight", "layers.2.weight", "layers.4.weight"]),
    ],
)
def test_layers_are_numbered_with_the_activations_between_them(
    widths: list[int], options: dict[str, Any], names: list[str]
) -> None:
    assert list(Projector(widths, **options).state_dict()) == names


def test_frames_side_by_side_are_one_row() -> None:
    part = randomised(Projector([12, 6], frames=9, stack=3))
    speech = torch.randn(2, 9, 4)
    joined = torch.cat((speech[:, 0::3], speech[:, 1::3], speech[:, 2::3]), -1)
    torch.testing.assert_close(part(speech), part.layers(joined))
    assert part.inputs == {"speech": Port("float32", ("batch", 9, 4))}
    assert part.outputs == {"audio_embeds": Port("float32", ("batch", 3, 6))}
    assert part.spans == {}


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh", "relu", "silu"])
def test_the_activation_is_the_one_of_its_name(activation: str) -> None:
    from transformers.activations import ACT2FN

    part = randomised(Projector([4, 8, 3], activation=activation))
    first, _, last = part.layers
    speech = torch.randn(1, 2, 4)
    torch.testing.assert_close(part(speech), last(ACT2FN[activation](first(speech))))


@pytest.mark.parametrize("rms", [("before",), ("before", "between"), ("before", "after")])
@pytest.mark.parametrize("dialect", ["decomposed", "standard", "ort"])
def test_norms_stand_where_they_are_named_and_a_gate_takes_half(
    rms: tuple[str, ...], dialect: str, tmp_path: Path
) -> None:
    with bound(dialect):
        part = randomised(Projector([6, 10, 4], stack=2, bias=False, activation="swiglu", rms=rms))
    weights = {f"layers.{i}.weight" for i in (0, 1, 4)}
    weights |= {f"layers.{3 if 'between' in rms else 5}.weight"} if rms[1:] else set()
    assert part.state_dict().keys() == weights

    def norm(x: Tensor, at: int) -> Tensor:
        name = f"layers.{at}.weight"
        if name not in weights:
            return x
        return nn.functional.rms_norm(x, x.shape[-1:], part.state_dict()[name], 1e-6)

    speech = torch.randn(3, 8, 3)
    x = norm(speech.reshape(3, 4, 6), 0) @ part.state_dict()["layers.1.weight"].T
    x = norm(x[..., :5] * nn.functional.silu(x[..., 5:]), 3)
    wanted = norm(x @ part.state_dict()["layers.4.weight"].T, 5)
    torch.testing.assert_close(part(speech), wanted)
    (got,) = traced(part, (torch.randn(2, 16, 3),), tmp_path, part.opset).run(speech)
    assert np.abs(got - wanted.numpy()).max() < 1e-5


def test_pieces_of_a_clip_are_projected_apart() -> None:
    part = randomised(Projector([8, 6], stack=4, frames="heard"))
    assert part.pieces == "heard" and part.spans == {"heard": Span(4, 500, 1500)}


@pytest.mark.parametrize("stack", [1, 4])
@pytest.mark.parametrize("frames", [16, "frames"])
def test_it_traces_with_frames_of_any_kind(frames: int | str, stack: int, tmp_path: Path) -> None:
    part = randomised(Projector([8, 10, 6], frames=frames, stack=stack, norm=True))
    graph = traced(part, (torch.randn(2, 16, 8 // stack),), tmp_path)
    for batch in (1, 2, 3):
        for length in (16,) if frames == 16 else (16, stack, 7 * stack):
            speech = torch.randn(batch, length, 8 // stack)
            (got,) = graph.run(speech)
            assert got.shape == (batch, length // stack, 6)
            assert np.abs(got - part(speech).numpy()).max() < 1e-5


def test_frames_that_fill_no_row_are_left_out_where_their_number_is_free() -> None:
    part = tiny()
    speech = torch.randn(1, 7, 32)
    assert torch.equal(part(speech), part(speech[:, :6]))
    assert part.outputs["audio_embeds"].axes == ("batch", "frames_by_2", 24)
    for count in vars(part.spans["frames"]).values():
        assert count % 2 == 0


def test_sizes_that_do_not_fit_are_named_at_once() -> None:
    with pytest.raises(BadCheckpoint) as caught:
        Projector([10, 6], frames=9, stack=4, activation="mish")
    assert "4 frames side by side are not 10 wide" in str(caught.value)
    assert "9 frames are no rows of 4" in str(caught.value)
    assert "activation 'mish' is unknown; known are silu, gelu" in str(caught.value)
    with pytest.raises(BadCheckpoint, match="9 numbers have no halves, one to gate the other"):
        Projector([8, 9, 6], activation="swiglu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("widths", [[], [8], [8, 0]])
def test_a_projector_of_no_layer_is_refused(widths: list[int]) -> None:
    with pytest.raises(BadCheckpoint, match="are not two or more above zero"):
        Projector(widths)
