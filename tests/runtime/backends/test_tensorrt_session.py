"""A session of a built engine, on a pretended GPU whose memory is the processor's."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from alm.artifacts.engine_files import Profile
from alm.backends import tensorrt
from alm.errors import BadArtifacts
from tests.runtime.tensorrt.built import some_engine


class Memory:
    """A GPU whose memory is the processor's."""

    stream = 7

    def __init__(self) -> None:
        self.blocks: dict[int, np.ndarray] = {}
        self.recorded = self.replayed = 0

    def allocate(self, size: int) -> int:
        block = np.full(size, 0xAB, np.uint8)
        self.blocks[block.ctypes.data] = block
        return block.ctypes.data

    def free(self, address: int) -> None:
        del self.blocks[address]

    def upload(self, address: int, array: np.ndarray) -> None:
        assert self.blocks[address].nbytes >= array.nbytes and array.flags.c_contiguous
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def download(self, array: np.ndarray, address: int) -> None:
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


KEY_IN, KEY_OUT = "past_key_values.0.key", "present.0.key"
ROOM = 16
CACHE = (-1, ROOM, 1)
SHAPES = {"x": (-1, -1), "past_lengths": (-1,), KEY_IN: CACHE, "y": (-1, 1), KEY_OUT: CACHE}


class Steps:
    """An engine and its context: x goes behind the past in the cache, y is the cache's sum."""

    num_io_tensors = len(SHAPES)

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.chosen: list[int] = []

    def get_tensor_name(self, i: int) -> str:
        return list(SHAPES)[i]

    def get_tensor_mode(self, name: str) -> str:
        return "TensorIOMode.OUTPUT" if name in ("y", KEY_OUT) else "TensorIOMode.INPUT"

    def get_tensor_dtype(self, name: str) -> str:
        return "DataType.INT64" if name == "past_lengths" else "DataType.FLOAT"

    def create_execution_context(self) -> Steps:
        return self

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        self.chosen.append(number)
        return stream == Memory.stream

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if not self.shapes:
            return SHAPES[name]
        key = self.shapes[KEY_IN]
        return {"y": (key[0], 1), KEY_OUT: key}.get(name) or self.shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def _view(self, name: str, kind: Any) -> np.ndarray:
        shape = self.get_tensor_shape(name)
        place = ctypes.cast(self.addresses[name], ctypes.POINTER(kind))
        return np.ctypeslib.as_array(place, shape)

    def execute_async_v3(self, stream: int) -> bool:
        assert self.addresses[KEY_IN] == self.addresses[KEY_OUT]  # in place, as TensorRT demands
        x, cache = self._view("x", ctypes.c_float), self._view(KEY_IN, ctypes.c_float)
        for row, past in enumerate(self._view("past_lengths", ctypes.c_int64)):
            cache[row, past : past + x.shape[1], 0] = x[row]
        self._view("y", ctypes.c_float)[:] = cache.sum(1)
        return True


def ranges(batch: int, seq: int) -> Profile:
    return {
        "x": ((1, 1), (batch, seq), (batch, seq)),
        "past_lengths": ((1,), (batch,), (batch,)),
        KEY_IN: ((1, ROOM, 1), (batch, ROOM, 1), (batch, ROOM, 1)),
    }


def steps(batch: int = 1, graphs: bool = False) -> tuple[tensorrt.TensorrtSession, Steps, Memory]:
    engine, memory = Steps(), Memory()
    both = (ranges(batch, 8), ranges(batch, 1))
    said = some_engine(profiles=both, fixed={"capacity": ROOM})
    return tensorrt.TensorrtSession(engine, said, memory, graphs), engine, memory


def say(session: tensorrt.TensorrtSession, kept: Any, past: int, *x: float) -> tuple[float, Any]:
    fed = {"x": np.array([x], np.float32), "past_lengths": np.array([past]), KEY_IN: kept}
    made = session.run(fed, {KEY_OUT: kept})
    return float(made["y"][0, 0]), made[KEY_OUT]


def test_the_cache_stays_where_it_is_and_the_single_token_has_its_own_profile() -> None:
    session, engine, memory = steps()
    assert session.inputs["x"].axes == ("", "") and session.inputs["x"].dtype == "float32"
    assert session.inputs[KEY_IN].axes == ("", "capacity", 1)
    assert list(session.outputs) == ["y", KEY_OUT] and session.one_row
    kept = session.hold(np.zeros((1, ROOM, 1), np.float32))
    total, same = say(session, kept, 0, 1, 2, 3)
    assert total == 6 and same is kept
    assert say(session, kept, 3, 4)[0] == 10 and say(session, kept, 4, 5)[0] == 15
    assert engine.chosen == [0, 1]
    assert session.fetch(kept)[0, :6, 0].tolist() == [1, 2, 3, 4, 5, 0]
    count = len(memory.blocks)
    say(session, kept, 5, 6)
    assert len(memory.blocks) == count  # nothing is allocated for a step


def test_a_cache_given_as_an_array_comes_back_as_one() -> None:
    session, _, _ = steps()
    past = np.zeros((1, ROOM, 1), np.float32)
    made = session.run({"x": np.ones((1, 2), "f"), "past_lengths": np.array([0]), KEY_IN: past})
    assert made[KEY_OUT][0, :3, 0].tolist() == [1, 1, 0] and made["y"].tolist() == [[2]]


def test_a_cache_with_less_room_than_the_engine_has_is_made_as_long() -> None:
    session, _, _ = steps()
    kept = session.hold(np.full((1, 4, 1), 5, np.float32))
    total, longer = say(session, kept, 1, 7)
    assert total == 22 and longer is not kept
    assert session.fetch(longer)[0, :5, 0].tolist() == [5, 7, 5, 5, 0]
    assert say(session, longer, 4, 1)[1] is longer
    with pytest.raises(BadArtifacts, match=r"20 positions .* built for 16; .*--context N"):
        say(session, session.hold(np.zeros((1, 20, 1), np.float32)), 0, 1)


def test_buffers_are_given_back_with_their_handles() -> None:
    session, _, memory = steps()
    kept = session.hold(np.zeros((1, ROOM, 1), np.float32))
    before = len(memory.blocks)
    del kept
    assert len(memory.blocks) == before - 1


def test_a_step_is_recorded_at_its_second_run_and_replayed_from_then_on() -> None:
    session, _, memory = steps(graphs=True)
    for _ in range(2):  # another answer has another cache, and is recorded anew
        kept = session.hold(np.zeros((1, ROOM, 1), np.float32))
        say(session, kept, 0, 1, 2)
        totals = [say(session, kept, 2 + i, 10)[0] for i in range(4)]
        assert totals == [13, 23, 33, 43]
    assert memory.recorded == 2 and memory.replayed == 6


def test_what_an_engine_was_not_built_for_is_answered_with_what_to_type() -> None:
    session, _, _ = steps()
    kept = session.hold(np.zeros((1, ROOM, 1), np.float32))
    with pytest.raises(BadArtifacts, match=r"x is \[1, 9\] and was built for .*--prompt N"):
        say(session, kept, 0, *range(9))
    wide, _, _ = steps(batch=2)
    assert not wide.one_row
