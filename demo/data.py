"""Composed clips as features, made once and kept in shards, and drawn in batches with labels."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from demo.compose import SOUND_IDS, WINDOW_SECONDS, WORD_IDS, Sources, compose
from demo.disturb import QUIETEST, RANGE, disturbed
from demo.voices import RATE
from wrappers.frontends.fbank import DEVIATION, EPSILON, MEAN, Fbank
from wrappers.frontends.mel import Mel

MELS = 80
WINDOW_FRAMES = 50 * WINDOW_SECONDS  # of the encoders, 20 ms each
TAIL = 2  # frames whose windows of 25 ms reach back into a clip that has just ended
LEAST_SAMPLES = RATE
PER_WINDOW = 8  # frames that one audio embedding covers: 160 ms, one moment of BEATs
FBANK_SILENCE = (math.log(EPSILON) - MEAN) / (2 * DEVIATION)
Words = tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Shard:
    """Features of many clips, end to end, in float16."""

    mel: Tensor  # [frames of 10 ms, 80]
    fbank: Tensor  # [frames of 10 ms, 128]
    mel_edges: Tensor  # clip i is mel[edges[i]:edges[i + 1]]
    fbank_edges: Tensor
    words: list[tuple[tuple[str, float, float], ...]]
    sounds: list[str]

    def __len__(self) -> int:
        return len(self.words)

    def frames(self, i: int) -> int:
        """Frames of 20 ms that clip i fills."""
        return (int(self.mel_edges[i + 1] - self.mel_edges[i]) + 1) // 2


def make_shard(file: Path, sources: Sources, clips: int, seed: int) -> None:
    """Compose clips and write their features."""
    chance = random.Random(seed)
    kinds = chance.choices(list(sources.shares), list(sources.shares.values()), k=clips)
    made = [compose(kind, sources, chance) for kind in kinds]
    mels, fbanks = features([clip.pcm for clip in made])
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "mel": torch.cat(mels).half(),
        "fbank": torch.cat(fbanks).half(),
        "mel_edges": torch.tensor([0, *map(len, mels)]).cumsum(0),
        "fbank_edges": torch.tensor([0, *map(len, fbanks)]).cumsum(0),
        "words": [clip.words for clip in made],
        "sounds": [clip.sound for clip in made],
    }
    site = file.with_suffix(".new")
    torch.save(state, site)
    site.rename(file)


@torch.no_grad()
def features(clips: list[np.ndarray], rows: int = 32) -> tuple[list[Tensor], list[Tensor]]:
    """[frames, 80] and [frames, 128] of each clip, by the wrappers that the exporter exports.

    As on a device, a clip shorter than a second is padded to one with silence, and the frames of
    the mel that still see the clip's end belong to it.
    """
    clips = [np.pad(clip, (0, max(LEAST_SAMPLES - len(clip), 0))) for clip in clips]
    fbank_of = Fbank(WINDOW_SECONDS * RATE)
    mels: list[Tensor] = [torch.empty(0)] * len(clips)
    fbanks: list[Tensor] = [torch.empty(0)] * len(clips)
    order = sorted(range(len(clips)), key=lambda i: len(clips[i]))
    for at in range(0, len(order), rows):
        chosen = order[at : at + rows]
        samples = -(-len(clips[chosen[-1]]) // 160) * 160 + 320
        pcm = torch.zeros(len(chosen), samples)
        for row, i in zip(pcm, chosen, strict=True):
            row[: len(clips[i])] = torch.from_numpy(clips[i])
        lengths = torch.tensor([len(clips[i]) for i in chosen])
        mel = Mel(MELS, samples)(pcm).transpose(1, 2)
        fbank, filled = fbank_of(pcm, lengths)
        for row, i in enumerate(chosen):
            mels[i] = mel[row, : -(-len(clips[i]) // 160) + TAIL].clone()
            fbanks[i] = fbank[row, : int(filled[row])].clone()
    return mels, fbanks


def load_shard(file: Path) -> Shard:
    """What make_shard wrote."""
    return Shard(**torch.load(file, weights_only=True))


# --- batches


@dataclass(frozen=True)
class Batch:
    """Features and what is to be heard in them."""

    log_mel: Tensor  # [batch, 80, 2 * frames]
    fbank: Tensor  # [batch, at most 2 * frames, 128]
    fbank_lengths: Tensor  # [batch]
    frame_words: Tensor  # [batch, frames]: the word at each 20 ms, len(WORDS) for none
    onsets: Tensor  # [batch, frames]: 1 in the first 60 ms of a word
    window_words: Tensor  # [batch, windows, words]: a word's unit of mass around its middle
    window_sounds: Tensor  # [batch, windows]: the sound, len(SOUNDS) for none
    texts: list[str]
    sounds: list[str]


def batches(
    shards: list[Shard], rows: int, seed: int, full: float = 0.0
) -> Iterator[tuple[Shard, list[int], bool]]:
    """Endless: clips of like length together, a share of `full` padded to the whole window."""
    chance = random.Random(seed)
    everything = [(shard, i) for shard in range(len(shards)) for i in range(len(shards[shard]))]
    while True:
        chance.shuffle(everything)
        for at in range(0, len(everything) - 16 * rows, 16 * rows):
            pool = everything[at : at + 16 * rows]
            pool.sort(key=lambda each: (each[0], shards[each[0]].frames(each[1])))
            groups = [pool[i : i + rows] for i in range(0, len(pool), rows)]
            chance.shuffle(groups)
            for group in groups:
                shard = group[len(group) // 2][0]
                chosen = [i for s, i in group if s == shard]
                yield shards[shard], chosen, chance.random() < full


def collate(
    shard: Shard, chosen: list[int], full: bool, chance: random.Random, disturb: bool = True
) -> Batch:
    """A batch, cropped to its longest clip or padded to the window."""
    longest = max(shard.frames(i) for i in chosen)
    slack = min(chance.randint(0, 24), WINDOW_FRAMES - longest) if disturb else 0
    frames = min(-(-(longest + slack) // PER_WINDOW) * PER_WINDOW, WINDOW_FRAMES)
    frames = WINDOW_FRAMES if full else frames
    rows = len(chosen)
    log_mel = torch.empty(rows, MELS, 2 * frames)
    fbank = torch.full((rows, 2 * frames, 128), FBANK_SILENCE)
    fbank_lengths = torch.zeros(rows, dtype=torch.int64)
    leads = []
    for row, i in enumerate(chosen):
        room = frames - shard.frames(i)
        late = int(chance.random() ** 2 * min(room, 60)) if disturb else 0
        leads.append(late)
        mel = shard.mel[shard.mel_edges[i] : shard.mel_edges[i + 1]].float()
        log_mel[row] = max(float(mel.max()) - RANGE, QUIETEST)
        log_mel[row, :, 2 * late : 2 * late + len(mel)] = mel.T[:, : 2 * (frames - late)]
        bank = shard.fbank[shard.fbank_edges[i] : shard.fbank_edges[i + 1]].float()
        fbank[row, 2 * late : 2 * late + len(bank)] = bank[: 2 * (frames - late)]
        fbank_lengths[row] = min(2 * late + len(bank), 2 * frames)
    if disturb:
        draw = torch.Generator().manual_seed(chance.getrandbits(63))
        speech = torch.tensor([not shard.sounds[i] for i in chosen])
        log_mel = disturbed(log_mel, speech, draw)
        fbank += 0.12 * torch.randn(rows, 1, 1, generator=draw)
    words = [shard.words[i] for i in chosen]
    names = [shard.sounds[i] for i in chosen]
    found = labels(words, names, leads, fbank_lengths, frames)
    # BEATs hears only as much as there is; the bridge fills up its tokens.
    moments = -(-int(fbank_lengths.max()) // (2 * PER_WINDOW))
    fbank = fbank[:, : moments * 2 * PER_WINDOW]
    texts = [" ".join(word for word, _, _ in each) for each in words]
    return Batch(log_mel, fbank, fbank_lengths, *found, texts, names)


def labels(
    words: list[tuple[tuple[str, float, float], ...]],
    names: list[str],
    leads: list[int],
    fbank_lengths: Tensor,
    frames: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, windows = len(words), frames // PER_WINDOW
    frame_words = torch.full((rows, frames), len(WORD_IDS))
    onsets = torch.zeros(rows, frames)
    window_words = torch.zeros(rows, windows, len(WORD_IDS))
    window_sounds = torch.full((rows, windows), len(SOUND_IDS))
    for row, each in enumerate(words):
        for word, start, end in each:
            first, last = (round(50 * time) + leads[row] for time in (start, end))
            frame_words[row, first:last] = WORD_IDS[word]
            onsets[row, first : first + 3] = 1
            # The middle's mass is shared by the two windows whose centres are next to it.
            place = ((first + last) / 2 / PER_WINDOW) - 0.5
            left = math.floor(place)
            for window, mass in ((left, left + 1 - place), (left + 1, place - left)):
                if 0 <= window < windows:
                    window_words[row, window, WORD_IDS[word]] += mass
        if names[row]:
            last = -(-int(fbank_lengths[row]) // (2 * PER_WINDOW))
            window_sounds[row, leads[row] // PER_WINDOW : last] = SOUND_IDS[names[row]]
    return frame_words, onsets, window_words, window_sounds
