"""--calibrate: which clips are heard, by which parts, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from alm.artifacts import manifest
from alm.errors import BadOption, MissingFile
from exporters import calibration, graph
from exporters.levers import lowrank
from tests.conftest import run_export
from tests.exporters.test_export import fails
from tests.reference import LIBRISPEECH
from tests.wrappers.families import (
    tiny_granite_speech,
    tiny_phi4_multimodal,
    tiny_voxtral_realtime,
)
from wrappers import open_checkpoint

LOOSE = "lowrank:energy=0.6:below=2"  # the tiny parts have few numbers to spare


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips, one of them in a folder below, and what is none."""
    folder = tmp_path_factory.mktemp("clips")
    (folder / "more").mkdir()
    shutil.copy(LIBRISPEECH[0], folder / "more" / "b.flac")
    noise = np.random.default_rng(0).standard_normal(16_000)
    soundfile.write(folder / "a.wav", 0.1 * noise, 8_000)
    (folder / "transcripts.tsv").write_text("a.wav\twhat was said\n", "utf-8")
    (folder / ".hidden.wav").write_bytes(b"RIFF")
    return folder


def test_clips_come_in_the_order_of_their_names_and_the_rest_is_named(
    checkpoint: Path, clips: Path
) -> None:
    found = calibration.find(clips, open_checkpoint(checkpoint).facts)
    assert [path.name for path in found.paths] == ["a.wav", "b.flac"]
    assert found.seconds == pytest.approx(2 + soundfile.info(LIBRISPEECH[0]).duration, abs=0.01)
    (note,) = found.notes
    assert note.startswith("transcripts.tsv is not calibrated with: ")
    assert [p.name for p in found.some(1).paths] == ["a.wav"] and found.some(5) is found


def test_a_folder_without_clips_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    facts = open_checkpoint(checkpoint).facts
    with pytest.raises(MissingFile, match="there is no folder .*--calibrate wants one of clips"):
        calibration.find(tmp_path / "nowhere", facts)
    with pytest.raises(BadOption, match="no clip in .* can be read$"):
        calibration.find(tmp_path, facts)
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(BadOption, match=r"no clip in .* can be read \(a.wav is not calibrated wit"):
        calibration.find(tmp_path, facts)
    with pytest.raises(BadOption, match="a.wav is a file; --calibrate wants a folder of clips"):
        calibration.find(tmp_path / "a.wav", facts)


def test_what_fits_not_together_is_refused_before_anything_is_made(
    checkpoint: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ("--model", checkpoint, "--out", out, "--precision")
    said = fails(capsys, 2, *words, "fp32,whisper=int8+lowrank")
    assert "precision int8+lowrank of part whisper is fitted to what is heard" in said
    assert "give a folder of clips: --calibrate DIR" in said
    said = fails(capsys, 2, *words, "int8", "--calibrate", clips)
    assert "is for no part: no precision given is fitted to clips" in said
    assert "unknown part 'ears'" in fails(capsys, 2, *words, "ears=lowrank:energy=0.9")
    assert "energy is between 0 and 1" in fails(capsys, 2, *words, "whisper=lowrank:energy=9")
    assert "unknown setting 'x' of lowrank" in fails(capsys, 2, *words, "lowrank:x=1")
    assert not out.exists()


def test_an_export_hears_them_and_says_so_in_the_same_bytes_each_time(
    checkpoint: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[dict[str, bytes]] = []
    for name in ("one", "other"):
        out = tmp_path / name
        words = ["--model", checkpoint, "--out", out, "--part", "whisper", "--part", "beats"]
        words += ["--precision", f"fp32,whisper={LOOSE}+int8,beats={LOOSE}", "--calibrate", clips]
        run_export(*words, "--dynamic-batch")
        made.append({p.name: p.read_bytes() for p in out.iterdir() if ".onnx" in p.name})
    assert made[0] == made[1] and len(made[0]) == 2
    said = capsys.readouterr().err
    assert "transcripts.tsv is not calibrated with" in said
    seconds = 2 + soundfile.info(LIBRISPEECH[0]).duration
    assert f"calibrating with 2 clips, {seconds:.0f} s" in said
    for part in manifest.load(tmp_path / "one").parts:
        assert part.precision.startswith(LOOSE)
        assert part.measured["calibrated"]["clips"] == 2
        assert part.measured["lowrank"]["ranks"]
        parity = part.measured["parity"]
        assert parity["verdict"] == "within bound" and parity["cases"] == 2
        assert 0.01 < parity["rms"] <= parity["bound"]
    assert manifest.load(tmp_path / "one").parts[0].measured["parity"]["bound"] == 0.7


def test_a_part_hears_behind_those_that_it_waits_for_and_no_others(
    checkpoint: Path, clips: Path
) -> None:
    opened = open_checkpoint(checkpoint)
    found = calibration.find(clips, opened.facts)
    loaded: list[str] = []

    def counted(name: str, load: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: loaded.append(name) or load()

    for name, load in list(opened.parts.items()):
        opened.parts[name] = counted(name, load)
    part = opened.part("beats", "ort").eval()
    audience = calibration.Audience(opened, "ort", "beats", part, found)
    assert list(audience._front) == ["fbank", "beats"]
    calls: list[tuple[int, ...]] = []
    part.register_forward_hook(lambda _, inputs, __: calls.append(tuple(inputs[0].shape)))
    audience.hear(0)
    # The window is 4 s: 14 s are four of them, each heard alone, as the runtime does it.
    assert len(calls) == 1 + 4 and all(shape[0] == 1 for shape in calls)
    assert "decoder" not in loaded and "qformer" not in loaded
    feeds = list(calibration.widened(audience.feeds(), batches=True))
    assert [len(feed["fbank"]) for feed in feeds] == [1, 2]


@pytest.mark.parametrize(
    "family", [tiny_granite_speech, tiny_phi4_multimodal, tiny_voxtral_realtime]
)
def test_other_families_hear_in_their_own_way(family: Any, clips: Path, tmp_path: Path) -> None:
    family.make(tmp_path / "model")
    opened = open_checkpoint(tmp_path / "model")
    found = calibration.find(clips, opened.facts)
    (name,) = [n for n, role in opened.roles.items() if role == "encoder"]
    part = opened.part(name, "ort").eval()
    audience = calibration.Audience(opened, "ort", name, part, found)
    lever = lowrank.Lever(energy=0.5, below=2.0)
    lever.calibrate(part, audience.hear)
    ranks = lever.findings["lowrank"]["ranks"]
    linears = [n for n, m in part.named_modules() if isinstance(m, nn.Linear)]
    assert ranks and {n.removesuffix(".weight") for n in ranks} <= {*linears}
    model = lever.rewrite(graph.trace(part, dynamic_batch=False), part.role)
    graph.save(model, tmp_path / "w.onnx", part.role)
    feeds = audience.feeds(1)[0]
    got = graph.opened(tmp_path / "w.onnx", part).run(feeds)
    with torch.no_grad():
        made = part(*(torch.from_numpy(np.ascontiguousarray(a)) for a in feeds.values()))
    for output, want in zip(
        part.outputs, made if isinstance(made, tuple) else (made,), strict=True
    ):
        assert got[output].shape == tuple(want.shape) and np.isfinite(got[output]).all()
