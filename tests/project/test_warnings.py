"""A warning that our own modules cause is an error in the suite, and nobody else's is."""

from __future__ import annotations

import warnings

import pytest

CAUSE = "import warnings; warnings.warn('a name that is going away', DeprecationWarning)"


@pytest.mark.parametrize(
    "module",
    ["alm", "alm.audio.reader", "wrappers.llms.qwen2", "exporters.levers.int8", "export", __name__],
)
def test_a_warning_that_our_module_causes_is_an_error(module: str) -> None:
    with pytest.raises(DeprecationWarning, match="going away"):
        exec(CAUSE, {"__name__": module})


@pytest.mark.parametrize("module", ["torch.onnx", "transformers", "almanac", "exported"])
def test_a_warning_of_other_peoples_is_none(module: str) -> None:
    with warnings.catch_warnings(record=True) as seen:
        exec(CAUSE, {"__name__": module})
    assert [str(warning.message) for warning in seen] == ["a name that is going away"]
