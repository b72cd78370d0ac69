"""What the model is asked in training and what is right; and clips that are only imagined."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from demo import phrases
from demo.compose import SOUND_NAMES
from demo.data import WINDOW_FRAMES, labels


def ask(texts: list[str], sounds: list[str], chance: random.Random) -> tuple[list[str], list[str]]:
    """A task and its right answer for each row."""
    tasks, answers = [], []
    for text, sound in zip(texts, sounds, strict=True):
        describe = chance.random() < (0.85 if not text else 0.5 if sound else 0.1)
        tasks.append("describe" if describe else "transcribe")
        caption = phrases.caption(sound, bool(text))
        answers.append(caption if describe else text or phrases.SILENT)
    return tasks, answers


def imagined(rows: int, chance: random.Random) -> tuple[Tensor, Tensor, list[str], list[str]]:
    """Masses of words and sounds as a good ear would give them, without any audio."""
    words, sounds, texts = [], [], []
    for _ in range(rows):
        sound = chance.choice(SOUND_NAMES) if chance.random() < 0.35 else ""
        if sound and chance.random() < 0.35:
            text = ""
        else:
            text = phrases.digits(chance) if chance.random() < 0.5 else phrases.command(chance)
        pace, at, spans = chance.uniform(0.7, 1.3), chance.uniform(0, 0.8), []
        pause = chance.choice((0.0, 0.1, 0.3))
        for word in text.split():
            long = pace * chance.uniform(0.7, 1.3) * (0.07 + 0.05 * len(word))
            spans.append((word, at, at + long))
            at += long + chance.uniform(0, pause)
        words.append(tuple(spans))
        sounds.append(sound)
        texts.append(text)
    heard_until = torch.tensor([chance.randint(200, 998) for _ in range(rows)])
    heard = labels(words, sounds, [0] * rows, heard_until, WINDOW_FRAMES)
    return heard[2], heard[3], texts, sounds
