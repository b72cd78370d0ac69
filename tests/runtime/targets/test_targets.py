"""The targets: what each says of itself, and that nothing in it contradicts the rest."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

import wrappers
from alm import registry, targets
from alm.errors import UnknownName
from alm.tensorrt import operators
from exporters import precisions
from wrappers import dialect, dialects

ROLES = {"frontend", "encoder", "bridge", "decoder", "table"}
EVERY = targets.names()


@pytest.fixture(params=EVERY)
def goal(request: pytest.FixtureRequest) -> ModuleType:
    return targets.find(request.param)


def test_the_targets_have_the_names_that_a_person_types() -> None:
    assert EVERY == ["cpu", "portable", "trt-jetpack6", "trt-jetpack7", "trt-rtx", "web"]


def test_a_name_nobody_knows_is_answered_with_the_right_ones() -> None:
    for name in ("toaster", "trt_jetpack6", "_data", ""):
        with pytest.raises(UnknownName, match="there is: cpu, portable, trt-jetpack6"):
            targets.find(name)


def test_a_target_names_a_dialect_that_exists_and_wants_bits_for_every_role(
    goal: ModuleType,
) -> None:
    assert goal.DIALECT in registry.names(dialects)
    assert set(goal.AUTO) == ROLES


def test_a_lever_stores_what_a_target_wants_and_is_taken_there(goal: ModuleType) -> None:
    known = precisions.declared()
    assert targets.find_lever(goal, "decoder", known, goal.PRECISION)
    for role, wanted in goal.AUTO.items():
        name = targets.find_lever(goal, role, known, wanted)
        storage = precisions.pull(name).storage(role)
        assert name and wanted.fits(storage) and targets.takes(goal, storage), role
        assert targets.automatic(goal, role, known) == name


def test_a_targets_dialect_is_of_an_opset_that_it_reads(goal: ModuleType) -> None:
    least, most = goal.LIMITS.opsets
    written = dialect.find(goal.DIALECT)
    assert least <= written.OPSET <= most and least <= written.ENCODER_OPSET <= most
    assert least <= wrappers.Wrapper.opset <= most


def test_limits_say_where_they_come_from(goal: ModuleType) -> None:
    assert goal.LIMITS.backend and goal.LIMITS.source


def test_an_engine_that_is_built_has_profiles_and_types_of_its_own(goal: ModuleType) -> None:
    built = goal.BUILD is not None
    assert goal.LIMITS.profiles == built
    if built:
        assert goal.BUILD.where in ("device", "anywhere") and goal.BUILD.strongly_typed
        assert goal.LIMITS.ports and goal.LIMITS.quantized


def test_an_older_tensorrt_has_no_operator_that_a_newer_one_lacks() -> None:
    old, new = operators.operators((10, 3)), operators.operators((10, 16))
    assert set(old) < set(new)
    assert {"Attention", "TensorScatter", "RotaryEmbedding", "RMSNormalization"} <= set(new) - set(
        old
    )
    assert "float32" in old["Pow"].types and "int64" not in old["Pow"].types
    assert "int64" in new["Pow"].types


def test_the_targets_are_data_for_the_device() -> None:
    """They import their contract, and TensorRT's table of operators, which is data too."""
    for path in Path(targets.__file__).parent.glob("*.py"):
        lines = path.read_text("utf-8").splitlines()
        for line in lines:
            if line.startswith(("import ", "from ")) and path.name != "__init__.py":
                words = ("__future__", "alm.precision", "alm.target", "alm.tensorrt")
                words += ("collections", "dataclasses")
                assert line.split()[1].startswith(words), (path, line)
