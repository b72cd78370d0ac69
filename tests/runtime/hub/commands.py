"""Commands of alm as processes that know the stand-in for a hub: one that stays, or one to kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import ROOT

# Runs command after command: importing huggingface_hub takes longer than any of them.
STAYS = """
import contextlib, io, json, sys
from alm.cli import alm_commands, exit_status, run_command

apps = {"alm": alm_commands.app, "alm-run": run_command.running}
for line in sys.stdin:
    name, *words = json.loads(line)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = exit_status.run(apps[name], words, name)
    print(json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
"""
ONE = "import sys; from alm.cli.alm_commands import main; sys.exit(main())"
HIDDEN = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_")


@dataclass(frozen=True)
class Done:
    """A command's exit status and what it said."""

    status: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line of an error, without any other."""
        assert self.status in (1, 2) and self.out == "", self
        *before, last = self.err.splitlines()
        assert last.startswith("error: ") and not any("Traceback" in line for line in before), self
        return last.removeprefix("error: ")


def environment(url: str, home: Path, **more: str) -> dict[str, str]:
    """One in which the hub is at `url` and its cache below `home`."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(HIDDEN)}
    ours = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "ALM_CACHE": str(home / "alm"),
        "PYTHONPATH": str(ROOT / "runtime"),
        "NO_PROXY": "127.0.0.1,localhost",
    }
    return kept | ours | more


class Commands:
    """A process that runs commands of alm one after the other."""

    def __init__(self, url: str, home: Path, **more: str) -> None:
        self.url, self.home = url, home
        self.environment = environment(url, home, **more)
        self._process = subprocess.Popen(
            [sys.executable, "-c", STAYS],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=home,
        )

    def __call__(self, *words: str | Path) -> Done:
        assert self._process.stdin and self._process.stdout
        print(json.dumps([*map(str, words)]), file=self._process.stdin, flush=True)
        return Done(*json.loads(self._process.stdout.readline()))

    def started(self, *words: str | Path) -> subprocess.Popen[Any]:
        """A command of alm in a process of its own, to be killed."""
        line = [sys.executable, "-c", ONE, *map(str, words)]
        return subprocess.Popen(
            line, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()
