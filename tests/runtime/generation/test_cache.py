"""The decoder and its cache: positions are added, rows are reordered, and little is copied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alm.artifacts.embedding_table import Table
from alm.artifacts.manifest import Part
from alm.cache.kv_cache import SPARE, order
from alm.decoder.decoder import Decoder
from alm.ports import Port
from alm.session import OneRowChunks, RowByRow
from tests.runtime.generation.test_pipeline import Fake, Held

VOCAB, HIDDEN, CAPACITY = 5, 2, 64
TABLE = np.arange(VOCAB * HIDDEN, dtype=np.float16).reshape(VOCAB, HIDDEN)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    np.save(tmp_path / "table.npy", TABLE)
    return Table(tmp_path / "table.npy")


INPUTS = {
    "inputs_embeds": Port("float32", ("batch", "seq", HIDDEN)),
    "past_lengths": Port("int64", ("batch",)),
    "seq_lengths": Port("int64", ("batch",)),
    "past_key_values.0.key": Port("float32", ("batch", "capacity", HIDDEN)),
}


@pytest.mark.parametrize("seq", [1, 4, 5, 8, 11])
def test_a_long_prompt_is_fed_in_chunks_and_gives_the_same(table: Table, seq: int) -> None:
    embeds = np.random.default_rng(0).standard_normal((1, seq, HIDDEN)).astype(np.float32)
    logits = []
    for most in (0, 4):
        session = Fake(sums)
        part = Part("decoder", "decoder", (), INPUTS)
        decoder = Decoder(session, part, table, most)
        decoder.start(1, 16)
        logits.append(decoder.feed(embeds, np.array([seq])))
        fed = [feeds["inputs_embeds"].shape[1] for feeds in session.fed]
        assert sum(fed) == seq and max(fed) <= (most or seq)
        assert decoder.lengths.tolist() == [seq]
    np.testing.assert_allclose(*logits, rtol=1e-6)


def sums(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A language model whose cache is what it was fed, and whose logits are the sum of it."""
    past, x = feeds["past_key_values.0.key"], feeds["inputs_embeds"]
    starts, counts = feeds["past_lengths"], feeds["seq_lengths"]
    fixed = past.shape[1] == CAPACITY
    longest = int((starts + counts).max())
    cache = past.copy() if fixed else np.zeros((len(x), longest, HIDDEN), np.float32)
    total = np.zeros((len(x), 1, HIDDEN), np.float32)
    for row, (start, count) in enumerate(zip(starts, counts, strict=True)):
        cache[row, :start] = past[row, :start]
        cache[row, start : start + count] = x[row, :count]
        total[row, 0] = cache[row, : start + count].sum(axis=0)
    return {"logits": total, "present.0.key": cache}


def decoder(table: Table, axis: str, rows: int = 2, in_place: bool = False) -> tuple[Decoder, Fake]:
    inputs = dict(INPUTS)
    inputs["past_key_values.0.key"] = Port("float32", ("batch", axis, HIDDEN))
    session = Fake(sums, "", "logits present.0.key")
    session.in_place = in_place
    made = Decoder(session, Part("decoder", "decoder", (), inputs), table)
    made.start(rows, 40)
    return made, session


@pytest.mark.parametrize("axis", ["past", "capacity"])
def test_a_cache_that_grows_and_one_that_is_fixed_do_the_same(table: Table, axis: str) -> None:
    model, session = decoder(table, axis)
    prompt = np.ones((2, 3, HIDDEN), np.float32)
    assert model.feed(prompt, np.array([3, 1])).tolist() == [[3, 3], [1, 1]]
    assert model.lengths.tolist() == [3, 1]
    assert model.step(np.array([1, 4])).tolist() == [[5, 6], [9, 10]]
    assert model.lengths.tolist() == [4, 2]
    assert session.fed[0]["past_key_values.0.key"].shape[1] == (0 if axis == "past" else CAPACITY)
    assert {str(feed["inputs_embeds"].dtype) for feed in session.fed} == {"float32"}


def test_a_fixed_cache_is_written_in_place_and_a_growing_one_is_not(table: Table) -> None:
    for axis, same in (("capacity", True), ("past", False)):
        model, session = decoder(table, axis)
        before = dict(model.cache.kept)
        model.step(np.array([0, 1]))
        assert (model.cache.kept == before) is same and len(session.fed) == 1


@pytest.mark.parametrize("axis", ["past", "capacity"])
@pytest.mark.parametrize("rows", [[1, 0], [0, 0, 1, 1, 0], [1], [1, 1], [0, 1]], ids=str)
def test_rows_of_the_cache_are_reordered_widened_and_dropped(
    table: Table, axis: str, rows: list[int]
) -> None:
    model, _ = decoder(table, axis)
    model.feed(np.ones((2, 3, HIDDEN), np.float32), np.array([3, 1]))
    before = dict(model.cache.kept)
    model.reorder(np.array(rows))
    assert (model.cache.kept == before) is (rows == [0, 1])  # nothing moves for nothing
    assert model.lengths.tolist() == [[3, 1][row] for row in rows]
    assert model.step(np.zeros(len(rows), np.int64))[:, 0].tolist() == [[3, 1][r] for r in rows]


@pytest.mark.parametrize("single", [False, True], ids=["a batch", "row by row"])
def test_rows_reordered_in_place_equal_rows_copied(table: Table, single: bool) -> None:
    dice = np.random.default_rng(0)
    for _ in range(30):
        copied, _ = decoder(table, "capacity")
        moved, session = decoder(table, "capacity", in_place=True)
        if single:
            moved = Decoder(RowByRow(session), moved.part, table)
            moved.start(2, 40)
        prompt = dice.standard_normal((2, 3, HIDDEN)).astype(np.float32)
        for model in (copied, moved):
            model.feed(prompt, np.array([3, 1]))
        rows = 2
        for _ in range(12):
            order = dice.integers(0, rows, size=int(dice.integers(1, 7)))
            ids = dice.integers(0, VOCAB, size=len(order))
            for model in (copied, moved):
                model.reorder(order)
            assert moved.step(ids).tolist() == copied.step(ids).tolist()
            rows = len(order)


def test_rows_that_are_reordered_stay_in_the_same_memory(table: Table) -> None:
    model, session = decoder(table, "capacity", in_place=True)
    model.feed(np.ones((2, 3, HIDDEN), np.float32), np.array([3, 1]))
    model.reorder(np.array([0, 0, 1, 1]))
    (before,) = model.cache.kept.values()
    for rows in ([1, 0, 2, 3], [0, 0, 0, 0], [1, 2, 3, 0], [3, 0]):
        model.reorder(np.array(rows))
        (kept,) = model.cache.kept.values()
        assert np.shares_memory(session.fetch(kept), session.fetch(before))
        model.step(np.zeros(len(rows), np.int64))


def test_beams_are_copied_from_where_they_differ(table: Table) -> None:
    model, session = decoder(table, "capacity", in_place=True)
    model.feed(np.ones((2, 3, HIDDEN), np.float32), np.array([3, 3]))
    model.reorder(np.array([0, 0, 1]))
    model.step(np.array([1, 2, 3]))
    (kept,) = model.cache.kept.values()
    cache = session.fetch(kept)
    cache[1, :3] = 7  # rows 0 and 1 were equal there: nothing is copied
    model.reorder(np.array([0, 0, 0]))
    assert cache[1, :3].tolist() == [[7, 7]] * 3
    assert cache[1, 3].tolist() == cache[2, 3].tolist() == TABLE[1].tolist()
    assert cache[2, :3].tolist() == [[1, 1]] * 3


def test_a_fresh_start_forgets_the_cache(table: Table) -> None:
    model, _ = decoder(table, "capacity")
    model.step(np.array([1, 1]))
    model.start(3, CAPACITY + 1)
    assert model.lengths.tolist() == [0, 0, 0]
    (kept,) = model.cache.kept.values()
    assert isinstance(kept, Held) and kept.array.shape == (3, 2 * CAPACITY, HIDDEN)
    assert not kept.array.any()


@pytest.mark.parametrize("rows", [[0], [1, 0], [1, 2, 0], [2, 2, 0], [1, 0, 3, 2, 2], [3, 3, 1, 1]])
def test_moves_in_their_order_read_no_row_that_was_overwritten(rows: list[int]) -> None:
    cells = {i: i for i in range(-1, 5)}
    for target, source in order(rows):
        cells[target] = cells[source]
    assert [cells[i] for i in range(len(rows))] == rows
    assert sum(target == SPARE for target, _ in order(rows)) <= len(rows) // 2


def test_a_chunk_that_is_run_row_by_row_is_written_into_the_caches_of_the_batch(
    table: Table,
) -> None:
    logits = []
    for in_place in (False, True):
        _, session = decoder(table, "capacity", in_place=in_place)
        model = Decoder(OneRowChunks(session), Part("decoder", "decoder", (), INPUTS), table)
        model.start(2, 40)
        for count in (3, 2):
            model.feed(np.ones((2, count, HIDDEN), np.float32), np.array([count, 1]))
        model.reorder(np.array([1, 0, 0]))
        logits.append(model.step(np.array([1, 2, 3])).tolist())
    assert logits[0] == logits[1]
