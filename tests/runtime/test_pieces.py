"""A part run piece by piece gives what it gives of the whole, and no row is run for nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alm import backends
from alm.artifacts.part import Part, part_from_json
from alm.parsing import Misshapen
from alm.ports import Port, Span
from tests.runtime.generation.test_pipeline import Fake

PART = Part(
    "tower",
    "encoder",
    (),
    {
        "log_mel": Port("float32", ("batch", 3, "frames")),
        "frames_lengths": Port("int64", ("batch",), counts="frames"),
    },
    {
        "speech": Port("float32", ("batch", "rows", 3)),
        "audio_embeds_lengths": Port("int64", ("batch",)),
    },
    {"frames": Span(1, 4, 8)},
    pieces="frames",
)


def halves(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every second frame is a row."""
    assert feeds["log_mel"].shape[2] <= 8 and feeds["frames_lengths"].min() > 0
    speech = feeds["log_mel"][:, :, ::2].transpose(0, 2, 1)
    return {"speech": speech, "audio_embeds_lengths": (feeds["frames_lengths"] + 1) // 2}


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 16, 21])
def test_pieces_follow_each_other_and_counts_add_up(frames: int) -> None:
    mel = np.random.default_rng(0).standard_normal((1, 3, frames)).astype(np.float32)
    session = Fake(halves)
    given = {"log_mel": mel, "frames_lengths": np.array([frames])}
    made = backends.any_size(session, PART).run(given)
    np.testing.assert_array_equal(made["speech"], mel[:, :, ::2].transpose(0, 2, 1))
    assert made["audio_embeds_lengths"].tolist() == [(frames + 1) // 2]
    assert len(session.fed) == -(-frames // 8)


def test_a_row_that_has_ended_is_left_out() -> None:
    mel = np.random.default_rng(0).standard_normal((3, 3, 20)).astype(np.float32)
    lengths = np.array([20, 3, 8])
    session = Fake(halves)
    given = {"log_mel": mel, "frames_lengths": lengths}
    made = backends.any_size(session, PART).run(given)
    assert [len(fed["log_mel"]) for fed in session.fed] == [3, 1, 1]
    assert made["audio_embeds_lengths"].tolist() == [10, 2, 4]
    for row, count in zip(range(3), (10, 2, 4), strict=True):
        want = mel[row, :, : 2 * count : 2].T
        np.testing.assert_array_equal(made["speech"][row, :count], want)
    assert not made["speech"][1, 4:].any()


def test_rows_and_pieces_of_a_graph_with_one_row_are_run_one_by_one() -> None:
    one = replace(PART, inputs={n: port.fix(batch=1) for n, port in PART.inputs.items()})
    session = Fake(halves, outputs="speech audio_embeds_lengths")
    given = {"log_mel": np.ones((2, 3, 20), np.float32), "frames_lengths": np.array([20, 3])}
    made = backends.any_size(session, one).run(given)
    assert made["audio_embeds_lengths"].tolist() == [10, 2]
    assert [fed["log_mel"].shape for fed in session.fed] == [
        *((1, 3, 8), (1, 3, 8)),
        *((1, 3, 8), (1, 3, 4)),
    ]


def test_pieces_of_an_axis_that_is_not_there_are_refused() -> None:
    plain = PART.to_json()
    plain["files"] = [{"name": "a.onnx", "bytes": 1, "sha256": "0" * 64}]
    assert part_from_json(plain, 0).pieces == "frames"
    with pytest.raises(Misshapen, match="'pieces' of part tower is 'rows', no axis"):
        part_from_json(plain | {"pieces": "rows"}, 0)
