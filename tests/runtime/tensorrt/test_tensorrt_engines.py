"""Engines: what the manifest says of them, and what TensorRT-RTX builds and alm believes."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

import alm
from alm import backends
from alm.artifacts import manifest
from alm.artifacts.manifest import File
from alm.backends import tensorrt
from alm.errors import BadArtifacts, MissingPackage
from alm.session import BackendOptions
from alm.tensorrt import api, build
from tests.conftest import run_export
from tests.runtime.cli.commands import Capture
from tests.runtime.tensorrt.built import RTX, alm_build, decoder, quiet, some_engine


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes and timings are remembered beside the test."""
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "cache"))


# --- what the manifest says of engines


def test_engines_come_back_from_the_manifest_as_they_went(own: Path) -> None:
    said = manifest.load(own).with_engines((some_engine(), some_engine("mel")))
    said.save(own)
    again = manifest.load(own)
    assert again == said and again.engine("mel", "tensorrt") == some_engine("mel")
    assert again.engine("mel", RTX) is None and again.files()[-1].name == "a.engine"


def test_a_part_that_is_replaced_takes_its_own_engine_along_and_no_other(own: Path) -> None:
    said = manifest.load(own)
    part, other = decoder(own), some_engine("mel")
    fitting = some_engine(graph=build.fingerprint(part.files))
    said = said.with_engines((fitting, other))
    assert said.replacing(replace(part, nodes=1)).engines == (other, fitting)  # the same graph
    anew = replace(part, files=(File("decoder.onnx", 3, "ef"),))
    assert said.replacing(anew).engines == (other,)


def test_exporting_a_part_again_drops_its_engine_and_no_other(own: Path, checkpoint: Path) -> None:
    said = manifest.load(own)
    engines = []
    for name in ("mel", "decoder"):
        part = said.part(name)
        assert part
        (own / f"{name}.engine").write_bytes(name.encode())
        file = File(f"{name}.engine", len(name), hashlib.sha256(name.encode()).hexdigest())
        fresh = some_engine(name, graph=build.fingerprint(part.files))
        engines.append(replace(fresh, file=file))
    said.with_engines(engines).save(own)
    words = ("--part", "decoder", "--dynamic-batch", "--dialect", "standard", "--out", own)
    run_export("--model", checkpoint, *words)  # the same graph
    assert manifest.load(own).engines == tuple(engines)
    run_export("--model", checkpoint, *words, "--precision", "fp16")
    assert manifest.load(own).engines == (engines[0],)
    assert (own / "mel.engine").is_file() and not (own / "decoder.engine").exists()


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        ({"graph": None}, "'graph' of the engine of part decoder is None, not str"),
        ({"file": {"name": "a"}}, "the engine of part decoder lacks 'bytes'"),
        ({"profiles": [[1]]}, "a profile of the engine of part decoder is [1]"),
        ({"profiles": [{"x": [[1], [1]]}]}, "a range of the engine of part decoder is"),
        ({"profiles": [{"x": [[1], [1, 2], [1]]}]}, "a range of the engine of part decoder is"),
    ],
)
def test_a_misshapen_engine_is_named(own: Path, spoil: dict[str, Any], sentence: str) -> None:
    manifest.load(own).with_engines((some_engine(),)).save(own)
    plain = json.loads((own / manifest.NAME).read_text("utf-8"))
    plain["engines"][0] |= spoil
    (own / manifest.NAME).write_text(json.dumps(plain), "utf-8")
    with pytest.raises(BadArtifacts, match=re.escape(sentence)):
        manifest.load(own)


def test_an_engine_of_another_gpu_version_or_graph_is_told_apart(own: Path) -> None:
    part = decoder(own)
    fitting = some_engine(graph=build.fingerprint(part.files))
    maker = fitting.maker
    assert build.check(fitting, part, maker) == ""
    for other in (replace(maker, version="10.16"), replace(maker, compute_capability="11.0")):
        wrong = build.check(fitting, part, other)
        assert str(maker) in wrong and str(other) in wrong
    assert "exported anew" in build.check(replace(fitting, graph="0"), part, maker)


# --- built by TensorRT-RTX, which needs no GPU


@pytest.fixture(scope="module")
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="it is optional: pip install tensorrt-rtx")


@pytest.fixture(scope="module")
def built(rtx: None, artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with an engine for every part. Never to be changed."""
    folder = Path(shutil.copytree(artifacts, tmp_path_factory.mktemp("built") / "tiny"))
    assert alm_build(folder, "--backend", RTX, "--debug") == 0
    return folder


@pytest.fixture
def engines(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(built, tmp_path / "engines"))


@pytest.mark.tensorrt
def test_every_part_has_an_engine_and_the_manifest_says_what_made_it(built: Path) -> None:
    said = manifest.load(built)
    parts = [part.name for part in said.parts if part.role != "table"]
    assert [engine.part for engine in said.engines] == parts
    for engine in said.engines:
        assert engine.maker == api.maker(RTX) and engine.maker.version[0].isdigit()
        assert (built / engine.file.name).stat().st_size == engine.file.bytes > 1000
        found, plan = tensorrt.read(built, said.part(engine.part), RTX)  # pyright: ignore
        assert found == engine and len(plan) == engine.file.bytes
    assert not list(built.glob(".*"))
    assert len(said.engine("decoder", RTX).profiles) == 2  # pyright: ignore


@pytest.mark.tensorrt
def test_what_is_up_to_date_is_not_built_again(engines: Path, capfd: Capture) -> None:
    before = {path: path.stat().st_mtime_ns for path in engines.glob("*.engine")}
    assert alm_build(engines, "--backend", RTX) == 0
    assert {path: path.stat().st_mtime_ns for path in engines.glob("*.engine")} == before
    assert capfd.readouterr().out.count("up to date") == len(before)
    assert alm_build(engines, "--backend", RTX, "--part", "mel", "--force") == 0
    newer = [path.name for path, time in before.items() if path.stat().st_mtime_ns > time]
    assert newer == [f"mel.{RTX}.engine"]


@pytest.mark.tensorrt
def test_too_little_memory_is_refused_with_numbers_before_anything_is_built(
    rtx: None, own: Path, capfd: Capture
) -> None:
    assert alm_build(own, "--backend", RTX, "--memory", "0.25") == 2
    said = capfd.readouterr()
    assert re.match(r"error: building part \w+ takes about 0\.\d\d GiB of memory and 0\.", said.err)
    assert not list(own.glob("*.engine")) and said.out == ""


@pytest.mark.tensorrt
def test_a_changed_engine_is_refused_before_tensorrt_sees_it(engines: Path) -> None:
    part = decoder(engines)
    path = engines / f"decoder.{RTX}.engine"
    plan = bytearray(path.read_bytes())
    plan[len(plan) // 2] ^= 1
    path.write_bytes(plan)
    with pytest.raises(BadArtifacts, match=r"has sha256 .*it was not loaded.*alm build .*--force"):
        tensorrt.read(engines, part, RTX)
    path.unlink()
    path.symlink_to(engines / f"mel.{RTX}.engine")
    with pytest.raises(BadArtifacts, match="symbolic link"):
        tensorrt.read(engines, part, RTX)


@pytest.mark.tensorrt
def test_an_engine_of_another_version_is_refused_and_then_built_as_large_as_it_was(
    engines: Path,
) -> None:
    assert alm_build(engines, "--backend", RTX, "--part", "decoder", "--context", "100") == 0
    said = manifest.load(engines)
    old = said.engine("decoder", RTX)
    assert old is not None
    older = replace(old, maker=replace(old.maker, version="1.0.0"))
    said.with_engines(older if e is old else e for e in said.engines).save(engines)
    remedy = re.escape(f"build it here with: alm build {engines} --backend {RTX}")
    with pytest.raises(BadArtifacts, match=rf"is of tensorrt-rtx 1\.0\.0 on .*{remedy}"):
        tensorrt.read(engines, decoder(engines), RTX)
    again = build.build(engines, build.Settings(RTX, ("decoder",), None), quiet, quiet)
    assert again[0].maker == old.maker and again[0].profiles == old.profiles
    tensorrt.read(engines, decoder(engines), RTX)


@pytest.mark.tensorrt
def test_a_graph_that_tensorrt_cannot_read_is_answered_in_its_words(
    rtx: None, own: Path, capfd: Capture
) -> None:
    model = onnx.load(own / "mel.onnx")
    model.graph.node[0].op_type = "Nonsense"
    onnx.save(model, own / "mel.onnx")
    said = manifest.load(own)
    part = said.part("mel")
    assert part is not None
    content = (own / "mel.onnx").read_bytes()
    file = File("mel.onnx", len(content), hashlib.sha256(content).hexdigest())
    changed = replace(part, files=(file,))
    replace(said, parts=tuple(changed if p is part else p for p in said.parts)).save(own)
    assert alm_build(own, "--backend", RTX, "--part", "mel") == 1
    sentence = capfd.readouterr().err.splitlines()[-1]
    assert sentence.startswith("error: tensorrt-rtx") and "Nonsense" in sentence


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_the_engines_answer_on_a_gpu(engines: Path, clip: Path) -> None:
    if api.gpu() is None:
        pytest.skip("there is no NVIDIA GPU")
    models = (alm.load(engines, name) for name in (RTX, "cpu"))
    ours, theirs = (m.generate(clip, "describe", max_new_tokens=6) for m in models)
    assert ours.token_ids == theirs.token_ids


@pytest.mark.tensorrt
def test_without_a_gpu_a_session_is_refused(built: Path) -> None:
    if api.gpu() is not None:
        pytest.skip("there is a GPU")
    assert tensorrt.available() == []
    with pytest.raises(MissingPackage, match="needs an NVIDIA GPU"):
        backends.open_session(manifest.load(built).named("mel"), built, BackendOptions(RTX))
