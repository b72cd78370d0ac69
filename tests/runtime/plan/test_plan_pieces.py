"""Parts that are run several times about a clip: by pieces, by a carried state, by windows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from alm.artifacts.manifest import Manifest
from alm.facts import AudioFacts, DimensionFacts, Facts, LiveFacts
from alm.plan import estimate
from alm.ports import Port, Span
from tests.runtime.plan.planning import LLMS, model, part

RATE = 16_000
WIDTH, HIDDEN = 1280, 3072
LAYERS = 32 * 12 * WIDTH**2  # weights, of a tower of Whisper-large's width
Axis = int | str


def manifest(frames: Axis, speech: Axis, rows: Axis, facts: Facts) -> Manifest:
    """A spectrogram, a tower and a bridge that have these axes."""
    log_mel = Port("float32", ("batch", 128, frames))
    heard = {"speech": Port("float32", ("batch", speech, WIDTH))}
    embeds = {"audio_embeds": Port("float32", ("batch", rows, HIDDEN))}
    pcm = {"pcm": Port("float32", ("batch", "samples"))}
    mels = {"log_mel": Port("float32", ("batch", 128, "frames"))}
    made = model(
        LLMS["llama-3b"],
        61,
        part("mel", "frontend", 0, inputs=pcm, outputs=mels),
        part("tower", "encoder", 2 * LAYERS, inputs={"log_mel": log_mel}, outputs=heard),
        part("bridge", "bridge", 2**20, inputs=heard, outputs=embeds),
    )
    return replace(made, facts=replace(facts, prompt=made.facts.prompt))


def known(window: int, tokens: int, live: LiveFacts | None = None) -> Facts:
    """A window of so many seconds and embeddings."""
    audio = AudioFacts(rate=RATE, window_samples=window * RATE)
    dimensions = DimensionFacts(audio_tokens=tokens)
    return Facts(audio=audio, dimensions=dimensions, live=live or LiveFacts())


def changed(said: Manifest, name: str, **values: object) -> Manifest:
    """With other values of a part."""
    parts = (replace(p, **values) if p.name == name else p for p in said.parts)
    return replace(said, parts=tuple(parts))


def streamed() -> Manifest:
    """Voxtral Realtime: pieces of 512 frames, and keys of the 749 rows before one.

    32 + 6 + 11 steps of 80 ms are silence around a clip.
    """
    live = LiveFacts(step_samples=1280, left=32, delay=6, right=11)
    said = manifest("frames", "frames_by_2", "frames_by_4", known(30, 375, live))
    tower = said.part("tower")
    assert tower
    state = {"past_key_values.0.key": Port("float32", ("batch", 749, 2048))}
    after = {"present.0.key": Port("float32", ("batch", 749, 2048))}
    said = changed(said, "tower", inputs=tower.inputs | state, outputs=tower.outputs | after)
    return changed(said, "tower", spans={"frames": Span(8, 96, 512)})


def work(said: Manifest, seconds: float) -> float:
    """Operations of the tower."""
    tower = said.part("tower")
    assert tower
    return estimate.operations(estimate.to_audio_part(tower), estimate.sizes(said, seconds))


@pytest.mark.parametrize("seconds", [1.0, 10.0, 30.0])
def test_a_stream_costs_all_of_its_clip_and_the_silences_around_it(seconds: float) -> None:
    rows = (seconds + 49 * 0.08) * 50
    products = 2 * LAYERS * rows
    # Every row sees the 749 kept ones and, in the mean, not more than the 256 of its piece.
    least, most = (4 * rows * seen * WIDTH * 32 for seen in (749, 749 + 256))
    assert 0.99 * (products + least) < work(streamed(), seconds) < 1.01 * (products + most)
    sizes = estimate.sizes(streamed(), seconds)
    assert sizes["frames"] == pytest.approx(2 * rows, abs=1)
    tower = streamed().part("tower")
    assert tower and estimate.runs(tower, sizes) == -(-round(2 * rows) // 512)


def test_pieces_are_as_many_as_the_clip_needs_and_see_only_themselves() -> None:
    """Qwen3-ASR: 20 minutes are a window, 8 s of it a piece, and 13 rows a second."""
    said = manifest("frames", "rows", "rows", known(1200, 15_600))
    said = changed(said, "tower", pieces="frames", spans={"frames": Span(1, 767, 800)})
    for seconds in (8, 30, 60, 1200):
        sizes, rows = estimate.sizes(said, seconds), 13 * seconds
        assert (sizes["frames"], sizes["rows"]) == (100 * seconds, rows)
        runs = -(-seconds // 8)
        attention = 4 * rows * (rows / runs) * WIDTH * 32
        assert work(said, seconds) == pytest.approx(2 * LAYERS * rows + attention)
        assert estimate.prompt_tokens(said, seconds)[0] == rows  # not those of 20 minutes


def test_windows_of_one_size_are_as_many_as_the_clip_has() -> None:
    """GLM-ASR: up to 21 windows of 30 s, each computed whole, of which a clip's rows are kept."""
    said = manifest(3000, 1500, 375, known(630, 7875))
    alone = 2 * LAYERS * 1500 + 4 * 1500**2 * WIDTH * 32
    for seconds, windows in ((1, 1), (30, 1), (31, 2), (630, 21)):
        assert work(said, seconds) == pytest.approx(windows * alone)
        assert estimate.prompt_tokens(said, seconds)[0] == 375 * windows
    lengths = {"log_mel": Port("float32", ("batch", 128, "frames"))}
    lengths |= {"audio_embeds_lengths": Port("int64", ("batch",))}
    assert estimate.prompt_tokens(changed(said, "mel", outputs=lengths), 31)[0] == 388
