"""export.py: its words, what it leaves behind, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import alm
import export
from alm.artifacts import manifest
from alm.cli import exit_status
from alm.host import atomic
from demo.random_checkpoint import make
from tests.conftest import TINY, run_export

ROOT = Path(export.__file__).parent


def fails(capsys: pytest.CaptureFixture[str], status: int, *words: str | Path) -> str:
    """The sentence with which export.py refuses these words."""
    assert exit_status.run(export.app, [str(word) for word in words]) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    return said.err


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_wrong_part_is_answered_with_the_right_ones(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    said = fails(capsys, 2, "--model", checkpoint, "--part", "wisper", "--out", out)
    assert "unknown part 'wisper'" in said
    assert "all, mel, whisper, fbank, beats, qformer, decoder, embed" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("word", "value", "decisive"),
    [
        ("--precision", "fp12", "unknown precision 'fp12'; there is: fp32, auto, bf16, fp16, int4"),
        ("--precision", "mel=fp16+x", "unknown precision 'x'"),
        ("--precision", "ears=fp16", "unknown part 'ears'"),
        ("--target", "toaster", "unknown target 'toaster'; there is: cpu, portable"),
        ("--dialect", "klingon", "unknown dialect 'klingon'; there is: decomposed, ort, standard"),
        ("--colour", "red", "No such option"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    word: str,
    value: str,
    decisive: str,
) -> None:
    out = tmp_path / "out"
    assert decisive in fails(capsys, 2, "--model", checkpoint, "--out", out, word, value)
    assert not out.exists()


def test_a_model_that_is_not_there_or_not_known_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no" in fails(capsys, 1, "--model", tmp_path / "nowhere")
    (tmp_path / "config.yaml").write_text("a: 1")
    said = fails(capsys, 2, "--model", tmp_path / "config.yaml")
    assert "salmonn: the original's config.yaml" in said


def test_a_name_of_the_hub_is_answered_with_how_to_download_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = fails(capsys, 1, "--model", "some-org/Some.Model-7B")
    assert "hf download some-org/Some.Model-7B --local-dir Some.Model-7B" in said
    assert "--model Some.Model-7B" in said
    for path in ("some/deep/folder", "./some-org/model", "/some-org/model"):
        assert "hf download" not in fails(capsys, 1, "--model", path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no fifos there")
def test_a_fifo_is_no_model_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    for path in (tmp_path / "config.yaml", tmp_path):
        done = subprocess.run(
            [sys.executable, ROOT / "export.py", "--model", path, "--out", tmp_path / "out"],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "runtime"), str(ROOT)])},
        )
        assert done.returncode in (1, 2) and done.stdout == ""
        assert "is no model that is known here" in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_not_written_to(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    said = fails(capsys, 1, "--model", checkpoint, "--part", "mel", "--out", tmp_path)
    assert "no artifact folder" in said
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    said = fails(capsys, 1, "--model", checkpoint, "--out", tmp_path / "thesis.txt")
    assert "is a file" in said


def test_one_part_of_the_demo_is_exported_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # paths are relative to where the command is typed
    run_export("--part", "whisper", "--dynamic-batch")
    said = manifest.load(tmp_path / "artifacts")
    assert [part.name for part in said.parts] == ["whisper"]
    assert said.parts[0].inputs["log_mel"].axes[0] == "batch"
    assert said.parts[0].measured["parity"]["cases"] == 4
    with pytest.raises(alm.BadArtifacts, match="holds only whisper.*--part all"):
        alm.load(tmp_path / "artifacts")


def test_a_part_takes_the_place_of_its_elder_and_leaves_the_others(
    own: Path, checkpoint: Path
) -> None:
    before = contents(own)
    (own / "notes.txt").write_text("mine")
    run_export("--model", checkpoint, "--out", own, "--part", "mel", "--no-simplify", golden=True)
    after = contents(own)
    changed = {name for name in before if before[name] != after[name]}
    assert changed - {"golden/mel.safetensors"} == {"mel.onnx", "manifest.json"}
    assert len(manifest.load(own).golden) == 3  # the original's answers stand
    assert after["notes.txt"] == b"mine"
    mel = manifest.load(own).part("mel")
    assert mel and mel.inputs["pcm"].axes[0] == 1
    assert mel.simplified == "no: not asked for"
    assert alm.load(own, provider="cpu").provider == "cpu"


def test_parts_of_another_model_are_not_mixed_in(
    own: Path, oracle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(own)
    words = ("--model", oracle / "config.yaml", "--out", own, "--part", "mel")
    assert exit_status.run(export.app, [str(word) for word in words]) == 1
    assert "parts of another model" in capsys.readouterr().err
    assert contents(own) == before


def test_an_export_killed_half_way_leaves_the_artifacts_whole(own: Path, checkpoint: Path) -> None:
    before = contents(own)
    words = [sys.executable, str(ROOT / "export.py"), "--model", str(checkpoint), "--out", str(own)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("[3/7]"):
                break
        os.kill(process.pid, signal.SIGKILL)
    (site,) = atomic.leftovers(own)  # what was begun lies beside
    assert site.is_dir()
    assert contents(own) == before
    assert alm.load(own, provider="cpu").manifest.parts
    run_export("--model", checkpoint, "--out", own, "--part", "mel", "--dynamic-batch")
    assert not site.exists()


def test_the_table_says_part_nodes_size_precision_error_and_seconds(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_export("--model", checkpoint, "--out", tmp_path / "out", "--part", "mel", "--part", "embed")
    said = capsys.readouterr()
    title, mel, embed = said.out.strip().split("\n")
    words = "part nodes size precision worst error relative rms verdict seconds"
    assert title.split() == words.split()
    assert mel.split()[0] == "mel" and "e-" in mel and "exact" in mel.split()
    assert embed.split()[0] == "embed" and "exact" in embed.split()
    assert "[1/2] mel: tracing" in said.err


def test_half_precision_is_half_the_bytes_and_says_what_it_costs(
    checkpoint: Path, artifacts: Path, tmp_path: Path, clip: Path
) -> None:
    out = tmp_path / "half"
    run_export("--model", checkpoint, "--out", out, "--precision", "fp16,mel=fp32")
    whole, half = manifest.load(artifacts), manifest.load(out)
    for name in ("whisper", "beats", "qformer", "decoder"):
        one, other = whole.part(name), half.part(name)
        assert one and other
        assert other.precision == "fp16"
        assert other.bytes < 0.75 * one.bytes, name  # tiny parts are half structure
        parity = other.measured["parity"]
        assert 0 < parity["worst_rel"] < 3e-2
        assert parity["verdict"] != "beyond bound" and 0 < parity["rms"] <= parity["bound"]
    assert all(p.measured["parity"]["verdict"] == "exact" for p in whole.parts)
    mel = half.part("mel")
    assert mel and mel.measured["parity"]["verdict"] == "exact"
    decoder = half.part("decoder")
    assert decoder and decoder.inputs["past_key_values.0.key"].dtype == "float16"
    answer = alm.load(out, provider="cpu").generate(clip, "transcribe", num_beams=1)
    assert len(answer.token_ids) > 0


def test_auto_picks_by_role_and_the_manifest_says_what(
    checkpoint: Path, tmp_path: Path, clip: Path
) -> None:
    out = tmp_path / "auto"
    run_export("--model", checkpoint, "--out", out, "--precision", "auto,beats=fp16")
    said = {part.name: part.precision for part in manifest.load(out).parts}
    assert said == {
        "mel": "fp32",
        "fbank": "fp32",
        "whisper": "int8",
        "beats": "fp16",
        "qformer": "int8",
        "decoder": "int4head8",
        "embed": "int8",
    }
    assert len(alm.load(out, provider="cpu").generate(clip, "transcribe", num_beams=2).token_ids)


def test_a_cache_of_integers_runs_with_beams_and_batches(
    checkpoint: Path, tmp_path: Path, clip: Path
) -> None:
    out = tmp_path / "kv8"
    words = ("--precision", "decoder=kv8", "--dynamic-batch")
    run_export("--model", checkpoint, "--out", out, *words)
    decoder = manifest.load(out).part("decoder")
    assert decoder and decoder.inputs["past_key_values.0.key"].dtype == "int8"
    model = alm.load(out, provider="cpu")
    for beams in (1, 3):
        both = model.generate([clip, clip], "transcribe", num_beams=beams, max_new_tokens=9)
        alone = model.generate(clip, "transcribe", num_beams=beams, max_new_tokens=9)
        assert [each.token_ids for each in both] == [alone.token_ids] * 2


def test_a_target_refuses_what_its_engine_does_not_know(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--target", "portable", "--precision", "int4", "--out", tmp_path / "out")
    said = fails(capsys, 2, "--model", checkpoint, *words)
    assert "int4 of part mel runs in onnxruntime alone" in said


def test_nothing_of_the_exporting_machine_is_in_the_artifacts(artifacts: Path) -> None:
    for name, data in contents(artifacts).items():
        assert str(ROOT).encode() not in data, name


def test_the_manifest_says_where_everything_came_from(artifacts: Path) -> None:
    plain = json.loads((artifacts / "manifest.json").read_text("utf-8"))
    assert plain["source"]["adapter"] == "LoRA"
    assert {"torch", "onnx", "onnxruntime"} <= set(plain["tools"])
    decoder = next(part for part in plain["parts"] if part["name"] == "decoder")
    assert 0 <= decoder["measured"]["merge_error"] < 1e-3


def test_the_demo_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    first = make(folder, TINY).parent
    shutil.rmtree(folder / "llm")
    again = make(folder, TINY).parent
    assert first == again and (folder / "llm" / "config.json").is_file()
