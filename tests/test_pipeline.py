"""Parts stitched by name, the decoder's cache, and artifacts that are refused before they run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alm import manifest
from alm.backends._session import Feed, Kept, RowByRow, Session
from alm.errors import BadArtifacts, BadPrompt
from alm.manifest import File, Part
from alm.pipeline import Decoder, Pipeline, Stages, Table, assemble, check_table
from alm.ports import Port

Make = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@dataclasses.dataclass(eq=False)
class Held(Kept):
    array: np.ndarray


class Fake(Session):
    """A session made of a function from arrays to arrays."""

    def __init__(self, make: Make, inputs: str = "", outputs: str = "") -> None:
        self.make = make
        self.inputs = {name: Port("float32", ("batch",)) for name in inputs.split()}
        self.outputs = {name: Port("float32", ("batch",)) for name in outputs.split()}
        self.fed: list[dict[str, np.ndarray]] = []

    def run(
        self, feeds: Mapping[str, Feed], keep: Mapping[str, Kept | None] | None = None
    ) -> dict[str, Any]:
        arrays = {
            n: self.fetch(f) if isinstance(f, Kept) else np.asarray(f) for n, f in feeds.items()
        }
        self.fed.append(arrays)
        made: dict[str, Any] = dict(self.make(arrays))
        for name, place in (keep or {}).items():
            if isinstance(place, Held):
                place.array[:] = made[name]
            made[name] = place or Held(made[name])
        return made

    def hold(self, array: np.ndarray) -> Held:
        return Held(array.copy())

    def fetch(self, kept: Kept) -> np.ndarray:
        assert isinstance(kept, Held)
        return kept.array


def part(name: str, takes: str, gives: str) -> Part:
    port = Port("float32", ("batch",))
    inputs, outputs = ({n: port for n in names.split()} for names in (takes, gives))
    return Part(name, "encoder", (File("x", 1, ""),), inputs, outputs)


EAR, EYE = part("ear", "sound", "heard"), part("eye", "light heard", "seen")
MIND = part("mind", "seen sound", "thought")


def test_each_part_takes_by_name_what_the_parts_before_it_made() -> None:
    sessions = {
        "ear": Fake(lambda f: {"heard": f["sound"] + 1}),
        "eye": Fake(lambda f: {"seen": f["light"] * f["heard"]}),
        "mind": Fake(lambda f: {"thought": f["seen"] - f["sound"]}),
    }
    stages = Stages()
    given = {"sound": np.array([1.0]), "light": np.array([10.0]), "unused": np.zeros(1)}
    made = Pipeline([EAR, EYE, MIND], sessions).forward(given, stages)
    assert made["thought"] == [19.0] and made["unused"] == [0.0]
    assert set(sessions["mind"].fed[0]) == {"seen", "sound"}
    assert list(stages.ms) == ["ear", "eye", "mind"] and min(stages.ms.values()) >= 0
    assert "heard" not in given


def test_a_missing_tensor_is_answered_with_who_wanted_it_and_what_there_is() -> None:
    pipeline = Pipeline([EAR, EYE], {"ear": Fake(lambda f: {"heard": f["sound"]})})
    with pytest.raises(BadArtifacts) as caught:
        pipeline.forward({"sound": np.zeros(1)})
    assert str(caught.value) == "part eye wants light, but before it there is: sound, heard"


def test_what_a_pipeline_lacks_is_known_before_it_runs() -> None:
    pipeline = Pipeline([EAR, EYE, MIND], {})
    assert pipeline.lack(["sound", "light"], ["thought"]) == ""
    assert pipeline.lack(["sound"], []) == "part eye wants light, which no part before it makes"
    assert pipeline.lack(["sound", "light"], ["words"]) == "no part makes words"


def test_a_graph_of_batch_one_run_row_by_row_equals_a_batch() -> None:
    def make(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        past, x = feeds["past"], feeds["x"]
        return {"present": past + x[:, None], "y": past.sum(axis=1) * x}

    def single(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert {len(feed) for feed in feeds.values()} == {1}
        return make(feeds)

    batch, rows = Fake(make, "x past", "present y"), Fake(single, "x past", "present y")
    past, x = np.arange(6.0).reshape(3, 2), np.array([1.0, 2.0, 3.0])
    answers = []
    for session in (batch, RowByRow(rows)):
        kept: Any = session.hold(past)
        first = session.run({"x": x, "past": kept}, {"present": None})
        again = session.run({"x": x + 1, "past": first["present"]}, {"present": first["present"]})
        assert again["present"] is first["present"] or isinstance(session, RowByRow)
        answers.append((first["y"], again["y"], session.fetch(again["present"])))
        assert session.fetch(kept).tolist() == past.tolist()
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(rows.fed) == 6 and set(RowByRow(rows).outputs) == {"present", "y"}


# --- the decoder and its cache

VOCAB, HIDDEN, CAPACITY = 5, 2, 64
TABLE = np.arange(VOCAB * HIDDEN, dtype=np.float16).reshape(VOCAB, HIDDEN)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    np.save(tmp_path / "table.npy", TABLE)
    return Table(tmp_path / "table.npy")


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


def decoder(table: Table, axis: str, rows: int = 2) -> tuple[Decoder, Fake]:
    inputs = {
        "inputs_embeds": Port("float32", ("batch", "seq", HIDDEN)),
        "past_lengths": Port("int64", ("batch",)),
        "seq_lengths": Port("int64", ("batch",)),
        "past_key_values.0.key": Port("float32", ("batch", axis, HIDDEN)),
    }
    session = Fake(sums)
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
        before = dict(model._cache)
        model.step(np.array([0, 1]))
        assert (model._cache == before) is same and len(session.fed) == 1


@pytest.mark.parametrize("axis", ["past", "capacity"])
@pytest.mark.parametrize("rows", [[1, 0], [0, 0, 1, 1, 0], [1], [1, 1], [0, 1]], ids=str)
def test_rows_of_the_cache_are_reordered_widened_and_dropped(
    table: Table, axis: str, rows: list[int]
) -> None:
    model, _ = decoder(table, axis)
    model.feed(np.ones((2, 3, HIDDEN), np.float32), np.array([3, 1]))
    before = dict(model._cache)
    model.reorder(np.array(rows))
    assert (model._cache == before) is (rows == [0, 1])  # nothing moves for nothing
    assert model.lengths.tolist() == [[3, 1][row] for row in rows]
    assert model.step(np.zeros(len(rows), np.int64))[:, 0].tolist() == [[3, 1][r] for r in rows]


def test_a_fresh_start_forgets_the_cache(table: Table) -> None:
    model, _ = decoder(table, "capacity")
    model.step(np.array([1, 1]))
    model.start(3, CAPACITY + 1)
    assert model.lengths.tolist() == [0, 0, 0]
    (kept,) = model._cache.values()
    assert isinstance(kept, Held) and kept.array.shape == (3, 2 * CAPACITY, HIDDEN)
    assert not kept.array.any()


def test_prompts_are_assembled_and_padded_on_the_right(table: Table) -> None:
    audio = np.full((2, HIDDEN), 7, np.float32)
    embeds, lengths = assemble(table, [([1], audio, [2, 3]), ([], audio[:1], [4])])
    assert lengths.tolist() == [5, 2] and embeds.dtype == np.float32
    assert embeds[0].tolist() == [[2, 3], [7, 7], [7, 7], [4, 5], [6, 7]]
    assert embeds[1].tolist() == [[7, 7], [8, 9], [0, 0], [0, 0], [0, 0]]


def test_an_unknown_token_has_no_embedding(table: Table) -> None:
    assert table(np.zeros((2, 0), np.int64)).shape == (2, 0, HIDDEN)
    for token in (VOCAB, -1):
        with pytest.raises(BadPrompt, match=f"token {token} is none of the 5"):
            table(np.array([[0, token]]))


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "embed.npy"
    odd = [np.zeros(3), np.zeros((1, 2, 3)), np.zeros((2, 2), int), np.full((2, 2), "x")]
    for array in odd:
        np.save(path, array)
        with pytest.raises(BadArtifacts, match="no table of floats"):
            Table(path)
    np.save(path, np.array([[{}]], object), allow_pickle=True)
    whole = path.read_bytes()
    np.savez(path.with_suffix(".npz"), a=np.zeros((2, 2)))
    np.save(path, np.zeros((9, 9)))
    cut = path.read_bytes()[:-1]
    for content in (whole, path.with_suffix(".npz").read_bytes(), cut, b"", b"not numpy"):
        path.write_bytes(content)
        with pytest.raises(BadArtifacts, match="is no (readable )?table"):
            Table(path)


def test_a_table_of_another_shape_than_the_manifests_is_refused(
    table: Table, artifacts: Path
) -> None:
    with pytest.raises(BadArtifacts, match=r"table is \[5, 2\], not \[320, 64\]"):
        check_table(table, manifest.load(artifacts))
