"""The commands: text alone on stdout, one sentence on stderr, and an exit status that is true."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

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

SHORT = ("--greedy", "--max-new-tokens", "6")
KEYS = {
    "file",
    "stop_reasons",
    "language",
    "segments",
    "text",
    "token_ids",
    "audio_seconds",
    "audio_tokens",
    "prompt_tokens",
    "stop_reason",
    "provider",
    "windows",
    "timings_ms",
    "notes",
    "audio_cached",
    "cached_tokens",
    "prefix_tokens",
    "audio_merged",
    "merge_cosine",
    "drafted_tokens",
    "accepted_tokens",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes are remembered beside the test."""
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(RUNTIME))


@pytest.fixture
def long_clip(artifacts: Path, tmp_path: Path) -> Path:
    """Half longer than the model's window."""
    samples = manifest.load(artifacts).facts.audio.window_samples * 3 // 2
    return sound(tmp_path / "long.wav", moving(samples, 16_000))


# --- text


def test_the_text_comes_alone_to_stdout_and_is_that_of_json(
    artifacts: Path, clip: Path, capfd: Capture
) -> None:
    said = answer(capfd, "--engine", artifacts, clip, "describe", *SHORT)
    assert alm_run("--engine", artifacts, clip, "describe", *SHORT) == 0
    shown = capfd.readouterr()
    assert shown.out == said["text"] + "\n" and said["text"]
    assert shown.err.splitlines() == [f"note: {note}" for note in said["notes"]]


@pytest.mark.parametrize("prompt", ["transcribe", "describe"])
@pytest.mark.parametrize("decoding", [("--greedy",), ("--num-beams", "3")], ids=["greedy", "beams"])
def test_a_clip_longer_than_the_window_is_answered_window_by_window_and_joined(
    artifacts: Path, long_clip: Path, capfd: Capture, prompt: str, decoding: tuple[str, ...]
) -> None:
    words = ("--engine", artifacts, long_clip, prompt, *decoding, "--max-new-tokens", "8")
    said = answer(capfd, *words)
    assert said["windows"] == 2
    assert len(said["token_ids"]) > 8
    assert alm_run(*words) == 0
    assert capfd.readouterr().out == said["text"] + "\n"


def test_json_is_one_object_with_all_that_was_measured(
    artifacts: Path, clip: Path, capfd: Capture
) -> None:
    said = answer(capfd, "--engine", artifacts, clip, "describe", *SHORT)
    assert said.keys() == KEYS
    parts = [p.name for p in manifest.load(artifacts).parts if p.role not in ("table", "decoder")]
    stages = {"load", "decode_audio", *parts, "prefill", "first_token", "per_token", "total"}
    assert stages <= said["timings_ms"].keys()
    assert said["audio_seconds"] == 1.5
    assert (said["windows"], said["provider"], said["file"]) == (1, "cpu", str(clip))
    assert said["stop_reason"] in ("eos", "stop_string", "length", "context")
    assert said["stop_reasons"] == [said["stop_reason"]]


def test_a_cache_is_kept_from_run_to_run(
    artifacts: Path, clip: Path, tmp_path: Path, capfd: Capture
) -> None:
    words = ("--engine", artifacts, "--cache", tmp_path / "kept", clip, "describe", *SHORT)
    first, again = (answer(capfd, *words) for _ in range(2))
    assert (first["audio_cached"], again["audio_cached"]) == (0, 1)
    assert first["token_ids"] == again["token_ids"] and again["prefix_tokens"] > 0
    status, said = refused(capfd, "--engine", artifacts, "--cache", clip, clip, "describe", *SHORT)
    assert status == 2 and "can be no folder: File exists" in said


def test_json_keeps_other_languages_readable(artifacts: Path, capfd: Capture) -> None:
    assert alm_run("--engine", artifacts, "--list-tasks", "--json") == 0
    said = capfd.readouterr().out
    assert "\\u" not in said
    assert json.loads(said) == manifest.load(artifacts).facts.prompt.tasks


def test_the_tasks_are_listed_without_a_clip(artifacts: Path, capfd: Capture) -> None:
    assert alm_run("--engine", artifacts, "--list-tasks") == 0
    said = capfd.readouterr().out.splitlines()
    tasks = manifest.load(artifacts).facts.prompt.tasks
    assert [line.split(maxsplit=1) for line in said] == [[n, t] for n, t in tasks.items()]


def test_a_tasks_name_is_as_good_as_its_prompt(artifacts: Path, clip: Path, capfd: Capture) -> None:
    prompt = manifest.load(artifacts).facts.prompt.tasks["describe"]
    by_name, by_prompt, other = (
        answer(capfd, "--engine", artifacts, clip, words, *SHORT)
        for words in ("describe", prompt, "Something else?")
    )
    assert by_name["token_ids"] == by_prompt["token_ids"]
    assert by_name["prompt_tokens"] == by_prompt["prompt_tokens"] != other["prompt_tokens"]


def test_the_same_seed_gives_the_same_text(artifacts: Path, clip: Path, capfd: Capture) -> None:
    words = ("--engine", artifacts, clip, "describe", "--sample", "--temperature", "3")
    ids = [answer(capfd, *words, "--seed", seed)["token_ids"] for seed in ("3", "3", "4")]
    assert ids[0] == ids[1] != ids[2]


def test_truncate_hears_only_the_first_window_and_says_so(
    artifacts: Path, long_clip: Path, capfd: Capture
) -> None:
    words = ("--engine", artifacts, long_clip, "describe", "--truncate", *SHORT)
    assert answer(capfd, *words)["windows"] == 1
    assert alm_run(*words) == 0
    assert "note: only the first" in capfd.readouterr().err


def test_one_sample_is_enough_and_a_note_says_that_it_was_padded(
    artifacts: Path, tmp_path: Path, capfd: Capture
) -> None:
    one = sound(tmp_path / "one.wav", [0.5])
    assert alm_run("--engine", artifacts, one, "describe", *SHORT) == 0
    said = capfd.readouterr()
    assert said.out.endswith("\n")
    assert said.err.startswith("note: ") and "padded with silence" in said.err


def test_a_clip_may_come_from_stdin(artifacts: Path, clip: Path, capfd: Capture) -> None:
    from_file = answer(capfd, "--engine", artifacts, clip, "describe", *SHORT)
    run = process(ALM_RUN, "--engine", artifacts, "-", "describe", *SHORT, "--json")
    out, err = run.communicate(clip.read_bytes(), timeout=300)
    assert (run.returncode, err) == (0, b"")
    assert json.loads(out)["token_ids"] == from_file["token_ids"]


def test_stdout_is_utf8_whatever_the_system_prefers(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    run = process(ALM_RUN, "--engine", artifacts, "--list-tasks")
    out, err = run.communicate(timeout=300)
    assert (run.returncode, err) == (0, b"")
    assert manifest.load(artifacts).facts.prompt.tasks["asr_zh"] in out.decode("utf-8")


# --- a wrong command line: status 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "wanted AUDIO and PROMPT; try: alm-run --engine artifacts"),
        (("a.wav",), "wanted PROMPT"),
        (("--nope",), "No such option: --nope"),
        (("a.wav", "describe", "--num-beams", "0"), "'--num-beams'"),
        (("a.wav", "describe", "--num-beams", "x"), "'--num-beams'"),
        (("a.wav", "describe", "--max-new-tokens", "0"), "'--max-new-tokens'"),
        (("a.wav", "describe", "--min-new-tokens", "-1"), "'--min-new-tokens'"),
        (("a.wav", "describe", "--top-p", "2"), "'--top-p'"),
        (("a.wav", "describe", "--top-k", "-1"), "'--top-k'"),
        (("a.wav", "describe", "--temperature", "-1"), "'--temperature'"),
        (("a.wav", "describe", "--threads", "-1"), "'--threads'"),
        (("a.wav", "describe", "--seed", "-1"), "'--seed'"),
    ],
)
def test_a_wrong_command_line_is_answered_with_what_is_wrong(
    capfd: Capture, words: tuple[str, ...], sentence: str
) -> None:
    status, said = refused(capfd, *words)
    assert status == 2
    assert sentence in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--provider", "abacus"), "unknown provider 'abacus'; there is: auto, "),
        (("--sample", "--temperature", "0"), "temperature 0"),
        (("--sample", "--temperature", "nan"), "temperature"),
        (("--top-p", "0"), "top_p"),
        (("--top-p", "nan"), "'--top-p'"),
        (("--repetition-penalty", "0"), "repetition_penalty"),
        (("--length-penalty", "inf"), "length_penalty"),
        (("--option", "top_q=1"), "unknown option 'top_q'"),
        (("--option", "early_stopping"), "wanted --option NAME=VALUE"),
        (("--option", "suppress_tokens=7"), "suppress_tokens must be a list"),
        (("--min-new-tokens", "9", "--max-new-tokens", "3"), "min_new_tokens 9 is more than"),
        (("--max-audio-seconds", "0"), "--max-audio-seconds"),
    ],
)
def test_an_option_out_of_range_is_a_wrong_command_line_too(
    artifacts: Path, clip: Path, capfd: Capture, words: tuple[str, ...], sentence: str
) -> None:
    status, said = refused(capfd, "--engine", artifacts, clip, "describe", *words)
    assert status == 2
    assert sentence in said


# --- as a process


def test_help_and_a_wrong_command_line_come_without_the_engine() -> None:
    code = (
        "import sys; from alm.cli.run_command import run; status = run(); "
        "heavy = {'numpy', 'onnxruntime', "
        "'tokenizers', 'soundfile', 'rich'} & set(sys.modules); sys.exit(str(heavy) if heavy "
        "else status)"
    )
    for words, status in (("--help", 0), ("--version", 0), ("--nope", 2), ("a.wav", 2)):
        run = process(code, words)
        _, err = run.communicate(timeout=300)
        assert run.returncode == status, err


def test_help_names_every_option_in_full(capfd: Capture) -> None:
    assert alm_run("--help") == 0
    said = capfd.readouterr().out
    for name in ("engine", "repetition-penalty", "max-audio-seconds", "sample / --greedy", "json"):
        assert f"--{name}" in said


def test_alm_alone_prints_its_help(capfd: Capture) -> None:
    assert exit_status.run(alm_commands.app, []) == 0
    said = capfd.readouterr().out
    assert "inspect" in said and "bench" in said
    assert exit_status.run(alm_commands.app, ["nope"]) == 2
    assert "No such command 'nope'" in capfd.readouterr().err


def test_a_traceback_is_for_debug_only(tmp_path: Path, clip: Path) -> None:
    words = ("--engine", tmp_path, clip, "describe")
    plain, debug = process(ALM_RUN, *words), process(ALM_RUN, *words, "--debug")
    assert b"Traceback" not in plain.communicate(timeout=300)[1]
    assert b"Traceback" in debug.communicate(timeout=300)[1]
    assert (plain.returncode, debug.returncode) == (1, 1)


def test_a_reader_that_goes_away_ends_it_without_a_traceback(artifacts: Path, clip: Path) -> None:
    words = ("--engine", artifacts, clip, "describe", "--greedy", "--max-new-tokens", "200")
    with process(ALM_RUN, *words) as run:
        assert run.stdout and run.stderr
        assert len(run.stdout.read(1)) == 1
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode in (0, 1)  # 0: all was said before the pipe was closed


def test_ctrl_c_ends_it_without_a_traceback(artifacts: Path) -> None:
    # SIGINT may be ignored where tests run in the background; whoever types Ctrl-C has it on.
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {ALM_RUN}"
    with process(code, "--engine", artifacts, "-", "describe") as run:
        assert run.stdin and run.stdout and run.stderr
        run.stdin.write(bytes(2**20))  # more than a pipe holds: it is reading now
        run.send_signal(signal.SIGINT)
        assert b"Traceback" not in run.stderr.read()
        assert run.stdout.read() == b""
    assert run.returncode == 130
