"""What Qwen3-ASR's encoder attends to, and what each other choice changes: see docs/qwen3-asr.md.

transformers' own encoder, of the 0.6B model's shape with random weights, hears real speech in the
four ways in which published software computes it. Each is compared with transformers as it is.

    python bench/qwen3_asr_windows.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from bench.published import SMALL_TOWER  # noqa: E402

RATE, CHUNK, ROWS = 16_000, 100, 13
SECONDS = (5, 12, 30, 60)


@dataclass(frozen=True)
class Choice:
    """A way to compute the encoder."""

    name: str
    hear: Callable[[Any, Tensor, Tensor], Tensor]


def windows(frames: int) -> Callable[[Any, Tensor, Tensor], Tensor]:
    """Rows attend to those of the same window of so many frames."""

    def hear(tower: Any, mel: Tensor, mask: Tensor) -> Tensor:
        tower.n_window_infer = frames
        return tower(input_features=mel, input_features_mask=mask).last_hidden_state

    return hear


def running(tower: Any, mel: Tensor, mask: Tensor) -> Tensor:
    """No chunks at all: convolutions over the whole clip, positions that run on, no window."""
    x = mel[:, None, :, : int(mask.sum())]
    for conv in (tower.conv2d1, tower.conv2d2, tower.conv2d3):
        x = F.gelu(conv(x))
    _, deep, bands, rows = x.shape
    x = tower.conv_out(x.permute(0, 3, 1, 2).reshape(rows, deep * bands))
    positions = tower.positional_embedding
    positions.length = rows
    x = x + positions.compute_default_singular_positional_embedding()
    ends = torch.tensor([0, rows], dtype=torch.int32)
    for layer in tower.layers:
        x = layer(x, ends, max_seqlen=rows)[0]
    return tower.ln_post(x)


CHOICES = (
    Choice("windows of 8 s: transformers", windows(800)),
    Choice("whole clip, convolutions by the second", windows(10**6 // CHUNK * CHUNK)),
    Choice("windows of 1 s", windows(CHUNK)),
    Choice("whole clip, no chunks, running positions", running),
)


def main() -> None:
    """Print a table: the relative error (root mean square) and the worst row's, by length."""
    parser = argparse.ArgumentParser(description="choices of Qwen3-ASR's encoder")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    torch.manual_seed(parser.parse_args().seed)
    tower = _tower()
    clips = sorted((ROOT / "tests/data/recordings/librispeech").glob("*.flac"))
    speech = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in clips])
    print("| attention over | " + " | ".join(f"{s} s" for s in SECONDS) + " |")
    print("|---|" + "---|" * len(SECONDS))
    for choice in CHOICES:
        cells = []
        for seconds in SECONDS:
            mel, mask = _features(np.resize(speech, seconds * RATE))
            with torch.no_grad():
                want = CHOICES[0].hear(tower, mel, mask)
                got = choice.hear(tower, mel, mask)
            cells.append(_compared(got, want))
        print(f"| {choice.name} | " + " | ".join(cells) + " |", flush=True)


def _tower() -> Any:
    from transformers import Qwen3ASREncoderConfig
    from transformers.models.qwen3_asr.modeling_qwen3_asr import Qwen3ASREncoder

    settings: dict[str, Any] = dict(SMALL_TOWER)
    tower = Qwen3ASREncoder(Qwen3ASREncoderConfig(**settings)).eval()
    with torch.no_grad():
        for weight in tower.parameters():
            if weight.ndim > 1:  # such that attention decides something
                weight.normal_(0, 1.5 * weight[0].numel() ** -0.5)
    return tower


def _features(clip: np.ndarray) -> tuple[Tensor, Tensor]:
    from transformers import Qwen3ASRFeatureExtractor

    extractor: Any = Qwen3ASRFeatureExtractor()
    made = extractor(
        clip, sampling_rate=RATE, padding=True, return_attention_mask=True, return_tensors="pt"
    )
    return made.input_features, made.attention_mask


def _compared(got: Tensor, want: Tensor) -> str:
    if got.shape != want.shape:
        rows = min(len(got), len(want))
        return f"{len(got)} rows, not {len(want)}; {_error(got[:rows], want[:rows])}"
    return _error(got, want)


def _error(got: Tensor, want: Tensor) -> str:
    off = (got - want).pow(2).mean().sqrt() / want.pow(2).mean().sqrt()
    return "0" if float(off) < 1e-5 else f"{100 * float(off):.0f} %"


if __name__ == "__main__":
    main()
