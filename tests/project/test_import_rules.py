"""Imports run one way, and the device needs nothing of the workshop."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

OURS = ("alm", "wrappers", "exporters", "demo", "bench", "export", "runtime", "tests")

# alm <- wrappers <- exporters <- export.py: what of ours each may import.
MAY = {
    "runtime/alm": {"alm"},
    "wrappers": {"alm", "wrappers"},
    "exporters": {"alm", "wrappers", "exporters"},
    "demo": {"alm", "wrappers", "demo"},
    "export.py": {"alm", "wrappers", "exporters", "demo"},
}

# Third parties of alm, and the only files that may import them.
ONLY_IN = {
    "numpy": "*",
    "typing_extensions": (
        "generation/conversation.py",
        "generation/model.py",
    ),  # for type checkers alone
    "starlette": (
        *(f"serve/{name}.py" for name in ("app", "guard", "refused", "web", "inside/server")),
        "serve/realtime/session.py",
        *(f"serve/endpoints/{name}.py" for name in ("chat", "events", "transcriptions")),
    ),
    "uvicorn": ("serve/listening.py",),
    "typer": (
        "cli/commands/doctor.py",
        "cli/commands/onefile.py",
        "cli/commands/serve.py",
        "cli/arguments.py",
        "cli/run_command.py",
        "cli/exit_status.py",
        "cli/alm_commands.py",
        "cli/commands/pack.py",
        "cli/commands/hub.py",
    ),
    "tokenizers": (
        "text/detokenizer.py",
        "text/prompt.py",
        "text/rust.py",
        "grammar/vocabulary.py",
    ),
    "soundfile": ("audio/reader.py", "doctor/sound.py", "live/sources.py"),
    "sounddevice": ("live/sources.py",),  # a microphone's, where it is installed
    "soxr": ("audio/reader.py", "audio/streams.py"),
    "av": ("audio/by_av.py",),  # of the extra `av`
    "ray": ("batch/on_ray.py", "batch/ray_actors.py"),
    "rich": ("cli/reports/progress.py", "cli/terminal.py"),
    "cryptography": ("packing/signing.py",),  # of the extra `sign`
    "llguidance": (
        "grammar/following.py",
        "grammar/forms.py",
        "grammar/vocabulary.py",
    ),
    "huggingface_hub": ("hub/client.py",),  # of the extra `hub`
    "netron": ("cli/reports/netron.py",),
    "onnxruntime": ("backends/ort.py",),
    "openvino": ("backends/openvino.py",),
    "triton_python_backend_utils": ("triton/python_model.py",),  # in Triton's own process
}

# A module's name is computed where it is a file's of ours, TensorRT's flavour or CUDA's bindings.
COMPUTED = "(computed)"
COMPUTE_NAMES = {"__init__.py", "registry.py", "tensorrt/api.py", "tensorrt/cuda.py"}

WORKSHOP: list[str] = [
    *("torch", "transformers", "onnx", "onnxscript", "onnxsim", "onnx_ir", "peft", "safetensors"),
    *("yaml", "sentencepiece", "exporters", "wrappers", "demo"),
]

# Stands for an environment without the workshop; every line is run by a fresh Python.
ALONE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"the workshop's {{name}} was imported")

sys.meta_path.insert(0, Absent())
"""
EVERYTHING = """
import importlib, pkgutil, alm
for module in pkgutil.walk_packages(alm.__path__, "alm."):
    print(importlib.import_module(module.name).__name__)
"""
ANSWER = """
import alm
answer = alm.load({folder!r}).generate({clip!r}, "transcribe", max_new_tokens=4)
print(len(answer.token_ids))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes are remembered beside the test."""
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "cache"))


def imported(source: str) -> Iterator[str]:
    """The modules that a file imports anywhere in it, also in a function or for types only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            if not node.level:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):  # import_module("name"), with any prefix
            called = ast.unparse(node.func).rpartition(".")[2]
            if called == "import_module":
                name = node.args[0]
                yield str(name.value) if isinstance(name, ast.Constant) else COMPUTED


def wrong_ways(source: str, may: set[str]) -> set[str]:
    """Imports of ours that are not allowed here; relative ones hide where they lead."""
    found = {name.partition(".")[0] for name in imported(source)}
    relative = {"."} if any(name.startswith(".") for name in imported(source)) else set()
    return (found & set(OURS)) - may | relative


def third_parties(source: str, name: str) -> set[str]:
    """Imports of the file `name` of alm that are neither ours, Python's, nor allowed in it."""
    found = {module.partition(".")[0] for module in imported(source)} - {"alm"}
    found -= {COMPUTED} if name in COMPUTE_NAMES else set()
    allowed = {p for p, files in ONLY_IN.items() if files == "*" or name in files}
    return found - set(sys.stdlib_module_names) - allowed


def files(place: str) -> list[Path]:
    path = ROOT / place
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


@pytest.mark.parametrize("place", MAY)
def test_imports_run_one_way(place: str) -> None:
    wrong = {str(path): wrong_ways(path.read_text("utf-8"), MAY[place]) for path in files(place)}
    assert files(place) and not {path: names for path, names in wrong.items() if names}


def test_nobody_imports_the_runtime_by_its_folder() -> None:
    for place in (*MAY, "tests", "bench"):
        for path in files(place):
            assert "runtime" not in {n.partition(".")[0] for n in imported(path.read_text("utf-8"))}


def test_the_device_imports_only_what_it_is_said_to_need_and_where() -> None:
    home = ROOT / "runtime" / "alm"
    for path in files("runtime/alm"):
        name = path.relative_to(home).as_posix()
        assert third_parties(path.read_text("utf-8"), name) == set(), name
    for party, names in ONLY_IN.items():
        for name in names if names != "*" else ():
            source = (home / name).read_text("utf-8")
            assert party in {n.partition(".")[0] for n in imported(source)}, (party, name)
    for name in COMPUTE_NAMES:
        assert COMPUTED in imported((home / name).read_text("utf-8")), name


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("import exporters", {"exporters"}),
        ("import wrappers.beats as b", {"wrappers"}),
        ("from export import app", {"export"}),
        ("def f():\n    from demo import sounds", {"demo"}),
        ("if TYPE_CHECKING:\n    import tests.conftest", {"tests"}),
        ("from runtime.alm import manifest", {"runtime"}),
        ("from . import manifest", {"."}),
        ("from ..wrappers import beats", {"."}),
        ("import alm.text, json\nfrom alm import audio", set()),
        ("import exporters_of_others", set()),
    ],
)
def test_the_check_of_the_direction_sees_a_broken_rule(source: str, wrong: set[str]) -> None:
    assert wrong_ways(source, MAY["runtime/alm"]) == wrong


@pytest.mark.parametrize(
    ("name", "source", "wrong"),
    [
        ("model.py", "import torch", {"torch"}),
        ("model.py", "import typer", {"typer"}),
        ("cli/exit_status.py", "import typer, numpy, json", set()),
        ("backends/cli.py", "from typer import echo", {"typer"}),
        ("model.py", "def f():\n    from onnxruntime import OrtValue", {"onnxruntime"}),
        ("backends/trt.py", "import onnxruntime", {"onnxruntime"}),
        ("backends/ort.py", "import onnxruntime as ort", set()),
        ("decoding.py", "from scipy.special import softmax", {"scipy"}),
        ("backends/ort.py", "importlib.import_module('tensorrt')", {"tensorrt"}),
        ("model.py", "import_module(name)", {"(computed)"}),
        ("tensorrt/api.py", "import_module(wanted.module)", set()),
    ],
)
def test_the_check_of_third_parties_sees_a_broken_rule(
    name: str, source: str, wrong: set[str]
) -> None:
    assert third_parties(source, name) == wrong


def alone(script: str, absent: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python that has only runtime/ of ours and cannot import `absent`."""
    lines = f"import sys; sys.path.insert(0, {str(ROOT / 'runtime')!r})"
    words = [sys.executable, "-c", lines + ALONE.format(absent=absent) + script]
    return subprocess.run(words, capture_output=True, text=True, cwd="/", timeout=300)


def test_every_module_of_the_device_is_imported_without_the_workshop() -> None:
    done = alone(EVERYTHING, WORKSHOP)
    assert done.returncode == 0, done.stderr
    home = ROOT / "runtime" / "alm"
    names = {p.relative_to(home).with_suffix("").as_posix() for p in files("runtime/alm")}
    names = {name.removesuffix("/__init__") for name in names} - {"__init__"}
    assert set(done.stdout.split()) == {f"alm.{name.replace('/', '.')}" for name in names}


def test_a_clip_is_answered_without_the_workshop(artifacts: Path, clip: Path) -> None:
    script = ANSWER.format(folder=str(artifacts), clip=str(clip))
    done = alone(script, WORKSHOP)
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) <= 4 and done.stderr == ""


def test_the_device_answers_without_the_command_lines_package(artifacts: Path, clip: Path) -> None:
    script = ANSWER.format(folder=str(artifacts), clip=str(clip))
    done = alone(script, [*WORKSHOP, "typer", "rich", "netron", "click"])
    assert done.returncode == 0, done.stderr


def test_import_alm_alone_is_light() -> None:
    done = alone("import alm; print(*sys.modules)", ["numpy", "onnxruntime", "typer", "soundfile"])
    assert done.returncode == 0 and "alm" in done.stdout.split(), done.stderr


def test_an_absent_package_is_seen_to_be_absent() -> None:
    for name in ("numpy", "alm.text", "json.decoder"):
        done = alone(f"import {name}", [name.partition(".")[0]])
        assert done.returncode == 1 and f"the workshop's {name.partition('.')[0]}" in done.stderr


def test_a_missing_engine_is_answered_with_what_to_type(artifacts: Path) -> None:
    script = f"""
import alm
try:
    alm.load({str(artifacts)!r})
except alm.MissingPackage as error:
    print(error)
"""
    done = alone(script, ["onnxruntime", "openvino"])
    assert done.stdout == "no backend is installed; try: pip install 'alm-edge[ort]'\n", done.stderr
