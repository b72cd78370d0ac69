"""A stranger's path: the wheel in an environment of its own, no checkout, an empty home.

The workshop's packages and the engine are lent by the environment that runs the tests; of alm
itself there is nothing but the wheel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests import ROOT
from tests.products import LONG

pytestmark = pytest.mark.skipif(os.name == "nt", reason="paths are those of Linux and macOS")


class Stranger:
    """An environment with the wheel, and nothing else of ours."""

    def __init__(self, place: Path) -> None:
        self.home, self.bin = place / "home", place / "env" / "bin"
        self.home.mkdir()
        venv.create(place / "env", symlinks=True)
        words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
        subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
        (wheel,) = place.glob("*.whl")
        words = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install"]
        subprocess.run([*words, "--quiet", "--no-deps", str(wheel)], check=True)
        (site,) = (place / "env" / "lib").glob("python*/site-packages")
        # Lines of a .pth file are paths; .pth files in there, such as ours, are not read.
        (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def run(self, *words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        """A command of the environment, in the home folder."""
        command = [str(self.bin / str(words[0])), *map(str, words[1:])]
        done = subprocess.run(
            command,
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": f"{self.bin}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == status, done.stderr
        return done


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Stranger:
    return Stranger(tmp_path_factory.mktemp("stranger"))


def test_a_stranger_exports_proves_packs_signs_verifies_and_runs(
    stranger: Stranger, checkpoint: Path, demo: Path
) -> None:
    made = shutil.copytree(checkpoint.parent, stranger.home / "model")
    parts = ["--part", "all"] if LONG else ["--part", "mel", "--part", "embed"]
    words = ("alm-export", "--model", "model/config.yaml", *parts, "--out", "made")
    assert "exact" in stranger.run(*words).stdout
    shutil.rmtree(made)
    assert "all is as it should be" in stranger.run("alm", "doctor", "made").stdout
    shutil.copytree(demo, stranger.home / "salmonn")  # of the checkout's own alm-export
    said = stranger.run("alm", "doctor", "salmonn", "--provider", "cpu", "--threads", "1").stdout
    assert "siren.wav, describe" in said and "all is as it should be" in said
    for words in (
        ("genpkey", "-algorithm", "ed25519", "-out", "key.pem"),
        ("pkey", "-in", "key.pem", "-pubout", "-out", "key.pub"),
    ):
        subprocess.run(["openssl", *words], cwd=stranger.home, check=True, capture_output=True)
    stranger.run("alm", "pack", "salmonn", "model.alm", "--sign", "key.pem")
    assert "signed by" in stranger.run("alm", "verify", "model.alm", "--key", "key.pub").stdout
    clip = ROOT / "demo" / "lamp.wav"
    said = stranger.run("alm-run", "--engine", "model.alm", clip, "transcribe").stdout
    assert said == "turn on the lamp in the kitchen\n"


def test_nothing_of_ours_is_importable_but_alm(stranger: Stranger) -> None:
    names = "exporters, wrappers, demo, export, runtime, tests"
    code = (
        "import importlib.util\n"
        f"there = [n for n in {names.split(', ')!r} if importlib.util.find_spec(n)]\n"
        "import alm; print(there, alm.__file__)"
    )
    said = stranger.run("python", "-c", code).stdout
    assert said.startswith("[] ") and str(stranger.bin.parent) in said


def test_what_an_installed_command_lacks_is_said(stranger: Stranger) -> None:
    said = stranger.run("alm-export", "--out", "x", status=1).stderr
    assert said == ("error: the demo model comes with a checkout of alm-edge; give --model PATH\n")
    code = "import sys; sys.modules['torch'] = None; sys.argv = ['alm-export', '--model', 'x']\n"
    code += "import alm_export; sys.exit(alm_export.main())"
    said = stranger.run("python", "-c", code, status=1).stderr
    assert "alm-edge[export]" in said and "Traceback" not in said
    help_text = stranger.run("alm-export", "--help").stdout
    assert "--golden" in help_text and "--install-completion" in help_text
