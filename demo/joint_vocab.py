"""A tiny model of the family joint_vocab that names the digit that is said, and who says it.

    PYTHONPATH=.:runtime python -m demo.joint_vocab --recordings DIR --out tests/data/joint_vocab

fits k-means on mel frames, trains a Llama whose table has rows for letters and then for units, and
prints how many held-out clips it answers right. All seeds are fixed, and one thread computes. What
exported graphs answer is counted by:

    PYTHONPATH=.:runtime python -m demo.joint_vocab --recordings DIR --score artifacts/
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

import alm
from alm.audio import reader
from demo.phrases import DIGITS
from wrappers.frontends.mel import RATE
from wrappers.frontends.stacked_mel import StackedMel, least_samples

SPEAKERS = ("george", "jackson", "lucas", "nicolas")
STRANGER = "yweweler"  # never heard in training
FIRST = 5  # takes before it are for testing, as the set has it
MELS, STACK, UNITS = 40, 2, 256
WINDOW = 8  # seconds
TEXT = 320  # tokens of text, whom units follow
BOS, EOS = 0, 1
TASKS = {"transcribe": "[ASR English] <audio>", "speaker": "[Speaker] <audio>"}
STEPS, BATCH, RATE_OF_LEARNING = 700, 48, 3e-3
DROPPED, UNITS_WEIGHT = 0.15, 0.1
IGNORE = -100


@dataclass(frozen=True)
class Clip:
    """A recording of the set: `{digit}_{speaker}_{take}.wav`."""

    path: Path

    @property
    def answers(self) -> dict[str, str]:
        """What is right, by task."""
        digit, speaker, _ = self.path.stem.split("_")
        return {"transcribe": DIGITS[int(digit)], "speaker": speaker}

    @property
    def trained(self) -> bool:
        """Whether it is for training."""
        _, speaker, take = self.path.stem.split("_")
        return speaker in SPEAKERS and int(take) >= FIRST

    @property
    def strange(self) -> bool:
        """Whether its speaker was never heard."""
        return self.answers["speaker"] not in SPEAKERS

    @cached_property
    def pcm(self) -> np.ndarray:
        """Its samples at 16 kHz, as the runtime gives them to the first part."""
        pcm = reader.read(self.path, RATE, "mean").pcm
        return np.pad(pcm, (0, max(0, least_samples(STACK) - len(pcm))))


def held_out(folder: Path) -> tuple[list[Clip], list[Clip]]:
    """Takes 0 to 4: of the speakers of the training, and of the one that was never heard."""
    clips = [Clip(path) for path in sorted(folder.glob("*.wav"))]
    clips = [clip for clip in clips if int(clip.path.stem.split("_")[2]) < FIRST]
    return [c for c in clips if not c.strange], [c for c in clips if c.strange]


def tokenizer() -> Tokenizer:
    """Bytes, and merges of what is asked and answered."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    made.decoder = decoders.ByteLevel()  # pyright: ignore
    texts = [text.split("<audio>")[0] for text in TASKS.values()] + [*DIGITS, *SPEAKERS]
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts * 4, trainer)
    return made


def llama() -> transformers.LlamaConfig:
    """A Llama of three layers; the rows of units are its table's last."""
    return transformers.LlamaConfig(
        vocab_size=TEXT + UNITS,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )


def features(clip: Clip, front: StackedMel, late: int = 0) -> Tensor:
    """Feature vectors [n, width] of the clip, `late` samples of it left out."""
    pcm = torch.from_numpy(clip.pcm[late:])[None]
    with torch.no_grad():
        return front(pcm, torch.tensor([pcm.shape[1]]))[0][0]


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """The number of the nearest centre [n] of each vector [n, width]."""
    return torch.cdist(x, centres).argmin(1)


def units_of(front: StackedMel, centres: Tensor, clip: Clip) -> Tensor:
    """The clip's units [n]."""
    return nearest(features(clip, front), centres)


def kmeans(x: Tensor, rounds: int = 25) -> Tensor:
    """Centres [UNITS, width] of vectors [n, width] (Lloyd 1982)."""
    draw = torch.Generator().manual_seed(0)
    centres = x[torch.randperm(len(x), generator=draw)[:UNITS]].clone()
    for _ in range(rounds):
        own = nearest(x, centres)
        sums = torch.zeros_like(centres).index_add_(0, own, x)
        counts = torch.bincount(own, minlength=UNITS)[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres.half().float()  # as they are stored


Heard = Callable[[Clip], Tensor]


class Teacher:
    """Rows of tokens: the prompt, a clip's units, the answer."""

    def __init__(self, known: Tokenizer) -> None:
        self.known, self.dice = known, np.random.default_rng(0)

    def row(self, clip: Clip, task: str, units: Tensor) -> tuple[list[int], int]:
        """All tokens, and how many of them are before the answer."""
        before = [BOS, *self._ids(TASKS[task].split("<audio>")[0]), *(units + TEXT).tolist()]
        return before + [*self._ids(clip.answers[task]), EOS], len(before)

    def batch(self, rows: Sequence[tuple[list[int], int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [rows, n], and what follows each: the answer's tokens, and a prompt's units."""
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), longest), EOS)
        answers, units = (torch.full((len(rows), longest), IGNORE) for _ in range(2))
        for i, (row, start) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            answers[i, start - 1 : len(row) - 1] = torch.tensor(row[start:])
            units[i, : start - 1] = torch.tensor(row[1:start])
        return ids, answers, units

    def drop(self, units: Tensor) -> Tensor:
        """The units without some of them, so that no clip is heard twice alike."""
        return units[torch.from_numpy(self.dice.random(len(units)) > DROPPED)]

    def _ids(self, text: str) -> list[int]:
        return self.known.encode(text, add_special_tokens=False).ids


def right(model: Any, teacher: Teacher, clips: Sequence[Clip], task: str, heard: Heard) -> float:
    """The share of clips whose greedy answer is exactly right, its end included."""
    count = 0
    for at in range(0, len(clips), 100):
        rows = [teacher.row(clip, task, heard(clip)) for clip in clips[at : at + 100]]
        ids, answers, _ = teacher.batch(rows)
        with torch.no_grad():
            best = model(input_ids=ids).logits.argmax(-1)
        count += int(((best == answers) | (answers == IGNORE)).all(1).sum())
    return count / len(clips)


def train(recordings: Path) -> tuple[Any, Tensor, Teacher]:
    """The Llama and the centres, rounded as they are stored."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    front = StackedMel(MELS, STACK, WINDOW * RATE)
    clips = [clip for path in sorted(recordings.glob("*.wav")) if (clip := Clip(path)).trained]
    known, strange = held_out(recordings)
    shifts = [[features(clip, front, late) for clip in clips] for late in (0, 160)]
    centres = kmeans(torch.cat(shifts[0]))
    heard = [[nearest(x, centres) for x in row] for row in shifts]
    teacher, model = Teacher(tokenizer()), transformers.LlamaForCausalLM(llama())
    steps = torch.optim.AdamW(model.parameters(), lr=RATE_OF_LEARNING, weight_decay=0.1)
    rates = torch.optim.lr_scheduler.OneCycleLR(steps, RATE_OF_LEARNING, total_steps=STEPS)
    for step in range(STEPS):
        rows = []
        for i in teacher.dice.integers(len(clips), size=BATCH):
            units = teacher.drop(heard[teacher.dice.integers(2)][i])
            task = ("transcribe", "transcribe", "speaker")[teacher.dice.integers(3)]
            rows.append(teacher.row(clips[i], task, units))
        ids, answers, units = teacher.batch(rows)
        logits = model(input_ids=ids).logits.flatten(0, 1)
        loss = F.cross_entropy(logits, answers.flatten(), ignore_index=IGNORE)
        help_ = F.cross_entropy(logits, units.flatten(), ignore_index=IGNORE)
        steps.zero_grad()
        (loss + UNITS_WEIGHT * help_).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps.step()
        rates.step()
        if step % 50 == 49:
            print(f"step {step + 1}: loss {loss.item():.3f}", flush=True)
    model.half().float()
    for name, some in (("known speakers", known), ("the stranger", strange)):
        for task in TASKS if name == "known speakers" else ("transcribe",):
            share = right(model.eval(), teacher, some, task, partial(units_of, front, centres))
            print(f"{task}, {len(some)} held-out clips of {name}: {share:.1%} right")
    return model, centres, teacher


def save(out: Path, model: Any, centres: Tensor, known: Tokenizer) -> None:
    """The checkpoint: a config.yaml, the Llama's folder and the centres, in float16."""
    model.half().save_pretrained(out / "llm")
    known.save(str(out / "llm" / "tokenizer.json"))
    np.save(out / "km.npy", centres.half().numpy())
    plain: dict[str, Any] = dict(llama_path="llm", kind="mel_kmeans", mel_bins=MELS, stack=STACK)
    plain |= dict(km_path="km.npy", offset=TEXT, bos="<s>", window_seconds=WINDOW)
    plain |= dict(tasks=TASKS)
    (out / "config.yaml").write_text(yaml.safe_dump({"joint_vocab": plain}, sort_keys=False))


def score(engine: Path, recordings: Path, show: Callable[[str], None] = print) -> None:
    """How many held-out clips exported graphs answer right."""
    model = alm.load(engine, "cpu")
    for name, clips in zip(("known speakers", "the stranger"), held_out(recordings), strict=True):
        for task in TASKS if name == "known speakers" else ("transcribe",):
            said = [model.generate(clip.path, task, max_new_tokens=16).text for clip in clips]
            hits = sum(a == clip.answers[task] for a, clip in zip(said, clips, strict=True))
            show(f"{task}, {name}: {hits} of {len(clips)} held-out clips right")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=Path, required=True, help="fsdd's recordings")
    parser.add_argument("--out", type=Path, help="folder of the checkpoint that is trained")
    parser.add_argument("--score", type=Path, help="folder of exported graphs, to be scored")
    given = parser.parse_args()
    if given.score:
        score(given.score, given.recordings)
    else:
        trained, codes, taught = train(given.recordings)
        save(given.out, trained, codes, taught.known)
