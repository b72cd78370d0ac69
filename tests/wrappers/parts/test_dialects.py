"""A dialect is bound while a part is built, and its file gives all that parts ask of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from alm import registry
from alm.errors import UnknownName
from tests.wrappers.parts.tracing import traced
from wrappers import dialect, dialects
from wrappers.encoders import whisper

WRITTEN = '''"""As the portable one, its encoders' scores under a tanh that is seen in a graph."""

import torch
from wrappers.dialects.decomposed import *

def encoder_attend(q, k, v, heads, bias=None, padded=None):
    return torch.tanh(v) if torch.compiler.is_exporting() else v
'''


@pytest.fixture
def one_more(tmp_path: Path) -> Iterator[str]:
    """A dialect in a folder of its own that the registry also looks in."""
    (tmp_path / "telling.py").write_text(WRITTEN, "utf-8")
    dialects.__path__.append(str(tmp_path))
    yield "telling"
    dialects.__path__.remove(str(tmp_path))
    sys.modules.pop("wrappers.dialects.telling", None)


@pytest.mark.parametrize("name", registry.names(dialects))
def test_a_dialect_gives_all_that_is_asked_of_it(name: str) -> None:
    wanted = {*dialect.Dialect.__annotations__, *vars(dialect.Dialect)}
    wanted = {each for each in wanted if not each.startswith("_")}
    assert {"ENCODER_OPSET", "encoder_attend", "grouped_query", "attend"} <= wanted
    assert [each for each in sorted(wanted) if not hasattr(dialect.find(name), each)] == []


def test_what_is_built_inside_has_the_dialect_and_what_is_built_after_has_not() -> None:
    plain = dialect.current()
    with dialect.bound("ort") as outer:
        with dialect.bound("standard") as inner:
            assert dialect.current() is inner is dialect.find("standard")
        assert dialect.current() is outer
    assert dialect.current() is plain is dialect.find(dialect.DEFAULT)


def test_a_failure_unbinds_and_a_wrong_name_binds_nothing() -> None:
    plain = dialect.current()
    with pytest.raises(ZeroDivisionError), dialect.bound("ort"):
        raise ZeroDivisionError
    with pytest.raises(UnknownName, match="unknown dialect 'klingon'"), dialect.bound("klingon"):
        pass
    assert dialect.current() is plain


def test_one_more_dialect_is_one_file_for_encoders_too(one_more: str, tmp_path: Path) -> None:
    with dialect.bound(one_more):
        part = whisper.tiny()
    nodes = traced(part, (torch.randn(2, 80, 100),), tmp_path, part.opset).nodes
    assert nodes["Tanh"] == 2 and "Softmax" not in nodes
