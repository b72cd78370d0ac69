"""Qwen2-Audio: parts that hear and answer as transformers does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from alm.session import Session
from tests.reference import LIBRISPEECH, MORE_SPEECH
from tests.wrappers.families import tiny_hf
from tests.wrappers.families.tiny_hf import RATE, Tiny, batch, noise
from tests.wrappers.families.traced_parts import answered, graphs
from wrappers import open_checkpoint
from wrappers.checkpoint.weights.hollow import filled
from wrappers.encoders.whisper import LEAST_POOLED, heard_frames

PARTS = ("mel", "whisper", "projector")
Hear = Callable[[list[np.ndarray]], list[Tensor]]
LENGTHS = (LEAST_POOLED, 480, 481, 961, 8_000, 100_003, 29 * RATE, 30 * RATE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A window of 30 s."""
    return tiny_hf.qwen2_audio(tmp_path_factory.mktemp("qwen2_audio"))


@pytest.fixture(scope="module")
def middling(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A window of 8 s."""
    return tiny_hf.qwen2_audio(tmp_path_factory.mktemp("middling"), seconds=8)


@pytest.fixture(scope="module")
def alike_in_all(middling: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Session]:
    """Graphs of the parts that no dialect changes."""
    loaded = open_checkpoint(middling.folder)
    made = {name: loaded.part(name, "standard") for name in ("mel", "projector")}
    return graphs(made, tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module")
def hear(tiny: Tiny) -> Hear:
    """Our parts in torch: clips [samples] -> embeddings [n, hidden] of each."""
    loaded = open_checkpoint(tiny.folder)
    mel, whisper, projector = (filled(loaded.part(name, "ort")) for name in PARTS)

    def heard_by_ours(clips: list[np.ndarray]) -> list[Tensor]:
        pcm, lengths = batch(clips)
        speech, counts = whisper(mel(pcm), lengths)
        rows = projector(speech)
        return [row[:n] for row, n in zip(rows, counts.tolist(), strict=True)]

    return heard_by_ours


def heard(tiny: Tiny, clips: list[np.ndarray]) -> list[Tensor]:
    """Embeddings [n, hidden] of each clip, as they come into the LLM of transformers."""
    made = tiny.extractor(
        clips, sampling_rate=RATE, return_attention_mask=True, return_tensors="pt"
    )
    model = tiny.truth.model
    counts = model.audio_tower._get_feat_extract_output_lengths(made.attention_mask.sum(-1))[1]
    said: list[Tensor] = []
    hook = model.multi_modal_projector.register_forward_hook(lambda *made: said.append(made[-1]))
    # A prompt of one token would be taken for the next step of an answer.
    ids = torch.full((1, int(counts.sum()) + 1), tiny.truth.config.audio_token_id)
    ids[:, -1] = 7
    with torch.no_grad():
        model(
            input_ids=ids,
            input_features=made.input_features,
            attention_mask=torch.ones_like(ids),
            feature_attention_mask=made.attention_mask,
        )
    hook.remove()
    return [rows[:n] for rows, n in zip(said[0], counts.tolist(), strict=True)]


def alike(got: list[Tensor], want: list[Tensor]) -> None:
    """As many rows of each clip, and no number further than 1e-4 of the largest."""
    assert [len(each) for each in got] == [len(each) for each in want]
    for one, other in zip(got, want, strict=True):
        worst = float((one - other).abs().max())
        assert worst < 1e-4 * max(1.0, float(other.abs().max()))


# --- what is heard


def test_clips_of_all_lengths_are_heard_as_transformers_hears_them(tiny: Tiny, hear: Hear) -> None:
    clips = [noise(n, seed) for seed, n in enumerate(LENGTHS)]
    got = hear(clips)
    alike(got, heard(tiny, clips))
    assert [len(each) for each in got] == [1, 1, 1, 2, 12, 156, 725, 750]


def test_a_clip_is_heard_in_a_batch_as_it_is_heard_alone(hear: Hear) -> None:
    clips = [noise(40_000), noise(LEAST_POOLED, 1), noise(400_001, 2)]
    alike(hear(clips), [hear([clip])[0] for clip in clips])


def test_silence_is_heard_as_transformers_hears_it(tiny: Tiny, hear: Hear) -> None:
    clips = [np.zeros(n, np.float32) for n in (400, RATE, 30 * RATE)]
    alike(hear(clips), heard(tiny, clips))


def test_one_sample_filled_up_to_the_least_is_one_embedding(tiny: Tiny, hear: Hear) -> None:
    least = open_checkpoint(tiny.folder).facts.audio.least_samples
    clip = np.pad(noise(1) + 0.5, (0, least - 1))
    got = hear([clip])
    assert len(got[0]) == 1
    alike(got, heard(tiny, [clip]))


def test_a_window_of_a_longer_clip_is_what_transformers_cuts_from_it(
    tiny: Tiny, hear: Hear
) -> None:
    clip = noise(31 * RATE)
    alike(hear([clip[: 30 * RATE]]), heard(tiny, [clip]))


def test_speech_is_heard_as_transformers_hears_it(tiny: Tiny, hear: Hear) -> None:
    clips = [soundfile.read(path, dtype="float32")[0] for path in (*LIBRISPEECH, *MORE_SPEECH)]
    alike(hear(clips), heard(tiny, clips))


def test_rows_are_counted_as_transformers_counts_them(tiny: Tiny) -> None:
    samples = torch.cat([torch.arange(1, 3_000), torch.arange(3_000, 30 * RATE + 1, 997)])
    frames = -(-samples // 160)
    of_tower, of_clip = tiny.truth.model.audio_tower._get_feat_extract_output_lengths(frames)
    assert torch.equal(heard_frames(samples), of_tower)
    assert torch.equal(heard_frames(samples) // 2, of_clip)


@pytest.mark.parametrize("dialect", ["decomposed", "standard", "ort"])
def test_the_graphs_hear_and_answer_as_transformers_does(
    middling: Tiny, alike_in_all: dict[str, Session], dialect: str, tmp_path: Path
) -> None:
    loaded = open_checkpoint(middling.folder)
    made = {name: loaded.part(name, dialect) for name in ("whisper", "decoder")}
    run = alike_in_all | graphs(made, tmp_path)
    clips = [noise(8 * RATE), noise(LEAST_POOLED, 1), noise(70_001, 2)]
    pcm, lengths = batch(clips)
    log_mel = run["mel"].run({"pcm": pcm.numpy()})["log_mel"]
    speech = run["whisper"].run({"log_mel": log_mel, "pcm_lengths": lengths.numpy()})
    rows = run["projector"].run({"speech": speech["speech"]})["audio_embeds"]
    got = [
        torch.from_numpy(r[:n]) for r, n in zip(rows, speech["audio_embeds_lengths"], strict=True)
    ]
    want = heard(middling, clips)
    alike(got, want)

    embeds = want[2][None]
    with torch.no_grad():
        truth = middling.truth(inputs_embeds=embeds).logits[:, -1]
    logits = answered(run["decoder"], made["decoder"], embeds)
    torch.testing.assert_close(logits, truth, atol=1e-4 * float(truth.abs().max()), rtol=0)


def test_a_gemma_in_it_has_logits_that_are_not_capped(tmp_path: Path) -> None:
    gemma = tiny_hf.qwen2_audio(
        tmp_path / "gemma",
        seconds=2,
        model_type="gemma2",
        head_dim=12,
        query_pre_attn_scalar=20,
        sliding_window=24,
        final_logit_softcapping=5.0,
        tie_word_embeddings=False,
    )
    made = open_checkpoint(gemma.folder).part("decoder", "decomposed")
    run = graphs({"decoder": made}, tmp_path)
    embeds = torch.randn(1, 40, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        truth = gemma.truth(inputs_embeds=embeds).logits[:, -1]
    assert truth.abs().max() > 6  # above the cap
    logits = answered(run["decoder"], made, embeds)
    torch.testing.assert_close(logits, truth, atol=1e-4 * float(truth.abs().max()), rtol=0)
