"""Writes docker/*.txt: what each image installs from PyPI, as versions and hashes of wheels.

    python docker/lock.py            # keeps the versions that still satisfy pyproject.toml
    python docker/lock.py --upgrade  # takes the newest
    python docker/lock.py --check    # changes nothing; exit status 1 where a file is not right

Each image has one Python and one or two machines, so each is resolved for them alone, and only from
wheels: nothing is compiled on a Jetson. This needs a package index; `make docker-check` runs it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
HEADER = "# Written by docker/lock.py from pyproject.toml; do not edit.\n"
EXTRAS = ("serve", "hub", "av")  # of every image, beside its engine


@dataclass(frozen=True)
class Image:
    """What is installed in an image, and where it runs."""

    python: str
    platforms: tuple[str, ...]  # as uv names them; the wheels of all must be there
    engine: str  # an extra
    more: tuple[str, ...] = ()  # requirements that no extra names

    @property
    def extras(self) -> tuple[str, ...]:
        return (self.engine, *EXTRAS)


# A C library of 2.36 is Debian 12's, 2.35 Ubuntu 22.04's, 2.39 Ubuntu 24.04's.
IMAGES = {
    "cpu": Image("3.12", ("x86_64-manylinux_2_36", "aarch64-manylinux_2_36"), "ort"),
    "cuda": Image(
        "3.12", ("x86_64-manylinux_2_36",), "ort-gpu", ("onnxruntime-gpu[cuda,cudnn]>=1.31",)
    ),
    "jetpack6": Image("3.10", ("aarch64-manylinux_2_35",), "ort", ("cuda-bindings>=12.9,<13",)),
    "jetpack7": Image("3.12", ("aarch64-manylinux_2_39",), "ort", ("cuda-bindings>=13.2,<13.3",)),
}


def resolve(image: Image, platform: str, output: Path, upgrade: bool) -> None:
    """Let uv write what the image installs on a platform; what stands in `output` is kept."""
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "--only-binary", ":all:"]
    command += ["--python-version", image.python, "--python-platform", platform]
    command += ["--constraint", str(ROOT / "requirements" / "workshop.txt")]
    command += [f"--extra={extra}" for extra in image.extras]
    command += ["--upgrade"] * upgrade + ["--output-file", str(output), "pyproject.toml"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as more:
        more.write("\n".join(image.more) + "\n")
        more.flush()
        done = subprocess.run([*command, more.name], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{platform}, Python {image.python}: {done.stderr.strip()}")


def lines(path: Path) -> str:
    """A lock's requirements without its header."""
    return path.read_text("utf-8").removeprefix(HEADER) if path.exists() else ""


def locked(name: str, upgrade: bool) -> str:
    """The lock of an image: one text that holds on every machine of it.

    Raises:
        SystemExit: a package has no wheel there, or two machines need two versions.
    """
    image, found = IMAGES[name], set[str]()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / f"{name}.txt"
        output.write_text(lines(HERE / f"{name}.txt"), "utf-8")
        for platform in image.platforms:
            resolve(image, platform, output, upgrade)
            found.add(output.read_text("utf-8"))
    if len(found) > 1:
        raise SystemExit(f"{name}: {' and '.join(image.platforms)} want different packages")
    return found.pop()


def main() -> int:
    """Write or check the lock of every image."""
    parser = argparse.ArgumentParser(description="Write docker/*.txt with uv.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest of everything")
    parser.add_argument("--check", action="store_true", help="write nothing, and compare")
    asked = parser.parse_args()
    wrong: list[str] = []
    with ThreadPoolExecutor() as pool:  # uv waits for the index
        texts = list(pool.map(lambda name: locked(name, asked.upgrade), IMAGES))
    for name, text in zip(IMAGES, texts, strict=True):
        path = HERE / f"{name}.txt"
        same = text == lines(path)
        if not asked.check:
            path.write_text(HEADER + text, "utf-8", newline="\n")
        elif not same:
            wrong.append(path.name)
        count = sum(line[:1].isalnum() for line in text.splitlines())
        print(f"docker/{path.name}: {count} packages{'' if same else ', changed'}")
    if wrong:
        print(f"not what pyproject.toml asks for: {', '.join(wrong)}; run: python docker/lock.py")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
