"""The reference checkpoint: what the original computed, tensor by tensor and token by token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alm
from alm import lint
from alm.audio import reader
from alm.decoder.decoder import Decoder, assemble, woven
from alm.generation.model import Model
from tests.products import some

PROMPT = "Recognize the speech and give me the transcription."
CLIPS = "abcd"
WAYS: dict[str, dict[str, Any]] = {
    "greedy": dict(num_beams=1),
    "beam4": dict(num_beams=4),
    "beam4_rep": dict(num_beams=4, repetition_penalty=1.5),
}


@pytest.fixture(scope="module")
def truth(oracle: Path) -> Any:
    return np.load(oracle / "oracle.npz")


EXPORTS = ("oracle_standard", "oracle_decomposed", "oracle_ort")


@pytest.fixture(scope="module", params=some(EXPORTS, "oracle_decomposed", "oracle_ort"))
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    yield alm.load(request.getfixturevalue(request.param), provider="cpu")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("clip", CLIPS)
def test_tokens_are_those_of_the_original(
    model: Model, oracle: Path, truth: Any, clip: str, way: str
) -> None:
    options: dict[str, Any] = dict(max_new_tokens=24, truncate=True) | WAYS[way]
    answer = model.generate(oracle / f"audio_{clip}.wav", PROMPT, **options)
    assert answer.token_ids == truth[f"{clip}.{way}"].tolist()


def test_four_clips_in_one_batch_are_four_single_runs(
    model: Model, oracle: Path, truth: Any
) -> None:
    clips = [oracle / f"audio_{clip}.wav" for clip in CLIPS]
    for way, options in WAYS.items():
        answers = model.generate(clips, PROMPT, max_new_tokens=24, truncate=True, **options)
        wanted = [truth[f"{clip}.{way}"].tolist() for clip in CLIPS]
        assert [answer.token_ids for answer in answers] == wanted


def heard(model: Model, path: Path) -> dict[str, np.ndarray]:
    """Every tensor on the way to the audio embeddings."""
    pcm = reader.read(path, 16000).pcm[:480000]
    pcm = np.pad(pcm, (0, max(0, 16000 - len(pcm))))[None]
    return model.parts.pipeline.forward({"pcm": pcm, "pcm_lengths": np.array([pcm.shape[1]])})


@pytest.mark.parametrize("clip", CLIPS)
def test_every_tensor_is_reproduced(model: Model, oracle: Path, truth: Any, clip: str) -> None:
    made = heard(model, oracle / f"audio_{clip}.wav")
    names = {"fbank": ("fbank", 2e-3), "beats": ("audio", 1e-3)}
    names |= {"audio_tokens": ("audio_embeds", 1e-3)}
    if clip == "a":
        names |= {"mel": ("log_mel", 2e-3), "whisper": ("speech", 1e-3)}
    for name, (ours, tolerance) in names.items():
        error = np.abs(made[ours][0] - truth[f"{clip}.{name}"]).max()
        assert error <= tolerance, (name, error)


def prefilled(
    model: Model, oracle: Path, clip: str, most: int
) -> tuple[Decoder, np.ndarray, np.ndarray]:
    """The decoder after the prompt, the embeddings it was fed, and its logits."""
    embeds = heard(model, oracle / f"audio_{clip}.wav")["audio_embeds"][0]
    prompt = model.parts.prompter.build(PROMPT)
    inputs, lengths = assemble(model.parts.table, [woven(prompt.pieces, [embeds])])
    decoder = model.parts.decoder()
    decoder.start(1, inputs.shape[1] + most)
    return decoder, inputs, decoder.feed(inputs, lengths)


@pytest.mark.parametrize("clip", CLIPS)
def test_forced_logits_by_single_steps_and_by_one_chunk(
    model: Model, oracle: Path, truth: Any, clip: str
) -> None:
    forced, wanted = truth[f"{clip}.forced_ids"], truth[f"{clip}.forced_logits"]
    decoder, inputs, logits = prefilled(model, oracle, clip, len(forced))
    assert np.abs(inputs[0] - truth[f"{clip}.inputs_embeds"]).max() <= 1e-3
    assert np.abs(logits[0] - truth[f"{clip}.logits_last"]).max() <= 1e-3
    rows = [logits[0]] + [decoder.step(np.array([token]))[0] for token in forced]
    assert np.abs(np.stack(rows) - wanted).max() <= 2e-3

    decoder, _, _ = prefilled(model, oracle, clip, len(forced))
    chunk = decoder.feed(model.parts.table(forced[None]), np.array([len(forced)]))
    assert np.abs(chunk[0] - wanted[-1]).max() <= 2e-3


def test_a_prompt_in_chunks_is_the_prompt(model: Model, oracle: Path, truth: Any) -> None:
    _, inputs, _ = prefilled(model, oracle, "a", 0)
    decoder = model.parts.decoder()
    decoder.start(1, inputs.shape[1])
    pieces = [inputs[:, at : at + 40] for at in range(0, inputs.shape[1], 40)]
    *_, logits = [decoder.feed(piece, np.array([piece.shape[1]])) for piece in pieces]
    assert np.abs(logits[0] - truth["a.logits_last"]).max() <= 1e-3


@pytest.mark.parametrize(
    ("fixture", "target"),
    some(
        [
            ("oracle_decomposed", "trt-jetpack6"),
            ("oracle_standard", "trt-jetpack7"),
            ("oracle_standard", "trt-rtx"),
        ],
        ("oracle_decomposed", "trt-jetpack6"),
    ),
)
def test_every_part_passes_the_lint(
    request: pytest.FixtureRequest, fixture: str, target: str
) -> None:
    verdict = lint.lint(request.getfixturevalue(fixture), target)
    assert len(verdict.parts) == 6 and not verdict.refused, verdict.findings
