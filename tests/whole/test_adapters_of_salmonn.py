"""A LoRA that stays a file, on the LLM, the Whisper and the bridge of a SALMONN."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import alm
import wrappers
from exporters.feeds import make as random_feeds
from tests.conftest import run_export
from tests.whole.test_adapters_at_run_time import GREEDY, RATE, logits
from tests.wrappers.families.tiny_hf import noise
from wrappers.checkpoint.weights.hollow import filled


def _lora(folder: Path, sizes: Mapping[str, tuple[int, int]]) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 and alpha 6, written as peft does; each module's delta."""
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": [*sizes]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    noise_of = torch.Generator().manual_seed(5)
    tensors: dict[str, torch.Tensor] = {}
    deltas: dict[str, torch.Tensor] = {}
    for name, (outer, inner) in sizes.items():
        a = 0.3 * torch.randn(2, inner, generator=noise_of)
        b = 0.3 * torch.randn(outer, 2, generator=noise_of)
        tensors |= {
            f"base_model.model.{name}.lora_{s}.weight": t for s, t in zip("AB", (a, b), strict=True)
        }
        deltas[name] = 3 * b @ a
    save_file(tensors, folder / "adapter_model.safetensors")
    return deltas


def test_llm_whisper_and_bridge_of_a_salmonn(
    checkpoint: Path, artifacts: Path, tmp_path: Path
) -> None:
    """The .pth's own LoRA stays merged below; each part is held against its weights plus deltas."""
    made = wrappers.open_checkpoint(checkpoint)
    names = {
        "decoder": "llama_model.model.layers.1.self_attn.v_proj",
        "whisper": "speech_encoder.layers.0.fc1",
        "qformer": "speech_llama_proj",
    }
    inner = {part: name.partition(".")[2] for part, name in names.items()}
    inner["qformer"] = names["qformer"]
    sizes = {
        names[part]: tuple(made.part(part, "standard").get_submodule(path).weight.shape)  # pyright: ignore
        for part, path in inner.items()
    }
    deltas = _lora(tmp_path / "lora", sizes)  # pyright: ignore
    words = ("--dynamic-batch", "--dialect", "standard", "--adapter", f"a={tmp_path / 'lora'}")
    run_export("--model", checkpoint, "--no-simplify", "--out", tmp_path / "out", *words)
    slots, base = alm.load(tmp_path / "out", "cpu"), alm.load(artifacts, "cpu")
    clip = noise(2 * RATE)
    with logits() as seen:
        slots.generate(clip, "transcribe", **GREEDY)
    with logits() as plain:
        base.generate(clip, "transcribe", **GREEDY)
    for a, b in zip(seen, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
    adapter = slots.parts.adapters.find("a")
    for name, path in inner.items():
        part, session = filled(made.part(name, "standard")), slots.parts.pipeline.sessions[name]
        sizes_of = {"batch": 1, "past": 3, "seq": 4, "wanted": 1}
        stated = slots.manifest.named(name)
        sizes_of |= {
            axis: span.usual for axis, span in stated.spans.items() if axis not in sizes_of
        }
        given = random_feeds(part.inputs, part.spans, sizes_of)
        weight = part.get_parameter(f"{path}.weight")
        weight.data += deltas[names[name]]
        with torch.no_grad():
            wanted = part(*(torch.from_numpy(given[n]) for n in part.inputs))
        got = session.run({**given, **adapter.arrays[name]})
        outputs = wanted if isinstance(wanted, tuple) else (wanted,)
        for output, right in zip(part.outputs, outputs, strict=True):
            np.testing.assert_allclose(got[output], right.numpy(), rtol=0, atol=1e-4)
