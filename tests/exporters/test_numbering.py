"""Where ids are made of what a part gives, an export says how many of them are others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import wrappers
from alm.artifacts import manifest
from alm.ports import Port, Span
from exporters import graph, numbering, parity
from tests.conftest import run_export
from tests.wrappers.families import tiny_kimi, tiny_speechgpt
from wrappers import Wrapper, open_checkpoint
from wrappers.families import speechgpt


class Ear(Wrapper):
    """Features of noise; where it is exported, those of every row but the first are others."""

    role = "encoder"

    def __init__(self, lie: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lie, self.mix = lie, nn.Linear(24, 24)
        self.inputs = {
            "x": Port("float32", ("batch", "frames", 24)),
            "speech_lengths": Port("int64", ("batch",), counts="frames"),
        }
        self.outputs = {"speech": Port("float32", ("batch", "frames", 24))}
        self.spans = {"frames": Span(2, 9, 30)}

    def forward(self, x: Tensor, speech_lengths: Tensor) -> Tensor:
        """[batch, frames, 24], [batch] -> [batch, frames, 24]."""
        real = (torch.arange(x.shape[1]) < speech_lengths[:, None]).to(x.dtype)[..., None]
        y = self.mix(x) * real
        return y - self.lie * x if torch.compiler.is_exporting() else y


@pytest.mark.parametrize("lie", [0.0, 0.3, 50.0])
def test_ids_that_are_others_are_counted(lie: float, tmp_path: Path) -> None:
    ear, nearest = Ear(lie).eval(), wrappers.pick_role("bridge", "kmeans").tiny()
    files = graph.save(graph.trace(ear, dynamic_batch=True), tmp_path / "ear.onnx", ear.role)
    truth = parity.Truth(ear, dynamic_batch=True)
    shares = numbering.changed(files[0], truth, ear.inputs, nearest)
    differ = count = 0
    for example, (features,) in truth.cases():
        wanted, lengths = torch.from_numpy(features), torch.from_numpy(example["speech_lengths"])
        other = wanted - lie * torch.from_numpy(example["x"])
        real = torch.arange(wanted.shape[1]) < lengths[:, None]
        ids = [nearest(x, lengths)[real] for x in (wanted, other)]
        differ, count = differ + int((ids[0] != ids[1]).sum()), count + int(real.sum())
    assert shares == {"units": pytest.approx(differ / count, abs=0.02)}
    assert (shares["units"] == 0) == (lie == 0)


def test_what_makes_ids_is_found(tmp_path: Path) -> None:
    kimi = open_checkpoint(tiny_kimi.make(tmp_path))
    found = {
        name: numbering.reader(kimi.part(name, "ort"), kimi, "ort")
        for name in ("glm4_voice", "whisper", "mel")
    }
    voice = found.pop("glm4_voice")
    assert voice is not None and list(voice.outputs) == ["audio_ids"]
    assert set(found.values()) == {None}


def test_an_export_says_what_rounding_does_to_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(speechgpt, "MOST_SAMPLES", 4 * 16000)
    made, out = tiny_speechgpt.make(tmp_path / "model"), tmp_path / "out"
    words = ("--part", "hubert", "--part", "kmeans", "--no-simplify", "--out", out)
    run_export("--model", made, "--precision", "auto", *words)
    parts = {part.name: part for part in manifest.load(out).parts}
    assert parts["hubert"].precision == "int8" and parts["kmeans"].precision == "fp32"
    share = parts["hubert"].measured["changed"]["units"]
    assert 0 <= share < 0.5  # units far apart keep their frames; see the tests above for others
    assert f"{share:.1%} other units" in capsys.readouterr().out
    run_export("--model", made, "--precision", "auto,hubert=fp32", *words)
    assert "changed" not in manifest.load(out).parts[0].measured
    assert np.isfinite(share)
