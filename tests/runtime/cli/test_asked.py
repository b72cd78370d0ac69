"""alm-run and several clips: one answer for each, or one about all, and never a guess."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import alm
from alm.artifacts import manifest
from alm.cli import alm_commands, exit_status
from tests.reference import moving
from tests.runtime.cli.commands import (
    ALM_RUN,
    RUNTIME,
    Capture,
    alm_run,
    answer,
    process,
    refused,
    sound,
)

ALM = "import sys; from alm.cli.alm_commands import main; sys.exit(main())"
SHORT = ("--greedy", "--num-beams", "1", "--max-new-tokens", "6")


@pytest.fixture(autouse=True)
def checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes run this checkout's `alm`, wherever another is installed."""
    monkeypatch.setenv("PYTHONPATH", str(RUNTIME))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three of noise, of half a second and more."""
    folder = tmp_path_factory.mktemp("clips")
    return [
        sound(folder / f"{name}.wav", moving(8000 * n, 16_000, 7 + n))
        for n, name in enumerate(("a", "b", "c"), 1)
    ]


def alone(artifacts: Path, clip: Path, prompt: str) -> str:
    model = alm.load(artifacts)
    return model.generate(str(clip), prompt, do_sample=False, num_beams=1, max_new_tokens=6).text


def lines(text: str) -> Iterator[dict[str, Any]]:
    return map(json.loads, text.splitlines())


def test_a_task_is_done_for_each_of_several_clips_and_each_line_is_named(
    artifacts: Path, clips: list[Path], capfd: Capture
) -> None:
    wanted = [alone(artifacts, clip, "describe") for clip in clips]
    assert alm_run("--engine", artifacts, *clips, "describe ", *SHORT) == 0
    said = capfd.readouterr()
    named = zip(clips, wanted, strict=True)
    assert said.out == "".join(f"{clip}: {text}\n".replace("\n\n", "\n") for clip, text in named)
    assert all(str(clip) in said.err for clip in clips)  # each was cut, and its note says whose
    assert alm_run("--engine", artifacts, *clips, "describe", *SHORT, "--json") == 0
    found = list(lines(capfd.readouterr().out))
    assert [each["file"] for each in found] == list(map(str, clips))
    assert [each["text"] for each in found] == wanted


def test_a_file_that_is_no_sound_costs_only_its_own_answer(
    artifacts: Path, clips: list[Path], tmp_path: Path, capfd: Capture
) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    words = (clips[0], tmp_path / "bad.wav", tmp_path / "none.wav", clips[1])
    assert alm_run("--engine", artifacts, *words, "describe", *SHORT, "--json") == 1
    said = capfd.readouterr()
    found = list(lines(said.out))
    assert ["error" in each for each in found] == [False, True, True, False]
    assert [each["file"] for each in found] == list(map(str, words))
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert "bad.wav is not audio" in errors[0] and "there is no file" in errors[1]
    assert alm_run("--engine", artifacts, *words, "describe", *SHORT) == 1
    assert len([line for line in capfd.readouterr().out.splitlines() if line]) >= 2
    assert alm_run("--engine", artifacts, "no.wav", "none.wav", "describe") == 1
    assert capfd.readouterr().err.count("error: there is no file") == 2


def test_a_prompt_that_is_no_task_must_say_whether_it_is_about_each_clip_or_all(
    artifacts: Path, clips: list[Path], capfd: Capture
) -> None:
    words = ("--engine", artifacts, *clips[:2], "What is it?", *SHORT)
    status, sentence = refused(capfd, *words)
    assert status == 2 and all(way in sentence for way in ("--each", "--together", "<audio>"))
    together = answer(capfd, *words, "--together")
    assert together["files"] == list(map(str, clips[:2])) and together["windows"] == 1
    marked = answer(capfd, "--engine", artifacts, *clips[:2], "<audio> or <audio>?", *SHORT)
    assert marked["audio_seconds"] == together["audio_seconds"] == 1.5
    assert alm_run(*words, "--each", "--json") == 0
    each = list(lines(capfd.readouterr().out))
    texts = [alone(artifacts, clip, "What is it?") for clip in clips[:2]]
    assert [one["text"] for one in each] == texts
    task = answer(capfd, "--engine", artifacts, *clips[:2], "describe", "--together", *SHORT)
    assert len(task["files"]) == 2


def test_a_mistyped_task_is_refused_before_the_model_is_loaded_and_can_be_insisted_on(
    artifacts: Path, clips: list[Path], capfd: Capture
) -> None:
    status, sentence = refused(capfd, "--engine", artifacts, clips[0], "descibe")
    assert status == 2 and "did you mean describe?" in sentence
    answer(capfd, "--engine", artifacts, clips[0], "descibe", "--verbatim", *SHORT)
    plain = answer(capfd, "--engine", artifacts, clips[0], "describe", *SHORT)
    literal = answer(capfd, "--engine", artifacts, clips[0], "describe", "--verbatim", *SHORT)
    assert plain["prompt_tokens"] != literal["prompt_tokens"]


def test_a_task_is_asked_for_in_a_language(
    artifacts: Path, clips: list[Path], capfd: Capture
) -> None:
    tasks = manifest.load(artifacts).facts.prompt.tasks
    words = ("--engine", artifacts, clips[0], "translate")
    status, sentence = refused(capfd, *words)
    assert status == 2 and "did you mean translate_de, translate_ja or translate_zh?" in sentence
    by_option = answer(capfd, *words, "--language", "zh", *SHORT)
    by_text = answer(capfd, "--engine", artifacts, clips[0], tasks["translate_zh"], *SHORT)
    assert by_option["token_ids"] == by_text["token_ids"]
    status, sentence = refused(capfd, *words, "--language", "xx")
    assert status == 2 and "there is: de, ja, zh" in sentence


@pytest.mark.parametrize("word", ["--each", "--together", "--language=de"])
def test_a_conversation_takes_no_option_of_several_answers(
    artifacts: Path, capfd: Capture, word: str
) -> None:
    status, sentence = refused(capfd, "--engine", artifacts, "--chat", word)
    assert status == 2 and "--chat is one conversation" in sentence


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_bytes_that_are_no_utf8_are_one_sentence_in_a_prompt_and_fine_in_a_name(
    artifacts: Path, clips: list[Path], tmp_path: Path
) -> None:
    odd = os.path.join(os.fsencode(tmp_path), b"x\xff.wav")
    Path(os.fsdecode(odd)).write_bytes(clips[0].read_bytes())
    for words, status, sentence in (
        ([bytes(clips[0]), b"hi\xff"], 1, b"error: the prompt holds bytes that are not UTF-8"),
        ([odd, bytes(clips[0]), b"describe", *map(str.encode, SHORT)], 0, b""),
    ):
        run = process(ALM_RUN, "--engine", artifacts, *map(os.fsdecode, words))
        out, err = run.communicate(timeout=120)
        assert (run.returncode, b"unexpected" in err) == (status, False)
        assert err.startswith(sentence or b"note: ")
        assert bool(out) == (status == 0)
        out.decode("utf-8")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--num-beams", "10000"), "num_beams is at most 256, not 10000"),
        (("--threads", "100000"), "threads are 0 (the backend's choice) to "),
        (("--max-new-tokens", str(10**18)), "max_new_tokens is at most 2147483647"),
        (("--max-audio-seconds", "nan"), "--max-audio-seconds (max_audio_seconds) is above 0"),
        (("--max-audio-seconds", "inf"), "at most 86400, a day, not inf"),
        (("--max-audio-seconds", "1e30"), "at most 86400, a day, not 1e+30"),
    ],
)
def test_what_would_take_all_memory_or_hours_is_refused_before_the_model_is_loaded(
    artifacts: Path, clips: list[Path], capfd: Capture, words: tuple[str, ...], sentence: str
) -> None:
    status, said = refused(capfd, "--engine", artifacts, clips[0], "describe", *words)
    assert status == 2 and sentence in said


# --- the shell


@pytest.mark.parametrize(
    ("code", "variable", "typed", "wanted"),
    [
        (ALM_RUN, "_ALM_RUN_COMPLETE", "alm-run --max-n", "--max-new-tokens"),
        (
            "import sys; from alm.cli.alm_commands import main; sys.exit(main())",
            "_ALM_COMPLETE",
            "alm be",
            "bench",
        ),
    ],
)
def test_a_shell_completes_options_and_commands(
    monkeypatch: pytest.MonkeyPatch, code: str, variable: str, typed: str, wanted: str
) -> None:
    monkeypatch.setenv(variable, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", "1")
    run = process(code)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out.decode().split(), err) == (0, [wanted], b"")


def test_completion_can_be_shown_and_names_the_command(capfd: Capture) -> None:
    for run in (lambda: alm_run("--help"), lambda: exit_status.run(alm_commands.app, ["--help"])):
        assert run() == 0
        said = capfd.readouterr().out
        assert "--install-completion" in said and "--show-completion" in said


@pytest.mark.parametrize("name", ["inspect", "lint", "build", "bench", "plan"])
def test_every_command_knows_h(name: str, capfd: Capture) -> None:
    assert exit_status.run(alm_commands.app, [name, "-h"]) == 0
    assert f"{name} [OPTIONS]" in capfd.readouterr().out


def test_json_is_a_flag_of_every_command(capfd: Capture) -> None:
    for name in ("inspect", "lint", "bench", "plan"):
        assert exit_status.run(alm_commands.app, [name, "-h"]) == 0
        (line,) = [
            x for x in capfd.readouterr().out.splitlines() if x.lstrip().startswith("--json")
        ]
        assert line.split()[1] == "Print", line  # no value
