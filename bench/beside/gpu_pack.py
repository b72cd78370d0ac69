"""What bench/gpu.py takes to another machine: the code, the wheel, a folder, what to install."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TREES = ("runtime", "wrappers", "exporters", "bench", "demo")
FILES = ("export.py", "pyproject.toml", "LICENSE", "README.md", "docs/gpu.md", "tests/__init__.py")
TINY = "tests/wrappers"  # tokens and templates that bench/published.py shares with tests
SUFFIXES = {".py", ".mjs", ".typed", ".wav", ".json", ".yaml", ".pt", ".pth", ".safetensors"}
SUFFIXES |= {".npy", ".txt", ".html", ".css", ".js", ".md"}
LEFT_OUT = {"__pycache__", "results", "random"}
EXPORT = ("torch", "transformers", "peft", "onnx", "onnxscript", "onnx-ir", "onnxsim")
RUN = ("numpy", "tokenizers", "typer", "soundfile", "soxr", "rich", "filelock", "pyyaml", "jinja2")
HEAD = """# In an empty environment: pip install -r requirements.txt
# onnxruntime itself must not be there: onnxruntime-gpu has its files.
# For TensorRT besides: pip install tensorrt tensorrt-rtx 'cuda-bindings>=12.9,<14'
"""


def pack(target: Path, artifacts: list[Path]) -> list[str]:
    """Write the archive: .tar, .tar.gz or .zip, by its name.

    Args:
        target: the archive.
        artifacts: folders of export.py's, that need not be made there.

    Returns:
        The names of the files in it.

    Raises:
        SystemExit: its name has another end.
    """
    if not target.name.endswith((".tar", ".tar.gz", ".zip")):
        raise SystemExit(f"{target} should end in .tar, .tar.gz or .zip")
    with tempfile.TemporaryDirectory(prefix="alm-pack-") as scratch:
        folder = Path(scratch) / "alm-gpu"
        for file in sources():
            place = folder / file.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        for path in artifacts:
            shutil.copytree(path, folder / "artifacts" / path.name)
        (folder / "requirements.txt").write_text(requirements(), "utf-8")
        wheel(folder)
        names = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        _written(target, [(path, path.relative_to(scratch).as_posix()) for path in names])
    return [path.relative_to(folder).as_posix() for path in names]


def sources() -> Iterator[Path]:
    """The files of the code that a run needs."""
    yield from (ROOT / name for name in FILES)
    helpers = sorted((ROOT / TINY).rglob("*.py"))
    yield from (path for path in helpers if not path.name.startswith("test_"))
    yield ROOT / "tests" / "reference.py"
    for tree in TREES:
        for path in sorted((ROOT / tree).rglob("*")):
            inside = path.relative_to(ROOT)
            if path.is_file() and path.suffix in SUFFIXES and not LEFT_OUT & {*inside.parts}:
                yield path


def requirements() -> str:
    """The versions that are here, with ONNX Runtime's build for GPUs."""
    lines = [f"{name}=={_version(name)}" for name in (*RUN, *EXPORT) if _version(name)]
    return HEAD + "\n".join([*lines, "onnxruntime-gpu[cuda,cudnn]"]) + "\n"


def _version(name: str) -> str:
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return ""


def wheel(folder: Path) -> None:
    """The device package alone, beside the code; SystemExit where it is not built."""
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    made = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if made.returncode:
        raise SystemExit(f"the wheel was not built: {made.stderr[-500:]}")


def _written(target: Path, files: list[tuple[Path, str]]) -> None:
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, name in files:
                archive.write(path, name)
        return
    with tarfile.open(target, "w:gz" if target.suffix == ".gz" else "w") as archive:
        for path, name in files:
            archive.add(path, name)
