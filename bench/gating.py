"""What is gated, which words that saves and costs: python bench/gating.py --help

The demo model is asked for transcripts of sound without speech, with the gate and without. The gate
is shown speech at several levels and through noise; the words of speech that it drops are lost.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import soundfile
import soxr

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

import alm  # noqa: E402
from alm.voice.presence import has_speech  # noqa: E402
from demo import phrases, sounds  # noqa: E402
from demo.voices import HELD_OUT_VARIANTS, RATE, Voice, speak  # noqa: E402

LEVELS = (-20, -35, -50)  # dB of full scale, of the louder half of a clip
RATIOS = (20, 10, 5, 0, -5)  # dB between speech and noise
LENGTHS = (1.0, 3.0, 9.0)  # seconds of a sound
NOISES = ("white", "pink", "fan")


def noise(kind: str, samples: int, seed: int) -> np.ndarray:
    """A sound without speech, at 0 dB of full scale; silence stays silence."""
    chance = np.random.default_rng(seed)
    time = np.arange(samples) / RATE
    spectrum, hertz = (
        np.fft.rfft(chance.standard_normal(samples)),
        np.fft.rfftfreq(samples, 1 / RATE),
    )
    if kind == "digital silence":
        return np.zeros(samples)
    if kind == "hum":
        phases = chance.uniform(0, 6, 11)
        made = np.sum(
            [np.sin(2 * np.pi * 50 * n * time + phases[n - 1]) / n for n in range(1, 12)], 0
        )
    elif kind == "brown":
        made = np.fft.irfft(spectrum / np.maximum(hertz, 20), samples)
    elif kind == "fan":
        made = np.fft.irfft(spectrum * np.exp(-(((hertz - 300) / 400) ** 2)), samples)
        made = made * (1 + 0.1 * np.sin(2 * np.pi * 1.1 * time))
    else:
        made = sounds.make(kind, samples / RATE + 0.001, chance)[:samples].astype(np.float64)
    return made / max(float(made.std()), 1e-9)


STEADY = ("digital silence", "white", "pink", "brown", "hum", "fan", "tone")
KINDS = tuple(dict.fromkeys((*STEADY, *sounds.KINDS)))


def speech(recordings: Path, librispeech: Path) -> dict[str, list[tuple[np.ndarray, str]]]:
    """Clips at 16 kHz and their words, "" where the demo model cannot know them."""
    chance = random.Random(1)
    said: list[tuple[np.ndarray, str]] = []
    for _ in range(60):
        blanks = {name: chance.choice(words) for name, words in phrases.BLANKS.items()}
        text = chance.choice(phrases.FORMS).format(**blanks)
        pcm = speak(text, Voice.drawn(chance, HELD_OUT_VARIANTS)).pcm
        said.append((np.pad(pcm, chance.randint(1600, 8000)), text))
    takes = sorted(recordings.glob("*_[0-4].wav"))
    digits = [(resampled(path), phrases.DIGITS[int(path.name[0])]) for path in takes]
    read: list[tuple[np.ndarray, str]] = []
    for path in sorted(librispeech.glob("*.flac")):
        whole = resampled(path)
        read += [(whole[at : at + 3 * RATE], "") for at in range(0, len(whole) - 2 * RATE, RATE)]
    return {"espeak-ng, commands": said, "recorded digits": digits, "LibriSpeech, 3 s": read}


def resampled(path: Path) -> np.ndarray:
    pcm, rate = soundfile.read(path, dtype="float32")
    return np.asarray(soxr.resample(pcm, rate, RATE), np.float32)


def levelled(pcm: np.ndarray) -> np.ndarray:
    """The louder half of its 30 ms at 0 dB of full scale."""
    power = np.sort([np.square(block).mean() for block in np.array_split(pcm, len(pcm) // 480)])
    return pcm / np.sqrt(power[len(power) // 2 :].mean())


def loud(pcm: np.ndarray, level: float) -> np.ndarray:
    return (pcm * 10 ** (level / 20)).astype(np.float32)


def without(model: alm.Model, each: int) -> Iterator[dict[str, object]]:
    """Of each sound: clips, how many are gated, words invented without the gate and with it."""
    for kind in KINDS:
        gated = bare = invented = clips = 0
        for seed in range(each):
            for seconds in LENGTHS:
                pcm = loud(noise(kind, int(seconds * RATE), seed), (-15, -30, -50)[seed % 3])
                answer = model.generate(pcm, "transcribe")
                gated += answer.stop_reason == "no_speech"
                with_gate = words_of(answer.text)
                clips += 1
                invented += with_gate
                if answer.stop_reason == "no_speech":
                    bare += words_of(model.generate(pcm, "transcribe", gate=False).text)
                else:
                    bare += with_gate
        row = {"kind": kind, "clips": clips, "gated": gated, "without": bare, "with": invented}
        print(row, flush=True)
        yield row


def words_of(text: str) -> int:
    """Words that nobody said; that nobody speaks is what the demo model was taught to say."""
    return 0 if text.strip() == phrases.SILENT else len(text.split())


def dropped(model: alm.Model, clips: list[tuple[np.ndarray, str]]) -> tuple[int, int]:
    """How many clips are gated, and how many words of those the model would have got right."""
    closed = [(pcm, text) for pcm, text in clips if not has_speech(pcm, RATE)]
    lost = 0
    for pcm, text in closed:
        heard = model.generate(pcm, "transcribe", gate=False).text.split()
        lost += sum(word in heard for word in text.split())
    return len(closed), lost


def heard(
    model: alm.Model, kinds: dict[str, list[tuple[np.ndarray, str]]]
) -> Iterator[dict[str, object]]:
    for name, clips in kinds.items():
        level_clips = [(levelled(pcm), text) for pcm, text in clips]
        for level in LEVELS:
            shown = [(loud(pcm, level), text) for pcm, text in level_clips]
            yield row_of(name, f"{level} dBFS", model, shown)
        for kind in NOISES:
            for ratio in RATIOS:
                noises = [noise(kind, len(pcm), i) for i, (pcm, _) in enumerate(level_clips)]
                shown = [
                    (loud(pcm, -35) + loud(other, -35 - ratio), text)
                    for (pcm, text), other in zip(level_clips, noises, strict=True)
                ]
                yield row_of(name, f"{kind} noise at {ratio} dB", model, shown)


def row_of(
    name: str, how: str, model: alm.Model, clips: list[tuple[np.ndarray, str]]
) -> dict[str, object]:
    closed, lost = dropped(model, clips)
    row = {"kind": name, "how": how, "clips": len(clips), "gated": closed, "lost": lost}
    print(row, flush=True)
    return row


def table(quiet: list[dict[str, object]], spoken: list[dict[str, object]], command: str) -> str:
    """The results in Markdown."""
    lines = [
        "# Sound without speech is not asked about",
        "",
        f"`{command}`, {date.today()}, {platform.machine()} with {platform.system()}, one core; "
        "the demo model. Words invented are those of transcripts of sound in which nobody speaks, "
        f'without "{phrases.SILENT}", which the demo model was taught to say there.',
        "",
        "| sound | clips | gated | words invented without the gate | with it |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['kind']} | {r['clips']} | {r['gated']} | {r['without']} | {r['with']} |"
        for r in quiet
    ]
    lines += [
        "",
        f"Clips of {', '.join(f'{s:g}' for s in LENGTHS)} s at -15, -30 and -50 dB of full scale. "
        "Siren, chirp, knocking, chord and rain come and go: the gate takes them for speech, and "
        "the model is asked.",
        "",
        "| speech | as | clips | gated | words lost by it |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['kind']} | {r['how']} | {r['clips']} | {r['gated']} | "
        f"{'-' if 'Libri' in str(r['kind']) else r['lost']} |"
        for r in spoken
    ]
    return "\n".join(
        [
            *lines,
            "",
            "Words lost are those that the model gets right without the gate. LibriSpeech's words "
            "are not in the demo model's vocabulary: there only gated clips are counted. The noise "
            "is at the level of the speech's louder half, less the ratio.",
            "",
        ]
    )


def main() -> None:
    """Measure, print, and write into --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", type=Path, default=ROOT / "artifacts", help="the demo model's")
    parser.add_argument("--data", type=Path, required=True, help="fsdd/recordings and librispeech")
    parser.add_argument("--sounds", type=int, default=6, help="of each kind and length")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results")
    said = parser.parse_args()
    model = alm.load(said.engine, "cpu", threads=1)
    quiet = [*without(model, said.sounds)]
    kinds = speech(said.data / "fsdd/recordings", said.data / "librispeech")
    spoken = [*heard(model, kinds)]
    said.out.mkdir(parents=True, exist_ok=True)
    text = table(quiet, spoken, f"python bench/gating.py --data DIR --sounds {said.sounds}")
    (said.out / "gating.md").write_text(text, "utf-8")
    (said.out / "gating.json").write_text(json.dumps([quiet, spoken], indent=1), "utf-8")
    print(text)


if __name__ == "__main__":
    main()
