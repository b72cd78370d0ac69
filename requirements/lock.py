"""Writes the lock: what pyproject.toml asks for, as versions and hashes, for Python 3.10 to 3.13.

    make lock                     # keeps the versions that still satisfy pyproject.toml
    make lock UPGRADE=--upgrade   # takes the newest

One resolution serves every Python and platform (markers tell them apart) and is split by job:

    build.txt      pip and the build backends, installed first: they build what comes as source
    workshop.txt   export.py, the backends, the tests; no torch
    torch.txt      torch as the package index serves it, with the CUDA packages of its Linux build
    device.txt     the device package's own needs with ONNX Runtime

torch stands apart because one version has many builds (CPU, several CUDAs), each with hashes of its
own, and which one is right depends on the machine; see install_torch.py.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = "3.10"  # the oldest; the resolution holds for every newer one
TORCH = re.compile(r"(torch|triton|nvidia-[\w-]+|cuda-[\w-]+)==")
EXTRAS = ("export", "ort", "openvino", "serve", "av", "grammar", "microphone", "ray", "hub", "sign")
HEADER = "# Written by `make lock` from pyproject.toml; do not edit.\n"


def compiled(*words: str | Path) -> str:
    """What `uv pip compile` prints for these arguments."""
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
    command += ["--no-header", "--no-annotate", "--python-version", PYTHON, *map(str, words)]
    return subprocess.run(
        command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def entries(text: str) -> list[str]:
    """The requirements of a lock file, each with its hashes."""
    return re.findall(r"^\w.*(?:\n +--hash=.*)*\n", text, re.MULTILINE)


def write(name: str, requirements: list[str]) -> None:
    (HERE / name).write_text(HEADER + "".join(requirements), "utf-8", newline="\n")
    print(f"requirements/{name}: {len(requirements)} lines of requirements")


def main() -> None:
    """Resolve once, split, and let the smaller files follow the large one."""
    parser = argparse.ArgumentParser(description="Write requirements/*.txt with uv.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest of everything")
    upgrade = ["--upgrade"] if parser.parse_args().upgrade else []
    everything = [f"--extra={name}" for name in EXTRAS] + ["--group=dev"]
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.txt"  # what stands in it already is kept where it can be
        before = [HERE / "workshop.txt", HERE / "torch.txt"]
        whole.write_text("".join(p.read_text("utf-8") for p in before if p.exists()), "utf-8")
        compiled("pyproject.toml", *everything, *upgrade, "--output-file", whole)
        found = entries(whole.read_text("utf-8"))
        device = compiled("pyproject.toml", "--extra=ort", "--constraint", whole)
        build = compiled("--group=build", "--constraint", whole)
    write("build.txt", entries(build))
    write("workshop.txt", [entry for entry in found if not TORCH.match(entry)])
    write("torch.txt", [entry for entry in found if TORCH.match(entry)])
    write("device.txt", entries(device))


if __name__ == "__main__":
    sys.exit(main())
