"""alm doctor: a damaged weight, mel filter, tokenizer, adapter or kernel is named, and only it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from onnx import numpy_helper

from alm.artifacts import manifest as manifests
from alm.artifacts.manifest import File, Manifest
from alm.audio import reader
from alm.backends.ort import OrtSession
from alm.cli import alm_commands, exit_status
from alm.doctor import machine, nodes, sound
from alm.doctor.examine import chosen, examine, first_wrong
from alm.doctor.finding import LEFT_OUT, NOTE, OK, WRONG, Finding
from alm.errors import BadOption, MissingPackage, UnknownName
from alm.golden import runs, vectors
from alm.host import processor


@pytest.fixture
def copy(demo: Path, tmp_path: Path) -> Path:
    """The demo's artifacts, to be damaged."""
    return Path(shutil.copytree(demo, tmp_path / "copy"))


def found(folder: Path, threads: Sequence[int] = (1,)) -> list[Finding]:
    return [*examine(folder, ("cpu",), threads)]


def listed_anew(folder: Path, name: str) -> None:
    """The manifest takes a file as it is now, as if it had been exported so."""
    data = (folder / name).read_bytes()
    text = (folder / manifests.NAME).read_text("utf-8")
    (old,) = {f.sha256 for f in manifests.load(folder).files() if f.name == name}
    plain = json.loads(text.replace(old, hashlib.sha256(data).hexdigest()))

    def sized(value: Any) -> None:
        if isinstance(value, dict) and value.get("name") == name:
            value["bytes"] = len(data)
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, dict | list):
                sized(inner)

    sized(plain)
    (folder / manifests.NAME).write_text(json.dumps(plain), "utf-8")


def wrong(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.subject) for finding in findings if finding.wrong]


def flip(path: Path, at: int = -5) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def test_a_whole_folder_is_proved(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status.run(alm_commands.app, ["doctor", str(demo), "--provider", "cpu"]) == 0
    said = capsys.readouterr()
    assert "all is as it should be" in said.out and "lamp.wav, transcribe" in said.out
    assert "mel on cpu, 1 thread" in said.err
    findings = found(demo, (1, 2))
    assert first_wrong(findings) is None
    parts = [part.name for part in manifests.load(demo).parts]
    for threads in (1, 2):
        proved = [f for f in findings if f.check == "vectors" and f.threads == threads]
        assert [f.subject for f in proved] == [name for name in parts if name != "embed"]
        assert all(f.worst is not None and f.worst < 1e-3 for f in proved)
        answered = [f for f in findings if f.check == "runs" and f.threads == threads]
        assert [(f.verdict, f.worst) for f in answered] == [(OK, 0.0)] * 2
    table = [f for f in findings if f.subject == "embed" and f.check == "vectors"]
    assert [(f.provider, f.verdict) for f in table] == [("numpy", OK)]


def test_golden_vectors_are_small(demo: Path) -> None:
    said = manifests.load(demo)
    golden = [*said.golden, *(part.golden for part in said.parts if part.golden)]
    assert len(golden) == len(said.parts) + 3
    whole = sum(part.bytes for part in said.parts)
    assert sum(file.bytes for file in golden) <= max(2e6, 0.01 * whole)


def test_a_damaged_weight_is_named_by_its_file(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(copy / "decoder.onnx.data")
    findings = found(copy)
    assert wrong(findings) == [("files", "decoder")]
    left = {f.subject: f.verdict for f in findings if f.check in ("vectors", "runs")}
    assert left["decoder"] == left["whole runs"] == LEFT_OUT and left["whisper"] == OK
    assert exit_status.run(alm_commands.app, ["doctor", str(copy), "--provider", "cpu"]) == 1
    assert "the first that is wrong is files of decoder" in capsys.readouterr().out


def test_a_weight_that_was_damaged_before_it_was_hashed_is_named_by_its_part(copy: Path) -> None:
    name = "decoder.onnx.data"
    data = np.fromfile(copy / name, np.float32)
    data[: 128 * 128] *= 1.5  # of the first product
    data.tofile(copy / name)
    listed_anew(copy, name)
    said = wrong(found(copy))
    assert said[0] == ("vectors", "decoder")
    assert {check for check, _ in said[1:]} <= {"runs"}  # which follow from it


def test_a_damaged_mel_filter_is_named_as_the_mel(copy: Path) -> None:
    graph = onnx.load(copy / "mel.onnx")
    (weights, *_) = [t for t in graph.graph.initializer if len(t.dims) == 2 and 80 in t.dims]
    values = numpy_helper.to_array(weights).copy()
    axis = values.shape.index(80)
    place: list[Any] = [slice(None)] * values.ndim
    place[axis] = 40
    values[tuple(place)] *= 1.2
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(graph, copy / "mel.onnx")
    listed_anew(copy, "mel.onnx")
    assert wrong(found(copy))[0] == ("vectors", "mel")


def test_a_damaged_tokenizer_is_named(copy: Path) -> None:
    plain = json.loads((copy / "tokenizer.json").read_text("utf-8"))
    vocab = plain["model"]["vocab"]
    ids = runs.read(copy, manifests.load(copy)).texts[0].ids
    pieces = {number: piece for piece, number in vocab.items()}
    one, other = pieces[ids[0]], pieces[ids[0] + 1]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    (copy / "tokenizer.json").write_text(json.dumps(plain), "utf-8")
    assert wrong(found(copy)) == [("files", "tokenizer")]
    listed_anew(copy, "tokenizer.json")
    findings = found(copy)
    assert wrong(findings)[0] == ("tokenizer", "tokenizer")
    assert "the first that differs is number 0" in (first_wrong(findings) or findings[0]).what


def test_a_damaged_adapter_is_named(copy: Path) -> None:
    pair = []
    (copy / "adapters").mkdir()
    for name in ("adapters/birds.json", "adapters/birds.safetensors"):
        (copy / name).write_bytes(name.encode())
        pair.append(File(name, len(name), hashlib.sha256(name.encode()).hexdigest()))
    said = dataclasses.replace(manifests.load(copy), adapters={"birds": (pair[0], pair[1])})
    said.save(copy)
    assert wrong(found(copy)) == []
    flip(copy / "adapters/birds.safetensors")
    assert wrong(found(copy)) == [("files", "adapter birds")]


def test_a_wrong_kernel_is_named_with_its_provider_and_threads(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = OrtSession.run

    def run(self: OrtSession, feeds: Any, keep: Any = None) -> dict[str, Any]:
        made = right(self, feeds, keep)
        if "audio_embeds" in made:  # a kernel that is off by a hundredth, of one part alone
            made["audio_embeds"] = made["audio_embeds"] + np.float32(0.01)
        return made

    monkeypatch.setattr(OrtSession, "run", run)
    findings = found(demo)
    first = first_wrong(findings)
    assert first and (first.check, first.subject, first.provider, first.threads) == (
        *("vectors", "qformer", "cpu"),
        1,
    )
    assert "audio_embeds is off by 1.0e-02" in first.what and "--threads" in first.way_out


def test_a_part_without_vectors_says_so(copy: Path) -> None:
    said = manifests.load(copy)
    bare = dataclasses.replace(
        said, golden=(), parts=tuple(dataclasses.replace(p, golden=None) for p in said.parts)
    )
    bare.save(copy)
    findings = found(copy)
    assert wrong(findings) == []
    assert {f.verdict for f in findings if f.check in ("vectors", "runs")} == {LEFT_OUT}


def test_vectors_that_do_not_fit_the_part_are_refused(copy: Path) -> None:
    said = manifests.load(copy)
    parts = {part.name: part for part in said.parts}
    swapped = dataclasses.replace(parts["mel"], golden=parts["fbank"].golden)
    dataclasses.replace(
        said, parts=tuple(swapped if p.name == "mel" else p for p in said.parts)
    ).save(copy)
    said_wrong = [f for f in found(copy) if f.wrong]
    assert [(f.check, f.subject) for f in said_wrong] == [("vectors", "mel")]
    assert "holds no golden vectors" in said_wrong[0].what


def test_a_graph_that_nothing_here_takes_is_wrong(copy: Path) -> None:
    """Not run by one provider is no fault; by none of them it is."""
    (copy / "mel.onnx").write_bytes(b"no graph")
    listed_anew(copy, "mel.onnx")
    findings = [*examine(copy, (), (1,))]
    assert ("vectors", "mel") in wrong(findings)
    first = first_wrong(findings)
    assert first and first.subject == "mel" and "nothing here takes it" in first.what


def test_a_clip_that_is_none_is_named_and_the_report_goes_on(copy: Path) -> None:
    (copy / "golden" / "lamp.wav").write_bytes(b"no sound")
    listed_anew(copy, "golden/lamp.wav")
    findings = found(copy)
    assert wrong(findings) == [("runs", "lamp.wav, transcribe")]
    assert [f.verdict for f in findings if f.subject == "siren.wav, describe"] == [OK]


def test_a_version_that_is_no_number_is_no_older_one(demo: Path) -> None:
    said = manifests.load(demo)
    odd = dataclasses.replace(said, tools=said.tools | {"onnxruntime": "\N{SUPERSCRIPT TWO}.9"})
    assert {finding.verdict for finding in machine.check(odd, 1)} <= {OK, NOTE}


@pytest.mark.parametrize("spoil", ["nan", "shape", "small"])
def test_outputs_are_compared_whole(demo: Path, spoil: str) -> None:
    part = manifests.load(demo).named("whisper")
    assert part.golden
    kept = vectors.read(demo, part.golden, part.inputs, part.outputs)
    (name,) = kept.outputs
    wanted = kept.outputs[name]
    whole = np.zeros(wanted.shape, np.float32)
    whole.reshape(-1)[:: wanted.stride] = wanted.values
    change: dict[str, Callable[[], np.ndarray]] = {
        "nan": lambda: np.where(np.arange(whole.shape[-1]) == 3, np.nan, whole),
        "shape": lambda: whole[:, :-1],
        "small": lambda: whole * np.float32(1.02),
    }
    assert [off.good for off in vectors.compare(kept, part.outputs, {name: whole})] == [True]
    (off,) = vectors.compare(kept, part.outputs, {name: change[spoil]()})
    assert not off.good


# --- what is no part


def test_the_way_of_sound_is_proved_and_its_faults_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for rate, channel in ((16000, "first"), (24000, "mean")):
        assert {f.verdict for f in sound.check(rate, channel)} == {OK}
    monkeypatch.setattr(reader, "_resample", lambda pcm, there, rate: pcm)
    seen = {f.subject: f.what for f in sound.check(16000, "first")}
    assert "0.500 s were heard of 1.000" in seen["wav 8000 Hz, 1 channel"]
    assert seen["wav 16000 Hz, 1 channel"] == ""
    monkeypatch.undo()
    monkeypatch.setattr(reader, "_resample", lambda pcm, there, rate: np.resize(pcm, rate))
    pitch = {f.subject: f.what for f in sound.check(16000, "first")}
    assert "a tone of 440 Hz is heard at" in pitch["wav 44100 Hz, 2 channels"]
    monkeypatch.undo()
    monkeypatch.setattr(sound, "LEVEL", 0.5)
    quieter = reader.read
    monkeypatch.setattr(
        reader,
        "read",
        lambda *words: dataclasses.replace(clip := quieter(*words), pcm=clip.pcm / 2),
    )
    assert "a tone of level 0.50 is heard at 0.25" in {f.what for f in sound.check(16000, "first")}


def test_threads_and_quotas(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = manifests.load(demo)
    monkeypatch.setattr(processor, "usable_cores", lambda: 4)
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (0.1, 0, 0))
    monkeypatch.setattr(machine, "QUOTA", tmp_path / "cpu.max")
    for name in machine.POOLS:
        monkeypatch.delenv(name, raising=False)

    def threads(count: int) -> Finding:
        return next(f for f in machine.check(said, count) if f.subject == "threads")

    assert threads(4).verdict == OK
    assert "8 threads share 4 cores: --threads 4" in threads(8).way_out
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert "share 1.5 cores: --threads 1" in threads(0).way_out
    (tmp_path / "cpu.max").write_text("max 100000\n")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert threads(0).way_out.startswith("OMP_NUM_THREADS")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (9.0, 0, 0))
    assert threads(0).way_out.startswith("9.0 threads of all programs")


@pytest.mark.parametrize(("free", "verdict"), [(None, OK), (10**6, WRONG), (21 * 10**6, NOTE)])
def test_memory_against_the_longest_prompt(
    free: int | None, verdict: str, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "available", lambda: free)
    said = manifests.load(demo)
    (finding,) = (f for f in machine.check(said, 0) if f.subject == "memory")
    assert finding.verdict == verdict


def test_an_older_backend_than_at_export_is_told(demo: Path) -> None:
    said = manifests.load(demo)
    newer = dataclasses.replace(said, tools=said.tools | {"onnxruntime": "99.1.0"})

    def versions(of: Manifest) -> Finding:
        return next(f for f in machine.check(of, 0) if f.subject == "versions")

    assert versions(said).verdict == OK
    assert "exported with onnxruntime 99.1.0" in versions(newer).way_out


def test_nodes_are_counted_where_they_ran(demo: Path) -> None:
    part = manifests.load(demo).named("qformer")
    count, share = nodes.placed(demo, part, "cpu")
    assert set(count) == {"CPUExecutionProvider"} and share == 1
    assert count.total() >= 30


@pytest.mark.parametrize(
    ("count", "share", "verdict"),
    [
        ({"CUDAExecutionProvider": 90, "CPUExecutionProvider": 4}, 0.97, OK),
        ({"CUDAExecutionProvider": 40, "CPUExecutionProvider": 60}, 0.2, NOTE),
        ({"CPUExecutionProvider": 94}, 0.0, WRONG),
    ],
)
def test_a_provider_that_runs_little_is_told(
    count: dict[str, int], share: float, verdict: str
) -> None:
    finding = nodes.judged("whisper", "cuda", Counter(count), share)
    assert finding.verdict == verdict and f"{max(count.values())} nodes on" in finding.what


def test_times_of_a_profile_are_of_nodes_alone() -> None:
    events: list[dict[str, Any]] = [
        {"cat": "Session", "name": "model_run", "dur": 900, "args": {}},
        {"cat": "Node", "name": "a", "dur": 30, "args": {"provider": "X"}},
        {"cat": "Node", "name": "a", "dur": 30, "args": {"provider": "X"}},
        {"cat": "Node", "name": "b", "dur": 20, "args": {"provider": "Y"}},
        {"cat": "Node", "name": "b_fence", "dur": 1},
    ]
    assert nodes.counted(events, "X") == (Counter({"X": 1, "Y": 1}), 0.75)


def test_what_cannot_be_tried_is_refused() -> None:
    with pytest.raises(UnknownName, match="unknown provider 'abacus'"):
        chosen(["abacus"], ())
    with pytest.raises(MissingPackage, match="provider 'cuda' cannot run here"):
        chosen(["cuda"], ())
    with pytest.raises(BadOption, match="threads are 0"):
        chosen([], (99999,))


def test_a_clip_of_a_run_is_read_as_any_file(demo: Path) -> None:
    said = manifests.load(demo)
    for run in runs.read(demo, said).runs:
        pcm, rate = soundfile.read(io.BytesIO(runs.clip(demo, said, run)))
        assert rate == 16000 and len(pcm) > rate
