"""The front ends: the features that the originals compute, in torch and as graphs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor

from alm.errors import BadOption
from tests.reference import SALMONN
from tests.wrappers.parts.tracing import traced
from wrappers.frontends.fbank import Fbank, kaldi_filters
from wrappers.frontends.mel import Mel

RATE = 16_000
DATA_DEPENDENT = {"STFT", "DFT", "NonZero", "Loop", "If", "Scan", "ScatterND", "ScatterElements"}
SILENCE = (math.log(1.1920929e-07) - 15.41663) / (2 * 6.55582)  # BEATs' frame of zeros


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tone(samples: int) -> Tensor:
    """A rising whistle that fades: loud and silent, low and high."""
    t = torch.arange(samples) / RATE
    return (torch.exp(-2 * t) * torch.sin(2 * math.pi * (200 + 900 * t) * t)).unsqueeze(0)


def oracle_clip(name: str) -> tuple[Tensor, np.lib.npyio.NpzFile]:
    """[1, samples], at least a second and at most thirty as SALMONN cuts it; and the outputs."""
    pcm, rate = soundfile.read(SALMONN / f"audio_{name}.wav", dtype="float32", always_2d=True)
    assert rate == RATE
    clip = pcm[: 30 * RATE, 0]
    clip = np.pad(clip, (0, max(0, RATE - len(clip))))
    return torch.from_numpy(clip).unsqueeze(0), np.load(SALMONN / "oracle.npz")


def kaldi(pcm: Tensor) -> Tensor:
    """[samples] -> [frames, 128]: torchaudio's filterbank step by step in float64, normalised."""
    frames = (pcm.double() * 2**15).unfold(0, 400, 160)
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - 0.97 * torch.cat([frames[:, :1], frames[:, :-1]], 1)
    frames = frames * torch.hann_window(400, periodic=False, dtype=torch.float64) ** 0.85
    power = torch.fft.rfft(frames, n=512).abs()[:, :256] ** 2
    energy = power @ kaldi_filters().double().T
    return ((energy.clamp(min=1.1920929e-07).log() - 15.41663) / (2 * 6.55582)).float()


def fbank_of(pcm: Tensor) -> Tensor:
    return Fbank()(pcm, torch.full((len(pcm),), pcm.shape[1]))[0]


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("pcm", [noise(1, 70_001), tone(RATE), noise(1, 480_000), noise(1, 500)])
def test_mel_is_what_transformers_computes(mels: int, pcm: Tensor) -> None:
    extractor = WhisperFeatureExtractor(feature_size=mels)
    wanted = extractor(pcm[0].numpy(), sampling_rate=RATE, return_tensors="np").input_features
    torch.testing.assert_close(Mel(mels)(pcm), torch.from_numpy(wanted), atol=1e-4, rtol=0)


def test_mel_of_another_window_is_what_transformers_computes() -> None:
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=10)
    wanted = extractor(tone(50_000)[0].numpy(), sampling_rate=RATE, return_tensors="np")
    got = Mel(80, window_samples=10 * RATE)(tone(50_000))
    torch.testing.assert_close(got, torch.from_numpy(wanted.input_features), atol=1e-4, rtol=0)


def test_mel_of_silence_is_the_floor() -> None:
    assert torch.equal(Mel()(torch.zeros(1, RATE)), torch.full((1, 80, 3000), -1.5))


def test_mel_scales_each_clip_by_its_own_loudest_value() -> None:
    quiet, loud = 1e-3 * noise(1, RATE, seed=1), noise(1, RATE, seed=2)
    together = Mel()(torch.cat([quiet, loud]))
    torch.testing.assert_close(together, torch.cat([Mel()(quiet), Mel()(loud)]), atol=1e-5, rtol=0)


def test_mel_refuses_a_window_that_is_no_whole_number_of_hops() -> None:
    with pytest.raises(BadOption, match="16001"):
        Mel(window_samples=16_001)


def test_mel_is_what_the_original_computed() -> None:
    pcm, truth = oracle_clip("a")
    torch.testing.assert_close(Mel()(pcm)[0], torch.from_numpy(truth["a.mel"]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_fbank_is_what_the_original_computed(name: str) -> None:
    pcm, truth = oracle_clip(name)
    wanted = torch.from_numpy(truth[f"{name}.fbank"])
    torch.testing.assert_close(fbank_of(pcm)[0], wanted, atol=3e-4, rtol=0)


@pytest.mark.parametrize("pcm", [noise(1, 16_159), noise(1, 400), 1e-4 * noise(1, RATE)])
def test_fbank_of_noise_is_kaldi_in_float64(pcm: Tensor) -> None:
    torch.testing.assert_close(fbank_of(pcm)[0], kaldi(pcm[0]), atol=2e-5, rtol=0)


@pytest.mark.parametrize("hertz", [50, 100, 440, 1000, 3000, 7000])
def test_fbank_of_a_tone_is_kaldi_in_float64_down_to_its_empty_bins(hertz: int) -> None:
    pcm = 0.5 * torch.sin(2 * math.pi * hertz / RATE * torch.arange(RATE)).unsqueeze(0)
    for heard in (pcm, (32767 * pcm).round() / 32768, tone(40_001)):
        torch.testing.assert_close(fbank_of(heard)[0], kaldi(heard[0]), atol=1e-2, rtol=0)


def test_fbank_does_not_hear_a_constant_offset() -> None:
    pcm = torch.cat([1e-4 * noise(1, RATE), torch.zeros(1, RATE)], dim=1)
    torch.testing.assert_close(fbank_of(pcm + 0.5)[0], kaldi(pcm[0] + 0.5), atol=5e-4, rtol=0)


def test_fbank_of_silence_is_one_number() -> None:
    fbank = fbank_of(torch.zeros(1, RATE))
    torch.testing.assert_close(fbank, torch.full((1, 98, 128), SILENCE), atol=1e-6, rtol=0)


def test_the_third_filter_holds_no_bin() -> None:
    torch.testing.assert_close(
        fbank_of(noise(1, RATE))[0, :, 3], torch.full((98,), SILENCE), atol=1e-6, rtol=0
    )


def test_fbank_counts_the_frames_that_each_row_fills() -> None:
    samples = torch.tensor([16_000, 2_800, 400, 559, 560, 399, 0])
    _, lengths = Fbank()(noise(7, 16_000), samples)
    assert lengths.tolist() == [98, 16, 1, 1, 2, 0, 0]


def test_a_short_row_of_a_batch_has_the_fbank_that_it_has_alone() -> None:
    pcm, short = noise(2, 20_001), 16_123
    pcm[1, short:] = 0
    together, lengths = Fbank()(pcm, torch.tensor([20_001, short]))
    alone = fbank_of(pcm[1:, :short])
    assert lengths.tolist()[1] == alone.shape[1]
    torch.testing.assert_close(together[1:, : alone.shape[1]], alone, atol=1e-5, rtol=0)
    assert together.isfinite().all()


@pytest.mark.parametrize("opset", [18, 24])
def test_the_mel_graph_computes_what_the_module_does(opset: int, tmp_path: Path) -> None:
    mel = Mel(80, window_samples=5 * RATE)
    graph = traced(mel, (noise(2, 20_000),), tmp_path, opset)
    assert not graph.nodes.keys() & DATA_DEPENDENT
    for pcm in (noise(1, 79_999), noise(2, 80_000), noise(3, 4_001), torch.zeros(1, RATE)):
        np.testing.assert_allclose(graph.run(pcm)[0], mel(pcm).numpy(), atol=1e-4)


@pytest.mark.parametrize("opset", [18, 24])
def test_the_mel_graph_of_whole_clips_computes_what_the_module_does(
    opset: int, tmp_path: Path
) -> None:
    mel = Mel(80, window_samples=2 * RATE, rows=25)
    graph = traced(mel, (noise(2, 40_000), torch.tensor([40_000, 20_000])), tmp_path, opset)
    assert not graph.nodes.keys() & DATA_DEPENDENT
    for rows, samples in ((1, 1), (2, 31_999), (1, 32_000), (3, 32_001), (1, 131_072)):
        pcm, lengths = noise(rows, samples), samples - torch.arange(rows).clamp(max=samples - 1)
        (log_mel, counts), wanted = graph.run(pcm, lengths), mel(pcm, lengths)
        assert log_mel.shape[2] == 200 * -(-samples // 32_000)
        np.testing.assert_allclose(log_mel, wanted[0].numpy(), atol=1e-4)
        np.testing.assert_array_equal(counts, wanted[1].numpy())


def test_a_whole_clip_of_one_window_has_the_mel_of_a_window() -> None:
    pcm = noise(1, 50_000)
    log_mel, counts = Mel(80, rows=375)(pcm, torch.tensor([50_000]))
    assert torch.equal(log_mel, Mel(80)(pcm)) and counts.tolist() == [375]


@pytest.mark.parametrize("opset", [18, 24])
def test_the_fbank_graph_computes_what_the_module_does(opset: int, tmp_path: Path) -> None:
    fbank = Fbank()
    graph = traced(fbank, (noise(2, 20_000), torch.tensor([20_000, 16_000])), tmp_path, opset)
    assert not graph.nodes.keys() & DATA_DEPENDENT
    for rows, samples in ((1, 16_000), (2, 48_001), (3, 2_800)):
        pcm, lengths = noise(rows, samples), torch.arange(rows) * 399 + (samples - 399 * (rows - 1))
        for got, wanted in zip(graph.run(pcm, lengths), fbank(pcm, lengths), strict=True):
            np.testing.assert_allclose(got, wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize("samples", [400, 401, 8000, 8001, 15_999, 31_000, 31_960, 32_000])
def test_a_cut_spectrogram_is_the_beginning_of_the_whole_windows(samples: int) -> None:
    pcm = tone(samples) * torch.tensor([[1.0], [0.01]])
    whole, cut = Mel(80, 2 * RATE)(pcm), Mel(80, 2 * RATE, cut=True)(pcm)
    frames = 2 * ((-(-samples // 160) + 1) // 2)
    assert cut.shape == (2, 80, frames + 2)
    inside = min(frames + 2, 200)
    torch.testing.assert_close(cut[:, :, :inside], whole[:, :, :inside], atol=1e-6, rtol=0)
    assert not cut[:, :, inside:].any()
