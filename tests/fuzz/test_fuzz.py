"""Whatever is in a file or on a command line, the answer is one of our errors or a result.

For hours, and with other inputs: pytest tests/fuzz --fuzz-seconds 3600 --fuzz-seed 1
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Kinds that one process tries in turn, since all of them import torch -> its share of the seconds.
SHARES = {
    "manifests": 3, "tokenizers": 1, "graphs": 3, "packs": 4, "golden": 2, "requests": 3,
    "audio": 1, "words": 2, "yaml,configs,safetensors,pickles": 7,
}  # fmt: skip
STARTING = 180  # seconds for imports on a busy machine, and for the last input


@pytest.fixture(scope="session")
def sources(
    artifacts: Path, checkpoint: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(artifacts, folder / "artifacts")
    shutil.copytree(checkpoint.parent, folder / "checkpoint")
    shutil.copy(clip, folder / "clip.wav")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded as Linux does it")
@pytest.mark.parametrize("kinds", SHARES)
def test_no_input_ends_in_anything_but_our_errors(
    kinds: str, sources: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    option = request.config.option
    seconds = option.fuzz_seconds * SHARES[kinds] / sum(SHARES.values())
    seed, inputs = option.fuzz_seed, option.fuzz_inputs
    words = [kinds, sources, tmp_path, f"{seconds:.1f}", seed, inputs]
    path = [str(HERE), str(ROOT / "runtime"), str(ROOT), str(HERE.parent)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HERE / "worker.py"), *map(str, words)],
        capture_output=True, text=True, errors="replace", env=env, timeout=seconds + STARTING,
    )  # fmt: skip
    said = done.stderr.strip()
    assert done.returncode == 0, f"{said[-4000:]}\ninputs: {tmp_path}"
    (tried,) = re.findall(r"^(\d+) inputs, 0 findings$", said, re.MULTILINE)
    assert int(tried) > 0
