"""`alm plan` of a mixture of experts: what lies in memory, and what a token reads of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from alm.artifacts.manifest import Part
from alm.bench.roofline import idle_bytes
from alm.errors import BadArtifacts
from alm.precision import Codes, Storage
from tests.runtime.plan.planning import AGX, LLMS, model, planned


def test_a_step_is_as_long_as_what_it_reads_and_a_note_says_what_tensorrt_reads(
    tmp_path: Path,
) -> None:
    plain = model(LLMS["llama-3b"])
    decoder = plain.parts[-1]
    count = decoder.measured["weights"]
    facts = replace(
        plain.facts, dimensions=replace(plain.facts.dimensions, experts=8, active_experts=2)
    )
    sparse = replace(decoder, measured={"weights": count, "active_weights": count // 2})
    mixed = replace(plain, parts=(*plain.parts[:-1], sparse), facts=facts)
    before, found = planned(tmp_path, plain, AGX), planned(tmp_path, mixed, AGX)
    whole, half = before["choices"][0], found["choices"][0]
    assert half["per_token"]["value"] < 0.6 * whole["per_token"]["value"]
    assert half["decoder_bytes"] == whole["decoder_bytes"]  # all of it lies in memory
    assert half["clips"][0]["prompt"]["value"] <= whole["clips"][0]["prompt"]["value"]
    assert found["choices"][1:] == before["choices"][1:]
    assert any("passes 2 of 8 experts" in note for note in found["notes"])
    wrong = replace(decoder, measured={"weights": count, "active_weights": count + 1})
    with pytest.raises(BadArtifacts, match="that a token reads"):
        planned(tmp_path, replace(mixed, parts=(*plain.parts[:-1], wrong)), AGX)


def test_the_roofline_leaves_out_experts_that_a_token_does_not_pass() -> None:
    decoder = Part("decoder", "decoder", (), {}, measured={"weights": 100, "active_weights": 40})
    assert idle_bytes(decoder) == 60 * 4
    assert idle_bytes(replace(decoder, storage=Storage(Codes("uint4")))) == 60 / 2
    assert idle_bytes(replace(decoder, measured={"weights": 100})) == 0
