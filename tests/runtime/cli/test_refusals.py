"""Sound, prompts and artifacts that are not what they should be: one sentence and status 1."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alm.artifacts import manifest
from tests.runtime.cli.commands import Capture, refused, sound


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes are remembered beside the test."""
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "cache"))


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda at: at / "none.wav", "there is no file"),
        (lambda at: at, "is a folder"),
        (lambda at: written(at / "text.wav", b"not a sound at all"), "is not audio"),
        (lambda at: written(at / "empty.wav", b""), "is empty"),
        (lambda at: sound(at / "zero.wav", []), "holds no samples"),
        (lambda at: sound(at / "nan.wav", [0, 0, np.nan]), "not a finite number: number 2"),
        (lambda at: sound(at / "inf.wav", [np.inf, 0]), "not a finite number: number 0"),
    ],
)
def test_what_is_no_sound_is_refused(
    artifacts: Path,
    tmp_path: Path,
    capfd: Capture,
    make: Callable[[Path], Path],
    sentence: str,
) -> None:
    status, said = refused(capfd, "--engine", artifacts, make(tmp_path), "describe")
    assert status == 1
    assert sentence in said


def test_a_clip_beyond_max_audio_seconds_is_refused(
    artifacts: Path, clip: Path, capfd: Capture
) -> None:
    words = ("--engine", artifacts, clip, "describe", "--max-audio-seconds", "1")
    status, said = refused(capfd, *words)
    assert status == 1
    assert "lasts 1.5 s, and at most 1 s was wanted" in said


def test_an_empty_prompt_is_answered_with_the_tasks(
    artifacts: Path, clip: Path, capfd: Capture
) -> None:
    status, said = refused(capfd, "--engine", artifacts, clip, " ")
    assert status == 1
    assert "the prompt is empty" in said and "transcribe" in said


def test_a_prompt_longer_than_the_context_is_refused(
    artifacts: Path, clip: Path, capfd: Capture
) -> None:
    context = manifest.load(artifacts).facts.dimensions.context
    status, said = refused(capfd, "--engine", artifacts, clip, "why? " * context)
    assert status == 1
    assert f"the model's context is {context}" in said


def test_a_folder_that_is_not_there_or_holds_no_model_is_refused(
    clip: Path, tmp_path: Path, capfd: Capture
) -> None:
    status, said = refused(capfd, "--engine", tmp_path / "none", clip, "describe")
    assert (status, "there is no folder" in said) == (1, True)
    status, said = refused(capfd, "--engine", tmp_path, clip, "describe")
    assert (status, "it holds no manifest.json" in said) == (1, True)


# --- spoiled artifacts: status 1


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / manifest.NAME
    plain = json.loads(path.read_text("utf-8"))
    change(plain)
    path.write_text(json.dumps(plain), "utf-8")


def flip_a_byte(folder: Path) -> None:
    graph = folder / "mel.onnx"
    data = bytearray(graph.read_bytes())
    data[-1] ^= 1
    graph.write_bytes(data)


def cut_a_file(folder: Path) -> None:
    os.truncate(folder / "mel.onnx", 100)


def remove_a_file(folder: Path) -> None:
    (folder / "mel.onnx").unlink()


def link_a_file(folder: Path) -> None:
    graph = folder / "mel.onnx"
    graph.rename(folder.parent / "mel.onnx")
    graph.symlink_to(folder.parent / "mel.onnx")


def link_a_file_hard(folder: Path) -> None:
    os.link(folder / "mel.onnx", folder.parent / "mel.onnx")


def retype_a_port(folder: Path) -> None:
    edited(folder, lambda plain: plain["parts"][0]["inputs"]["pcm"].update(dtype="int16"))


def replace_a_graph(folder: Path) -> None:
    """Another graph with its own true hash."""
    data = b"no graph"
    (folder / "mel.onnx").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    file = {"name": "mel.onnx", "bytes": len(data), "sha256": digest}
    edited(folder, lambda plain: plain["parts"][0].update(files=[file]))


def newer(folder: Path) -> None:
    edited(folder, lambda plain: plain.update(format_version=3))


def upward(folder: Path) -> None:
    edited(folder, lambda plain: plain["parts"][0]["files"][0].update(name="../mel.onnx"))


def absolute(folder: Path) -> None:
    edited(folder, lambda plain: plain["tokenizer"].update(name="/etc/hostname"))


def without_a_decoder(folder: Path) -> None:
    edited(folder, lambda plain: plain["parts"].pop(-2))


def without_a_key(folder: Path) -> None:
    edited(folder, lambda plain: plain.pop("tokens"))


def not_json(folder: Path) -> None:
    (folder / manifest.NAME).write_text("{")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (flip_a_byte, ("'mel.onnx'", "sha256", "the manifest says")),
        (cut_a_file, ("'mel.onnx'", "has 100 bytes and the manifest says")),
        (remove_a_file, ("there is no 'mel.onnx'",)),
        (link_a_file, ("'mel.onnx'", "symbolic link")),
        (link_a_file_hard, ("'mel.onnx'", "2 hard links")),
        (retype_a_port, ("mel.onnx", "pcm is float32", "not int16")),
        (replace_a_graph, ("mel.onnx", "not a readable ONNX graph")),
        (newer, ("is of format 3", "pip install -U alm-edge")),
        (upward, ("'../mel.onnx'", "must not go up")),
        (absolute, ("'/etc/hostname'", "must not be absolute")),
        (without_a_decoder, ("not a whole model", "--part all")),
        (without_a_key, ("lacks 'tokens'",)),
        (not_json, ("is not JSON",)),
    ],
)
def test_artifacts_that_are_not_what_the_manifest_says_are_refused(
    own: Path,
    clip: Path,
    capfd: Capture,
    spoil: Callable[[Path], None],
    words: tuple[str, ...],
) -> None:
    spoil(own)
    status, said = refused(capfd, "--engine", own, clip, "describe")
    assert status == 1
    for word in words:
        assert word in said
