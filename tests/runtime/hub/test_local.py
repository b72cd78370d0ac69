"""What was given as a folder becomes a folder of this machine, in one place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from alm.errors import BadOption
from alm.hub import local, names
from tests import ROOT
from tests.runtime.cli.commands import answer
from tests.runtime.hub import models
from tests.runtime.hub.commands import Commands
from tests.runtime.hub.standin import Hub

# Every command that takes a folder, with what else it wants.
TAKING = {
    "inspect": ("DIR",),
    "lint": ("DIR", "--target", "trt-jetpack6"),
    "build": ("DIR", "--dry-run"),
    "bench": ("DIR",),
    "plan": ("DIR", "--device", "orin-nano-8gb"),
    "serve": ("DIR", "--port", "0"),
    "batch": ("DIR", "x.wav"),
    "pack": ("DIR", "--triton", "out"),
    "doctor": ("DIR",),
}


def test_folders_stay_what_they_are() -> None:
    for given in ("artifacts", "ngrams", "/x/hub:y", "./hub:a/b", Path("a/b")):
        assert local.folder(given) == Path(given)


def test_a_model_has_a_name_and_a_revision() -> None:
    assert names.on_hub("hub:org/a.b-c_d") == names.Repo("org/a.b-c_d", "main")
    assert names.on_hub(Path("hub:org/a@v1/x")) == names.Repo("org/a", "v1/x")
    assert names.on_hub("hub:org\\a") == names.Repo("org/a")  # as Windows writes a Path
    assert str(names.Repo("org/a", "v1")) == "org/a@v1" and names.Repo("org/a", "0" * 40).pinned
    assert names.title("hub:org/a@v1") == "a" and names.title("x/y") == "y"
    with pytest.raises(BadOption, match="wanted org/name"):
        names.on_hub("hub:org")


def test_a_folder_of_this_machine_needs_no_hub() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'runtime')!r})\n"
        "from alm.hub import local; local.folder('x')\n"
        "print(*(m for m in sys.modules if m.startswith(('huggingface', 'httpx', 'alm.hub.'))))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["alm.hub.names", "alm.hub.local"]


@pytest.mark.parametrize("command", TAKING)
def test_every_command_that_takes_a_folder_takes_a_model_of_the_hub(
    hub: Hub, commands: Commands, tmp_path: Path, command: str
) -> None:
    words = [word.replace("DIR", "hub:org/none") for word in TAKING[command]]
    done = commands("alm", command, *words)
    assert done.sentence.startswith(f"there is no model org/none on {hub.url}"), done


def test_the_commands_here_are_all_that_take_one() -> None:
    import typer

    from alm.cli import alm_commands

    known = typer.main.get_command(alm_commands.app)
    taking = {
        name
        for name, command in known.commands.items()  # pyright: ignore
        if any(word.metavar == "DIR" and word.name == "folder" for word in command.params)
    }
    assert taking == {*TAKING, "push", "pull", "unpack"}


def test_a_model_of_the_hub_answers_as_its_folder_does(
    hub: Hub,
    commands: Commands,
    offline: Commands,
    artifacts: Path,
    clip: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    hub.repo("org/answers", models.read(artifacts))
    words = (clip, "transcribe", "--max-new-tokens", "4", "--num-beams", "1", "--json")
    here = answer(capsys, "--engine", artifacts, *words[:-1])
    done = commands("alm-run", "--engine", "hub:org/answers", *words)
    assert done.status == 0, done
    assert json.loads(done.out)["token_ids"] == here["token_ids"]
    assert "org/answers: " in done.err and "decoder.onnx" in done.err
    done = offline("alm-run", "--engine", "hub:org/answers", *words)
    assert done.status == 0 and json.loads(done.out)["token_ids"] == here["token_ids"]
    assert done.err == ""
    drafted = offline(
        *("alm-run", "--engine", "hub:org/answers", "--draft", "hub:org/answers"), *words
    )
    assert drafted.status == 0, drafted
    assert json.loads(drafted.out)["token_ids"] == here["token_ids"]
    tasks = offline("alm-run", "--engine", "hub:org/answers", "--list-tasks")
    assert tasks.status == 0 and "transcribe" in tasks.out
