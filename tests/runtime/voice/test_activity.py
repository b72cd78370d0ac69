"""Utterances: found in speech, not in steady noise, and the same however the sound comes."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from alm.errors import BadAudio, BadOption
from alm.voice.activity import Activity, Settings, Utterance, utterances
from demo import sounds
from tests import ROOT

RATE = 16_000


def clip(name: str) -> np.ndarray:
    pcm, rate = soundfile.read(ROOT / "demo" / name, dtype="float32")
    assert rate == RATE
    return pcm


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE), np.float32)


def hiss(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    """White noise at so many dB of full scale."""
    noise = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    return (noise * 10 ** (level / 20)).astype(np.float32)


def told(gain: float = 1.0, noise: float = -75.0) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Two demo clips two seconds apart over a faint hiss, and where they stand."""
    pieces = [silence(1.5), clip("lamp.wav"), silence(2), clip("digits.wav"), silence(1.5)]
    starts = np.cumsum([0, *map(len, pieces)])
    pcm = np.concatenate(pieces) * gain
    spoken = [(int(starts[i]), int(starts[i + 1])) for i in (1, 3)]
    return pcm + hiss(len(pcm) / RATE, noise), spoken


def pieces(pcm: np.ndarray, seed: int) -> list[np.ndarray]:
    """The same samples in pieces of any size, some empty."""
    chance = np.random.default_rng(seed)
    most = int(chance.choice([2, 40, 700, 9000, 60_000]))
    cuts = np.cumsum(chance.integers(0, most, 2 * len(pcm) // most + 2))
    return np.split(pcm, cuts[cuts < len(pcm)])


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.01])
def test_two_sentences_are_two_utterances_around_their_words(gain):
    pcm, spoken = told(gain, noise=-75 if gain > 0.05 else -90)
    # A sentence that pauses for less than a second stays one.
    found = utterances(pcm, RATE, Settings(hang_over=1.0))
    assert len(found) == 2
    for (start, end), (first, last) in zip(found, spoken, strict=True):
        inner = 0.2 * RATE  # of silence that the clips begin and end with
        assert first - 0.3 * RATE < start <= first + inner
        assert last - 1.5 * inner <= end < last + 0.4 * RATE


def test_silence_and_steady_noise_are_no_speech():
    for seed, kind in enumerate(("white", "pink")):
        noise = sounds.make(kind, 20, np.random.default_rng(seed))
        for gain in (1.0, 0.05, 0.001):
            assert utterances(noise * np.float32(gain), RATE) == []
    time = np.arange(10 * RATE) / RATE
    hum = np.sum([np.sin(2 * np.pi * 50 * n * time) / n for n in (1, 2, 3)], axis=0)
    assert utterances((0.2 * hum).astype(np.float32), RATE) == []
    assert utterances(silence(10), RATE) == []
    assert utterances(silence(0), RATE) == []
    assert utterances(np.ones(1, np.float32), RATE) == []


def test_a_click_is_no_speech():
    pcm = hiss(5, -70)
    pcm[2 * RATE : 2 * RATE + 80] += 0.5
    assert utterances(pcm, RATE) == []


def test_noise_that_grows_is_floor_after_a_while():
    pcm = np.concatenate([hiss(5, -70), hiss(20, -40, seed=1)])
    found = utterances(pcm, RATE)
    assert all(end < 9 * RATE for _, end in found)


@pytest.mark.parametrize("seed", range(12))
def test_however_the_sound_is_cut_in_pieces_the_utterances_are_the_same(seed):
    pcm, _ = told(0.3, -60)
    settings = Settings(longest=[0.0, 1.5][seed % 2], hang_over=[0.5, 0.2][seed // 6])
    activity, found = Activity(RATE, settings), []
    for piece in pieces(pcm, seed):
        before = activity.needed
        new = activity.feed(piece)
        assert all(utterance.start >= before for utterance in new)
        found += new
    assert [*found, *activity.finish()] == utterances(pcm, RATE, settings)
    assert activity.heard == len(pcm)


def test_an_utterance_comes_soon_after_it_ended():
    pcm, _ = told()
    activity, settings = Activity(RATE), Settings()
    late = []
    for at in range(0, len(pcm), 160):
        late += [(at + 160 - end) / RATE for _, end in activity.feed(pcm[at : at + 160])]
    assert late
    assert max(late) < settings.hang_over + 0.3 + 0.1 - settings.after + 0.03


def test_a_long_utterance_is_cut_and_nothing_of_it_is_lost():
    speech = np.concatenate([clip("lamp.wav")[3200:-3200]] * 8)
    whole = utterances(speech, RATE, Settings(hang_over=2.0))
    assert len(whole) == 1
    parts = utterances(speech, RATE, Settings(hang_over=2.0, longest=4.0))
    assert len(parts) > 3
    assert (parts[0].start, parts[-1].end) == whole[0]
    assert all(b.start == a.end for a, b in zip(parts, parts[1:], strict=False))
    assert all(end - start <= 4 * RATE for start, end in parts)


def test_it_says_whether_somebody_is_speaking():
    pcm, spoken = told()
    activity = Activity(RATE)
    activity.feed(pcm[: spoken[0][0]])
    assert not activity.speaking
    activity.feed(pcm[spoken[0][0] : spoken[0][0] + RATE])
    assert activity.speaking
    activity.feed(pcm[spoken[0][0] + RATE : spoken[1][0]])
    assert not activity.speaking


@pytest.mark.parametrize("rate", [1_000, 8_000, 11_025, 24_000, 48_000])
def test_rates_that_models_have_are_heard(rate):
    import soxr

    pcm, spoken = told()
    found = utterances(soxr.resample(pcm, RATE, rate).astype(np.float32), rate)
    assert found
    assert min(found).start < (spoken[0][0] / RATE + 0.4) * rate


def test_what_is_no_sound_or_setting_is_refused_in_a_sentence():
    activity = Activity(RATE)
    with pytest.raises(BadAudio, match="float32"):
        activity.feed(np.zeros((2, 2), np.float32))
    with pytest.raises(BadAudio, match="finite"):
        activity.feed(np.full(3, np.nan, np.float32))
    activity.finish()
    assert activity.finish() == []
    with pytest.raises(BadAudio, match="ended"):
        activity.feed(np.zeros(1, np.float32))
    with pytest.raises(BadOption, match="rate"):
        Activity(10)
    for wrong in ({"onset": -1.0}, {"offset": 12.0}, {"hang_over": -0.1}, {"longest": 0.01}):
        with pytest.raises(BadOption):
            Settings(**wrong)
    assert Utterance(1, 2).start == 1


def test_the_open_utterance_is_the_one_that_comes_if_nothing_more_is_said():
    pcm, _ = told()
    activity, seen = Activity(RATE), []
    for piece in np.split(pcm, range(480, len(pcm), 480)):  # a frame each
        for ended in activity.feed(piece):
            assert seen and seen[-1] == ended
            seen.clear()
        if activity.open:
            assert all(was.start == activity.open.start for was in seen)
            assert not seen or activity.open.end >= seen[-1].end
            seen.append(activity.open)
    assert not activity.open
