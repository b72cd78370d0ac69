"""Parts stitched by name, one after the other or side by side, and the table of embeddings."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alm.artifacts import manifest
from alm.artifacts.embedding_table import Table
from alm.artifacts.manifest import File, Part
from alm.decoder.decoder import assemble, woven
from alm.errors import BadArtifacts, BadPrompt
from alm.generation.pipeline import Pipeline, Stages, at_once, check_table
from alm.ports import Port
from alm.session import Feed, Kept, RowByRow, Session

Make = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@dataclasses.dataclass(eq=False)
class Held(Kept):
    array: np.ndarray


class Fake(Session):
    """A session made of a function from arrays to arrays; it may work in the arrays it holds."""

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
        return Held(array if self.in_place else array.copy())

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


def test_parts_that_do_not_wait_for_each_other_run_side_by_side() -> None:
    both = threading.Barrier(2, timeout=300)  # passed only by two at once

    def meet(name: str) -> Make:
        def make(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            both.wait()
            time.sleep(0.05)
            return {name: feeds["sound"] + 1}

        return make

    parts = [part("a", "sound", "x"), part("b", "sound", "y"), part("c", "x y", "z")]
    sessions = {
        "a": Fake(meet("x")),
        "b": Fake(meet("y")),
        "c": Fake(lambda f: {"z": f["x"] + f["y"]}),
    }
    stages = Stages()
    made = Pipeline(parts, sessions, at_once=2).forward({"sound": np.array([1.0])}, stages)
    assert made["z"] == [4.0] and set(made) == {"sound", "x", "y", "z"}
    assert list(stages.ms) == ["a", "b", "c"]
    assert 0 != stages.overlap_ms < stages.ms["a"] + stages.ms["b"]


def test_side_by_side_raises_what_went_wrong_and_needs_no_second_part() -> None:
    def fail(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise BadArtifacts("the engine failed")

    sessions = {"ear": Fake(fail), "eye": Fake(fail)}
    with pytest.raises(BadArtifacts, match="the engine failed"):
        Pipeline([EAR, EYE], sessions, at_once=2).forward(
            {"sound": np.zeros(1), "light": np.zeros(1)}
        )
    alone = Pipeline([EAR], {"ear": Fake(lambda f: {"heard": f["sound"]})}, at_once=2)
    assert alone.forward({"sound": np.ones(1)})["heard"] == [1.0]


@pytest.mark.parametrize(
    ("threads", "cores", "wanted"), [(0, 16, 1), (1, 1, 1), (1, 2, 2), (2, 3, 1), (2, 4, 2)]
)
def test_parts_run_side_by_side_only_where_each_has_cores_of_its_own(
    threads: int, cores: int, wanted: int
) -> None:
    assert at_once(threads, cores) == wanted


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


# --- the table and prompts

VOCAB, HIDDEN = 5, 2
TABLE = np.arange(VOCAB * HIDDEN, dtype=np.float16).reshape(VOCAB, HIDDEN)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    np.save(tmp_path / "table.npy", TABLE)
    return Table(tmp_path / "table.npy")


def test_prompts_are_assembled_and_padded_on_the_right(table: Table) -> None:
    audio = np.full((2, HIDDEN), 7, np.float32)
    rows = [woven([[1], [2, 3]], [audio]), woven([[], [4]], [audio[:1]])]
    embeds, lengths = assemble(table, rows)
    assert lengths.tolist() == [5, 2] and embeds.dtype == np.float32
    assert embeds[0].tolist() == [[2, 3], [7, 7], [7, 7], [4, 5], [6, 7]]
    assert embeds[1].tolist() == [[7, 7], [8, 9], [0, 0], [0, 0], [0, 0]]


def test_an_unknown_token_has_no_embedding(table: Table) -> None:
    assert table(np.zeros((2, 0), np.int64)).shape == (2, 0, HIDDEN)
    for token in (VOCAB, -1):
        with pytest.raises(BadPrompt, match=f"token {token} is none of the 5"):
            table(np.array([[0, token]]))


def test_an_int8_table_has_a_scale_for_each_row(tmp_path: Path) -> None:
    path, scales = tmp_path / "embed.npy", tmp_path / "embed.scales.npy"
    np.save(path, np.array([[1, -2], [127, -128], [3, 0]], np.int8))
    np.save(scales, np.array([0.5, 2, 1], np.float32))
    table = Table(path, scales)
    assert table(np.array([[1, 0]])).tolist() == [[[254, -256], [0.5, -1]]]
    assert table(np.array([2])).dtype == np.float32 and type(table(np.array([2]))) is np.ndarray
    assert table(np.zeros((1, 0), np.int64)).shape == (1, 0, 2)
    for array in (np.zeros(2, np.float32), np.zeros(3), np.zeros((3, 1), np.float32)):
        np.save(scales, array)
        with pytest.raises(BadArtifacts, match=r"holds no scales, float32 \[3\], but "):
            Table(path, scales)
    np.save(scales, np.zeros(3, np.float32))
    for array in (np.zeros((3, 2), np.float32), np.zeros((3, 2), np.int16), np.zeros(3, np.int8)):
        np.save(path, array)
        with pytest.raises(BadArtifacts, match="is no table of int8"):
            Table(path, scales)


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
