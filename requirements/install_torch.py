"""Installs torch's pinned version into the environment of the Python that runs this.

One version of torch has many builds: the package index's own (on Linux with CUDA, several GB),
those of PyTorch's indexes for CPU and for each CUDA, and what lies on a disk. pip prefers a build
with a local version such as 2.13.0+cpu wherever it is told to look (PIP_EXTRA_INDEX_URL,
PIP_FIND_LINKS, pip.conf). So pip is asked first:

- the index's own build is installed by torch.txt, with its CUDA packages, all by hash;
- any other build has hashes of its own that no lock can know: it is installed by version, with what
  it alone needs. Packages that torch shares with the rest are there already, from workshop.txt.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().with_name("torch.txt")
PIP = [sys.executable, "-m", "pip", "install", "--quiet"]


def pinned() -> str:
    """The requirement `torch==...` of the lock."""
    found = re.search(r"^torch==\S+", LOCK.read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{LOCK} pins no torch; try: make lock")
    return found[0]


def preferred() -> tuple[str, str]:
    """The version and the sha256 of the build that pip would take; nothing is installed."""
    asked = ["--dry-run", "--ignore-installed", "--no-deps", "--report", "-", pinned()]
    done = subprocess.run([*PIP, *asked], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"pip finds no {pinned()} for this Python and platform")
    (build,) = json.loads(done.stdout)["install"]
    return build["metadata"]["version"], build["download_info"]["archive_info"]["hashes"]["sha256"]


def main() -> None:
    """Install the build that pip prefers, by hash where the lock knows it."""
    version, sha256 = preferred()
    if f"--hash=sha256:{sha256}" in LOCK.read_text("utf-8"):
        print(f"torch {version}, the package index's build, by hash")
        words = ["--require-hashes", "--no-deps", "--requirement", str(LOCK)]
    else:
        print(f"torch {version}, another build than the package index's, by version")
        words = [f"torch==={version}"]
    raise SystemExit(subprocess.run([*PIP, *words]).returncode)


if __name__ == "__main__":
    main()
