"""One more lever, family, target, device and backend: a file each, and all commands know it.

The files lie in `one_more`; a test copies one into a temporary folder that the registry also looks
in. An LLM is in test_llm_files, a dialect in test_dialects.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

import export
from alm import backends, devices, targets
from alm.artifacts import manifest
from alm.cli import alm_commands, exit_status
from exporters import levers
from tests.conftest import run_export
from tests.one_more import one_more
from tests.runtime.cli.commands import Capture, alm_run
from tests.wrappers.families import tiny_audio_llm
from wrappers import families

GREEDY = ("--greedy", "--num-beams", "1", "--max-new-tokens", "8")


def alm_command(*words: str | Path) -> int:
    return exit_status.run(alm_commands.app, [str(word) for word in words])


def as_data(capfd: Capture, *words: str | Path) -> Any:
    """What a command of alm's prints with --json."""
    capfd.readouterr()
    assert alm_command(*words, "--json") == 0
    return json.loads(capfd.readouterr().out)


def token_ids(capfd: Capture, *words: str | Path) -> list[int]:
    """The tokens of a greedy answer, whose cut end is told on stderr."""
    capfd.readouterr()
    assert alm_run(*words, "--json", *GREEDY) == 0
    return json.loads(capfd.readouterr().out)["token_ids"]


def test_a_lever_is_one_file(
    checkpoint: Path, artifacts: Path, clip: Path, tmp_path: Path, capfd: Capture
) -> None:
    plan = ("plan", "--device", "orin-nano-8gb")
    with one_more(levers, "half_decoder", tmp_path):
        out = tmp_path / "half"
        run_export(
            *("--model", checkpoint, "--precision", "decoder=half_decoder"),
            *("--dialect", "standard", "--dynamic-batch", "--out", out),
        )
        words = ["--model", str(checkpoint), "--precision", "nothing", "--out", str(out)]
        assert exit_status.run(export.app, words) != 0
        assert "half_decoder" in capfd.readouterr().err
    # From here on the file is gone, as it is on a device: the manifest says what it stored.
    made = manifest.load(out)
    part = made.with_role("decoder")[0]
    assert part.precision == "half_decoder" and part.storage.layers.dtype == "float16"
    assert part.bytes < 0.6 * manifest.load(artifacts).with_role("decoder")[0].bytes
    assert made.levers["half_decoder"] == {"decoder": part.storage}
    rows = as_data(capfd, *plan, out)["choices"]
    assert any(row["precision"] == "half_decoder" and row["fits"] for row in rows)
    assert alm_command("lint", "--target", "trt-jetpack7", out) == 0
    assert alm_command("inspect", out) == 0 and "half_decoder" in capfd.readouterr().out
    found = token_ids(capfd, "--engine", out, clip, "transcribe")
    assert found == token_ids(capfd, "--engine", artifacts, clip, "transcribe") != []


def test_a_family_is_one_file_whose_parts_have_names_of_their_own(
    clip: Path, tmp_path: Path, capfd: Capture
) -> None:
    config = tiny_audio_llm.make(tmp_path / "model", rank=0)
    width = json.loads((config.parent / "llm" / "config.json").read_text("utf-8"))["hidden_size"]
    torch.manual_seed(3)
    layer = nn.Linear(tiny_audio_llm.SPEECH, width)
    state = {f"layers.0.{name}": value for name, value in layer.state_dict().items()}
    save_file(state, config.parent / "projector.safetensors")
    named = dict(whisper_path="whisper", llama_path="llm", projector_path="projector.safetensors")
    config.write_text(yaml.safe_dump({"listener": named}))
    out = tmp_path / "out"
    with one_more(families, "listener", tmp_path):
        run_export("--model", config, "--dialect", "standard", "--out", out)
    made = manifest.load(out)
    assert made.family == "listener"
    assert [(part.name, part.role) for part in made.parts][:3] == [
        ("mel", "frontend"),
        ("ears", "encoder"),
        ("projector", "bridge"),
    ]
    found = token_ids(capfd, "--engine", out, clip, "transcribe")
    assert found == by_the_original(config.parent, layer, clip)


@torch.no_grad()
def by_the_original(folder: Path, layer: nn.Linear, clip: Path) -> list[int]:
    """Greedy tokens of the same pieces in transformers."""
    import soundfile

    original = tiny_audio_llm.Original(folder)
    samples = soundfile.read(clip, dtype="float32")[0]
    made = original.extractor([samples], sampling_rate=16000, return_tensors="pt")
    heard = layer(original.encoder(made["input_features"]).last_hidden_state)
    ids = original.tokenizer("the quick brown fox", return_tensors="pt", add_special_tokens=False)
    embeds = torch.cat((heard, original.llm.get_input_embeddings()(ids["input_ids"])), 1)
    tokens = original.llm.generate(inputs_embeds=embeds, max_new_tokens=8, do_sample=False)
    return tokens[0].tolist()


def test_a_target_is_one_file(
    checkpoint: Path, artifacts: Path, tmp_path: Path, capfd: Capture
) -> None:
    with one_more(targets, "small_npu", tmp_path):
        out = tmp_path / "npu"
        run_export("--model", checkpoint, "--target", "small-npu", "--out", out)
        part = manifest.load(out).with_role("decoder")[0]
        assert (part.dialect, part.storage.layers.dtype) == ("decomposed", "float16")
        assert alm_command("lint", "--target", "small-npu", artifacts) == 1
        said = capfd.readouterr()
        assert "Small NPU 1.0" in said.out + said.err and "opset" in said.out + said.err
        assert alm_command("lint", "--target", "small-npu", out) == 0
    assert alm_command("lint", "--target", "small-npu", out) != 0


def test_a_device_is_one_file(artifacts: Path, tmp_path: Path, capfd: Capture) -> None:
    with one_more(devices, "my_board", tmp_path):
        plan = as_data(capfd, "plan", "--device", "my-board", artifacts)
        assert "My board" in json.dumps(plan) and plan["choices"]
    assert alm_command("plan", "--device", "my-board", artifacts) != 0
    assert "orin-nano-8gb" in capfd.readouterr().err


def test_a_backend_is_one_file(
    checkpoint: Path, artifacts: Path, tmp_path: Path, capfd: Capture
) -> None:
    """ONNX's own evaluator says the same tokens as ONNX Runtime."""
    import soundfile

    short = tmp_path / "short.wav"
    soundfile.write(short, 0.1 * np.random.default_rng(0).standard_normal(4000), 16000)
    out = tmp_path / "plain"
    run_export("--model", checkpoint, "--target", "portable", "--precision", "fp32", "--out", out)
    wanted = token_ids(capfd, "--engine", artifacts, short, "transcribe")
    with one_more(backends, "reference", tmp_path):
        words = ("--provider", "reference", short, "transcribe")
        assert token_ids(capfd, "--engine", out, *words) == wanted != []
    assert alm_command("bench", "--provider", "reference", out) != 0
    assert "unknown provider" in capfd.readouterr().err
