"""Train the demo model: python -m demo.train --help

Six stages, because from random weights the loss of the text alone teaches nothing for thousands
of steps. Each continues from the ones before it, and after an interruption from its last save.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from demo import checkpoint, curves, data, model, phrases
from demo.data import Batch, Shard
from demo.model import Hearing
from demo.prepare import prepare, watched
from demo.questions import ask, imagined

ROOT = Path(__file__).parent
RANK, ALPHA = 8, 16
Losses = dict[str, Tensor]
Step = Callable[[Hearing, Iterator[Any], random.Random], Losses]


@dataclass(frozen=True)
class Stage:
    """One part of the curriculum; `full` is the share of batches padded to the whole window."""

    step: Step
    steps: int
    rows: int
    rate: float
    full: float = 0.0
    trains: tuple[str, ...] = ("",)  # prefixes of parameters; LoRA is always trained where it is
    after: tuple[tuple[str, str], ...] = ()  # (stage, prefix of what is taken from it)


def imagine(net: Hearing, _: Iterator[Any], chance: random.Random) -> Losses:
    """The LLM alone learns to write down what a good but uncertain ear would tell it."""
    words, sounds, texts, names = imagined(64, chance)
    draw = torch.Generator().manual_seed(chance.getrandbits(63))
    faint = 0.65 + 0.45 * torch.rand(*words.shape[:2], 1, generator=draw)
    wrong = torch.randint(words.shape[2], (*words.shape[:2], 1), generator=draw)
    doubt = torch.rand(*words.shape[:2], 1, generator=draw).pow(6) * 0.6
    words = (words * faint * (1 - doubt)).scatter_add(2, wrong, doubt)
    embeds = net.ideal_of(words, sounds)
    embeds = embeds + 0.1 * torch.randn(*embeds.shape, generator=draw)
    tasks, answers = ask(texts, names, chance)
    return {"answer": net.answer_loss(embeds, tasks, answers)}


def listen(net: Hearing, batches: Iterator[Batch], chance: random.Random) -> Losses:
    """The encoders learn which word or sound there is at each moment."""
    batch = next(batches)
    losses = words_heard(net, batch, net.speech(batch))
    if chance.random() < 0.33:  # sounds are learned sooner
        losses["sounds"] = sounds_heard(net, batch, net.audio(batch))
    return losses


def words_heard(net: Hearing, batch: Batch, speech: Tensor) -> Losses:
    """Cross entropy of the word at each 20 ms, and of where one begins."""
    scores = net.word_head(speech).float()
    words = F.cross_entropy(scores[..., :-1].flatten(0, 1), batch.frame_words.flatten())
    onsets = F.binary_cross_entropy_with_logits(scores[..., -1], batch.onsets)
    return {"words": words, "onsets": 0.3 * onsets}


def sounds_heard(net: Hearing, batch: Batch, audio: Tensor) -> Tensor:
    """Cross entropy of the sound at each 160 ms."""
    moments = min(batch.window_sounds.shape[1], audio.shape[1] // data.PER_WINDOW)
    audio = audio[:, : moments * data.PER_WINDOW].unflatten(1, (moments, -1)).mean(2)
    names = net.sound_head(audio).float().flatten(0, 1)
    return 0.5 * F.cross_entropy(names, batch.window_sounds[:, :moments].flatten())


def understand(net: Hearing, batches: Iterator[Batch], chance: random.Random) -> Losses:
    """Everything: the text, and a little of what led to it."""
    batch = next(batches)
    found = net.hear(batch)
    parts = words_heard(net, batch, found.speech)
    parts["sounds"] = sounds_heard(net, batch, found.audio)
    parts = {name: 0.3 * loss for name, loss in parts.items()}
    bridge = 12 * (found.embeds.float() - net.ideal(batch)).square().mean()  # 3 when it is blind
    tasks, answers = ask(batch.texts, batch.sounds, chance)
    answer = net.answer_loss(found.embeds, tasks, answers)
    return parts | {"bridge": bridge, "answer": answer}


def adapt(net: Hearing, batches: Iterator[Batch], chance: random.Random) -> Losses:
    """As SALMONN is trained: the bridge and LoRA, all else frozen."""
    batch = next(batches)
    found = net.hear(batch)
    tasks, answers = ask(batch.texts, batch.sounds, chance)
    return {"answer": net.answer_loss(found.embeds, tasks, answers)}


STAGES = {
    "imagine": Stage(imagine, 600, 64, 2e-3, trains=("decoder",)),
    "listen": Stage(listen, 1600, 32, 2.5e-3, trains=("whisper", "beats", "word_", "sound_")),
    "bridge": Stage(
        understand, 700, 24, 1.5e-3, full=0.05, after=(("listen", ""), ("imagine", "decoder"))
    ),
    "window": Stage(understand, 2800, 20, 8e-4, full=0.2, after=(("bridge", ""),)),
    "polish": Stage(understand, 1200, 20, 5e-4, full=0.25, after=(("window", ""),)),
    "lora": Stage(adapt, 150, 16, 2e-4, full=1.0, trains=("qformer",), after=(("polish", ""),)),
}


class Run:
    """One stage on its way."""

    def __init__(self, name: str, work: Path, seed: int, share: float) -> None:
        self.name, self.stage, self.work = name, STAGES[name], work
        self.steps = max(int(self.stage.steps * share), 1)
        self.file = work / f"{name}.pt"
        torch.manual_seed(seed)
        self.net = Hearing()
        self.begun = 0
        self.seed = seed
        for before, prefix in self.stage.after:
            state = torch.load(work / f"{before}.pt", weights_only=True)["net"]
            self.net.load_state_dict(
                {n: t for n, t in state.items() if n.startswith(prefix)}, strict=False
            )
        if name == "lora":
            model.add_lora(self.net, RANK, ALPHA)
        for parameter_name, parameter in self.net.named_parameters():
            trained = parameter_name.startswith(self.stage.trains) or "lora_" in parameter_name
            parameter.requires_grad_(trained)
        trained = [p for p in self.net.parameters() if p.requires_grad]
        matrices = [p for p in trained if p.ndim > 1]
        others = [p for p in trained if p.ndim < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.03}, {"params": others, "weight_decay": 0.0}],
            betas=(0.9, 0.98),
        )
        self._resume()

    def _resume(self) -> None:
        if self.file.is_file():
            state = torch.load(self.file, weights_only=True)
            self.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.begun = state["step"]

    def _save(self, step: int) -> None:
        site = self.file.with_suffix(".new")
        state = {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state | {"step": step}, site)
        site.rename(self.file)

    def rate(self, step: int) -> float:
        """Warm up over 5 % of the steps, then a cosine down to 2 %."""
        warm = max(self.steps // 20, 1)
        done = max(step - warm, 0) / max(self.steps - warm, 1)
        return (
            self.stage.rate * min(1.0, (step + 1) / warm) * (0.51 + 0.49 * math.cos(math.pi * done))
        )

    def go(self, shards: list[Shard], watch: dict[str, Shard], every: int = 100) -> None:
        """Train to the end of the stage, saving and showing progress."""
        chance = random.Random(f"{self.seed} {self.name} {self.begun}")
        batches = self._batches(shards, chance)
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        start = time.perf_counter()
        for step in range(self.begun, self.steps):
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(step)
            with torch.autocast("cpu", torch.bfloat16):
                losses = self.stage.step(self.net, batches, chance)
            self.optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimizer.step()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.item()
                counts[name] = counts.get(name, 0) + 1
            done = step + 1
            if done % every == 0 or done == self.steps:
                seconds = (time.perf_counter() - start) / (done - self.begun)
                note: dict[str, Any] = {n: round(s / counts[n], 4) for n, s in sums.items()}
                note["seconds_a_step"] = round(seconds, 3)
                if (done % (5 * every) == 0 or done == self.steps) and "answer" in sums and watch:
                    note |= errors(self.net, watch)
                sums, counts = {}, {}
                self._log(done, note)
                self._save(done)

    def _batches(self, shards: list[Shard], chance: random.Random) -> Iterator[Batch]:
        if not shards:
            return
        seed = chance.getrandbits(32)
        for shard, chosen, full in data.batches(shards, self.stage.rows, seed, self.stage.full):
            yield data.collate(shard, chosen, full, chance)

    def _log(self, step: int, note: dict[str, Any]) -> None:
        line = {"stage": self.name, "step": step, "steps": self.steps, **note}
        with (self.work / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


@torch.no_grad()
def errors(net: Hearing, watch: dict[str, Shard], rows: int = 25) -> dict[str, float]:
    """Word errors (or wrong captions) in percent on clips padded to the window."""
    found: dict[str, float] = {}
    for name, shard in watch.items():
        wrong = words = 0
        task = "describe" if name == "captions" else "transcribe"
        for at in range(0, len(shard), rows):
            chosen = list(range(at, min(at + rows, len(shard))))
            batch = data.collate(shard, chosen, True, random.Random(0), disturb=False)
            with torch.autocast("cpu", torch.bfloat16):
                embeds = net.hear(batch).embeds
                said = net.answer(embeds, task)
            for text, sound, answer in zip(batch.texts, batch.sounds, said, strict=True):
                if task == "describe":
                    wrong, words = wrong + (answer != phrases.caption(sound, bool(text))), words + 1
                else:
                    wrong += distance(text.split(), answer.split())
                    words += len(text.split())
        found[name] = round(100 * wrong / max(words, 1), 2)
    return found


def distance(right: list[str], said: list[str]) -> int:
    """Words to replace, insert and delete."""
    row = list(range(len(said) + 1))
    for i, word in enumerate(right, 1):
        above, row[0] = row[0], i
        for j, other in enumerate(said, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (word != other))
    return row[-1]


def main() -> None:
    """Prepare the clips, then train the stages asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=Path("demo/work"), help="for what is in progress"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "checkpoint", help="what is made")
    parser.add_argument("--recordings", type=Path, required=True, help="fsdd's recordings")
    parser.add_argument("--stage", action="append", choices=STAGES, help="all in turn, if not said")
    parser.add_argument("--shards", type=int, default=10, help="of --clips each")
    parser.add_argument("--clips", type=int, default=4000, help="clips in a shard")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps of each stage")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    torch.set_num_threads(said.threads)
    said.work.mkdir(parents=True, exist_ok=True)
    stages = said.stage or list(STAGES)
    shards: list[Shard] = []
    watch: dict[str, Shard] = {}
    if stages != ["imagine"]:
        prepare(said.work, said.recordings, said.shards, said.clips)
        files = sorted((said.work / "data").glob("shard-*.pt"))[: said.shards]
        shards = [data.load_shard(file) for file in files]
        names = watched(said.recordings)
        watch = {n: data.load_shard(said.work / "data" / f"watch-{n}.pt") for n in names}
    for name in stages:
        run = Run(name, said.work, said.seed, said.share)
        run.go(shards, watch)
        if name == "lora":
            print(checkpoint.write(run.net, said.out, RANK, ALPHA))
    curves.draw(said.work / "log.jsonl", said.work / "curves.png")


if __name__ == "__main__":
    main()
