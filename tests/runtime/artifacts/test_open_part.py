"""Artifacts that are not what the manifest says are refused, in one sentence, before they run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import alm
from alm import backends
from alm.artifacts import manifest
from alm.artifacts.manifest import File, Manifest, Part
from alm.backends import open_session
from alm.errors import AlmError, BadArtifacts, MissingFile, UnknownName
from alm.ports import Port
from alm.session import BackendOptions, Feed, Kept, RowByRow, Session

CPU = BackendOptions()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes are remembered beside the test."""
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "cache"))


def said(folder: Path) -> Manifest:
    return manifest.load(folder)


def part(folder: Path, name: str) -> Part:
    found = said(folder).part(name)
    assert found is not None
    return found


def admit(folder: Path, name: str, *more: str) -> Part:
    """The manifest says of this part what its files are now, and lists `more` as its own."""
    old = part(folder, name)
    names = [file.name for file in old.files] + list(more)
    files = tuple(
        File(n, len(content), hashlib.sha256(content).hexdigest())
        for n in names
        for content in [(folder / n).read_bytes()]
    )
    new = dataclasses.replace(old, files=files)
    parts = tuple(new if p.name == name else p for p in said(folder).parts)
    dataclasses.replace(said(folder), parts=parts).save(folder)
    return new


def refused(folder: Path, of: Part, kind: type[AlmError] = BadArtifacts) -> str:
    with pytest.raises(kind) as caught:
        open_session(of, folder, CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(of: Part, side: str, name: str, port: Port | None) -> Part:
    """The part with one port another, or gone."""
    ports = {n: p for n, p in getattr(of, side).items() if n != name}
    return dataclasses.replace(of, **{side: ports | ({name: port} if port else {})})


def test_every_part_of_the_artifacts_opens_and_has_the_ports_that_the_manifest_says(
    artifacts: Path,
) -> None:
    for each in said(artifacts).parts:
        if each.role != "table":
            session = open_session(each, artifacts, CPU)
            assert list(session.inputs) == list(each.inputs)
            assert list(session.outputs) == list(each.outputs)


def test_a_file_that_was_changed_is_refused_with_both_hashes(own: Path) -> None:
    for name in ("mel", "decoder"):
        file = part(own, name).files[-1]
        content = bytearray((own / file.name).read_bytes())
        content[len(content) // 2] ^= 1
        (own / file.name).write_bytes(content)
        sentence = refused(own, part(own, name))
        assert file.sha256 in sentence and hashlib.sha256(content).hexdigest() in sentence


def test_a_file_of_another_size_or_gone_is_refused(own: Path) -> None:
    data = part(own, "decoder").files[1]
    with (own / data.name).open("ab") as file:
        file.write(b"x")
    sentence = refused(own, part(own, "decoder"))
    assert f"has {data.bytes + 1} bytes and the manifest says {data.bytes}" in sentence
    (own / data.name).unlink()
    assert repr(data.name) in refused(own, part(own, "decoder"), MissingFile)


@pytest.mark.parametrize("name", ["../mel.onnx", "/etc/hostname", "a/../../b", "mel.onnx/x", ""])
def test_a_name_that_leads_outside_is_refused(own: Path, name: str) -> None:
    file = dataclasses.replace(part(own, "mel").files[0], name=name)
    assert "refused" in refused(own, dataclasses.replace(part(own, "mel"), files=(file,)))


def test_links_in_the_place_of_files_are_refused(own: Path) -> None:
    for link in (Path.symlink_to, Path.hardlink_to):
        file = own / "mel.onnx"
        aside = own.parent / f"aside-{link.__name__}"
        file.rename(aside)
        link(file, aside)
        assert "link" in refused(own, part(own, "mel"))
        file.unlink()
        aside.rename(file)


def relocated(own: Path, location: str) -> Part:
    """The decoder, whose graph says that its weights lie at `location`; hash and size agree."""
    path = own / "decoder.onnx"
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    return admit(own, "decoder")


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "mel.onnx"])
def test_weights_outside_or_in_a_file_of_another_part_are_refused(own: Path, location: str) -> None:
    (own.parent / "secret").write_bytes(bytes(400_000))
    sentence = refused(own, relocated(own, location))
    assert "refused" in sentence or "does not list for this part" in sentence


def test_weights_in_a_listed_file_of_another_name_are_fine(own: Path) -> None:
    (own / "decoder.onnx.data").rename(own / "weights.bin")
    (own / "decoder.onnx.data").touch()
    relocated(own, "weights.bin")
    assert open_session(admit(own, "decoder", "weights.bin"), own, CPU).inputs


def test_weights_beyond_the_end_of_their_file_are_refused(own: Path) -> None:
    data = own / "decoder.onnx.data"
    data.write_bytes(data.read_bytes()[:-100_000])
    assert "wants bytes" in refused(own, admit(own, "decoder"))


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.999])
def test_a_truncated_graph_is_refused_even_when_its_hash_agrees(own: Path, keep: float) -> None:
    path = own / "qformer.onnx"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    assert "qformer.onnx" in refused(own, admit(own, "qformer"))


@pytest.mark.parametrize("content", [b"not a graph at all", b"\xff" * 999, b"{}", bytes(64)])
def test_what_is_no_graph_is_refused_even_when_its_hash_agrees(own: Path, content: bytes) -> None:
    (own / "mel.onnx").write_bytes(content)
    assert "mel.onnx" in refused(own, admit(own, "mel"))


def test_the_engines_own_complaint_becomes_one_sentence(own: Path) -> None:
    path = own / "mel.onnx"
    model = onnx.load(path)
    model.graph.node[0].op_type = "Nonsense"
    path.write_bytes(model.SerializeToString())
    sentence = refused(own, admit(own, "mel"))
    assert sentence.startswith(f"ONNX Runtime cannot load {path}: ") and "Nonsense" in sentence


WRONG = {
    "name": ("inputs", "log_mel", None, "log_mel is not in the manifest"),
    "more": ("inputs", "x", Port("float32", (1,)), "x is not in the graph"),
    "dtype": ("inputs", "log_mel", Port("float16", ("batch", 80, 400)), "is float32"),
    "rank": ("inputs", "log_mel", Port("float32", ("batch", 80)), "[batch, 80]"),
    "axis": ("inputs", "log_mel", Port("float32", ("batch", 128, 400)), "[batch, 128, 400]"),
    "fixed": ("inputs", "log_mel", Port("float32", (1, 80, 400)), "not float32 [1, 80, 400]"),
    "dynamic": ("inputs", "log_mel", Port("float32", ("batch", "mels", 400)), "[batch, mels, 400]"),
    "output": ("outputs", "speech", Port("float32", ("batch", 200, 65)), "[batch, 200, 65]"),
    "no output": ("outputs", "speech", None, "speech is not in the manifest"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_ports_that_differ_from_the_graphs_are_named(artifacts: Path, wrong: str) -> None:
    side, name, port, words = WRONG[wrong]
    sentence = refused(artifacts, changed(part(artifacts, "whisper"), side, name, port))
    assert f"has other {side} than the manifest" in sentence
    assert words in sentence.replace("'", "")


def test_an_output_may_be_known_better_by_the_graph(artifacts: Path) -> None:
    port = Port("float32", ("batch", "tokens", 64))
    assert open_session(
        changed(part(artifacts, "whisper"), "outputs", "speech", port), artifacts, CPU
    )


class One(Session):
    """A graph whose batch is 1."""

    inputs = {"x": Port("float32", (1, "n"))}
    outputs = {"y": Port("float32", (1,))}

    def run(
        self, feeds: Mapping[str, Feed], keep: Mapping[str, Kept | None] | None = None
    ) -> dict[str, Any]:
        (feed,) = feeds.values()
        assert isinstance(feed, np.ndarray) and len(feed) == 1
        return {"y": feed.sum(axis=1)}

    def hold(self, array: np.ndarray) -> Kept:
        raise NotImplementedError

    def fetch(self, kept: Kept) -> np.ndarray:
        raise NotImplementedError


def test_a_graph_of_batch_one_is_opened_to_be_run_row_by_row(artifacts: Path) -> None:
    of = dataclasses.replace(part(artifacts, "mel"), inputs=One.inputs, outputs=One.outputs)
    session = backends.by_rows(One(), of)
    assert isinstance(session, RowByRow)
    assert session.run({"x": np.array([[1, 2], [3, 4]])})["y"].tolist() == [3, 7]


def test_loading_says_which_file_is_not_what_it_should_be(own: Path) -> None:
    for name in ("embed.npy", "tokenizer.json"):
        whole = (own / name).read_bytes()
        (own / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(BadArtifacts, match=f"{name}.*sha256"):
            alm.load(own)
        (own / name).write_bytes(whole)
    alm.load(own)


def test_an_unknown_provider_is_answered_with_the_right_ones(artifacts: Path) -> None:
    assert backends.choose("cpu") == "cpu" and backends.choose("auto") in backends.known()
    with pytest.raises(UnknownName, match="unknown provider 'npu'; there is: auto, cuda, cpu"):
        alm.load(artifacts, provider="npu")
