"""alm pack --triton writes what it says, whole or not at all, and replaces nothing of others."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import onnx
import pytest

import alm
from alm.artifacts import manifest
from alm.artifacts.engine_files import Engine, Maker, fingerprint
from alm.artifacts.manifest import File
from alm.cli import alm_commands, exit_status
from alm.errors import BadArtifacts
from alm.host import containment
from alm.onnxfile import summary
from demo.clips import FOLDER

Capture = pytest.CaptureFixture[str]


def pack(*words: str | Path) -> int:
    return exit_status.run(alm_commands.app, ["pack", *map(str, words)])


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


def hidden(folder: Path) -> list[Path]:
    """What a run that fails must not leave behind."""
    return [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def mine(demo: Path, tmp_path: Path) -> Path:
    """A copy of the demo that a test may spoil."""
    return Path(shutil.copytree(demo, tmp_path / "demo"))


PART = ("beats", "fbank", "mel", "qformer", "whisper")
TREE = [
    *("alm-triton.json", "alm/1/model.py", "alm/1/model/decoder.onnx"),
    *("alm/1/model/decoder.onnx.data", "alm/1/model/embed.npy", "alm/1/model/manifest.json"),
    *("alm/1/model/tokenizer.json", "alm/config.pbtxt", "alm_audio/1/README"),
    "alm_audio/config.pbtxt",
    *(f"alm_{part}/{name}" for part in PART for name in (f"1/{part}.onnx", "config.pbtxt")),
]


def test_the_command_writes_the_tree_and_says_what_is_in_it(
    demo: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "new" / "models"
    assert pack("--triton", out, demo) == 0
    said = capsys.readouterr()
    assert names(out) == sorted(TREE) and not hidden(out.parent)
    assert "alm_audio  ensemble" in said.out and "alm  python: answers, in pieces" in said.out
    assert f"tritonserver --model-repository={out}" in said.out and said.err == ""
    graph = summary.read(demo / "whisper.onnx")
    needs = f"IR {graph.ir_version}, opset {graph.opsets['']}"
    assert f"alm_whisper  onnxruntime: encoder whisper, {needs}" in said.out
    for file in manifest.load(demo).without_golden().files():
        copies = list(out.rglob(Path(file.name).name))
        assert len(copies) == 1 and copies[0].read_bytes() == (demo / file.name).read_bytes()
        assert copies[0].stat().st_nlink == 1
    source = Path(alm.__file__).parent / "triton" / "python_model.py"
    assert (out / "alm" / "1" / "model.py").read_bytes() == source.read_bytes()


def test_it_is_replaced_where_it_is_ours_and_nothing_else_is(
    demo: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "models"
    out.mkdir()  # an empty folder is nobody's
    assert pack(demo, "--triton", out) == 0
    assert pack(demo, "--triton", out, "--name", "lamp") == 0
    assert (out / "lamp").is_dir() and not (out / "alm").exists() and not hidden(tmp_path)
    (out / "other").mkdir()
    (out / "other" / "config.pbtxt").write_text("")
    before = contents(out)
    capsys.readouterr()
    assert pack(demo, "--triton", out) == 2
    assert "holds other/config.pbtxt, which this command did not write" in capsys.readouterr().err
    assert contents(out) == before


@pytest.mark.parametrize("mark", ["[]", "no JSON", '{"format": "x"}', '{"files": 3}', "{}"])
def test_a_mark_that_is_none_makes_a_folder_nobodys(
    demo: Path, tmp_path: Path, capsys: Capture, mark: str
) -> None:
    out = tmp_path / "models"
    out.mkdir()
    (out / "alm-triton.json").write_text(mark)
    assert pack(demo, "--triton", out) == 2
    assert "which this command did not write" in capsys.readouterr().err


def test_places_that_cannot_be_are_refused(mine: Path, tmp_path: Path, capsys: Capture) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to(tmp_path / "elsewhere")
    for out, sentence in (
        (file, "is no folder"),
        (link, "is no folder"),
        (mine, "holds the folder that is packed"),
        (tmp_path, "holds the folder that is packed"),
        (file / "models", "cannot be written"),
    ):
        before = contents(tmp_path)
        assert pack(mine, "--triton", out) in (1, 2)
        assert sentence in (said := capsys.readouterr().err) and said.count("\n") == 1
        assert contents(tmp_path) == before and not hidden(tmp_path)


def test_words_that_make_no_sense_are_refused(demo: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "models"
    for words, sentence in (
        ([demo], f"alm pack {demo} --triton OUT"),
        ([demo, "--triton", out, "--name", "a/b"], "--name is letters"),
        ([demo, "--triton", out, "--name", ""], "--name is letters"),
        ([demo, "--triton", out, "--batch", "0"], "--batch is 1 to"),
        ([tmp_path / "none", "--triton", out], "there is no folder"),
    ):
        assert pack(*words) in (1, 2)
        assert sentence in capsys.readouterr().err and not out.exists()


def test_a_file_that_is_not_what_the_manifest_says_leaves_nothing(
    mine: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "models"
    assert pack(mine, "--triton", out) == 0
    before = contents(out)
    table = mine / "embed.npy"
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    assert pack(mine, "--triton", out) == 1
    assert "'embed.npy'" in capsys.readouterr().err
    assert contents(out) == before and not hidden(tmp_path)


def test_only_whole_models_are_packed(mine: Path, tmp_path: Path, capsys: Capture) -> None:
    plain = json.loads((mine / "manifest.json").read_text())
    plain["parts"] = [part for part in plain["parts"] if part["role"] != "decoder"]
    (mine / "manifest.json").write_text(json.dumps(plain))
    assert pack(mine, "--triton", tmp_path / "models") == 1
    assert "not a whole model" in capsys.readouterr().err


def rewritten(folder: Path, part: str, graph: str, data: str) -> None:
    """Move a part's graph to the name `graph`, its weights to `data` beside it."""
    plain = json.loads((folder / "manifest.json").read_text())
    (entry,) = (one for one in plain["parts"] if one["name"] == part)
    model = onnx.load(folder / entry["files"][0]["name"])
    path = folder / graph
    path.parent.mkdir(exist_ok=True)
    (path.parent / data).parent.mkdir(exist_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=data, size_threshold=0)
    entry["files"] = [listed(folder, path), listed(folder, path.parent / data)]
    (folder / "manifest.json").write_text(json.dumps(plain))


def listed(folder: Path, path: Path) -> dict[str, object]:
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return {
        "name": path.relative_to(folder).as_posix(),
        "bytes": len(content),
        "sha256": sha256,
    }


def test_external_data_keeps_the_name_that_the_graph_has_for_it(mine: Path, tmp_path: Path) -> None:
    pytest.importorskip("tritonclient")
    from tests.runtime.triton.stand_in import Server

    rewritten(mine, "whisper", "encoders/whisper.onnx", "weights/all.data")
    out = tmp_path / "models"
    assert pack(mine, "--triton", out) == 0
    assert [n for n in names(out) if n.startswith("alm_whisper")] == [
        "alm_whisper/1/weights/all.data",
        "alm_whisper/1/whisper.onnx",
        "alm_whisper/config.pbtxt",
    ]
    Server(out)  # opens it


def test_weights_of_another_place_are_refused(mine: Path, tmp_path: Path, capsys: Capture) -> None:
    rewritten(mine, "whisper", "whisper.onnx", "all.data")
    plain = json.loads((mine / "manifest.json").read_text())
    (entry,) = (one for one in plain["parts"] if one["name"] == "whisper")
    entry["files"] = entry["files"][:1]
    (mine / "manifest.json").write_text(json.dumps(plain))
    assert pack(mine, "--triton", tmp_path / "models") == 1
    assert (
        "keeps weights in 'all.data', which the manifest does not list" in capsys.readouterr().err
    )


def test_a_part_whose_name_would_leave_the_repository_is_refused(
    mine: Path, tmp_path: Path, capsys: Capture
) -> None:
    for name in ("../../mel", "audio", "a b"):
        plain = json.loads((mine / "manifest.json").read_text())
        plain["parts"][0]["name"] = name
        (mine / "manifest.json").write_text(json.dumps(plain))
        assert pack(mine, "--triton", tmp_path / "models") == 1
        assert "cannot be a model's name" in capsys.readouterr().err
        assert not (tmp_path / "models").exists()


def test_engines_stay_behind_and_that_is_said(mine: Path, tmp_path: Path, capsys: Capture) -> None:
    (mine / "mel.tensorrt.engine").write_bytes(b"engine")
    plain = manifest.load(mine)
    maker = Maker("tensorrt", "10.3", "Linux x86_64", "H200", "9.0")
    file = File("mel.tensorrt.engine", 6, hashlib.sha256(b"engine").hexdigest())
    engine = Engine("mel", file, fingerprint(plain.named("mel").files), maker, ())
    plain.with_engines([engine]).save(mine)
    out = tmp_path / "models"
    assert pack(mine, "--triton", out) == 0
    assert "engines of mel stay behind" in capsys.readouterr().err
    assert not [name for name in names(out) if name.endswith(".engine")]
    assert not manifest.load(out / "alm" / "1" / "model").engines


# --- hard links


def test_links_share_their_files_which_alm_takes_when_it_is_told(
    mine: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "models"
    assert pack(mine, "--triton", out, "--link") == 0
    assert "ALM_HARD_LINKS=1" in capsys.readouterr().err
    for file in manifest.load(mine).without_golden().files():
        (copy,) = out.rglob(Path(file.name).name)
        assert os.path.samefile(copy, mine / file.name)
    with pytest.raises(BadArtifacts, match="2 hard links .* or set ALM_HARD_LINKS=1"):
        alm.load(mine, "cpu", 1)
    monkeypatch.setenv(containment.HARD_LINKS, "1")
    assert alm.load(mine, "cpu", 1).generate(FOLDER / "lamp.wav", "transcribe").text
    assert pack(mine, "--triton", out) == 0  # copies again
    assert not os.path.samefile(out / "alm_mel" / "1" / "mel.onnx", mine / "mel.onnx")


def test_a_linked_graph_of_a_symbolic_link_is_still_refused(
    mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(containment.HARD_LINKS, "1")
    (mine / "mel.onnx").rename(mine / "other.onnx")
    (mine / "mel.onnx").symlink_to(mine / "other.onnx")
    with pytest.raises(BadArtifacts, match="symbolic link"):
        alm.load(mine, "cpu", 1)
