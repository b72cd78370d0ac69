"""No code that lies in a checkpoint runs, and no loader asks whether it may."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo.random_checkpoint import make
from tests import ROOT
from tests.wrappers.checkpoint.checkpoints import TINY, sentencepiece_folder
from tests.wrappers.families import (
    tiny_audio_llm,
    tiny_granite_speech,
    tiny_hf,
    tiny_joint_vocab,
    tiny_kimi,
    tiny_moss,
    tiny_phi4_multimodal,
    tiny_qwen2_5_omni,
    tiny_qwen3_asr,
    tiny_qwen3_omni,
    tiny_qwen_audio,
    tiny_speechgpt,
    tiny_ultravox,
    tiny_voxtral_realtime,
    tiny_windowed,
)
from wrappers import with_role

FOLDERS = ("wrappers", "exporters", "demo", "bench", "runtime")
FROM_FILES = ("from_pretrained", "from_config")
HUB = ("hf_hub_download", "snapshot_download", "load_dataset", "cached_file")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # which would forbid what we must forbid
EVIL = (
    "from pathlib import Path\n"
    "Path(__file__).with_name('mark').touch()\n"
    "from transformers import PreTrainedConfig, PreTrainedTokenizer\n"
    "class T(PreTrainedTokenizer): pass\n"
    "class C(PreTrainedConfig): model_type = 'evil'\n"
)


def _calls() -> Iterator[tuple[str, ast.Call, str]]:
    files = [ROOT / "export.py", *(f for folder in FOLDERS for f in (ROOT / folder).rglob("*.py"))]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                yield f"{file.relative_to(ROOT)}:{node.lineno}", node, name


def test_every_call_that_could_run_code_or_reach_the_network_forbids_it() -> None:
    seen, wrong = 0, []
    for where, call, name in _calls():
        said = {k.arg: ast.unparse(k.value) for k in call.keywords}
        if name in FROM_FILES:
            seen += 1
            reads = name == "from_pretrained"
            if said.get("trust_remote_code") != "False":
                wrong.append(where)
            if reads and said.get("local_files_only") != "True":
                wrong.append(where)
        if name in HUB and said.get("local_files_only") != "True":
            wrong.append(where)
        if said.get("trust_remote_code", "False") != "False":
            wrong.append(where)
        if name == "load" and ast.unparse(call.func) == "torch.load":
            seen += 1
            if said.get("weights_only") != "True":
                wrong.append(where)
    assert seen >= 4 and not wrong


def _evil(folder: Path) -> Path:
    """What a folder needs for transformers to want to run its code."""
    (folder / "evil.py").write_text(EVIL)
    for name, said in (
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}),
        ("config.json", {"auto_map": {"AutoConfig": "evil.C"}}),
    ):
        file = folder / name
        old = json.loads(file.read_text()) if file.is_file() else {}
        if name == "tokenizer_config.json":
            old["tokenizer_class"] = "T"
        file.write_text(json.dumps(old | said))
    return folder


NEXT = "=== the next export ==="  # on both streams, before each

# export.py for a model after the other; the exit status is printed behind what it said.
EACH = """
import sys
import export
from alm.cli import exit_status
mark, *words = sys.argv[1:]
for model, out in zip(words[::2], words[1::2]):
    for stream in (sys.stdout, sys.stderr):
        print(mark, file=stream, flush=True)
    print(exit_status.run(export.app, ["--model", model, "--part", "embed", "--out", out]))
"""


@dataclass(frozen=True)
class Done:
    """What an export said, and its exit status."""

    stdout: str
    stderr: str
    status: int


def _export(*pairs: tuple[Path, Path]) -> list[Done]:
    """export.py of (model, out) in a process of its own that is answered `y`, whatever it asks."""
    paths = os.pathsep.join([str(ROOT / "runtime"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", EACH, NEXT, *(path for pair in pairs for path in pair)],
        input="y\n" * 1000,
        capture_output=True,
        text=True,
        timeout=300,
        env={k: v for k, v in os.environ.items() if k not in OFFLINE} | {"PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    said = (stream.split(f"{NEXT}\n")[1:] for stream in (done.stdout, done.stderr))
    return [Done(out, err, int(out.split()[-1])) for out, err in zip(*said, strict=True)]


def _salmonn(folder: Path) -> tuple[Path, Path]:
    config = make(folder, TINY)
    return config, config.parent / "llm"


def _audio_llm(folder: Path) -> tuple[Path, Path]:
    config = tiny_audio_llm.make(folder)
    return config, config.parent / "llm"


def _qwen2_audio(folder: Path) -> tuple[Path, Path]:
    return (made := tiny_hf.qwen2_audio(folder, seconds=4).folder), made


def _voxtral(folder: Path) -> tuple[Path, Path]:
    return (made := tiny_hf.voxtral(folder, seconds=4).folder), made


def _ultravox(folder: Path) -> tuple[Path, Path]:
    return (made := tiny_ultravox.make(folder / "model")), made


def _qwen_audio(folder: Path) -> tuple[Path, Path]:
    return tiny_qwen_audio.make(folder), folder


def _kimi_audio(folder: Path) -> tuple[Path, Path]:
    return (made := tiny_kimi.make(folder)), made


def _speechgpt(folder: Path) -> tuple[Path, Path]:
    return (made := tiny_speechgpt.make(folder)), made / "llm"


def _joint_vocab(folder: Path) -> tuple[Path, Path]:
    return (made := tiny_joint_vocab.make(folder)), made / "llm"


def _folder(make: Callable[[Path], Any]) -> Callable[[Path], tuple[Path, Path]]:
    """Of a family whose checkpoint is one folder."""

    def made(folder: Path) -> tuple[Path, Path]:
        return make(folder).folder, folder

    return made


# A checkpoint of each family: what --model names, and the folder that holds its tokenizer.
FAMILIES = {
    "salmonn": _salmonn,
    "audio_llm": _audio_llm,
    "qwen2_5_omni": _folder(tiny_qwen2_5_omni.make),
    "qwen2_audio": _qwen2_audio,
    "voxtral": _voxtral,
    "qwen3_asr": _folder(tiny_qwen3_asr.make),
    "qwen3_aligner": _folder(tiny_qwen3_asr.aligner),
    "qwen3_omni_moe": _folder(tiny_qwen3_omni.make),
    "glmasr": _folder(tiny_windowed.glmasr),
    "phi4_multimodal": _folder(tiny_phi4_multimodal.make),
    "audioflamingo3": _folder(tiny_windowed.audioflamingo3),
    "granite_speech": _folder(tiny_granite_speech.make),
    "moss_transcribe_diarize": _folder(tiny_moss.make),
    "ultravox": _ultravox,
    "qwen_audio": _qwen_audio,
    "kimi_audio": _kimi_audio,
    "voxtral_realtime": _folder(tiny_voxtral_realtime.make),
    "speechgpt": _speechgpt,
    "joint_vocab": _joint_vocab,
}


def test_every_family_is_tried() -> None:
    assert sorted(FAMILIES) == with_role("family")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, Done]]:
    """By family the folder of its tokenizer, whose code wants to run, where it went, what it said.

    One process for all: to import what exports takes longer than to refuse a folder.
    """
    site, folders, pairs = tmp_path_factory.mktemp("evil"), [], []
    for family, make_family in FAMILIES.items():
        model, folder = make_family(site / family / "model")
        for name in ("tokenizer.json", "tekken.json", "qwen.tiktoken", "tiktoken.model"):
            (folder / name).unlink(missing_ok=True)
        sentencepiece_folder(folder, {})
        folders.append(_evil(folder))
        pairs.append((model, site / family / "out"))
    return {
        family: (folder, out, done)
        for family, folder, (_, out), done in zip(
            FAMILIES, folders, pairs, _export(*pairs), strict=True
        )
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_no_familys_loader_runs_the_tokenizers_code(
    exported: dict[str, tuple[Path, Path, Done]], family: str
) -> None:
    folder, out, done = exported[family]
    assert not (folder / "mark").exists() and not out.exists()
    assert "[y/N]" not in done.stdout + done.stderr and done.status == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "unexpected" not in line and "Traceback" not in done.stderr
    # Where transformers has a class for the model it converts tokenizer.model with that.
    others = {"salmonn", "audio_llm", "granite_speech", "phi4_multimodal"}
    others |= {"joint_vocab", "qwen2_5_omni", "qwen3_omni_moe", "speechgpt", "ultravox"}
    ready_made = family not in others
    wanted = (
        ("the tokenizer beside it has", "lacks <|") if ready_made else ("code of its own, which",)
    )
    if family in ("qwen_audio", "kimi_audio", "voxtral_realtime"):  # they read no other kind
        wanted = ("there is no file", "known is TikTokenTokenizer")
    assert any(words in line for words in wanted), line


@pytest.mark.parametrize("case", ["tokenizer", "unknown model"])
def test_a_checkpoint_with_code_of_its_own_asks_nothing_and_runs_nothing(
    tmp_path: Path, case: str
) -> None:
    config = make(tmp_path / "model", TINY)
    llm = config.parent / "llm"
    (llm / "tokenizer.json").unlink()
    sentencepiece_folder(llm, {})
    _evil(llm)
    if case == "unknown model":
        said = json.loads((llm / "config.json").read_text())
        (llm / "config.json").write_text(json.dumps(said | {"model_type": "evil"}))
    (done,) = _export((config, tmp_path / "out"))
    assert not (llm / "mark").exists()
    assert "trust" not in done.stdout and "[y/N]" not in done.stdout + done.stderr
    if done.status:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert len(lines) == 1 and "unexpected" not in lines[0] and "Traceback" not in done.stderr
    assert case != "unknown model" or done.status
