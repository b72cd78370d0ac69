"""Patterns of an adapter's config are regular expressions of anyone's: they are tried apart."""

from __future__ import annotations

import time
from typing import Any

import pytest

from alm.errors import BadCheckpoint
from wrappers.checkpoint.adapters import patterns

NAMES = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(32) for p in "qkvo"]
# What a trainer of vision and text models writes into target_modules.
WIDE = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp).*?(?:q_proj|k_proj|v_proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|k_proj|v_proj)))"
)


@pytest.mark.parametrize(
    "settings",
    [
        dict(target_modules=["q_proj", "v_proj"], exclude_modules=["a"]),
        dict(target_modules="all-linear"),
        dict(target_modules=r"(?i)^(?!.*vision).*\.layers\.\d+\.self_attn\.(q|v)_proj$"),
        dict(target_modules=WIDE, exclude_modules=r".*visual.*"),
        dict(rank_pattern={r"^model\.layers\.\d+\.self_attn\.q_proj": 8}, alpha_pattern={"q": 1}),
        dict(layers_pattern=["layers", r"(?:h|block)s?"], modules_to_save=["lm_head", None]),
    ],
)
def test_patterns_as_trainers_write_them_are_taken(settings: dict[str, Any]) -> None:
    patterns.check(settings, NAMES, "file")


@pytest.mark.parametrize("name", patterns.FORMS)
def test_a_pattern_that_backtracks_for_years_is_refused_in_its_time(name: str) -> None:
    evil = r"model(\.?\w+\.?)*!"
    said = evil if name in patterns.NAMES else {evil: 1} if "_pattern" in name[-8:] else [evil]
    start = time.monotonic()
    with pytest.raises(BadCheckpoint, match="file: its patterns of modules take more than 1 s"):
        patterns.check({name: said}, NAMES, "file", seconds=1)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    "pattern", ["(", "(" * 5000 + ")" * 5000, "a{99999999999999999999}", "(?:x?){4000000000}"]
)
def test_a_pattern_that_cannot_be_matched_is_refused(pattern: str) -> None:
    with pytest.raises(BadCheckpoint, match="^file: its patterns of modules ") as caught:
        patterns.check({"target_modules": pattern}, NAMES, "file", seconds=2)
    assert len(str(caught.value)) < 400


def test_more_patterns_than_any_model_has_modules_are_refused() -> None:
    many = {f"q{i}": 1 for i in range(patterns.MOST + 1)}
    with pytest.raises(BadCheckpoint, match="rank_pattern has 10001 entries"):
        patterns.check({"rank_pattern": many}, NAMES, "file")
