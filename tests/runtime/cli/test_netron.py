"""A graph in Netron: drawn in a real browser, served to this machine alone."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alm.artifacts import manifest
from alm.cli import alm_commands, exit_status
from alm.cli.reports.netron import HOST, Viewer
from alm.onnxfile import summary
from tests import ROOT

ALM = "import sys; from alm.cli.alm_commands import main; sys.exit(main())"
EXPORT = "import runpy; runpy.run_path('export.py', run_name='__main__')"
WAIT = 30  # seconds for a browser to draw
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--window-size=1400,1000"
).split()


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes are remembered beside the test."""
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "runtime"))


@pytest.fixture
def viewer(artifacts: Path) -> Iterator[Viewer]:
    """The decoder, served from a thread of this process."""
    part = manifest.load(artifacts).part("decoder")
    assert part is not None
    files = {file.name: artifacts / file.name for file in part.files}
    with Viewer(part.files[0].name, files, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(port: int, path: str, host: str = "") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    line = http.client.HTTPConnection(HOST, port, timeout=60)
    try:
        line.request("GET", path, headers={"Host": host or f"{HOST}:{port}"})
        answer = line.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        line.close()


@contextmanager
def served(start: str, *words: str | Path) -> Iterator[str]:
    """The URL that a command prints, while it serves; Ctrl-C must end it well."""
    # SIGINT may be ignored where tests run in the background.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    line = [sys.executable, "-c", code + start, *map(str, words)]
    pipe: Any = subprocess.PIPE
    with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as run:
        assert run.stdout and run.stderr
        try:
            said = run.stdout.readline()
            assert "http://" in said, run.stderr.read()
            yield said.split()[1]
        finally:
            run.send_signal(signal.SIGINT)
        assert "Traceback" not in run.stderr.read()
    assert run.returncode == 0


# --- the server


def test_the_graph_and_its_external_data_are_served_as_they_are(
    viewer: Viewer, artifacts: Path
) -> None:
    names = [file.name for file in manifest.load(artifacts).part("decoder").files]  # pyright: ignore
    assert len(names) == 2
    for name in names:
        status, _, body = get(viewer.server_port, f"/data/{name}?cb=1")
        assert (status, body) == (200, (artifacts / name).read_bytes())


def test_nothing_but_the_graph_and_netrons_pages_is_served(viewer: Viewer) -> None:
    for path in ("/data/mel.onnx", "/data/../decoder.onnx", "/data/", "/../../alm/cli.py", "/x"):
        assert get(viewer.server_port, path)[0] == 404, path


def test_only_this_machines_own_names_are_answered(viewer: Viewer) -> None:
    assert viewer.server_address[0] == HOST
    port = viewer.server_port
    assert get(port, "/")[0] == get(port, "/", f"localhost:{port}")[0] == 200
    for host in ("evil.example", f"evil.example:{port}", HOST):
        assert get(port, "/", host)[0] == 403
        assert get(port, "/data/decoder.onnx", host)[0] == 403


def test_the_page_may_load_nothing_from_elsewhere(viewer: Viewer) -> None:
    _, headers, page = get(viewer.server_port, "/")
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert "http" not in headers["Content-Security-Policy"]
    assert b'<meta name="version" content="0.0.0">' in page  # Netron's own: report nothing


def test_a_files_name_stays_a_name_in_the_page(artifacts: Path) -> None:
    name = 'a"><script>#?.onnx'
    with Viewer(name, {name: artifacts / "mel.onnx"}, 0) as server:
        assert b"<script>#" not in server.page
        assert b'content="/data/a%22%3E%3Cscript%3E%23%3F.onnx"' in server.page


def test_a_taken_port_is_answered_with_another(artifacts: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = (artifacts, "--netron", "mel", "--port", str(port))
        with served(ALM, "inspect", *words) as url:
            other = int(url.rpartition(":")[2])
            assert other != port
            assert get(other, "/data/mel.onnx")[0] == 200


def test_a_changed_graph_is_not_served(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.truncate(own / "decoder.onnx.data", 5)
    assert exit_status.run(alm_commands.app, ["inspect", str(own), "--netron", "decoder"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "'decoder.onnx.data'" in said.err and "5 bytes" in said.err


def test_without_netron_the_answer_is_how_to_install_it(artifacts: Path) -> None:
    code = f"import sys; sys.modules['netron'] = None; {ALM}"
    line = [sys.executable, "-c", code, "inspect", str(artifacts), "--netron", "mel"]
    run = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("error: netron is not installed; try: pip install 'alm-edge[netr")


# --- the browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium; a test that finds none is skipped and says so."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    logs = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


def drawn(browser: Any, url: str) -> set[str]:
    """Open the page, wait for its graph, and give what stands in it."""
    from selenium.webdriver.support.ui import WebDriverWait

    # A name is drawn as SVG text; one script instead of a question for every node.
    script = "return [...document.querySelectorAll('svg text')].map(t => t.textContent)"
    nodes = "return document.querySelectorAll('g.node').length"
    browser.get(url)
    WebDriverWait(browser, WAIT).until(lambda b: b.execute_script(nodes) > 3)
    return set(browser.execute_script(script))


@pytest.mark.browser
@pytest.mark.parametrize(
    ("start", "before", "after"),
    [(ALM, ("inspect",), ("--port", "0")), (EXPORT, ("--out",), ())],
    ids=["alm", "export"],
)
def test_the_decoder_is_drawn_with_its_operators_and_ports(
    artifacts: Path,
    browser: Any,
    tmp_path: Path,
    start: str,
    before: tuple[str, ...],
    after: tuple[str, ...],
) -> None:
    graph = summary.read(artifacts / "decoder.onnx")
    with served(start, *before, artifacts, "--netron", "decoder", *after) as url:
        seen = drawn(browser, url)
        browser.save_screenshot(str(tmp_path / "decoder.png"))
    assert {"inputs_embeds", "logits", "past_key_values.0.key", "present.0.key"} <= seen
    assert {"Attention", "TensorScatter", "RMSNormalization"} <= graph.nodes.keys() <= seen
    assert (tmp_path / "decoder.png").stat().st_size > 10_000


@pytest.mark.browser
def test_the_page_asks_nobody_but_this_machine(artifacts: Path, browser: Any) -> None:
    words = (artifacts, "--netron", "mel", "--port", "0")
    with served(ALM, "inspect", *words) as url:
        for log in ("performance", "browser"):
            browser.get_log(log)  # of pages before
        seen = drawn(browser, url)
        events = [
            json.loads(entry["message"])["message"] for entry in browser.get_log("performance")
        ]
        complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert "log_mel" in seen
    sent = [e["params"]["request"]["url"] for e in events if "request" in e["params"]]
    assert sent and all(place.startswith((url, "data:", "blob:")) for place in sent), sent
    assert complaints == []
