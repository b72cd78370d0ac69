"""A packed model in a real Triton: python bench/triton_server.py --server DIR --folder artifacts

DIR is the unpacked wheel of nvidia-pytriton (pip download --no-deps nvidia-pytriton, and unzip). It
holds Triton's server and its python backend, and no onnxruntime backend: a Python model of a few
lines, SHIM, runs the graphs of the parts in its place, their configurations as they are but for the
backend's name. That server wants NumPy below 2: --numpy is a folder with one. A clip that was heard
before is not encoded again, so there are fewer batches of encoders than of answers.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from alm.triton import repository  # noqa: E402
from alm.triton.settings import Settings  # noqa: E402
from demo.clips import EXAMPLES, FOLDER  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "triton.md"
PORT = 18470
URL = f"http://localhost:{PORT}/v2"
PATIENCE = 90  # seconds until all models are ready
CLIENTS, ASKED = 8, 48
SHIM = """
import glob, json, os
import numpy as np, onnxruntime
import triton_python_backend_utils as utils

class TritonPythonModel:
    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        (path,) = glob.glob(os.path.join(args["model_repository"], "1", "*.onnx"))
        self.session = onnxruntime.InferenceSession(path, settings, ["CPUExecutionProvider"])

    def execute(self, requests):
        def array(request, name):
            return utils.get_input_tensor_by_name(request, name).as_numpy()

        names = [one["name"] for one in self.config["input"]]
        outputs = [one["name"] for one in self.config["output"]]
        rows = np.cumsum([len(array(request, names[0])) for request in requests])[:-1]
        feeds = {n: np.concatenate([array(request, n) for request in requests]) for n in names}
        results = [np.split(one, rows) for one in self.session.run(outputs, feeds)]
        return [
            utils.InferenceResponse([utils.Tensor(n, a) for n, a in zip(outputs, one)])
            for one in zip(*results)
        ]
"""


def pack(folder: Path, out: Path, stream: bool, paths: list[str]) -> None:
    """A repository whose parts the shim runs, and whose Python finds what it imports."""
    repository.pack(folder, out, Settings(threads=1, stream=stream), print)
    for config in out.glob("*/config.pbtxt"):
        text = config.read_text()
        if 'backend: "onnxruntime"' not in text:
            continue
        text = re.sub(r"(platform|default_model_filename): .*\n", "", text)
        config.write_text(text.replace('"onnxruntime"', '"python"'))
        (config.parent / "1" / "model.py").write_text(SHIM)
    future = "from __future__ import annotations\n"
    for model in out.glob("*/1/model.py"):
        source = model.read_text().replace(future, "")
        model.write_text(f"{future}import sys; sys.path[:0] = {paths!r}\n{source}")


@contextmanager
def served(server: Path, models: Path, log: Path) -> Iterator[None]:
    """The server, as soon as all models are ready, until the block ends."""
    home = server / "pytriton" / "tritonserver"
    words = [str(home / "bin" / "tritonserver"), f"--model-repository={models}"]
    words += [f"--backend-directory={home / 'backends'}", f"--http-port={PORT}"]
    words += [f"--cache-directory={home / 'caches'}", "--allow-grpc=false", "--allow-metrics=false"]
    # What Python was built for is this one's, and so is its library.
    env = os.environ | {"PYTHONHOME": sys.base_prefix, "OMP_NUM_THREADS": "1"}
    env["LD_LIBRARY_PATH"] = str(Path(sys.base_prefix) / "lib")
    with log.open("w") as file, subprocess.Popen(words, stdout=file, stderr=file, env=env) as run:
        try:
            end = time.monotonic() + PATIENCE
            while request("/health/ready")[0] != 200:
                if run.poll() is not None or time.monotonic() > end:
                    sys.exit(f"the server is not ready:\n{log.read_text()[-3000:]}")
                time.sleep(0.5)
            yield
        finally:
            run.terminate()


def request(path: str, body: Any = None) -> tuple[int, str]:
    """Status and text; 0 where nobody listens."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(URL + path, data), timeout=60) as said:
            return said.status, said.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def question(file: str, task: str, **more: Any) -> dict[str, Any]:
    data = base64.b64encode((FOLDER / file).read_bytes()).decode()
    return {"file": f"data:audio/wav;base64,{data}", "prompt": task, **more}


def batches(model: str) -> str:
    """How many requests were in the batches that a model was given."""
    (stats,) = json.loads(request(f"/models/{model}/stats")[1])["model_stats"]
    counts = {one["batch_size"]: one["compute_infer"]["count"] for one in stats["batch_stats"]}
    return ", ".join(f"{count} of {size}" for size, count in sorted(counts.items()))


def in_pieces() -> Iterator[tuple[str, str]]:
    """What a model that streams says; each row is what was asked and what came."""
    for example in EXAMPLES:
        status, said = request("/models/alm/generate", question(example.file, example.task))
        text = json.loads(said)["text"] if status == 200 else said
        yield f"`generate`, {example.file}", f"{status}: {text}"
    status, said = request(
        "/models/alm/generate_stream", question("lamp.wav", "transcribe", stream=True)
    )
    pieces = [json.loads(line[5:])["text"] for line in said.splitlines() if line]
    yield "`generate_stream`, lamp.wav", f"{status}: {' / '.join(pieces)}"
    wrong = question("lamp.wav", "transcribe", options='{"num_bems": 2}')
    yield "an option that there is not", "{}: {}".format(*request("/models/alm/generate", wrong))


def in_one() -> Iterator[tuple[str, str]]:
    """What one that answers in one piece does for many clients at once."""

    def ask(i: int) -> tuple[float, bool]:
        example = EXAMPLES[i % 2]
        data = question(example.file, example.task)
        inputs = [
            {"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [text]}
            for name, text in data.items()
        ]
        start = time.perf_counter()
        said = request("/models/alm/infer", {"inputs": inputs})[1]
        return time.perf_counter() - start, f'"{example.right}"' in said

    with ThreadPoolExecutor(CLIENTS) as pool:
        took = list(pool.map(ask, range(ASKED)))
    times = sorted(seconds * 1e3 for seconds, _ in took)
    right = sum(well for _, well in took)
    yield f"`infer`, {ASKED} questions of {CLIENTS} clients at once", f"{right} right"
    spread = f"{times[0]:.0f} to {times[-1]:.0f} ms"
    yield "each took", f"{statistics.median(times):.0f} ms (median; {spread})"
    for model in ("alm", "alm_mel", "alm_whisper", "alm_qformer"):
        yield f"batches of `{model}`", batches(model)


def main() -> None:
    """Ask both kinds, and write what came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--numpy", default="")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    packages = [path for path in sys.path if path.endswith("site-packages")]
    paths = [*filter(None, [given.numpy]), str(ROOT / "runtime"), *packages]
    rows: list[tuple[str, str]] = []
    home = given.server.resolve() / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, home / "backends" / "python")
    for path in (home / "bin" / "tritonserver", home / "backends" / "python" / stub.name):
        path.chmod(0o755)
    with tempfile.TemporaryDirectory() as scratch:
        for stream, asks in ((True, in_pieces), (False, in_one)):
            models = Path(scratch) / f"models-{stream}"
            pack(given.folder, models, stream, paths)
            with served(given.server.resolve(), models, Path(scratch) / "log"):
                told = json.loads(request("")[1])["version"]
                rows += list(asks())
    lines = ["# A packed demo model in a real Triton", ""]
    lines += [
        "`python bench/triton_server.py --server DIR --folder artifacts`, "
        f"{date.today()}, Triton {told}"
    ]
    lines += [
        f"of nvidia-pytriton's wheel, Python {platform.python_version()}, {platform.machine()}"
    ]
    lines += [
        f"with {platform.system()}, one thread a graph. The machine did other work beside it.",
        "Clips that were heard before are not encoded again.",
        "",
    ]
    lines += ["| asked | came |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows), ""]
    given.out.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
