"""The memo of traces gives what a trace gives, and tells apart what a trace can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exporters import graph
from tests.tracing.traced_once import Memo, traced_once
from wrappers import Wrapper, dialects, open_checkpoint
from wrappers.bridges import projector
from wrappers.bridges.projector import Projector
from wrappers.dialects import decomposed
from wrappers.layers.spec import ACTIVATIONS

KeyOf = Callable[..., str]


@pytest.fixture(autouse=True)
def no_other_memo() -> Iterator[None]:
    """Here torch traces, whatever the run has traced before."""
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(torch.onnx.export, Memo):
            patch.setattr(torch.onnx, "export", torch.onnx.export.export)
        yield


@pytest.fixture
def key(tmp_path: Path) -> Iterator[KeyOf]:
    """What a part is kept under."""
    memo = Memo(tmp_path / "traces", torch.onnx.export)

    def found(part: Wrapper, dynamic_batch: bool = True) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.onnx, "export", asked)
            with pytest.raises(Asked) as caught:
                graph.trace(part, dynamic_batch)
        return str(caught.value)

    def asked(*words: Any, **options: Any) -> None:
        raise Asked(memo.key(*words, **options))

    yield found


class Asked(Exception):
    """The key of a trace, in the place of the trace."""


def saved(part: Wrapper, path: Path) -> list[bytes]:
    files = graph.save(graph.trace(part, dynamic_batch=True), path, part.role)
    return [file.read_bytes() for file in files]


@pytest.mark.parametrize(
    "name, dialect",
    [("mel", "standard"), ("qformer", "standard"), ("decoder", "standard"), ("decoder", "ort")],
)
def test_a_part_of_the_memo_is_the_traced_one_byte_for_byte(
    checkpoint: Path, tmp_path: Path, name: str, dialect: str
) -> None:
    opened = open_checkpoint(checkpoint)
    with traced_once(tmp_path / "traces") as memo:
        traced = saved(opened.part(name, dialect), tmp_path / "part.onnx")
        assert memo.taken == 0
        for _ in range(2):  # a graph is changed after it was traced: the second is another object
            assert saved(opened.part(name, dialect), tmp_path / "part.onnx") == traced
        assert memo.taken == 2


def test_a_part_of_other_weights_has_its_own_in_the_same_graph(tmp_path: Path) -> None:
    one, other = Projector((6, 4)), Projector((6, 4))
    traced = saved(other, tmp_path / "part.onnx")
    with traced_once(tmp_path / "traces") as memo:
        assert saved(one, tmp_path / "part.onnx") != traced
        assert saved(other, tmp_path / "part.onnx") == traced
        assert memo.taken == 1


def test_a_part_that_is_made_again_has_the_same_key(key: KeyOf) -> None:
    assert key(Projector((6, 4))) == key(Projector((6, 4))) != ""


def buffered(value: float) -> Projector:
    part = Projector((6, 4, 4))
    part.layers[1].register_buffer("shift", torch.full((4,), value))
    return part


def with_attribute(value: object) -> Projector:
    part = Projector((6, 4, 4))
    part.layers[1].__dict__["attribute"] = value
    return part


def test_whatever_a_trace_can_read_is_in_the_key(key: KeyOf) -> None:
    parts = [
        Projector((6, 4)),
        Projector((6, 5)),
        Projector((6, 4), bias=False),
        Projector((6, 4), norm=True),
        Projector((6, 4), frames=8),
        Projector((6, 4), stack=2),
        Projector((6, 4, 4)),
        Projector((6, 4, 4), activation="relu"),
        Projector((6, 4, 4), activation="gelu_pytorch_tanh"),
        buffered(1),
        buffered(2),
        *map(with_attribute, (1, 1.0, True, "1", [1], (1,), {"1": 1}, torch.ones(1), {"1"}, None)),
        *map(with_attribute, (torch.float16, decomposed, dialects, nn.Linear, nn.Identity())),
        with_attribute([[], []]),
        with_attribute([shared := [], shared]),
        Projector((6, 4)).half(),
    ]
    later = Projector((6, 4))
    later.opset = 21
    keys = [key(part) for part in (*parts, later)] + [key(parts[0], dynamic_batch=False)]
    assert "" not in keys and len(set(keys)) == len(keys)


class Twice(Projector):
    """A class of a test, whose code is not part of the key."""


@pytest.mark.parametrize(
    "part",
    [
        Twice((6, 4)),
        with_attribute(lambda x: x),
        with_attribute(object()),
        with_attribute(iter([1])),
        with_attribute(torch.ones(1, requires_grad=True)),
        with_attribute({1: test_a_part_that_is_made_again_has_the_same_key}),
    ],
    ids=["class", "lambda", "object", "iterator", "gradient", "function"],
)
def test_what_cannot_be_told_for_sure_has_no_key(key: KeyOf, part: Projector) -> None:
    assert key(part) == ""


def test_nothing_is_kept_while_the_code_of_wrappers_is_changed(
    key: KeyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Projector((6, 4))
    before = key(part)
    for change in (
        lambda patch: patch.setattr(Projector, "forward", lambda self, x: x),
        lambda patch: patch.setattr(decomposed, "attend", None),
        lambda patch: patch.delattr(projector, "USUAL"),
        lambda patch: patch.setitem(ACTIVATIONS, "silu", torch.tanh),
    ):
        with monkeypatch.context() as patch:
            change(patch)
            assert key(part) == ""
    assert key(part) == before != ""
