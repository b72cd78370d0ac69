"""alm batch in one process: rows as alm-run gives them, bad files, odd names, options, Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alm
from tests.runtime.batch.many import (
    SHORT,
    batch,
    begun,
    lines,
    names,
    noises,
    read,
    rows_of,
    wait,
)
from tests.runtime.cli.commands import Capture, alm_run, sound


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five of noise."""
    return noises(tmp_path_factory.mktemp("clips"), 5)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where rows go."""
    return tmp_path / "rows.jsonl"


def test_a_row_is_what_alm_run_says_about_the_file(
    artifacts: Path, clips: list[Path], out: Path, capfd: Capture
) -> None:
    assert batch(artifacts, *clips, "--out", out, *SHORT) == 0
    said = capfd.readouterr()
    assert said.out == "" and f"5 files have their row in {out}; " in said.err
    found = read(out)
    assert [row["file"] for row in found] == names(clips)
    assert alm_run("--engine", artifacts, *clips, "transcribe", *SHORT, "--json") == 0
    for line, row in zip(capfd.readouterr().out.splitlines(), found, strict=True):
        wanted = json.loads(line)
        assert row.keys() - wanted.keys() == {"source", "made_with"}
        assert {n: row[n] for n in wanted if n not in ("timings_ms", "prefix_tokens")} == {
            n: wanted[n] for n in wanted if n not in ("timings_ms", "prefix_tokens")
        }
    options = {"do_sample": False, "max_new_tokens": 2, "num_beams": 1}
    assert found[0]["made_with"]["options"] == options
    assert found[0]["made_with"]["prompt"] == "transcribe"


def test_a_second_run_does_what_the_first_has_not(
    artifacts: Path, clips: list[Path], out: Path, capfd: Capture
) -> None:
    words = ("--out", out, *SHORT)
    assert batch(artifacts, *clips[:2], *words) == 0
    before = out.read_bytes()
    assert batch(artifacts, clips[0].parent, *words) == 0
    assert "2 of 5 files have their row, 3 to do" in capfd.readouterr().err
    assert out.read_bytes().startswith(before) and len(rows_of(out)) == 5
    whole = out.read_bytes()
    assert batch(artifacts, clips[0].parent, *words, "--max-audio-seconds", "10") == 0
    assert out.read_bytes() == whole
    assert batch(artifacts, clips[0], *words, "--fresh") == 0
    assert list(rows_of(out)) == names(clips[:1])


def test_files_that_are_no_audio_cost_only_their_own_answers(
    artifacts: Path, clips: list[Path], out: Path, tmp_path: Path, capfd: Capture
) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "x.wav").mkdir()
    (tmp_path / "cut.wav").write_bytes(clips[0].read_bytes()[:3000])
    os.mkfifo(tmp_path / "pipe.wav")
    bad = [tmp_path / name for name in ("text.wav", "empty.wav", "x.wav", "cut.wav", "pipe.wav")]
    bad += [tmp_path / "none.wav", tmp_path / "loop.wav"]
    bad[-1].symlink_to(bad[-1])
    words = (artifacts, *bad[:3], clips[0], *bad[3:], clips[1], "--out", out, *SHORT)
    assert batch(*words) == 1
    said = capfd.readouterr().err
    assert said.count("error: ") == 7 and "9 files have their row" in said
    assert "7 of them an error (--retry-failed tries again)" in said
    found = {row["file"]: row for row in read(out)}
    assert [name for name in found if "text" in found[name]] == names(clips[:2])
    whys = [found[str(path)]["error"] for path in bad]
    for path, why, part in zip(
        bad,
        whys,
        (
            *("is not audio", "is empty", "is a folder", "is cut", "not a regular"),
            *("there is no file", "cannot be read"),
        ),
        strict=True,
    ):
        assert part in why and str(path) in why
    assert batch(*words) == 1  # nothing is done anew, and the errors are still there
    assert len(read(out)) == 9
    shutil.copy(clips[2], bad[0])
    assert batch(*words) == 1
    assert len(rows_of(out)) == 9 and "text" in rows_of(out)[str(bad[0])]


def test_a_file_that_may_not_be_read_has_a_row_that_says_so(
    artifacts: Path,
    clips: list[Path],
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(clips[0], tmp_path / "mine.wav")
    opened = Path.open  # root may read every file, so the system's answer is stood in for

    def refused(path: Path, *words: Any, **more: Any) -> Any:
        if path.name == "mine.wav":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *words, **more)

    monkeypatch.setattr(Path, "open", refused)
    assert batch(artifacts, tmp_path / "mine.wav", "--out", out, *SHORT) == 1
    assert "Permission denied" in read(out)[0]["error"]


@pytest.mark.parametrize("rows", ["2", "4", "8"])
def test_rows_of_a_batch_are_those_of_files_alone_and_a_bad_one_spoils_none(
    rows: str, artifacts: Path, clips: list[Path], out: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "empty.wav").touch()
    words = (artifacts, clips[0], tmp_path / "text.wav", *clips[1:], tmp_path / "empty.wav")
    assert batch(*words, "--out", out, *SHORT) == 1
    assert batch(*words, "--out", tmp_path / "several.jsonl", *SHORT, "--rows", rows) == 1
    assert rows_of(tmp_path / "several.jsonl") == rows_of(out)


def test_a_clip_that_is_refused_by_the_model_alone_costs_its_batch_nothing(
    artifacts: Path, clips: list[Path], out: Path
) -> None:
    """It can be read; the limit is the user's."""
    words = (artifacts, *clips, "--out", out, *SHORT, "--rows", "5", "--max-audio-seconds", "0.2")
    assert batch(*words) == 1
    long = {row["file"] for row in read(out) if "lasts" in row.get("error", "")}
    assert 0 < len(long) < 5
    assert {row["file"] for row in read(out) if "text" in row} == {*names(clips)} - long
    assert batch(*words[:-1], "9", "--retry-failed") == 0
    assert len(rows_of(out)) == 5


def test_odd_names_have_their_rows_each(
    artifacts: Path, clips: list[Path], out: Path, tmp_path: Path
) -> None:
    folder = os.fsencode(tmp_path / "odd")
    os.mkdir(folder)
    odd = (
        b"new\nline.wav",
        b"\xff.wav",
        b"\xfe.wav",
        "\u4f60\u202e \u00fc.wav".encode(),
        b"-x.wav",
        b"'.wav",
    )
    for name in odd:
        shutil.copy(clips[0], os.fsdecode(os.path.join(folder, name)))
    for _ in range(2):
        assert batch(artifacts, tmp_path / "odd", "--out", out, *SHORT) == 0
        assert len(read(out)) == len(odd) == out.read_text("utf-8").count("\n")
    paths = [
        bytes.fromhex(row["source"]["path_hex"])
        if "path_hex" in row["source"]
        else row["source"]["path"].encode()
        for row in read(out)
    ]
    assert sorted(paths) == sorted(os.path.join(os.path.realpath(folder), name) for name in odd)


def test_rows_of_another_prompt_model_or_option_are_not_mixed(
    artifacts: Path, own: Path, clips: list[Path], out: Path, capfd: Capture
) -> None:
    words = (clips[0], "--out", out, *SHORT)
    assert batch(artifacts, *words) == 0
    assert batch(own, *words) == 0  # a copy of the folder is the same model
    manifest = json.loads((own / "manifest.json").read_text())
    manifest["prompt"]["tasks"]["transcribe"] = "Say it again."
    (own / "manifest.json").write_text(json.dumps(manifest))
    capfd.readouterr()
    for other, said in (
        ((artifacts, *words, "--prompt", "describe"), "prompt 'transcribe', and now it is 'desc"),
        ((artifacts, *words, "--max-new-tokens", "3"), "max_new_tokens 2, and now it is 3"),
        ((artifacts, *words, "--repetition-penalty", "2"), "repetition_penalty none, and now it"),
        ((own, *words), "model '"),
    ):
        assert batch(*other) == 2
        sentence = capfd.readouterr().err
        assert said in sentence and "--fresh" in sentence and sentence.count("\n") == 1
    assert len(read(out)) == 1
    assert batch(own, *words, "--fresh") == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--prompt", "transcrib"), "did you mean transcribe"),
        (("--prompt", "<audio> or <audio>?", "--each"), "No such option"),
        (("--prompt", "<audio> or <audio>?"), "<audio>"),
        (("--prompt", " "), "prompt"),
        (("--language", "xx"), "language"),
        (("--num-beams", "1000"), "num_beams"),
        (("--option", "no_such=1"), "no_such"),
        (("--option", "x"), "wanted --option NAME=VALUE"),
        (("--max-audio-seconds", "0"), "--max-audio-seconds"),
        (("--rows", "9"), "--rows is 1 to 8"),
        (("--rows", "2", "--draft", "ngrams"), "--draft follows one clip"),
        (("--workers", "1000"), "--workers is at most"),
        (("--threads", "9999"), "threads"),
        (("--provider", "tpu"), "tpu"),
        (("--adapter", "none"), "adapter"),
        (("--align", "nowhere"), "nowhere"),
        (("--ray", "clip.wav"), "HOST:PORT"),
        (("--merge-audio", "0"), "merge"),
        (("--regex", "("), "regex"),
        (("--stop", ""), "stop is up to"),
        (("--joins", "loud"), "joins"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_there_is_a_file_of_results(
    words: tuple[str, ...], said: str, artifacts: Path, clips: list[Path], out: Path, capfd: Capture
) -> None:
    assert batch(artifacts, clips[0], "--out", out, *words) in (1, 2)
    sentence = capfd.readouterr().err
    assert said in sentence and sentence.startswith("error: ") and sentence.count("\n") == 1
    assert not out.exists() and list(out.parent.iterdir()) == []


def test_two_runs_into_one_file_are_refused_and_ctrl_c_ends_in_whole_rows(
    artifacts: Path, clips: list[Path], out: Path, tmp_path: Path, capfd: Capture
) -> None:
    many = noises(tmp_path / "many", 60)
    words = (artifacts, many[0].parent, "--out", out, *SHORT)
    with begun(*words) as run:
        wait(lambda: lines(out) > 2)
        run.send_signal(signal.SIGSTOP)
        before = out.read_bytes()
        assert batch(artifacts, clips[0], "--out", out, *SHORT) == 2
        assert f"is being written by another run (process {run.pid})" in capfd.readouterr().err
        assert out.read_bytes() == before
        run.send_signal(signal.SIGINT)
        run.send_signal(signal.SIGCONT)
        said = run.communicate(timeout=30)[1]
        assert run.returncode == 130
    done = lines(out)
    assert 2 < done < 60 and out.read_bytes().endswith(b"\n")
    wanted = f"interrupted: {done} of 60 files have their row in {out}; the same command goes on\n"
    assert said.endswith(wanted) and "Traceback" not in said
    assert batch(*words) == 0 and len(rows_of(out)) == 60


def test_silence_is_gated_as_by_alm_run_and_rows_with_and_without_it_are_not_mixed(
    artifacts: Path, out: Path, tmp_path: Path, capfd: Capture
) -> None:
    quiet = sound(tmp_path / "quiet.wav", np.zeros(16000))
    assert batch(artifacts, quiet, "--out", out, *SHORT) == 0
    assert [read(out)[0][name] for name in ("text", "stop_reason")] == ["", "no_speech"]
    assert "gate" not in read(out)[0]["made_with"]["options"]
    for word, of in (("--no-gate", False), ("--gate", True)):
        assert batch(artifacts, quiet, "--out", out, *SHORT, word) == 2
        assert f"gate none, and now it is {of}" in capfd.readouterr().err
    assert batch(artifacts, quiet, "--out", out, *SHORT, "--no-gate", "--fresh") == 0
    assert read(out)[0]["stop_reason"] != "no_speech"


def test_answers_follow_a_form_an_end_and_a_way_to_cut(
    artifacts: Path, clips: list[Path], out: Path
) -> None:
    words = (artifacts, clips[0], "--out", out, "--fresh", "--num-beams", "1", "--greedy")
    assert batch(*words, "--prompt", "describe", "--regex", "(yes|no)", "--joins", "quiet") == 0
    row = read(out)[0]
    assert row["text"] in ("yes", "no")
    assert {"regex": "(yes|no)", "joins": "quiet"}.items() <= row["made_with"]["options"].items()
    assert batch(*words, "--prompt", "describe", "--max-new-tokens", "9") == 0
    whole = read(out)[0]["text"]
    stop = whole.strip()[2:4]
    assert batch(*words, "--prompt", "describe", "--max-new-tokens", "9", "--stop", stop) == 0
    assert read(out)[0]["text"] == whole[: whole.index(stop)].strip()


def test_the_rows_are_the_models_own_answers_from_python(
    artifacts: Path, clips: list[Path], out: Path
) -> None:
    assert batch(artifacts, *clips, "--out", out, "--prompt", "What is it?", *SHORT) == 0
    model = alm.load(artifacts)
    for clip, row in zip(clips, read(out), strict=True):
        options = {"do_sample": False, "num_beams": 1, "max_new_tokens": 2}
        assert row["token_ids"] == model.generate(clip, "What is it?", **options).token_ids
